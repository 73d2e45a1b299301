"""What a lease keeper does for each claim of its owner: renew, stop what lost its lease, release after death.

Programs, as in `marin_trace.runtime.protocol`: a keeper runs one `keep` for each claim, in a process of its own, since
a thread of the owner is starved by whatever holds the interpreter (3.5 s were measured).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, final

from marin_trace.runtime.log_records import (
    AttemptLog,
    CancelRecord,
    ClaimRecord,
    EndKind,
    EndRecord,
    FailurePhase,
    HeartbeatRecord,
    StepFailure,
)
from marin_trace.runtime.operations import (
    AwaitDeath,
    AwaitOwner,
    Get,
    GetMany,
    HandOver,
    KillOwner,
    Now,
    OwnerState,
    Pause,
    Program,
    Put,
    Report,
    Say,
    TellLost,
)
from marin_trace.runtime.protocol import (
    HEARTBEAT_FRACTION,
    KILL_FRACTION,
    LEASE_FRACTION,
    UNWIND_FRACTION,
    cancelled_failure,
    close_to_job,
    end_attempt,
    insist,
)

__all__ = ["MOMENT_S", "BeatResult", "Kept", "KeptClaim", "beat", "keep", "stop_owner"]


MOMENT_S: Final = 1e-6
"""What is due within it is due: to a sum of floating-point seconds, a rest of nothing but rounding may add nothing."""


class BeatResult(StrEnum):
    """What came of one heartbeat."""

    RENEWED = "renewed"
    EXPIRED = "expired"
    """No acknowledgement came in time."""
    DECIDED = "decided"
    """The owner itself has ended the epoch, and has not come to say so yet."""
    ENDED = "ended"
    """Somebody else has ended the epoch."""
    CANCELLED = "cancelled"
    """Somebody asks for its end."""
    STARTED = "started"
    """The job that the claim was made for has begun, and renews it itself from here."""


@final
@dataclass(frozen=True, slots=True)
class KeptClaim:
    """A claim as its keeper knows it."""

    output_path: str
    claim: ClaimRecord
    attempt: str
    """The nonce under which the owner ends the epoch."""
    sent_at: float
    """When the claim, or the last acknowledged heartbeat, was first sent."""
    awaits_start: bool = False
    """Held by a launcher for a job that has not started."""
    is_member: bool = False
    """Held by the first process of a gang; the owner is another one of it, and ends no epoch."""

    @property
    def log(self) -> AttemptLog:
        """The log of the output."""
        return AttemptLog(self.output_path)

    @property
    def dies_with_owner(self) -> bool:
        """Whether the job that it was made for, if any, is a process below its owner."""
        return self.claim.job is not None and self.claim.job.is_below_launcher


class Kept(StrEnum):
    """How the keeping of a claim ended."""

    FORGOTTEN = "forgotten"
    """Its owner ended it."""
    HANDED_OVER = "handed over"
    """It is the job's by now."""
    RELEASED = "released"
    """Its owner is dead, and the epoch was ended."""
    LEFT = "left"
    """Its owner is dead, and the claim is not its own: ended by the keeper of its job or of its gang's first process,
    adopted by somebody, or it expires."""


def beat(kept: KeptClaim, seq: int, last: float) -> Program[tuple[BeatResult, float]]:
    """Renews a claim once, and looks whether it still stands.

    Args:
        kept: The claim.
        seq: Another number for each heartbeat.
        last: When the last acknowledged claim or heartbeat was first sent.

    Returns:
        The result, and when the last acknowledged one was first sent now.
    """
    log, epoch, lease_s = kept.log, kept.claim.epoch, kept.claim.lease_s
    limit = last + LEASE_FRACTION * lease_s
    sent_at: float = yield Now()
    while True:
        now: float = yield Now()
        if now >= limit:
            return BeatResult.EXPIRED, last
        try:
            record = HeartbeatRecord(kept.claim.nonce, seq, kept.attempt, tried_at=now)
            yield Put(log.heartbeat(epoch), record.to_bytes())
        except OSError as error:
            # Whatever it is: a lease ends by its clock, never because of a request.
            yield Say(f"{kept.output_path}: heartbeat of attempt {epoch} failed, {limit - now:.1f} s left: {error}")
            yield Pause(0.0, lease_s / 48)
            continue
        break
    acknowledged: float = yield Now()
    if acknowledged >= limit:
        return BeatResult.EXPIRED, last
    yield Report(kept.attempt, sent_at)
    return (yield from _look(kept, sent_at))


def _look(kept: KeptClaim, sent_at: float) -> Program[tuple[BeatResult, float]]:
    log, epoch = kept.log, kept.claim.epoch
    try:
        end, cancel, start = yield GetMany((log.end(epoch), log.cancel(epoch), log.start(epoch)))
    except OSError as error:
        # The beat counts, and the next one looks again.
        yield Say(f"{kept.output_path}: attempt {epoch} could not look at its log: {error}")
        return BeatResult.RENEWED, sent_at
    if start is not None and kept.awaits_start:
        # Whether it has ended since or not: from its start on an epoch is its job's.
        return BeatResult.STARTED, sent_at
    if end is not None:
        is_own = EndRecord.from_bytes(end, log.end(epoch)).nonce == kept.attempt
        return BeatResult.DECIDED if is_own else BeatResult.ENDED, sent_at
    if cancel is not None:
        return BeatResult.CANCELLED, sent_at
    return BeatResult.RENEWED, sent_at


