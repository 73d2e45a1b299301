"""What a gang adds to the protocol: one step's body in several processes, of which the first alone owns the epoch.

Programs, as in `marin_trace.runtime.protocol`. The first process claims or takes what was claimed for its job, beats,
saves and commits, as one that works alone would. The others touch neither cache nor lock. Each waits for ``start`` and
``ready``, which the first one creates; runs the body; leaves ``done-R`` (where the body failed, once the engine had the
time to notice a lost process that may be the cause); and stays until the epoch has its end. A keeper of its own watches
the epoch for it, and stops it when the first one has lost its lease.
"""

from dataclasses import dataclass
from typing import Final, final

from marin_trace.errors import ControlFileError, explain
from marin_trace.runtime.gang_records import DoneRecord, ReadyRecord
from marin_trace.runtime.heartbeat import MOMENT_S, Kept, KeptClaim, stop_owner
from marin_trace.runtime.job_protocol import Left
from marin_trace.runtime.log_records import (
    AttemptLog,
    ClaimRecord,
    EndKind,
    EndRecord,
    JobIdentity,
    StartRecord,
    StepFailure,
)
from marin_trace.runtime.operations import (
    AwaitDeath,
    AwaitOwner,
    Get,
    GetMany,
    Now,
    OwnerState,
    Program,
    Report,
    Say,
)
from marin_trace.runtime.protocol import (
    HEARTBEAT_FRACTION,
    KILL_FRACTION,
    LEASE_FRACTION,
    UNWIND_FRACTION,
    create,
    insist,
    read_state,
)

__all__ = [
    "Joined",
    "Others",
    "Waiting",
    "announce_ready",
    "guard",
    "join_gang",
    "leave_done",
    "look_at_others",
    "read_end",
]

_AT_ONCE: Final = float("-inf")


@final
@dataclass(frozen=True, slots=True)
class Joined:
    """The body may run: the gang's first process has begun, and has prepared the output."""

    claim: ClaimRecord
    start: StartRecord
    ready: ReadyRecord
    looked_at: float
    """When the look began that found the first process alive."""


@final
@dataclass(frozen=True, slots=True)
class Waiting:
    """The gang's first process has not begun yet, or nothing shows that it is not one of an earlier gang of the job."""

    token: tuple[str, bytes | None] | None = None
    """What stood there: the attempt that has begun and its last heartbeat. To be given to the next look."""


def join_gang(
    log: AttemptLog, job: JobIdentity, gang: str | None, lease_s: float, seen: Waiting | None
) -> Program[Joined | Waiting | Left]:
    """Looks once whether a process of a gang that is not its first may begin.

    Args:
        log: Of the output.
        job: That the process belongs to.
        gang: What tells its gang from earlier ones of the job. Where that is unknown, what counts is a first process
            that began or beat since the first look.
        lease_s: For how long the store is asked when it does not answer.
        seen: What the last look returned; None: this is the first.
    """
    looked_at: float = yield Now()
    state = yield from read_state(log, patience_s=lease_s)
    if state.is_finished or state.has_failed or state.is_cancelled:
        return Left(f"attempt {state.epoch} has ended")
    if state.epoch == 0:
        return Waiting()
    paths = (log.claim(state.epoch), log.start(state.epoch), log.ready(state.epoch), log.heartbeat(state.epoch))
    claimed, started, prepared, beat = yield from insist(GetMany(paths), lease_s)
    if claimed is None:
        raise ControlFileError(explain(f"control file {paths[0]} is missing: control files are never deleted"))
    claim = ClaimRecord.from_bytes(claimed, paths[0])
    start = None if started is None else StartRecord.from_bytes(started, paths[1])
    if claim.job != job:
        return Left(f"attempt {state.epoch} is not this job's")
    if start is not None and start.is_seal:
        return Left(f"attempt {state.epoch} was closed before the job began")
    if start is None:
        # A claim that was given up before it began is nobody's to go on from.
        return Waiting() if state.end is None else Left(f"attempt {state.epoch} has ended")
    if state.end is not None or start.gang is None:
        return Waiting((start.attempt, beat))
    if not _is_of_this_gang(start, beat, gang, seen) or prepared is None:
        token = (start.attempt, beat)
        return (
            seen if seen is not None and seen.token is not None and seen.token[0] == start.attempt else Waiting(token)
        )
    return Joined(claim, start, ReadyRecord.from_bytes(prepared, paths[2]), looked_at)


