"""The fsspec boundary: data files by full path, on any store that fsspec reaches.

Owns joining, reading, writing, listing and the question whether a path is local. Local paths never touch fsspec (its
overhead is some 50 µs a call); everything else goes through it, imported when first needed. Control files (claims,
ends, status tokens) do not come here: they need create-if-absent and go through `marin_trace.storage.control_store`.

Paths are absolute, with ``/`` as separator and without a trailing one; a path without a protocol is a local one.
"""

import contextlib
import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from marin_trace.io import atomic_write, filesystem_for, is_local, local_path

__all__ = [
    "FileStat",
    "delete_file",
    "exists",
    "is_file",
    "is_local",
    "join",
    "list_files",
    "local_path",
    "make_directory",
    "open_data",
    "protocol_of",
    "read_bytes",
    "write_bytes",
]


@dataclass(frozen=True, slots=True)
class FileStat:
    """One data file as a listing shows it."""

    path: str
    """Full path."""
    size: int
    """Bytes."""


def protocol_of(path: str) -> str:
    """The protocol of a path: ``"file"`` for local ones, else what stands before ``://``."""
    protocol, separator, _ = path.partition("://")
    return protocol if separator else "file"


def join(base: str, *parts: str) -> str:
    """Joins a path and relative parts.

    Args:
        base: A full path or URL.
        *parts: Relative parts, each without a leading slash.

    Returns:
        The full path, without a trailing slash.

    Example:
        >>> join("memory://bucket/run", "a", "b.txt")
        'memory://bucket/run/a/b.txt'
    """
    return "/".join([base.rstrip("/"), *(part.strip("/") for part in parts if part)])


def read_bytes(path: str) -> bytes:
    """The content of one file.

    Raises:
        FileNotFoundError: Nothing lies there.
    """
    if is_local(path):
        with open(local_path(path), "rb") as stream:
            return stream.read()
    filesystem, key = filesystem_for(path)
    content: bytes = filesystem.cat_file(key)
    return content


def write_bytes(path: str, content: bytes) -> None:
    """Writes a whole file atomically: a reader sees the old content or the new one, never a part."""
    with atomic_write(path) as stream:
        stream.write(content)


def open_data(path: str, mode: str = "rb") -> IO[Any]:
    """Opens a data file for reading or for streaming writes.

    A write that is interrupted may leave a truncated file: use `marin_trace.io.atomic_write` for a final name.
    """
    if is_local(path):
        if mode[0] in "wxa":
            os.makedirs(posixpath.dirname(local_path(path)), exist_ok=True)
        return open(local_path(path), mode)
    filesystem, key = filesystem_for(path)
    stream: IO[Any] = filesystem.open(key, mode)
    return stream


def exists(path: str) -> bool:
    """Whether a file or a directory lies there."""
    if is_local(path):
        return os.path.exists(local_path(path))
    filesystem, key = filesystem_for(path)
    return bool(filesystem.exists(key))


def is_file(path: str) -> bool:
    """Whether the path names a file (and no directory)."""
    if is_local(path):
        return os.path.isfile(local_path(path))
    filesystem, key = filesystem_for(path)
    return bool(filesystem.isfile(key))


def make_directory(path: str) -> None:
    """Makes a directory and its parents; a store that has no directories is left alone."""
    if is_local(path):
        os.makedirs(local_path(path), exist_ok=True)


def delete_file(path: str) -> None:
    """Deletes one file by its exact key, never by a pattern; nothing happens where it is missing."""
    if is_local(path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(local_path(path))
        return
    filesystem, key = filesystem_for(path)
    if filesystem.isfile(key):
        filesystem.rm_file(key)


def list_files(directory: str) -> Iterator[FileStat]:
    """Every file below a directory, at any depth, hidden ones too, in no promised order; none where it is missing."""
    if is_local(directory):
        return _list_local(local_path(directory))
    return _list_remote(directory)


def _list_local(directory: str) -> Iterator[FileStat]:
    pending = [directory]
    while pending:
        try:
            entries = list(os.scandir(pending.pop()))
        except FileNotFoundError:
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
            else:
                yield FileStat(entry.path, entry.stat(follow_symlinks=False).st_size)


def _list_remote(directory: str) -> Iterator[FileStat]:
    filesystem, key = filesystem_for(directory)
    filesystem.invalidate_cache()
    found: dict[str, dict[str, Any]] = filesystem.find(key, detail=True)
    for name, details in found.items():
        yield FileStat(f"{directory}{name[len(key) :]}", int(details["size"]))
