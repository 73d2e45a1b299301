"""What people do to outputs from outside a run: check them, list what is left over, stop or unlock what runs.

Nothing here deletes a committed output, or a claim or an end of any log: a launcher that was suspended long ago may
still meet them, and they are what stops it. Deleting is by exact keys, and, for data, under a claim of its own.
"""

import getpass
import hashlib
import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NoReturn, final

from marin_trace.errors import ControlFileError, RunError, StorageError, explain
from marin_trace.runtime.adoption import is_marked_as_adopted
from marin_trace.runtime.attempt import draft_claim, empty_output
from marin_trace.runtime.distributed_lock import distributed_lock
from marin_trace.runtime.driver import Driver, driver_for
from marin_trace.runtime.liveness import owner_is_gone
from marin_trace.runtime.log_records import AttemptLog, CancelRecord, ClaimRecord, EndKind, EndRecord, StartRecord
from marin_trace.runtime.manifest import ChangeKind, FileChange, Manifest, changes_since, data_files, manifest_path
from marin_trace.runtime.options import DEFAULT_LEASE_S
from marin_trace.runtime.protocol import owner_of, request_cancel, seal
from marin_trace.runtime.status import StatusKind, read_start, read_status
from marin_trace.storage.bounded import LARGEST_MANIFEST
from marin_trace.storage.control_store import patient_store_for
from marin_trace.storage.files import delete_file, is_local, list_files, local_path
from marin_trace.storage.links import refuse_links_out_of

__all__ = [
    "Check",
    "CheckKind",
    "Evidence",
    "Garbage",
    "GarbageKind",
    "cancel_attempt",
    "check_output",
    "collect_garbage",
    "delete_garbage",
    "evidence_of",
    "find_outputs",
    "unlock",
]

_STALE_TEMPORARY_S: Final = 3600.0
"""Age of a temporary control file that no writer can still be busy with: it lives for milliseconds."""
_TEMPORARY: Final = ".tmp-"
_OF_A_SUPERSEDED_EPOCH: Final = ("hb", "log", "manifest")
"""Control files that mean nothing once a later epoch exists; claims, starts and ends stay for ever."""


class CheckKind(StrEnum):
    """What a check found."""

    OK = "ok"
    DAMAGED = "damaged"
    """Files are missing, changed or were added since the commit."""
    UNCHECKED = "unchecked"
    """Finished without a manifest: by an older system, or without a lock."""
    UNFINISHED = "unfinished"
    CORRUPT = "corrupt"
    """A control file cannot be read, or the manifest is not the one that was committed."""


@final
@dataclass(frozen=True, slots=True)
class Check:
    """What a check found of one output."""

    output_path: str
    kind: CheckKind
    detail: str = ""
    changes: tuple[FileChange, ...] = ()
    """Files that were rewritten with the same bytes are told too, and are no damage."""
    adopted_from: str | None = None
    """Where the files lie, if not in the output itself."""


class GarbageKind(StrEnum):
    """Why something can be deleted."""

    UNFINISHED = "unfinished"
    """Data of an output that never succeeded and that nobody builds; a retry would have gone on from it."""
    SUPERSEDED = "superseded"
    """A control file of an attempt after which others came."""
    TEMPORARY = "temporary"
    """What a writer left that was killed in the middle of a control file."""


@final
@dataclass(frozen=True, slots=True)
class Garbage:
    """Something that can be deleted."""

    kind: GarbageKind
    output_path: str
    files: tuple[str, ...]
    """Exact paths."""
    size: int
    """Bytes."""
    reason: str


