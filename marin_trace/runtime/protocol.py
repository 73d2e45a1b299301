"""How an epoch is claimed, ended and taken over: the rules alone, without I/O, clock or randomness.

A *program* is a generator that yields operations and is sent their results; `marin_trace.runtime.driver` runs it
against a real store, a simulator can run the same code under faults. Invariants that the programs keep:

- an epoch n+1 is claimed only after ``end(n)`` exists and is not SUCCESS, or, forcing, is the SUCCESS that was named;
- whoever takes over seals ``end(n)`` with FENCED *before* claiming n+1, so owner and observer compete for one object,
  and exactly one of them decides the epoch;
- after a claim is acknowledged, ``end(n)`` is looked at: if it is there, nothing may run;
- every create reads back on a conflict and compares the write id, since a store may apply a write and lose its answer.

Leases, heartbeats and takeover across machines are not here yet: an owner counts as gone only where
`ProbeOwner` can prove it on this machine.
"""

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar, final

from marin_trace.errors import ControlFileError, LeaseLostError, explain
from marin_trace.runtime.log_records import AttemptLog, ClaimRecord, EndKind, EndRecord, StepFailure

__all__ = [
    "AlreadyDone",
    "ClaimOutcome",
    "ClaimPolicy",
    "Claimed",
    "FailedBefore",
    "Get",
    "Held",
    "List",
    "LogState",
    "Operation",
    "ProbeOwner",
    "Program",
    "Put",
    "PutIfAbsent",
    "check_not_ended",
    "claim_epoch",
    "commit",
    "create",
    "end_attempt",
    "read_state",
    "seal",
]

TOKEN_DEP_FAILED: Final = "DEP_FAILED"  # noqa: S105 - a word in a file
"""Written where there is no log, for older tools; never a failure of the step itself."""


@final
@dataclass(frozen=True, slots=True)
class PutIfAbsent:
    """Create a file; the result is True if the store says that this request created it."""

    path: str
    content: bytes
    durable: bool = False


@final
@dataclass(frozen=True, slots=True)
class Put:
    """Create or replace a file; no result."""

    path: str
    content: bytes


@final
@dataclass(frozen=True, slots=True)
class Get:
    """Read a file; the result is its content, or None."""

    path: str


@final
@dataclass(frozen=True, slots=True)
class List:
    """List a directory; the result is the sorted names."""

    directory: str


@final
@dataclass(frozen=True, slots=True)
class ProbeOwner:
    """Ask this machine about a claim's owner; the result is True only if it is surely gone, with its children."""

    claim: ClaimRecord


Operation = PutIfAbsent | Put | Get | List | ProbeOwner

T = TypeVar("T")
Program = Generator[Operation, Any, T]
"""Yields operations, is sent their results, returns a T."""


@final
@dataclass(frozen=True, slots=True)
class LogState:
    """What an output's log says: the state of its highest epoch."""

    epoch: int = 0
    """0 where there is no log."""
    claim: ClaimRecord | None = None
    """Set while the epoch is open."""
    end: EndRecord | None = None
    """Set once it is closed."""
    token: str | None = None
    """The status token, read only where there is no log."""

    @property
    def is_finished(self) -> bool:
        """Whether the output may be read: committed, or finished by a system that kept no log."""
        return self.end.kind is EndKind.SUCCESS if self.end else self.token == EndKind.SUCCESS.value

    @property
    def has_failed(self) -> bool:
        """Whether the last attempt failed (a token without a log counts too)."""
        return self.end.kind is EndKind.FAILED if self.end else self.token == EndKind.FAILED.value


@final
@dataclass(frozen=True, slots=True)
class ClaimPolicy:
    """What a claimant may do about what it finds."""

    force_run_failed: bool = True
    """Run again what failed before."""
    rerun_of: int | None = None
    """Run again what succeeded at this epoch or before; a later success is a hit."""
    waited_for: int | None = None
    """The first epoch that the claimant saw held by another and waited for: a failure from there on is its own."""


@final
@dataclass(frozen=True, slots=True)
class Claimed:
    """The epoch is ours: run the body."""

    claim: ClaimRecord


@final
@dataclass(frozen=True, slots=True)
class AlreadyDone:
    """The output is finished."""

    epoch: int


@final
@dataclass(frozen=True, slots=True)
class FailedBefore:
    """The step failed, and may not be run again by this claimant."""

    epoch: int
    failure: StepFailure | None
    while_waiting: bool


@final
@dataclass(frozen=True, slots=True)
class Held:
    """Another attempt runs."""

    claim: ClaimRecord


ClaimOutcome = Claimed | AlreadyDone | FailedBefore | Held


def read_state(log: AttemptLog) -> Program[LogState]:
    """Reads the log in two requests: one list, one get."""
    names: list[str] = yield List(log.directory)
    epoch, ended = AttemptLog.last_epoch(names)
    if epoch == 0:
        token: bytes | None = yield Get(log.status_token)
        return LogState(token=None if token is None else token.decode(errors="replace").strip())
    path = log.end(epoch) if ended else log.claim(epoch)
    content: bytes | None = yield Get(path)
    if content is None:
        raise ControlFileError(explain(f"control file {path} vanished while it was read"))
    if ended:
        return LogState(epoch, end=EndRecord.from_bytes(content, path))
    return LogState(epoch, claim=ClaimRecord.from_bytes(content, path))


