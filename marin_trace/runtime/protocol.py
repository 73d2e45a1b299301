"""How an epoch is claimed, held, ended and taken over: the rules alone, without I/O, clock or randomness.

Everything here is a program (see `marin_trace.runtime.operations`). Invariants that the programs keep:

- an epoch n+1 is claimed only after ``end(n)`` exists and is not SUCCESS, or, forcing, is the SUCCESS that was named;
- whoever takes over seals ``end(n)`` with FENCED *before* claiming n+1, so owner and observer compete for one object,
  and exactly one of them decides the epoch;
- an owner's lease counts from when its claim or heartbeat was *first sent*, and is used for 0.7 of its length; an
  observer waits its whole length, from the *end* of the first read that showed a token to the *start* of the latest
  that shows it still, by its own monotonic clock. So an owner stops before anybody may take over, whatever the clocks
  say and however long requests take;
- after a claim is acknowledged, ``end(n)`` is looked at: if it is there, nothing may run;
- every create reads back on a conflict and compares the write id, since a store may apply a write and lose its answer.

What jobs add is in `marin_trace.runtime.job_protocol`, what lease keepers do in `marin_trace.runtime.heartbeat`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, final

from marin_trace.errors import (
    ControlFileError,
    LeaseLostError,
    StoreRefusedError,
    StoreUnavailableError,
    explain,
)
from marin_trace.runtime.log_records import (
    AttemptLog,
    CancelRecord,
    ClaimRecord,
    EndKind,
    EndRecord,
    FailurePhase,
    HeartbeatRecord,
    JobIdentity,
    StartRecord,
    StepFailure,
    status_word,
)
from marin_trace.runtime.operations import (
    Act,
    AskEngine,
    EngineWord,
    FinishingAct,
    Get,
    GetMany,
    LeaseView,
    List,
    Now,
    Operation,
    Pause,
    ProbeOwner,
    Program,
    Put,
    PutIfAbsent,
    ReadLease,
    ReadyKeeper,
    Say,
)

__all__ = [
    "HEARTBEAT_FRACTION",
    "KILL_FRACTION",
    "LEASE_FRACTION",
    "UNWIND_FRACTION",
    "AlreadyDone",
    "ClaimOutcome",
    "ClaimPolicy",
    "Claimed",
    "EngineSilent",
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
    "Sighting",
    "cancelled_failure",
    "check_not_ended",
    "claim_epoch",
    "claim_next",
    "close_to_job",
    "commit",
    "create",
    "end_attempt",
    "finish",
    "insist",
    "observe",
    "owner_of",
    "patience_after_failure",
    "read_state",
    "release",
    "request_cancel",
    "require_lease",
    "seal",
    "verdict_of",
]

TOKEN_DEP_FAILED: Final = "DEP_FAILED"  # noqa: S105 - a word in a file
"""Written where there is no log, for older tools; never a failure of the step itself."""

HEARTBEAT_FRACTION: Final = 1 / 8
"""Of the lease, between two heartbeats."""
LEASE_FRACTION: Final = 0.7
"""Of the lease, after which its owner may neither renew nor commit unless a heartbeat was acknowledged."""
KILL_FRACTION: Final = 0.9
"""Of the lease, after which what still runs under it is killed."""
UNWIND_FRACTION: Final = 0.1
"""Of the lease: what an owner has at least to stop by itself; it may have been suspended when the loss had to show."""
PATIENCE_S: Final = 60.0
"""How long a store that does not answer is asked again, where no lease sets a limit."""

_FIRST_BACKOFF: Final = 1 / 480
_LAST_BACKOFF: Final = 1 / 12
"""Bounds of the pause between two tries, as fractions of the patience: 0.25 s and 10 s of a lease of 120 s."""


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
    is_cancelled: bool = False
    """Somebody asked for the end of the epoch."""

    @property
    def is_finished(self) -> bool:
        """Whether the output may be read: committed, or finished by a system that kept no log."""
        return self.end.kind is EndKind.SUCCESS if self.end else self.token == EndKind.SUCCESS.value

    @property
    def has_failed(self) -> bool:
        """Whether the last attempt failed (a token without a log counts too); a cancelled one that just ended has."""
        if self.end is None:
            return self.token == EndKind.FAILED.value
        return self.end.kind is EndKind.FAILED or (self.end.kind is not EndKind.SUCCESS and self.is_cancelled)

    @property
    def failure(self) -> StepFailure | None:
        """Why it failed, where that is known."""
        return self.end.error if self.end else None


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
class Sighting:
    """What an observer remembers of an open epoch between two looks."""

    epoch: int
    nonce: str
    """Of the claim; a claimant that lost an epoch may use its nonce again for a later one."""
    heartbeat: bytes | None
    start: bytes | None
    since: float
    """The end of the first read that showed this token, by the observer's clock."""
    is_gone: bool = False
    """Whether the epoch may be taken over now."""
    beats: int = 0
    """How often the observer renewed the claim of a job that it adopted."""

    def shows(self, claim: ClaimRecord, start: bytes | None, heartbeat: bytes | None) -> bool:
        """Whether the token is the same."""
        return (self.epoch, self.nonce, self.start, self.heartbeat) == (claim.epoch, claim.nonce, start, heartbeat)


