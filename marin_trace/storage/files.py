"""The fsspec boundary: data files by full path, on any store that fsspec reaches.

Owns joining, reading, writing, listing and the question whether a path is local. Local paths never touch fsspec (its
overhead is some 50 µs a call); everything else goes through it, imported when first needed. Control files (claims,
ends, status tokens) do not come here: they need create-if-absent and go through `marin_trace.storage.control_store`.

Paths are absolute, with ``/`` as separator and without a trailing one; a path without a protocol is a local one.
"""

import contextlib
import logging
import os
import posixpath
import stat
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import IO, Any, Final, TypeVar

from marin_trace.errors import StorageError, explain
from marin_trace.io import atomic_write, filesystem_for, is_local, local_path
from marin_trace.storage.bounded import NO_LIMIT, check_size, read_regular_file
from marin_trace.storage.library_errors import told_apart

logger = logging.getLogger(__name__)

T = TypeVar("T")

__all__ = [
    "FileStat",
    "delete_file",
    "delete_files",
    "exists",
    "is_file",
    "is_local",
    "join",
    "list_files",
    "local_path",
    "make_directory",
    "modified_at",
    "open_data",
    "protocol_of",
    "read_bytes",
    "scan_local",
    "sync_path",
    "write_bytes",
    "written_at",
]


@dataclass(frozen=True, slots=True)
class FileStat:
    """One data file as a listing shows it."""

    path: str
    """Full path."""
    size: int
    """Bytes."""
    mtime_ns: int | None = None
    """Of the last change, by the disk's clock; None on a store that has none."""
    tag: str | None = None
    """What a store changes with every write: generation, or etag and time; on a local disk inode and change time."""
    is_regular: bool = True
    """False for a link, a pipe, a socket or a device: there is nothing to read, or reading would block."""
    checksum: str | None = None
    """What a store knows of the content itself, with its kind before it: a copy of the file has the same."""


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


def read_bytes(path: str, *, limit: int = NO_LIMIT) -> bytes:
    """The content of one file.

    Args:
        path: Full path.
        limit: Bytes; one more is an error.

    Raises:
        FileNotFoundError: Nothing lies there.
        ControlFileError: It is larger, or no regular file.
        StorageError: It cannot be read.
    """
    if is_local(path):
        try:
            return read_regular_file(local_path(path), limit)
        except (FileNotFoundError, StorageError):
            raise
        except OSError as error:
            raise StorageError(explain(f"cannot read {path}: {error.strerror or error}")) from error
    with open_data(path) as stream:
        content: bytes = stream.read(limit + 1)
    check_size(path, len(content), limit)
    return content


def write_bytes(path: str, content: bytes) -> None:
    """Writes a whole file atomically: a reader sees the old content or the new one, never a part."""
    with nullcontext() if is_local(path) else told_apart("write", path), atomic_write(path) as stream:
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


def modified_at(path: str) -> float | None:
    """When a local file or directory was last changed, in seconds since 1970; None where nothing tells."""
    try:
        return os.stat(local_path(path)).st_mtime if is_local(path) else None
    except FileNotFoundError:
        return None


def written_at(path: str) -> float | None:
    """When a file was last written, in seconds since 1970; asks the store, where it is no local one."""
    if is_local(path):
        return modified_at(path)
    filesystem, key = filesystem_for(path)
    try:
        return filesystem.modified(key).timestamp()
    except (FileNotFoundError, NotImplementedError):
        return None


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
    with contextlib.suppress(FileNotFoundError):
        if filesystem.isfile(key):
            filesystem.rm_file(key)


def delete_files(paths: Collection[str]) -> None:
    """Deletes files as `delete_file` does, side by side where a request takes long."""
    if all(is_local(path) for path in paths):
        for path in paths:
            delete_file(path)
        return
    with ThreadPoolExecutor(_DELETERS, thread_name_prefix="marin-trace-delete") as pool:
        list(pool.map(delete_file, paths))


def list_files(directory: str, *, without: Collection[str] = ()) -> Iterator[FileStat]:
    """Every file below a directory, at any depth, hidden ones too, in no promised order; none where it is missing.

    Args:
        directory: Full path.
        without: Names of files and directories directly in it that are left out.
    """
    if is_local(directory):
        return iter(scan_local(directory, without=without)[0])
    return _list_remote(directory, without)


def sync_path(path: str) -> None:
    """Returns when a local file's content, or a directory's entries, would survive a power cut."""
    descriptor = os.open(local_path(path), os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def scan_local(directory: str, *, without: Collection[str] = ()) -> tuple[list[FileStat], list[str]]:
    """The files below a local directory, as `list_files` gives them, and the directories that hold them."""
    files: list[FileStat] = []
    directories: list[str] = []
    top = local_path(directory)
    pending = [top]
    while pending:
        current = pending.pop()
        try:
            with os.scandir(current) as opened:
                entries = [entry for entry in opened if current is not top or entry.name not in without]
        except FileNotFoundError:
            continue
        directories.append(current)
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
                continue
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:  # deleted since the listing
                continue
            tag = f"{found.st_ino}-{found.st_ctime_ns}"
            files.append(FileStat(entry.path, found.st_size, found.st_mtime_ns, tag, stat.S_ISREG(found.st_mode)))
    return files, directories


def undisturbed(listing: Callable[[], T]) -> T:
    """A listing of fsspec's memory, taken again if another thread changed the store meanwhile.

    On Python 3.11 a garbage collection in the middle of its snapshot lets other threads run.
    """
    for _ in range(_LISTING_TRIES - 1):
        try:
            return listing()
        except RuntimeError:
            logger.debug("the store in memory changed while it was listed; listed again")
    return listing()


_LISTING_TRIES: Final = 20
_DELETERS: Final = 16


def _list_remote(directory: str, without: Collection[str]) -> Iterator[FileStat]:
    filesystem, key = filesystem_for(directory)
    filesystem.invalidate_cache()
    with told_apart("list", directory):
        found: dict[str, dict[str, Any]] = undisturbed(lambda: filesystem.find(key, detail=True))
    for name, details in found.items():
        below = name[len(key) :]
        if below.lstrip("/").partition("/")[0] not in without:
            tag, checksum = _tag_of(details), _checksum_of(details)
            yield FileStat(f"{directory}{below}", int(details["size"]), tag=tag, checksum=checksum)


def _tag_of(details: dict[str, Any]) -> str | None:
    # Google's generation; S3's ETag is of the content alone; the creation time of fsspec's memory.
    if details.get("ETag") is not None and "LastModified" in details:
        return f"{details['ETag']} {details['LastModified']}"
    known = (details.get(name) for name in ("generation", "ETag", "etag", "created"))
    return next((str(tag) for tag in known if tag is not None), None)


def _checksum_of(details: dict[str, Any]) -> str | None:
    for name in ("md5Hash", "crc32c"):
        if name in details and "generation" in details:
            return f"{name}:{details[name]}"
    etag = details.get("ETag")
    # That of an upload in parts has a dash, and depends on how it was cut: a copy may have another.
    return None if etag is None or "-" in etag else f"etag:{etag}"
