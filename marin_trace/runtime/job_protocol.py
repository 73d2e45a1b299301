"""What jobs add to the protocol: a claim made for a job, the one attempt of the job that runs the body, and the watch.

Programs, as in `marin_trace.runtime.protocol`. The launcher claims *for* the job and then submits it; its keeper renews
the claim until the job has created ``start``, the register that says which attempt of the job runs the body, or that
nobody does (a seal). From there on the job owns the epoch: it beats, saves and commits. So no crash between claiming,
submitting and starting runs a step twice, and none leaves it to nobody:

- whoever ends an unstarted epoch seals its ``start`` first: a job that comes late leaves, unrun;
- an engine's word never ends a started epoch, since engines err and lag;
- before a job is submitted, every job that an earlier epoch named is ended and gone.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import final

from marin_trace.errors import ControlFileError, StorageError, explain
from marin_trace.runtime.log_records import (
    AttemptLog,
    CancelRecord,
    ClaimRecord,
    EndKind,
    EndRecord,
    FailurePhase,
    JobIdentity,
    StartRecord,
    StepFailure,
)
from marin_trace.runtime.operations import (
    AskEngine,
    EngineWord,
    Get,
    GetMany,
    LeaseView,
    Now,
    Pause,
    Program,
    ReadLease,
    ReadyKeeper,
    Submit,
    Terminate,
)
from marin_trace.runtime.protocol import (
    LEASE_FRACTION,
    AlreadyDone,
    Claimed,
    ClaimPolicy,
    FailedBefore,
    Held,
    LogState,
    Sighting,
    cancelled_failure,
    claim_next,
    close_to_job,
    create,
    end_attempt,
    insist,
    observe,
    read_state,
    seal,
    verdict_of,
)

__all__ = ["JobEntry", "JobView", "JobWatch", "Left", "end_unstarted", "enter_job", "submit_job", "watch_job"]


@final
@dataclass(frozen=True, slots=True)
class Left:
    """The job has nothing to do here, and leaves without running the body."""

    why: str


JobEntry = Claimed | AlreadyDone | FailedBefore | Held | Left


def enter_job(
    log: AttemptLog,
    draft: ClaimRecord,
    policy: ClaimPolicy,
    seen: Sighting | None = None,
    *,
    gang: str | None = None,
) -> Program[JobEntry]:
    """What an attempt of a job does first: takes the epoch that names its job, or learns that it has to leave.

    Args:
        log: Of the output.
        draft: Names the job, this process, and by its nonce this attempt.
        policy: What may be run again.
        seen: What the last look saw, where an earlier attempt of this job may still run.
        gang: Of a gang, whose first process the caller is: see `StartRecord.gang`.

    Returns:
        `Claimed`: this attempt runs the body. `Held`: an earlier one may still run it, look again.
    """
    job = draft.job
    assert job is not None
    while True:
        state = yield from read_state(log, patience_s=draft.lease_s)
        verdict = verdict_of(state, policy)
        if verdict is not None:
            return verdict
        if state.claim is not None:
            claim = state.claim
            if claim.job != job:
                return Left(f"attempt {claim.epoch} is not this job's")
            entry = yield from _start(log, claim, draft, gang)
            if entry is not None:
                return entry
            # An earlier attempt of this job has it: the same rule as for any owner.
            seen = yield from observe(log, claim, draft, seen, asks_engine=False)
            if not seen.is_gone:
                return Held(claim, seen)
            yield from seal(log, claim.epoch, draft, seen=seen)
            continue
        may_go_on = yield from _may_go_on(log, state, draft)
        if not may_go_on:
            return Left(f"attempt {state.epoch} has ended, and the job may not begin another")
        claimed = yield from claim_next(log, replace(draft, epoch=state.epoch + 1))
        if claimed is not None:
            entry = yield from _start(log, claimed.claim, draft, gang)
            if entry is not None:
                return entry


def _start(log: AttemptLog, claim: ClaimRecord, draft: ClaimRecord, gang: str | None) -> Program[Claimed | Left | None]:
    """Takes the body of an epoch; None if another attempt of the job has it."""
    path = log.start(claim.epoch)
    # A restarted launcher or job may be given the same name: the attempt's nonce tells its processes apart.
    record = StartRecord(claim.nonce, draft.nonce, draft.host, draft.pid, draft.process_nonce, gang)
    yield ReadyKeeper()
    sent_at: float = yield Now()
    found = yield from create(path, record.to_bytes(), patience_s=claim.lease_s)
    standing = record if found is None else StartRecord.from_bytes(found, path)
    if standing.is_seal:
        return Left(f"attempt {claim.epoch} was closed before the job began")
    if standing.write_id != record.write_id:
        return None
    ended: bytes | None = yield from insist(Get(log.end(claim.epoch)), claim.lease_s)
    if ended is not None:
        return Left(f"attempt {claim.epoch} was ended while the job began")
    now: float = yield Now()
    if now >= sent_at + LEASE_FRACTION * claim.lease_s:
        return Left(f"the store took longer than the lease of attempt {claim.epoch} to let the job begin")
    return Claimed(claim, sent_at, draft.nonce)


def _may_go_on(log: AttemptLog, state: LogState, draft: ClaimRecord) -> Program[bool]:
    """Whether a job may claim after an epoch that has ended: only after a released or fenced one that it had begun."""
    if state.end is None or state.end.kind not in (EndKind.RELEASED, EndKind.FENCED) or state.is_cancelled:
        return False
    paths = (log.claim(state.epoch), log.start(state.epoch))
    claim_bytes, start_bytes = yield from insist(GetMany(paths), draft.lease_s)
    if claim_bytes is None or start_bytes is None:
        return False
    is_own = ClaimRecord.from_bytes(claim_bytes, paths[0]).job == draft.job
    return is_own and not StartRecord.from_bytes(start_bytes, paths[1]).is_seal


def submit_job(log: AttemptLog, claim: ClaimRecord) -> Program[bool]:
    """Submits the job that the caller has claimed for, once every job of an earlier epoch is gone.

    Returns:
        False if that could not be brought about while the claim was held: it has then been sealed and released.
    """
    claimed_at: float = yield Now()
    earlier = yield from _earlier_jobs(log, claim)
    for job in earlier:
        while True:
            word: EngineWord = yield Terminate(job)
            if word is EngineWord.GONE:
                break
            now: float = yield Now()
            lease: LeaseView = yield ReadLease(claim.nonce)
            if lease.lost is not None or now >= claimed_at + claim.lease_s:
                return (yield from _give_up(log, claim, f"job {job.name} of an earlier attempt could not be ended"))
            yield Pause(claim.lease_s / 24, claim.lease_s / 12)
    now = yield Now()
    lease = yield ReadLease(claim.nonce)
    if lease.lost is not None or now >= lease.sent_at + LEASE_FRACTION * claim.lease_s:
        return (yield from _give_up(log, claim, "the launcher lost its lease before it had submitted the job"))
    ended: bytes | None = yield from insist(Get(log.end(claim.epoch)), claim.lease_s)
    if ended is not None:
        return False
    yield Submit(claim)
    return True


def _earlier_jobs(log: AttemptLog, claim: ClaimRecord) -> Program[list[JobIdentity]]:
    paths = tuple(log.claim(epoch) for epoch in range(1, claim.epoch))
    contents: list[bytes | None] = yield from insist(GetMany(paths), claim.lease_s)
    jobs: dict[JobIdentity, None] = {}
    for path, content in zip(paths, contents, strict=True):
        if content is None:
            raise ControlFileError(explain(f"control file {path} is missing: control files are never deleted"))
        job = ClaimRecord.from_bytes(content, path).job
        if job is not None:
            jobs[job] = None
    return list(jobs)


def _give_up(log: AttemptLog, claim: ClaimRecord, why: str) -> Program[bool]:
    failure = StepFailure("JobNotSubmitted", why, FailurePhase.JOB)
    yield from end_unstarted(log, claim, EndKind.RELEASED, failure)
    return False


def end_unstarted(
    log: AttemptLog, claim: ClaimRecord, kind: EndKind, failure: StepFailure
) -> Program[EndRecord | None]:
    """Ends the caller's own claim for a job that has not started.

    Returns:
        The end that stands; None if an attempt of the job has begun: the epoch is its own.
    """
    is_closed = yield from close_to_job(log, claim.epoch, claim)
    if not is_closed:
        return None
    end = EndRecord(claim.epoch, kind, claim.nonce, claim.claimed_at, error=failure)
    return (yield from end_attempt(log, end, patience_s=claim.lease_s))


class JobView(StrEnum):
    """What a launcher sees of a job that it submitted."""

    RUNS = "runs"
    """Or is pending, or will be restarted, or may not be given up yet."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """The epoch says so."""
    GAVE_UP = "gave up"
    """The job is gone without a verdict: a failed attempt of its launcher."""
    SUPERSEDED = "superseded"
    """Another launcher's attempt has followed."""


