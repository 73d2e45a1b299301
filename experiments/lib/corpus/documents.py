"""A document, and JSON Lines files of documents: one ``{"path": …, "text": …}`` object on each line, in UTF-8."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import fsspec

__all__ = ["Document", "document_line", "read_documents"]


@dataclass(frozen=True)
class Document:
    """One text and where it came from."""

    path: str
    """Relative to the source, with forward slashes. Unique in a collection."""

    text: str

    @property
    def package(self) -> str:
        """What the document belongs to: its top-level directory, or its own name without the suffix."""
        first, slash, _ = self.path.partition("/")
        return first if slash else first.partition(".")[0] or first


def document_line(document: Document) -> str:
    """The document as one line of a JSON Lines file, with its newline."""
    return json.dumps(asdict(document), ensure_ascii=False) + "\n"


def read_documents(path: str) -> Iterator[Document]:
    """The documents of a JSON Lines file, in order, one at a time.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line is not a document; the message says which.
    """
    with fsspec.open(path, "rt", encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield Document(**json.loads(line))
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}:{number}: not a document: {error}") from error
