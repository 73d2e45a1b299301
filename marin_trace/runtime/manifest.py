"""The manifest of an attempt: which files it commits, as they were when it committed them.

Written as ``.executor/NNNNNN.manifest`` after the body has ended and its artifact is saved, and before the epoch ends;
the end names its digest. The files are listed, looked at, and listed again: if anything changed in between, something
that the body started still writes, and the attempt fails. On a local disk every file is fsynced, then every directory,
so that an output that counts as finished is whole after a power cut too.

Control files and ``.executor_info`` are no data and are left out. Files that lay there before the body began and that
it did not touch are *leftovers*: they are part of the manifest, marked, and warned of, because whoever reads the
output with a glob would read them.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, cast, final

from marin_trace.errors import ControlFileError, RunError, StorageError, explain
from marin_trace.runtime.driver import Driver
from marin_trace.runtime.log_records import AttemptLog
from marin_trace.runtime.protocol import create
from marin_trace.runtime.record_fields import check_epoch, parsed_object, whole_number
from marin_trace.runtime.records import EXECUTOR_INFO
from marin_trace.safe_text import on_one_line
from marin_trace.storage.files import FileStat, is_local, list_files, local_path, scan_local, sync_path

__all__ = [
    "ChangeKind",
    "FileChange",
    "Manifest",
    "ManifestEntry",
    "changes_since",
    "data_files",
    "manifest_path",
    "write_manifest",
]

logger = logging.getLogger(__name__)

_CHECKSUM_LIMIT: Final = 1 << 20
"""Bytes up to which a local file is read for its checksum; above, size and time of change must do."""
_CHECKSUM_BUDGET: Final = 256 << 20
"""Bytes that are read for all checksums of one manifest together: a quarter of a second at 1 GB/s."""
_MANY_FILES: Final = 64
"""From which on threads pay."""
_SYNC_THREADS: Final = 8
_NAMED_IN_A_MESSAGE: Final = 5

_LOG = AttemptLog("")
_NOT_DATA: Final = frozenset(
    path.rpartition("/")[2] for path in (_LOG.directory, _LOG.status_token, _LOG.foreign_lock, EXECUTOR_INFO)
)


@final
@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One file of an output."""

    path: str
    """Relative to the output path, ``/`` as separator."""
    size: int
    """Bytes."""
    mtime_ns: int | None = None
    """On a local disk."""
    checksum: str | None = None
    """SHA-256 of the content (of a link: of its target) of a small local file; what an object store says of it."""
    tag: str | None = None
    """On an object store: the write that was committed, by its generation, or by etag and time."""
    is_leftover: bool = False
    """It was there before the attempt began, and the attempt did not touch it."""


@final
@dataclass(frozen=True, slots=True)
class Manifest:
    """What one attempt commits."""

    epoch: int
    files: tuple[ManifestEntry, ...]
    """Sorted by path."""

    def to_bytes(self) -> bytes:
        """The file's content: one line for each file."""
        # ASCII: a name that is no UTF-8 is kept, as the escape that Python gives it.
        rows = [
            json.dumps([entry.path, entry.size, entry.mtime_ns, entry.checksum, entry.tag, int(entry.is_leftover)])
            for entry in self.files
        ]
        body = ",\n  ".join(rows)
        return f'{{"epoch": {self.epoch},\n "files": [{body}]}}\n'.encode()

    @classmethod
    def from_bytes(cls, content: bytes, path: str) -> "Manifest":
        """Reads the file.

        Raises:
            ControlFileError: It is no manifest.
        """
        try:
            record = parsed_object(content)
            rows = cast("list[Any]", record["files"])
            return cls(check_epoch(whole_number(record, "epoch"), path), tuple(map(_entry, rows)))
        except (ValueError, TypeError, KeyError) as error:
            raise ControlFileError(
                explain(
                    f"manifest {path} is truncated or corrupt",
                    facts={"size": f"{len(content)} bytes", "problem": f"{type(error).__name__}: {error}"},
                )
            ) from error