@final
@dataclass(frozen=True, slots=True)
class Claimed:
    """The epoch is ours: run the body."""

    claim: ClaimRecord
    sent_at: float
    """When the claim (of a job: its start) was first sent: the lease counts from here."""
    attempt: str
    """The nonce under which the epoch is ended: the claim's, or that of a job's attempt."""


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
    seen: Sighting
    """To be given to the next look."""


@final
@dataclass(frozen=True, slots=True)
class EngineSilent:
    """The engine of the job that the claim would be for does not answer: nothing was claimed."""

    job: JobIdentity


ClaimOutcome = Claimed | AlreadyDone | FailedBefore | Held | EngineSilent


def insist(operation: Operation, patience_s: float) -> Program[Any]:
    """Asks again, with full jitter, while the store does not answer; a request may then be applied more than once.

    Raises:
        StoreUnavailableError: It did not answer for the whole patience.
    """
    deadline, backoff = None, patience_s * _FIRST_BACKOFF
    while True:
        try:
            return (yield operation)
        except StoreUnavailableError:
            now: float = yield Now()
            deadline = now + patience_s if deadline is None else deadline
            if now >= deadline:
                raise
        yield Pause(0.0, backoff)
        backoff = min(2 * backoff, patience_s * _LAST_BACKOFF)


def read_state(log: AttemptLog, *, patience_s: float = PATIENCE_S) -> Program[LogState]:
    """Reads the log in two requests: one list, one get."""
    names: list[str] = yield from insist(List(log.directory), patience_s)
    content: bytes | None = yield from insist(Get(decisive_file(log, names)), patience_s)
    return state_of(log, names, content)


def decisive_file(log: AttemptLog, names: Sequence[str]) -> str:
    """The file that says how the highest epoch stands; the status token where there is no log.

    Args:
        log: Of the output.
        names: What a listing of the log shows, sorted.
    """
    epoch, is_ended = AttemptLog.last_epoch(names)
    if epoch == 0:
        return log.status_token
    return log.end(epoch) if is_ended else log.claim(epoch)


def state_of(log: AttemptLog, names: Sequence[str], content: bytes | None) -> LogState:
    """The state that a listing and the content of its `decisive_file` tell.

    Raises:
        ControlFileError: The file is corrupt, or has vanished since it was listed.
    """
    epoch, is_ended = AttemptLog.last_epoch(names)
    if epoch == 0:
        return LogState(token=None if content is None else status_word(content))
    is_cancelled = AttemptLog.has_cancel(names, epoch)
    path = log.end(epoch) if is_ended else log.claim(epoch)
    if content is None:
        raise ControlFileError(explain(f"control file {path} vanished while it was read"))
    if is_ended:
        return LogState(epoch, end=EndRecord.from_bytes(content, path), is_cancelled=is_cancelled)
    return LogState(epoch, claim=ClaimRecord.from_bytes(content, path), is_cancelled=is_cancelled)