def claim_epoch(log: AttemptLog, draft: ClaimRecord, policy: ClaimPolicy) -> Program[ClaimOutcome]:
    """Claims the next epoch, if the log and the policy allow it.

    Args:
        log: Of the output.
        draft: The claim to make; its epoch is filled in here.
        policy: What may be run again.

    Returns:
        What came of it. Never waits: a live owner is `Held`.
    """
    while True:
        state = yield from read_state(log)
        verdict = _verdict(state, policy)
        if verdict is not None:
            return verdict
        if state.claim is not None:
            gone: bool = yield ProbeOwner(state.claim)
            if not gone:
                return Held(state.claim)
            yield from seal(log, state.epoch, draft)
            continue
        claim = replace(draft, epoch=state.epoch + 1)
        if (yield from _claim(log, claim)):
            return Claimed(claim)


def _verdict(state: LogState, policy: ClaimPolicy) -> AlreadyDone | FailedBefore | None:
    if state.is_finished:
        forced = policy.rerun_of is not None and state.epoch <= policy.rerun_of
        return None if forced else AlreadyDone(state.epoch)
    if not state.has_failed:
        return None
    while_waiting = policy.waited_for is not None and state.epoch >= policy.waited_for
    if policy.force_run_failed and not while_waiting:
        return None
    return FailedBefore(state.epoch, state.end.error if state.end else None, while_waiting)


def _claim(log: AttemptLog, claim: ClaimRecord) -> Program[bool]:
    # A forced claim voids the old commit from this instant: it must survive a power cut before the body overwrites.
    path = log.claim(claim.epoch)
    found = yield from create(path, claim.to_bytes(), durable=claim.rerun_of is not None)
    if found is not None and ClaimRecord.from_bytes(found, path).write_id != claim.write_id:
        return False
    sealed: bytes | None = yield Get(log.end(claim.epoch))
    if sealed is not None:
        return False
    if claim.rerun_of is not None:
        yield Put(log.status_token, b"RUNNING")
    return True


def seal(log: AttemptLog, epoch: int, observer: ClaimRecord) -> Program[EndRecord]:
    """Ends an epoch whose owner is gone with FENCED, unless its owner was faster.

    Returns:
        The end that stands: ours, or the one that was there.
    """
    end = EndRecord(epoch=epoch, kind=EndKind.FENCED, nonce=observer.nonce, ended_at=observer.claimed_at)
    return (yield from end_attempt(log, end))


def commit(log: AttemptLog, end: EndRecord) -> Program[None]:
    """Ends the caller's own epoch as SUCCESS. The caller holds the claim, and everything it wrote is written.

    Raises:
        LeaseLostError: The epoch was ended by somebody else; nothing is committed.
    """
    standing = yield from end_attempt(log, end)
    if standing.write_id != end.write_id:
        raise _lease_lost(log, standing)


def check_not_ended(log: AttemptLog, epoch: int) -> Program[None]:
    """Looks whether somebody else has ended the caller's own epoch. One request.

    Raises:
        LeaseLostError: The epoch has ended.
    """
    path = log.end(epoch)
    found: bytes | None = yield Get(path)
    if found is not None:
        raise _lease_lost(log, EndRecord.from_bytes(found, path))


def _lease_lost(log: AttemptLog, standing: EndRecord) -> LeaseLostError:
    return LeaseLostError(
        explain(
            f"attempt {standing.epoch} of {log.output_path} was ended as {standing.kind} by somebody else",
            hint="this attempt's work is not committed; whoever ended it builds the output again",
        )
    )


def end_attempt(log: AttemptLog, end: EndRecord) -> Program[EndRecord]:
    """Ends an epoch, unless it has ended; the first end stands. The token follows a verdict of our own.

    Returns:
        The end that stands.
    """
    path = log.end(end.epoch)
    found = yield from create(path, end.to_bytes(), durable=end.kind is EndKind.SUCCESS)
    standing = end if found is None else EndRecord.from_bytes(found, path)
    if standing.write_id == end.write_id and end.kind in (EndKind.SUCCESS, EndKind.FAILED):
        yield Put(log.status_token, end.kind.value.encode())
    return standing


def create(path: str, content: bytes, *, durable: bool = False) -> Program[bytes | None]:
    """Creates a control file, or reads what is there.

    Returns:
        None if the store said that it was created; else the content that stands, which is ours too if an earlier
        request was applied and its answer lost: the caller compares the write id.
    """
    created: bool = yield PutIfAbsent(path, content, durable)
    if created:
        return None
    found: bytes | None = yield Get(path)
    if found is None:
        raise ControlFileError(explain(f"control file {path} was there and vanished: control files are write-once"))
    return found