def _entry(row: Any) -> ManifestEntry:
    match row:
        case [
            str(path),
            int(size),
            int() | None as mtime_ns,
            str() | None as checksum,
            str() | None as tag,
            0 | 1 as old,
        ]:
            return ManifestEntry(path, size, mtime_ns, checksum, tag, is_leftover=bool(old))
        case _:
            raise ValueError("a row is not as a file is described")


class ChangeKind(StrEnum):
    """How a file differs from its manifest."""

    CHANGED = "changed"
    """Other bytes; or another time of change, where there is no checksum that could say that it is the same."""
    REWRITTEN = "rewritten"
    """Touched since, with the same bytes."""
    MISSING = "missing"
    ADDED = "added"
    """Written after the manifest was."""


@final
@dataclass(frozen=True, slots=True)
class FileChange:
    """One file that is not as it was committed."""

    path: str
    """Relative to the output path."""
    kind: ChangeKind


def manifest_path(log: AttemptLog, epoch: int) -> str:
    """Where the manifest of an epoch lies."""
    return f"{log.directory}/{epoch:06d}.manifest"


def data_files(output_path: str) -> dict[str, FileStat]:
    """The files of an output that are data, by relative path."""
    return _by_relative_path(output_path, list_files(output_path, without=_NOT_DATA))


def _by_relative_path(output_path: str, files: Iterable[FileStat]) -> dict[str, FileStat]:
    start = len(local_path(output_path)) + 1
    return {file.path[start:]: file for file in files}


def _data_and_directories(output_path: str) -> tuple[dict[str, FileStat], list[str]]:
    """The data files, and the local directories that hold them."""
    if not is_local(output_path):
        return data_files(output_path), []
    files, directories = scan_local(output_path, without=_NOT_DATA)
    return _by_relative_path(output_path, files), directories


def write_manifest(driver: Driver, log: AttemptLog, epoch: int, before: Mapping[str, FileStat]) -> str:
    """Makes an output durable and writes its manifest. The caller holds the claim, and the body has ended.

    Args:
        driver: Of the output's store.
        log: Of the output.
        epoch: Of the caller's attempt.
        before: What `data_files` gave before the body began.

    Returns:
        The digest of the manifest.

    Raises:
        RunError: Files changed while they were looked at.
        StorageError: A file cannot be read or synced, or the manifest cannot be written.
    """
    output_path = log.output_path
    files = data_files(output_path)
    try:
        entries = tuple(_entries(files, before, is_local(output_path)))
    except FileNotFoundError:  # of a file that was listed: the comparison names it
        entries = ()
    again, directories = _data_and_directories(output_path)
    _refuse_changes(output_path, files, again)
    _warn_of_leftovers(output_path, entries)
    content = Manifest(epoch, entries).to_bytes()
    path = manifest_path(log, epoch)
    standing = driver.run(create(path, content))
    if standing is not None and standing != content:
        raise ControlFileError(explain(f"{path} exists, and this attempt has not written it: manifests are write-once"))
    if is_local(output_path):
        # The log's own directory is synced by whoever creates the end in it.
        _sync([path, *directories])
    return hashlib.sha256(content).hexdigest()


def changes_since(manifest: Manifest, output_path: str) -> list[FileChange]:
    """How an output differs from its manifest, by path.

    Raises:
        StorageError: A file cannot be read.
    """
    found = data_files(output_path)
    changes: list[FileChange] = []
    for entry in manifest.files:
        file = found.pop(entry.path, None)
        kind = ChangeKind.MISSING if file is None else _change_of(entry, file)
        if kind is not None:
            changes.append(FileChange(entry.path, kind))
    changes += [FileChange(path, ChangeKind.ADDED) for path in found]
    return sorted(changes, key=lambda change: change.path)


def _change_of(entry: ManifestEntry, file: FileStat) -> ChangeKind | None:
    if file.size != entry.size:
        return ChangeKind.CHANGED
    if file.checksum is not None and file.checksum == entry.checksum:
        # In a cloud: a copy, or another write, of the same bytes.
        return None if file.tag == entry.tag else ChangeKind.REWRITTEN
    if entry.tag is not None and file.tag != entry.tag:
        return ChangeKind.CHANGED
    is_touched = file.mtime_ns != entry.mtime_ns
    if entry.checksum is None:
        return ChangeKind.CHANGED if is_touched else None
    # Read even where the time is the same: a disk may rot, and a careful copy keeps the times.
    if _checksum(file) != entry.checksum:
        return ChangeKind.CHANGED
    return ChangeKind.REWRITTEN if is_touched else None