def _is_of_this_gang(start: StartRecord, beat: bytes | None, gang: str | None, seen: Waiting | None) -> bool:
    if gang is not None and start.gang:
        return start.gang == gang
    if seen is None:
        return False
    return seen.token is None or seen.token[0] != start.attempt or seen.token[1] != beat


def announce_ready(log: AttemptLog, claim: ClaimRecord, record: ReadyRecord) -> Program[None]:
    """Lets the other processes begin. The caller is the first one, and has prepared the output."""
    path = log.ready(claim.epoch)
    found = yield from create(path, record.to_bytes(), patience_s=claim.lease_s)
    if found is not None and ReadyRecord.from_bytes(found, path).write_id != record.write_id:
        raise ControlFileError(explain(f"control file {path} is another attempt's"))


def leave_done(log: AttemptLog, claim: ClaimRecord, record: DoneRecord) -> Program[None]:
    """Says that the body of a process that is not the first has ended."""
    yield from create(log.done(claim.epoch, record.rank), record.to_bytes(), patience_s=claim.lease_s)


@final
@dataclass(frozen=True, slots=True)
class Others:
    """How the processes of a gang stand that are not its first."""

    left: int
    """How many have not ended yet, as far as they could tell."""
    failure: StepFailure | None
    """What one of them failed of."""


def look_at_others(log: AttemptLog, claim: ClaimRecord, size: int) -> Program[Others]:
    """Looks once at what the others have left."""
    paths = tuple(log.done(claim.epoch, rank) for rank in range(1, size))
    contents: list[bytes | None] = yield from insist(GetMany(paths), claim.lease_s)
    ended = [DoneRecord.from_bytes(content, path) for path, content in zip(paths, contents, strict=True) if content]
    failure = next((done.error for done in ended if done.error is not None), None)
    return Others(len(paths) - len(ended), failure)


def read_end(log: AttemptLog, claim: ClaimRecord) -> Program[EndRecord | None]:
    """How an epoch ended; None: it has not."""
    path = log.end(claim.epoch)
    content: bytes | None = yield from insist(Get(path), claim.lease_s)
    return None if content is None else EndRecord.from_bytes(content, path)


def guard(kept: KeptClaim) -> Program[Kept]:
    """What the keeper of a process that is not the first does: it renews nothing, and stops its owner in time.

    The first process is alive as long as its heartbeat changes. A change that a look finds was made after the look
    before it had begun, and nobody fences the epoch sooner than a lease after that.
    """
    log, epoch, lease_s = kept.log, kept.claim.epoch, kept.claim.lease_s
    rest = period = lease_s * HEARTBEAT_FRACTION
    alive_at = looked_at = kept.sent_at
    token: bytes | None = None
    while True:
        owner: OwnerState = yield AwaitOwner(kept.attempt, min(period, rest))
        if owner is OwnerState.FORGOTTEN:
            return Kept.FORGOTTEN
        if owner is OwnerState.DEAD:
            yield AwaitDeath()
            return Kept.LEFT
        now: float = yield Now()
        limit = alive_at + (KILL_FRACTION if owner is OwnerState.STOPPED else LEASE_FRACTION) * lease_s
        if now + MOMENT_S >= limit:
            break
        rest = limit - now
        try:
            end, beat = yield GetMany((log.end(epoch), log.heartbeat(epoch)))
        except OSError as error:
            yield Say(f"{kept.output_path}: attempt {epoch} cannot be watched, {rest:.1f} s left: {error}")
            continue
        if end is not None:
            kind = EndRecord.from_bytes(end, log.end(epoch)).kind
            if kind is EndKind.SUCCESS:
                return Kept.FORGOTTEN
            deadline = _AT_ONCE if kind is EndKind.FENCED else now + UNWIND_FRACTION * lease_s
            return (yield from stop_owner(kept, deadline, f"its first process has ended it as {kind}"))
        if beat != token:
            token, alive_at = beat, looked_at
            yield Report(kept.attempt, alive_at)
        looked_at = now
    why = f"the heartbeat of its first process stood still for {now - alive_at:.1f} s"
    deadline = max(alive_at + KILL_FRACTION * lease_s, now + UNWIND_FRACTION * lease_s)
    return (yield from stop_owner(kept, deadline, why))