def claim_epoch(
    log: AttemptLog, draft: ClaimRecord, policy: ClaimPolicy, seen: Sighting | None = None
) -> Program[ClaimOutcome]:
    """Claims the next epoch, if the log and the policy allow it.

    Args:
        log: Of the output.
        draft: The claim to make; its epoch is filled in here. With a job: the claim is made for that job.
        policy: What may be run again.
        seen: What the last look at this output saw.

    Returns:
        What came of it. Never waits: a live owner is `Held`.
    """
    while True:
        state = yield from read_state(log, patience_s=draft.lease_s)
        verdict = verdict_of(state, policy)
        if verdict is not None:
            return verdict
        if state.claim is not None:
            seen = yield from observe(log, state.claim, draft, seen)
            if not seen.is_gone:
                return Held(state.claim, seen)
            yield from seal(log, state.epoch, draft, seen=seen)
            continue
        if draft.job is not None:
            word: EngineWord = yield AskEngine(draft.job)
            if word is EngineWord.UNKNOWN:
                return EngineSilent(draft.job)
        claimed = yield from claim_next(log, replace(draft, epoch=state.epoch + 1))
        if claimed is not None:
            return claimed


def verdict_of(state: LogState, policy: ClaimPolicy) -> AlreadyDone | FailedBefore | None:
    """What a claimant learns without claiming; None: it may claim, or take over."""
    if state.is_finished:
        forced = policy.rerun_of is not None and state.epoch <= policy.rerun_of
        return None if forced else AlreadyDone(state.epoch)
    if not state.has_failed:
        return None
    while_waiting = policy.waited_for is not None and state.epoch >= policy.waited_for
    if policy.force_run_failed and not while_waiting:
        return None
    return FailedBefore(state.epoch, state.failure, while_waiting)


def claim_next(log: AttemptLog, claim: ClaimRecord) -> Program[Claimed | None]:
    """Creates the claim of an epoch whose predecessor has ended.

    Returns:
        None if somebody else has the epoch, or if it was sealed before we knew that it is ours.

    Raises:
        LeaseLostError: The store took longer than the lease: it was given up.
    """
    # A forced claim voids the old commit from this instant: it must survive a power cut before the body overwrites.
    path = log.claim(claim.epoch)
    yield ReadyKeeper()
    sent_at: float = yield Now()
    found = yield from create(path, claim.to_bytes(), durable=claim.rerun_of is not None, patience_s=claim.lease_s)
    if found is not None and ClaimRecord.from_bytes(found, path).write_id != claim.write_id:
        return None
    sealed: bytes | None = yield from insist(Get(log.end(claim.epoch)), claim.lease_s)
    if sealed is not None:
        return None
    if claim.rerun_of is not None:
        yield from _put_token(log, "RUNNING")
    now: float = yield Now()
    if now >= sent_at + LEASE_FRACTION * claim.lease_s:
        # Nobody may have noticed yet, but it would be too late to renew. Another attempt of our job may have begun.
        unstarted = Sighting(claim.epoch, claim.nonce, None, None, since=sent_at, is_gone=True)
        yield from seal(log, claim.epoch, claim, seen=unstarted)
        raise LeaseLostError(
            explain(
                f"claiming {log.output_path} took {now - sent_at:.1f} s, its lease is {claim.lease_s:g} s",
                hint="--lease_seconds sets a longer one",
            )
        )
    return Claimed(claim, sent_at, claim.nonce)