@final
@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of the owner of an open attempt."""

    claim: ClaimRecord
    is_gone: bool
    """The owner and all its children are dead, for certain."""
    facts: tuple[str, ...]
    """For people."""


def find_outputs(directory: str) -> Iterator[str]:
    """The outputs at and below a directory, by the control files beside them; not those inside another output."""
    if is_local(directory):
        yield from _find_local(local_path(directory))
        return
    log = AttemptLog("")
    found: set[str] = set()
    for file in list_files(directory):
        for mark in (f"{log.directory}/", log.status_token):
            output, _, _ = file.path.partition(mark)
            if output != file.path:
                found.add(output)
    yield from sorted(path for path in found if not any(path.startswith(f"{other}/") for other in found))


def _find_local(directory: str) -> Iterator[str]:
    log = AttemptLog("")
    marks = {log.directory.lstrip("/"), log.status_token.lstrip("/")}
    pending = [directory]
    while pending:
        current = pending.pop()
        try:
            with os.scandir(current) as opened:
                entries = sorted(opened, key=lambda entry: entry.name, reverse=True)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if any(entry.name in marks for entry in entries):
            yield current
            continue
        pending += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]


def check_output(output_path: str) -> Check:
    """Compares an output with its manifest. Reads every file that has a checksum."""
    log = AttemptLog(output_path)
    try:
        status = read_status(output_path)
        if not status.is_finished:
            return Check(output_path, CheckKind.UNFINISHED, status.kind.value)
        if status.adopted_from and status.adopted_from != output_path:
            return _check_adopted(output_path, status.adopted_from)
        epoch = status.adopted_epoch if status.adopted_from else status.epoch
        manifest = _manifest_of(log, epoch) if epoch else None
        if manifest is None:
            return Check(output_path, CheckKind.UNCHECKED, "it was committed without a manifest")
        changes = tuple(changes_since(manifest, output_path))
    except StorageError as error:
        return Check(output_path, CheckKind.CORRUPT, str(error).partition("\n")[0])
    damage = [change for change in changes if change.kind is not ChangeKind.REWRITTEN]
    if damage:
        return Check(output_path, CheckKind.DAMAGED, f"{len(damage)} of {len(manifest.files)} files", changes)
    return Check(output_path, CheckKind.OK, f"{len(manifest.files)} files", changes)


def _check_adopted(output_path: str, source: str) -> Check:
    """The check of what an output has adopted, told of the output."""
    if read_status(source).adopted_from not in (None, source):
        return Check(output_path, CheckKind.CORRUPT, f"adopted from {source}, which has adopted another output since")
    check = check_output(source)
    kind = CheckKind.DAMAGED if check.kind is CheckKind.UNFINISHED else check.kind
    return Check(output_path, kind, f"adopted from {source}: {check.detail}", check.changes, source)


def _manifest_of(log: AttemptLog, epoch: int) -> Manifest | None:
    store = patient_store_for(log.output_path)
    path = manifest_path(log, epoch)
    end = store.get(log.end(epoch))
    digest = EndRecord.from_bytes(end or b"", log.end(epoch)).manifest
    if digest is None:
        return None
    content = store.get(path, limit=LARGEST_MANIFEST)
    if content is None:
        raise ControlFileError(explain(f"manifest {path} is missing"))
    if hashlib.sha256(content).hexdigest() != digest:
        raise ControlFileError(explain(f"manifest {path} is not the one that was committed"))
    return Manifest.from_bytes(content, path)


def collect_garbage(output_path: str, *, now: float | None = None) -> list[Garbage]:
    """What can be deleted at one output. Deletes nothing.

    Args:
        output_path: Of any output.
        now: Seconds since 1970, which a temporary file's age is measured against; default: this machine's clock.

    Raises:
        StorageError: Its log cannot be read.
    """
    log = AttemptLog(output_path)
    refuse_links_out_of(output_path, log.directory)
    status = read_status(output_path)
    found: list[Garbage] = []
    is_idle = status.kind in (StatusKind.FAILED, StatusKind.RELEASED, StatusKind.FENCED, StatusKind.ABANDONED)
    if status.epoch > 0 and is_idle and not is_marked_as_adopted(output_path):
        data = data_files(output_path).values()
        if data and not _has_ever_succeeded(log):
            reason = f"attempt {status.epoch} is {status.kind.value}, and none has succeeded"
            paths, size = tuple(file.path for file in data), sum(file.size for file in data)
            found.append(Garbage(GarbageKind.UNFINISHED, output_path, paths, size, reason))
    is_in_place = status.adopted_from == output_path
    first_kept = (status.adopted_epoch if is_in_place else 0) or status.epoch
    limit = (time.time() if now is None else now) - _STALE_TEMPORARY_S
    for file in list_files(log.directory):
        name = file.path.rpartition("/")[2]
        number, _, kind = name.partition(".")
        if name.startswith(_TEMPORARY) and file.mtime_ns is not None and file.mtime_ns / 1e9 < limit:
            reason = "a writer was killed before it had finished this file"
            found.append(Garbage(GarbageKind.TEMPORARY, output_path, (file.path,), file.size, reason))
        elif number.isdecimal() and int(number) < first_kept and kind in _OF_A_SUPERSEDED_EPOCH:
            reason = f"attempt {int(number)} was followed by {status.epoch}"
            found.append(Garbage(GarbageKind.SUPERSEDED, output_path, (file.path,), file.size, reason))
    return found


def _has_ever_succeeded(log: AttemptLog) -> bool:
    # What a forced attempt was to replace is still somebody's data, though it no longer counts as finished.
    store = patient_store_for(log.output_path)
    ends = [log.end(epoch) for epoch in AttemptLog.ended_epochs(store.list(log.directory))]
    contents = zip(ends, store.get_many(ends), strict=True)
    return any(end and EndRecord.from_bytes(end, path).kind is EndKind.SUCCESS for path, end in contents)


def delete_garbage(garbage: Garbage) -> None:
    """Deletes it, by exact keys.

    Raises:
        RunError: Somebody builds or has finished the output by now; nothing was deleted.
    """
    if garbage.kind is not GarbageKind.UNFINISHED:
        refuse_links_out_of(garbage.output_path, AttemptLog(garbage.output_path).directory)
        for path in garbage.files:
            delete_file(path)
        return
    try:
        # Under a claim: whoever builds it meanwhile is seen, and whoever wants to build it waits.
        distributed_lock(_emptied).attempt(garbage.output_path)
    except _Emptied:
        return


class _Emptied(BaseException):
    """Ends an attempt without a verdict: nothing was built, and nothing has failed."""


def _emptied(output_path: str) -> NoReturn:
    empty_output(output_path)
    raise _Emptied


def evidence_of(output_path: str) -> Evidence | None:
    """What speaks for the death of the owner of an open attempt; None where no attempt is open."""
    driver, log = driver_for(output_path), AttemptLog(output_path)
    claim = _open_claim(driver, log)
    if claim is None:
        return None
    start = None if claim.job is None else read_start(log, claim.epoch)
    owner = owner_of(claim, start)
    is_gone = owner is not None and owner_is_gone(owner)
    facts = [f"attempt {claim.epoch} was claimed at {claim.claimed_at} by process {claim.pid} on {claim.host}"]
    if claim.job is not None:
        where = f"began as process {owner.pid} on {owner.host}" if isinstance(owner, StartRecord) else "has not begun"
        facts.append(f"its job, {claim.job.name} on {claim.job.cluster}, {where}")
    if owner is None:
        facts.append("whether the job is still to begin cannot be seen from here")
    elif is_gone:
        facts.append("that process and all its children are dead")
    elif owner.host == socket.gethostname():
        facts.append("that process, or a child of it, lives on this machine or cannot be asked about")
    else:
        facts.append(f"this is {socket.gethostname()}: whether it lives cannot be seen from here")
    newest = max((file.mtime_ns or 0 for file in data_files(output_path).values()), default=0)
    if newest:
        facts.append(f"the newest file of the output was written {time.time() - newest / 1e9:.0f} s ago")
    return Evidence(claim, is_gone, tuple(facts))


def unlock(output_path: str, epoch: int) -> StatusKind:
    """Seals an open attempt: its owner can no longer commit, and the next launcher goes on.

    Returns:
        How the attempt stands now; the owner may have been faster.
    """
    driver, log = driver_for(output_path), AttemptLog(output_path)
    refuse_links_out_of(output_path, log.directory)
    driver.run(seal(log, epoch, draft_claim(lease_s=DEFAULT_LEASE_S)))
    return read_status(output_path).kind


def cancel_attempt(output_path: str, *, why: str) -> Evidence:
    """Asks the owner of an open attempt to stop; ends the attempt at once where the owner is dead.

    Raises:
        RunError: No attempt is open.
    """
    evidence = evidence_of(output_path)
    if evidence is None:
        raise RunError(explain(f"nothing runs at {output_path}: {read_status(output_path).kind.value}"))
    driver, log = driver_for(output_path), AttemptLog(output_path)
    refuse_links_out_of(output_path, log.directory)
    by = f"{getpass.getuser()}@{socket.gethostname()} (pid {os.getpid()})"
    driver.run(request_cancel(log, evidence.claim.epoch, CancelRecord(by, why)))
    if evidence.is_gone:
        unlock(output_path, evidence.claim.epoch)
    return evidence


def _open_claim(driver: Driver, log: AttemptLog) -> ClaimRecord | None:
    names: Sequence[str] = patient_store_for(log.output_path).list(log.directory)
    epoch, is_ended = AttemptLog.last_epoch(names)
    if epoch == 0 or is_ended:
        return None
    content = patient_store_for(log.output_path).get(log.claim(epoch))
    return None if content is None else ClaimRecord.from_bytes(content, log.claim(epoch))
