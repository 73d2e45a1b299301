"""Normalises a collection, removes exact duplicates, and spreads the rest over shards."""

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from experiments.lib.corpus.documents import Document, document_line, read_documents
from marin_trace.io import atomic_write

__all__ = ["NormaliseConfig", "NormalisedCorpus", "normalise_documents", "normalise_text", "shard_name"]


@dataclass(frozen=True)
class NormaliseConfig:
    """Which collection becomes which corpus."""

    documents_path: str
    """A JSON Lines file of documents."""

    output_path: str
    """The directory that gets the shards."""

    shards: int = 4
    """How many files the corpus is spread over, at least 1."""


@dataclass(frozen=True)
class NormalisedCorpus:
    """What is left of a collection."""

    documents: int
    duplicates: int
    """Documents whose normalised text an earlier one had."""

    empty: int
    """Documents without any text after normalisation."""

    shards: tuple[str, ...]
    """File names below the output path."""


def normalise_documents(config: NormaliseConfig) -> NormalisedCorpus:
    """Writes the distinct, normalised documents of a collection, dealt to the shards in turn.

    Of equal documents the first stays. All shards appear when all are complete.

    Raises:
        FileNotFoundError: The collection does not exist.
        ValueError: The collection holds no text, or ``shards`` is less than 1.
    """
    if config.shards < 1:
        raise ValueError(f"shards must be at least 1, not {config.shards}")
    names = [shard_name(index, config.shards) for index in range(config.shards)]
    counts = _Counts()
    with ExitStack() as stack:
        files = [
            stack.enter_context(atomic_write(f"{config.output_path}/{name}", "w", encoding="utf-8")) for name in names
        ]
        for index, document in enumerate(_distinct(read_documents(config.documents_path), counts)):
            files[index % config.shards].write(document_line(document))
        if not counts.documents:
            raise ValueError(f"an empty corpus: none of the {counts.empty} documents of the collection has any text")
    return NormalisedCorpus(
        documents=counts.documents, duplicates=counts.duplicates, empty=counts.empty, shards=tuple(names)
    )


def normalise_text(text: str) -> str:
    r"""The text that counts when two documents are compared.

    Without a byte order mark, in Unicode's composed form, with ``\n`` at line ends and no space before it, and without
    blank lines at either end.

    Example:
        >>> normalise_text("\ufeff\r\na  \r\n\r\nb")
        'a\n\nb\n'
    """
    text = unicodedata.normalize("NFC", text.removeprefix("\ufeff"))
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    body = "\n".join(line.rstrip() for line in lines).strip("\n")
    return f"{body}\n" if body else ""


def shard_name(index: int, shards: int) -> str:
    """The file name of one shard of so many.

    Example:
        >>> shard_name(2, 4)
        'shard-00002-of-00004.jsonl'
    """
    return f"shard-{index:05d}-of-{shards:05d}.jsonl"


@dataclass
class _Counts:
    documents: int = 0
    duplicates: int = 0
    empty: int = 0


def _distinct(documents: Iterable[Document], counts: _Counts) -> Iterator[Document]:
    seen: set[bytes] = set()
    for document in documents:
        text = normalise_text(document.text)
        # Digests, not texts: 32 bytes for each document is what stays in memory.
        digest = hashlib.sha256(text.encode()).digest()
        if not text:
            counts.empty += 1
        elif digest in seen:
            counts.duplicates += 1
        else:
            seen.add(digest)
            counts.documents += 1
            yield Document(document.path, text)