def observe(
    log: AttemptLog,
    claim: ClaimRecord,
    observer: ClaimRecord,
    seen: Sighting | None,
    *,
    asks_engine: bool = True,
) -> Program[Sighting]:
    """Looks once at an open epoch of somebody else.

    A token that stood unchanged for the whole lease means that the owner is gone; so does its certain death, where it
    was a process of this machine. While the engine says that a job lives, its step is left to it: an unstarted claim
    is then renewed in its launcher's place.

    Args:
        log: Of the output.
        claim: The open claim.
        observer: Who looks.
        seen: What the last look saw, if any.
        asks_engine: False for an attempt of the very job that the claim names.

    Returns:
        What to remember; ``is_gone``: the epoch may be sealed.
    """
    began: float = yield Now()
    names = (log.start(claim.epoch), log.heartbeat(claim.epoch))
    start_bytes, heartbeat = yield from insist(GetMany(names), claim.lease_s)
    ended: float = yield Now()
    if seen is None or not seen.shows(claim, start_bytes, heartbeat):
        beats = seen.beats if seen else 0
        seen = Sighting(claim.epoch, claim.nonce, heartbeat, start_bytes, since=ended, beats=beats)
    start = None if start_bytes is None else StartRecord.from_bytes(start_bytes, log.start(claim.epoch))
    if start is not None and start.is_seal:
        return replace(seen, is_gone=True)
    if claim.job is not None and asks_engine:
        word: EngineWord = yield AskEngine(claim.job)
        if word is EngineWord.ALIVE:
            return (yield from _leave_to_job(log, claim, observer, replace(seen, is_gone=False)))
    if began - seen.since >= claim.lease_s:
        return replace(seen, is_gone=True)
    owner = owner_of(claim, start)
    gone: bool = False if owner is None else (yield ProbeOwner(owner))
    return replace(seen, is_gone=gone)


def owner_of(claim: ClaimRecord, start: StartRecord | None) -> ClaimRecord | StartRecord | None:
    """Whose process counts for an open epoch; None: that of a job which has not begun.

    The launcher that claimed for a job says nothing by its death, unless the job dies with it.
    """
    if start is not None and not start.is_seal:
        return start
    return claim if claim.job is None or claim.job.is_below_launcher else None


def _leave_to_job(log: AttemptLog, claim: ClaimRecord, observer: ClaimRecord, seen: Sighting) -> Program[Sighting]:
    if seen.start is not None:
        return seen
    now: float = yield Now()
    beat = HeartbeatRecord(claim.nonce, seen.beats + 1, observer.nonce, tried_at=now)
    try:
        yield Put(log.heartbeat(claim.epoch), beat.to_bytes())
    except StoreUnavailableError as error:
        # The next look beats again, with a token of its own.
        yield Say(f"{log.output_path}: the claim of job {claim.job and claim.job.name} was not renewed: {error}")
    return replace(seen, beats=beat.seq)


def seal(
    log: AttemptLog, epoch: int, observer: ClaimRecord, *, seen: Sighting | None = None
) -> Program[EndRecord | None]:
    """Ends an epoch whose owner is gone with FENCED (FAILED where its end was asked for), unless somebody was faster.

    The epoch of a job that has not started is closed to the job first; if the job was faster, the epoch is its own.

    Args:
        log: Of the output.
        epoch: The epoch, which is open.
        observer: Who seals.
        seen: What the decision rests on; None: somebody decided to seal whatever stands.

    Returns:
        The end that stands, ours or the one that was there; None if a job took the epoch before it could be sealed.
    """
    paths = (log.claim(epoch), log.start(epoch), log.cancel(epoch))
    claim_bytes, start, cancel = yield from insist(GetMany(paths), observer.lease_s)
    if claim_bytes is None:
        raise ControlFileError(explain(f"control file {paths[0]} vanished while it was read"))
    if seen is not None and start != seen.start:
        return None
    if start is None and ClaimRecord.from_bytes(claim_bytes, paths[0]).job is not None:
        is_closed = yield from close_to_job(log, epoch, observer)
        if not is_closed:
            return None
    end = EndRecord(epoch, EndKind.FENCED, observer.nonce, observer.claimed_at)
    if cancel is not None:
        failure = cancelled_failure(CancelRecord.from_bytes(cancel, paths[2]))
        end = replace(end, kind=EndKind.FAILED, error=failure)
    return (yield from end_attempt(log, end, patience_s=observer.lease_s))


def close_to_job(log: AttemptLog, epoch: int, observer: ClaimRecord) -> Program[bool]:
    """Seals the start of an epoch, so that its job will not run the body.

    Returns:
        False if an attempt of the job has it.
    """
    path = log.start(epoch)
    record = StartRecord(observer.nonce, "", observer.host, observer.pid, observer.process_nonce)
    found = yield from create(path, record.to_bytes(), patience_s=observer.lease_s)
    return found is None or StartRecord.from_bytes(found, path).is_seal