def _entries(files: Mapping[str, FileStat], before: Mapping[str, FileStat], local: bool) -> Iterable[ManifestEntry]:  # noqa: FBT001 - private
    paths = sorted(files)
    if not local:
        return [
            ManifestEntry(
                path,
                file.size,
                checksum=file.checksum,
                tag=file.tag,
                is_leftover=before.get(path) == file,
            )
            for path, file in ((path, files[path]) for path in paths)
        ]
    checksums = _checksums_of_synced([files[path] for path in paths])
    return [
        ManifestEntry(path, file.size, file.mtime_ns, checksum, is_leftover=before.get(path) == file)
        for path, file, checksum in zip(paths, (files[path] for path in paths), checksums, strict=True)
    ]


def _checksums_of_synced(files: Sequence[FileStat]) -> Iterable[str | None]:
    """Syncs every file, and reads the small ones, as far as the budget goes."""
    budget = _CHECKSUM_BUDGET
    is_read: list[bool] = []
    for file in files:
        is_read.append(file.size <= min(_CHECKSUM_LIMIT, budget))
        budget -= file.size if is_read[-1] else 0
    if len(files) < _MANY_FILES:
        return list(map(_synced, files, is_read))
    # A disk's journal commits what is asked for at the same time together.
    with ThreadPoolExecutor(_SYNC_THREADS, thread_name_prefix="marin-trace-sync") as pool:
        return list(pool.map(_synced, files, is_read))


def _synced(file: FileStat, with_checksum: bool) -> str | None:  # noqa: FBT001 - mapped over
    if not file.is_regular:
        return _checksum(file) if os.path.islink(file.path) else None
    try:
        descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            checksum = hashlib.sha256(os.read(descriptor, file.size + 1)).hexdigest() if with_checksum else None
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _cannot("commit", file.path, error) from error
    return checksum


def _checksum(file: FileStat) -> str:
    try:
        if not file.is_regular:
            return hashlib.sha256(os.fsencode(os.readlink(file.path))).hexdigest()
        with open(file.path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise _cannot("read", file.path, error) from error


def _sync(paths: Iterable[str]) -> None:
    for path in paths:
        try:
            sync_path(path)
        except OSError as error:
            raise _cannot("sync", path, error) from error


def _cannot(act: str, path: str, error: OSError) -> StorageError:
    return StorageError(explain(f"cannot {act} {path}: {error.strerror or error}"))


def _refuse_changes(output_path: str, first: Mapping[str, FileStat], second: Mapping[str, FileStat]) -> None:
    changed = [path for path in first.keys() | second.keys() if _facts(first.get(path)) != _facts(second.get(path))]
    if changed:
        raise RunError(
            explain(
                f"files of {output_path} changed while it was committed: {_named(changed)}",
                hint="the body must end what it started: wait for its threads and processes before it returns",
            )
        )


def _facts(file: FileStat | None) -> tuple[Any, ...] | None:
    if file is None:
        return None
    # Not the change time: another link to a file, or its mode, is no change of what it holds.
    return (file.size, file.mtime_ns, file.is_regular) if file.mtime_ns is not None else (file.size, file.tag)


def _warn_of_leftovers(output_path: str, entries: Iterable[ManifestEntry]) -> None:
    leftovers = [entry.path for entry in entries if entry.is_leftover]
    if leftovers:
        count = f"{len(leftovers)} file{'' if len(leftovers) == 1 else 's'}"
        logger.warning(
            f"{output_path}: {count} of earlier attempts lie there, untouched by this one: {_named(leftovers)}; "
            "a step with fresh=True begins with an empty output"
        )


def _named(paths: Iterable[str]) -> str:
    ordered = sorted(paths)
    return ", ".join(map(on_one_line, ordered[:_NAMED_IN_A_MESSAGE])) + (
        ", …" if len(ordered) > _NAMED_IN_A_MESSAGE else ""
    )
