"""Collects the text files below a source into one JSON Lines file."""

import os
import re
import sysconfig
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import fsspec
from fsspec import AbstractFileSystem

from experiments.lib.corpus.documents import Document, document_line
from marin_trace.io import atomic_write

__all__ = [
    "DOCUMENTS_FILE",
    "STDLIB",
    "CollectConfig",
    "Collection",
    "SourceFile",
    "Unreadable",
    "collect_documents",
    "find_files",
    "is_stdlib",
    "read_document",
]

STDLIB = "stdlib"
"""The source that is always there: the library of the Python that runs. A part of it is named by its path below it, as
``stdlib/email``."""

DOCUMENTS_FILE = "documents.jsonl"
"""What :func:`collect_documents` writes below its output path."""

WILDCARD = re.compile(r"[*?\[]")

READ_AHEAD = 256
"""How many files are read before the first of them is written: bounds the memory that a large source takes."""


@dataclass(frozen=True)
class CollectConfig:
    """What to collect, and where to."""

    source: str
    """A directory, a file, a glob or an fsspec URL of these; or :data:`STDLIB`, or a path below that."""

    output_path: str
    """The directory that gets :data:`DOCUMENTS_FILE`."""

    revision: str = ""
    """Which state of the source this is. Not read here: the same path with other content is another recipe."""

    suffixes: tuple[str, ...] = ()
    """Of a directory's files, those that end in one of these; all of them where this is empty."""

    excluded_names: tuple[str, ...] = ("site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__")
    """Directories below a source directory that are left out, besides hidden ones: what others installed, caches, and
    tests (a third of the standard library, and broken on purpose in places)."""

    workers: int = 4
    """How many files are read at a time. Threads, since reading waits for the disk or the network; at least 1."""


@dataclass(frozen=True)
class SourceFile:
    """One file of a source."""

    location: str
    """As the source's file system names it."""

    path: str
    """Relative to the source, with forward slashes."""


@dataclass(frozen=True)
class Unreadable:
    """A file that is left out of the collection."""

    path: str
    """Relative to the source."""

    reason: str
    """For people."""


@dataclass(frozen=True)
class Collection:
    """What was collected."""

    source: str
    documents: int
    bytes: int
    """Of the texts, in UTF-8."""

    unreadable: tuple[Unreadable, ...]
    """By path."""


def collect_documents(config: CollectConfig) -> Collection:
    """Copies every text file of a source into ``documents.jsonl``, ordered by path.

    A file that cannot be read or is not text is counted and named in the result. The output appears only when it is
    complete.

    Raises:
        FileNotFoundError: The source does not exist, or its glob matches nothing.
        ValueError: Not one file of it can be read as text, or ``workers`` is less than 1.
    """
    if config.workers < 1:
        raise ValueError(f"workers must be at least 1, not {config.workers}")
    file_system, files = find_files(config.source, suffixes=config.suffixes, excluded_names=config.excluded_names)

    documents = size = 0
    unreadable: list[Unreadable] = []
    with atomic_write(f"{config.output_path}/{DOCUMENTS_FILE}", "w", encoding="utf-8") as output:
        for item in _read_in_order(file_system, files, workers=config.workers):
            if isinstance(item, Unreadable):
                unreadable.append(item)
                continue
            output.write(document_line(item))
            documents += 1
            size += len(item.text.encode())
        if not documents:
            raise ValueError(_nothing_readable(config.source, unreadable))
    return Collection(source=config.source, documents=documents, bytes=size, unreadable=tuple(unreadable))


def is_stdlib(source: str) -> bool:
    """Whether a source is the standard library, or a part of it.

    Example:
        >>> is_stdlib("stdlib/email"), is_stdlib("./stdlib")
        (True, False)
    """
    return source.partition("/")[0] == STDLIB


def find_files(
    source: str, *, suffixes: Sequence[str] = (), excluded_names: Sequence[str] = ()
) -> tuple[AbstractFileSystem, list[SourceFile]]:
    """The files of a source, ordered by path, and the file system that they are on.

    ``suffixes`` and ``excluded_names`` choose among the files of a directory. A single file, or what a glob matches, is
    taken as it is.

    Raises:
        FileNotFoundError: There is no such source, or its glob matches nothing.
        OSError: A directory of it cannot be listed.
    """
    if is_stdlib(source):
        source = sysconfig.get_paths()["stdlib"] + source.removeprefix(STDLIB)
    file_system, root = fsspec.core.url_to_fs(source)
    if file_system.isdir(root):
        below = _walk(file_system, root.rstrip("/") or root, frozenset(excluded_names))
        locations = [location for location in below if not suffixes or location.endswith(tuple(suffixes))]
        base = root
    elif file_system.isfile(root):
        locations, base = [root], _parent(root)
    elif wildcard := WILDCARD.search(root):
        matches = file_system.glob(root, detail=True)
        locations = [location for location, entry in matches.items() if entry["type"] != "directory"]
        base = _parent(root[: wildcard.start()])
        if not locations:
            raise FileNotFoundError(f"no file matches {source}")
    else:
        raise FileNotFoundError(f"no such file or directory: {source}")
    files = [SourceFile(location, _relative(location, base)) for location in locations]
    return file_system, sorted(files, key=lambda file: file.path)


def read_document(file_system: AbstractFileSystem, file: SourceFile) -> Document | Unreadable:
    """The text of one file, or why it is left out."""
    if not file_system.isfile(file.location):
        return Unreadable(file.path, "not a regular file")
    try:
        content: bytes = file_system.cat_file(file.location)  # pyright: ignore[reportAssignmentType]
    except OSError as error:
        return Unreadable(file.path, error.strerror or type(error).__name__)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        return Unreadable(file.path, f"not UTF-8 at byte {error.start}")
    if "\0" in text:
        return Unreadable(file.path, "binary: contains NUL")
    return Document(path=file.path, text=text)


def _read_in_order(
    file_system: AbstractFileSystem, files: Sequence[SourceFile], *, workers: int
) -> Iterator[Document | Unreadable]:
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(files), READ_AHEAD):
            yield from pool.map(partial(read_document, file_system), files[start : start + READ_AHEAD])


def _walk(file_system: AbstractFileSystem, directory: str, excluded_names: frozenset[str]) -> Iterator[str]:
    # Not fsspec's own walk: that leaves out, silently, what it cannot list.
    for entry in file_system.ls(directory, detail=True):
        location: str = entry["name"].rstrip("/")
        name = location.rpartition("/")[2]
        if name.startswith(".") or location == directory:
            continue
        if entry["type"] != "directory":
            yield location
        elif name not in excluded_names:
            yield from _walk(file_system, location, excluded_names)


def _parent(location: str) -> str:
    return location.rpartition("/")[0]


def _relative(location: str, base: str) -> str:
    relative = location.removeprefix(base.rstrip("/")).lstrip("/")
    # A name that is not UTF-8 on disk could not be written to a UTF-8 file.
    return os.fsencode(relative).decode("utf-8", "replace")


def _nothing_readable(source: str, unreadable: Sequence[Unreadable]) -> str:
    if not unreadable:
        return f"no files to collect in {source}"
    first = unreadable[0]
    return f"none of the {len(unreadable)} files of {source} is readable text; the first, {first.path}: {first.reason}"