@final
@dataclass(frozen=True, slots=True)
class JobWatch:
    """One look at a job that was submitted."""

    view: JobView
    state: LogState
    seen: Sighting | None = None
    """To be given to the next look."""


def watch_job(
    log: AttemptLog, claim: ClaimRecord, seen: Sighting | None = None, *, will_retry: bool = False
) -> Program[JobWatch]:
    """Looks once at the job that the caller claimed for and submitted, and ends what can be ended.

    The job may have gone on to later epochs by itself.

    Args:
        log: Of the output.
        claim: That the job was submitted for.
        seen: What the last look saw.
        will_retry: Whether a job that died before it began is followed by another: then that is nobody's failure yet.
    """
    job = claim.job
    assert job is not None
    while True:
        state = yield from read_state(log, patience_s=claim.lease_s)
        if state.is_finished:
            return JobWatch(JobView.SUCCEEDED, state)
        if state.has_failed:
            return JobWatch(JobView.FAILED, state)
        if state.end is not None:
            return (yield from _after_release(log, claim, state))
        current = state.claim
        if current is None:
            raise StorageError(explain(f"the log of {log.output_path} vanished"))
        if current.job != job:
            return JobWatch(JobView.SUPERSEDED, state)
        start: bytes | None = yield from insist(Get(log.start(current.epoch)), claim.lease_s)
        if start is None and current.nonce == claim.nonce:
            if state.is_cancelled:
                yield from _end_cancelled(log, claim)
                continue
            word: EngineWord = yield AskEngine(job)
            if word is not EngineWord.GONE:
                return JobWatch(JobView.RUNS, state)
            failure = StepFailure("JobDied", f"job {job.name} ended before it began its step", FailurePhase.JOB)
            kind = EndKind.RELEASED if will_retry else EndKind.FAILED
            yield from end_unstarted(log, claim, kind, failure)
            continue
        seen = yield from observe(log, current, claim, seen)
        if not seen.is_gone:
            return JobWatch(JobView.RUNS, state, seen)
        yield from seal(log, current.epoch, claim, seen=seen)


def _end_cancelled(log: AttemptLog, claim: ClaimRecord) -> Program[None]:
    path = log.cancel(claim.epoch)
    content: bytes | None = yield from insist(Get(path), claim.lease_s)
    if content is None:
        raise ControlFileError(explain(f"control file {path} vanished while it was read"))
    yield from end_unstarted(log, claim, EndKind.FAILED, cancelled_failure(CancelRecord.from_bytes(content, path)))


def _after_release(log: AttemptLog, claim: ClaimRecord, state: LogState) -> Program[JobWatch]:
    job = claim.job
    assert job is not None
    path = log.claim(state.epoch)
    content: bytes | None = yield from insist(Get(path), claim.lease_s)
    if content is None or ClaimRecord.from_bytes(content, path).job != job:
        return JobWatch(JobView.SUPERSEDED, state)
    # A job that will be restarted, or retries, goes on from here by itself.
    word: EngineWord = yield AskEngine(job)
    return JobWatch(JobView.RUNS if word is EngineWord.ALIVE else JobView.GAVE_UP, state)