def keep(kept: KeptClaim) -> Program[Kept]:
    """Renews a claim as long as its owner runs, and sees to it that a claim that is lost or orphaned ends well."""
    lease_s, seq, last = kept.claim.lease_s, 0, kept.sent_at
    rest = period = lease_s * HEARTBEAT_FRACTION
    while True:
        owner: OwnerState = yield AwaitOwner(kept.attempt, min(period, rest))
        if owner is OwnerState.FORGOTTEN:
            return Kept.FORGOTTEN
        if owner is OwnerState.DEAD:
            return (yield from _release(kept))
        if owner is OwnerState.STOPPED:
            # To the moment: an observer needs but a tenth of the lease more, less than a period.
            now: float = yield Now()
            rest = last + KILL_FRACTION * lease_s - now
            if rest > MOMENT_S:
                continue
            return (yield from stop_owner(kept, now, "it was stopped by a signal and could not keep its lease"))
        seq, rest = seq + 1, period
        result, last = yield from beat(kept, seq, last)
        match result:
            case BeatResult.RENEWED:
                continue
            case BeatResult.STARTED:
                yield HandOver(kept.attempt)
                return (yield from _stand_by(kept)) if kept.dies_with_owner else Kept.HANDED_OVER
            case BeatResult.DECIDED:
                return Kept.FORGOTTEN
            case BeatResult.EXPIRED:
                why = f"no heartbeat was acknowledged for {LEASE_FRACTION:g} of its lease of {lease_s:g} s"
            case BeatResult.ENDED:
                # Somebody took the step over: every further write would be into another's output.
                return (yield from stop_owner(kept, float("-inf"), "somebody else has ended it"))
            case _:  # cancelled
                why = "somebody asked for its end"
        now = yield Now()
        deadline = max(last + KILL_FRACTION * lease_s, now + UNWIND_FRACTION * lease_s)
        return (yield from stop_owner(kept, deadline, why))


def stop_owner(kept: KeptClaim, deadline: float, why: str) -> Program[Kept]:
    """Gives the owner until a moment to stop by itself, then kills it, and ends what its death leaves open."""
    lease_s = kept.claim.lease_s
    why = f"attempt {kept.claim.epoch} of {kept.output_path} has lost its lease: {why}"
    yield TellLost(kept.attempt, why)
    if kept.awaits_start:
        # Nothing runs under it in the owner, which need not be killed: its job comes late, and leaves.
        return (yield from _stand_by(kept))
    is_spared = False
    while True:
        now: float = yield Now()
        if now + MOMENT_S >= deadline and not is_spared:
            killed: bool = yield KillOwner(why)
            is_spared = not killed
            if killed:
                return (yield from _release(kept))
        rest = lease_s * HEARTBEAT_FRACTION if is_spared else deadline - now
        owner: OwnerState = yield AwaitOwner(kept.attempt, rest)
        if owner is OwnerState.FORGOTTEN:
            return Kept.FORGOTTEN
        if owner is OwnerState.DEAD:
            return (yield from _release(kept))


def _stand_by(kept: KeptClaim) -> Program[Kept]:
    """Waits, renewing nothing, until the owner forgets the claim or dies."""
    while True:
        owner: OwnerState = yield AwaitOwner(kept.attempt, kept.claim.lease_s)
        if owner is OwnerState.FORGOTTEN:
            return Kept.FORGOTTEN
        if owner is OwnerState.DEAD:
            return (yield from _release(kept))


def _release(kept: KeptClaim) -> Program[Kept]:
    """Ends the epoch of a dead owner, once everything that it started is dead too."""
    how: str = yield AwaitDeath()
    if kept.is_member:
        return Kept.LEFT
    log, epoch, lease_s = kept.log, kept.claim.epoch, kept.claim.lease_s
    if kept.awaits_start:
        if not kept.dies_with_owner:
            return Kept.LEFT
        # The job is dead. If it had begun, the epoch is for its own keeper to end.
        is_closed = yield from close_to_job(log, epoch, kept.claim)
        if not is_closed:
            return Kept.LEFT
    cancel: bytes | None = yield from insist(Get(log.cancel(epoch)), lease_s)
    kind, failure = EndKind.RELEASED, StepFailure("OwnerDied", f"the process that ran it {how}", FailurePhase.BODY)
    if cancel is not None:
        kind, failure = EndKind.FAILED, cancelled_failure(CancelRecord.from_bytes(cancel, log.cancel(epoch)))
    end = EndRecord(epoch, kind, kept.attempt, kept.claim.claimed_at, error=failure)
    yield from end_attempt(log, end, patience_s=lease_s)
    return Kept.RELEASED