def cancelled_failure(request: CancelRecord) -> StepFailure:
    """The error of an attempt whose end was asked for."""
    return StepFailure("Cancelled", f"cancelled by {request.by}: {request.why}", FailurePhase.CANCEL)


def request_cancel(log: AttemptLog, epoch: int, request: CancelRecord) -> Program[CancelRecord]:
    """Asks an epoch's owner to end it; the first request stands.

    Returns:
        The request that stands.
    """
    found = yield from create(log.cancel(epoch), request.to_bytes())
    return request if found is None else CancelRecord.from_bytes(found, log.cancel(epoch))


def finish(log: AttemptLog, end: EndRecord) -> Program[EndRecord]:
    """What follows a body's return: save, look at the inputs again, manifest, decision. In this order, under the lease.

    Args:
        log: Of the output.
        end: The SUCCESS to record; the manifest's digest is filled in.

    A store that does not answer, or that refuses this user, is asked again while the lease holds, and for one lease at
    most: the work is done. An act may thus be done more than once.

    Returns:
        What was committed.

    Raises:
        LeaseLostError: The lease is lost, or somebody else has ended the epoch: nothing is committed.
        Exception: What an act raises: the attempt has failed in that phase.
    """
    for act in (FinishingAct.SAVE, FinishingAct.LOOK_AT_INPUTS):
        yield from _insist_on_act(log, end, act)
    digest: str | None = yield from _insist_on_act(log, end, FinishingAct.WRITE_MANIFEST)
    end = replace(end, manifest=digest)
    yield from commit(log, end)
    return end


def _insist_on_act(log: AttemptLog, end: EndRecord, act: FinishingAct) -> Program[Any]:
    # A lease that is renewed holds for ever; who is refused for the whole of one will not be let in by waiting.
    deadline: float | None = None
    while True:
        left = yield from require_lease(log, end)
        try:
            return (yield Act(act))
        except (StoreUnavailableError, StoreRefusedError) as error:
            now: float = yield Now()
            lease: LeaseView = yield ReadLease(end.nonce)
            deadline = now + lease.lease_s if deadline is None else deadline
            if not now < deadline < float("inf"):
                raise
            yield Say(f"{log.output_path}: attempt {end.epoch} cannot {act} yet, its lease holds {left:.0f} s: {error}")
        yield Pause(0.0, left * _LAST_BACKOFF)


def require_lease(log: AttemptLog, end: EndRecord) -> Program[float]:
    """Checks by what this process knows, without asking the store, that the lease holds.

    Returns:
        For how many seconds it holds at least.

    Raises:
        LeaseLostError: It does not.
    """
    now: float = yield Now()
    lease: LeaseView = yield ReadLease(end.nonce)
    left = lease.sent_at + LEASE_FRACTION * lease.lease_s - now
    if lease.lost is not None or left <= 0:
        why = lease.lost or f"no heartbeat was acknowledged for {now - lease.sent_at:.1f} s"
        raise LeaseLostError(
            explain(
                f"attempt {end.epoch} of {log.output_path} has lost its lease: {why}",
                hint="this attempt's work is not committed; the step is built again by whoever runs it next",
            )
        )
    return left


def commit(log: AttemptLog, end: EndRecord) -> Program[None]:
    """Ends the caller's own epoch as SUCCESS. The caller holds the claim, and everything it wrote is written.

    A store that does not answer, or that refuses this user, is asked for as long as the lease holds: the work is done.

    Raises:
        LeaseLostError: The lease is lost, or the epoch was ended by somebody else; nothing is committed.
    """
    is_sent = False
    while True:
        try:
            left = yield from require_lease(log, end)
        except LeaseLostError:
            # A create whose answer was lost may have been applied, or will be: the register is closed, or tells.
            if is_sent and (yield from _was_committed(log, end)):
                return
            raise
        try:
            is_sent = True
            standing = yield from end_attempt(log, end, patience_s=0.0)
        except (StoreUnavailableError, StoreRefusedError) as error:
            yield Say(f"{log.output_path}: attempt {end.epoch} not committed yet, {left:.0f} s left: {error}")
            yield Pause(0.0, left * _LAST_BACKOFF)
            continue
        if standing.write_id != end.write_id:
            raise _lease_lost(log, standing)
        return


def _was_committed(log: AttemptLog, end: EndRecord) -> Program[bool]:
    release = replace(end, kind=EndKind.RELEASED, manifest=None)
    lease: LeaseView = yield ReadLease(end.nonce)
    standing = yield from end_attempt(log, release, patience_s=min(PATIENCE_S, lease.lease_s))
    return standing.write_id == end.write_id


def check_not_ended(log: AttemptLog, epoch: int) -> Program[None]:
    """Looks whether somebody else has ended the caller's own epoch. One request, tried once.

    A store that does not answer, or refuses, says nothing: while the lease holds, the next look will tell.

    Raises:
        LeaseLostError: The epoch has ended.
    """
    path = log.end(epoch)
    try:
        found: bytes | None = yield Get(path)
    except (StoreUnavailableError, StoreRefusedError) as error:
        yield Say(f"{log.output_path}: attempt {epoch} could not look at its log: {error}")
        return
    if found is not None:
        raise _lease_lost(log, EndRecord.from_bytes(found, path))


def _lease_lost(log: AttemptLog, standing: EndRecord) -> LeaseLostError:
    return LeaseLostError(
        explain(
            f"attempt {standing.epoch} of {log.output_path} was ended as {standing.kind} by somebody else",
            hint="this attempt's work is not committed; whoever ended it builds the output again",
        )
    )


def end_attempt(log: AttemptLog, end: EndRecord, *, patience_s: float = PATIENCE_S) -> Program[EndRecord]:
    """Ends an epoch, unless it has ended; the first end stands. The token follows a verdict of our own.

    Returns:
        The end that stands.
    """
    path = log.end(end.epoch)
    found = yield from create(path, end.to_bytes(), durable=end.kind is EndKind.SUCCESS, patience_s=patience_s)
    standing = end if found is None else EndRecord.from_bytes(found, path)
    # Also that of an owner which died before it could write the token: its keeper ends the epoch in its place.
    if standing.nonce == end.nonce and standing.kind in (EndKind.SUCCESS, EndKind.FAILED):
        yield from _put_token(log, standing.kind.value)
    return standing


def release(log: AttemptLog, end: EndRecord, *, patience_s: float = PATIENCE_S) -> Program[EndRecord]:
    """Ends the caller's own epoch without a verdict, or as FAILED where its end was asked for.

    Returns:
        The end that stands.
    """
    path = log.cancel(end.epoch)
    cancel: bytes | None = yield from insist(Get(path), patience_s)
    if cancel is not None:
        failure = cancelled_failure(CancelRecord.from_bytes(cancel, path))
        end = replace(end, kind=EndKind.FAILED, error=failure)
    return (yield from end_attempt(log, end, patience_s=patience_s))


def patience_after_failure(nonce: str) -> Program[float]:
    """For how long an owner whose body has failed asks a silent store to end its epoch, in seconds.

    While its lease holds: later its keeper would kill a process in which nothing of the attempt runs any more. An owner
    that has lost its lease has its keeper forget the claim first.
    """
    now: float = yield Now()
    lease: LeaseView = yield ReadLease(nonce)
    left = lease.sent_at + LEASE_FRACTION * lease.lease_s - now
    return min(PATIENCE_S, max(left, HEARTBEAT_FRACTION * lease.lease_s))


def _put_token(log: AttemptLog, token: str) -> Program[None]:
    # The decision stands whatever becomes of its shadow.
    try:
        yield Put(log.status_token, token.encode())
    except OSError as error:
        yield Say(f"{log.output_path}: its status token could not be written: {error}")


def create(
    path: str, content: bytes, *, durable: bool = False, patience_s: float = PATIENCE_S
) -> Program[bytes | None]:
    """Creates a control file, or reads what is there.

    Returns:
        None if the store said that it was created; else the content that stands, which is ours too if an earlier
        request was applied and its answer lost: the caller compares the write id.
    """
    created: bool = yield from insist(PutIfAbsent(path, content, durable), patience_s)
    if created:
        return None
    found: bytes | None = yield from insist(Get(path), patience_s)
    if found is None:
        raise ControlFileError(explain(f"control file {path} was there and vanished: control files are write-once"))
    return found
