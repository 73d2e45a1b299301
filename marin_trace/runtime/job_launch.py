"""A step that runs as a job, as its launcher sees it: claimed for the job, submitted, and watched to its end.

The rules are `marin_trace.runtime.job_protocol`'s; here they meet an engine. A launch that waits holds no thread
(`marin_trace.runtime.turns`). From the moment that the job has begun the step is the
job's: what it wrote in the log is the outcome, and the engine's word only says when to look.
"""

import functools
import hashlib
import json
import logging
import random
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar, final

from marin_trace.errors import (
    JobFailedError,
    RunError,
    StepAlreadyDone,
    StepHeldElsewhere,
    StorageError,
    StoreUnavailableError,
    WorkerError,
    explain,
)
from marin_trace.runtime.attempt import ClaimMemory, attempt_of, draft_claim, failure_of
from marin_trace.runtime.capture import existing_log
from marin_trace.runtime.clock import boottime
from marin_trace.runtime.driver import Driver, driver_for
from marin_trace.runtime.executable import AttemptObserver, JobTicket
from marin_trace.runtime.job_protocol import JobView, end_unstarted, submit_job, watch_job
from marin_trace.runtime.keeper import HeldLease, forget_claim, hold_claim, ready_keeper
from marin_trace.runtime.liveness import claiming, leave_claim_open, living_attempt
from marin_trace.runtime.log_records import (
    AttemptLog,
    CancelRecord,
    ClaimRecord,
    EndKind,
    FailurePhase,
    JobIdentity,
)
from marin_trace.runtime.operations import AskEngine, EngineWord, ReadLease, ReadyKeeper, Submit, Terminate
from marin_trace.runtime.options import AttemptOptions
from marin_trace.runtime.protocol import Claimed, EngineSilent, Held, LogState, claim_epoch, read_state, request_cancel
from marin_trace.runtime.turns import Talk, shared_turns
from marin_trace.workers.client import JobClient, JobHandle, JobStatus, job_name

__all__ = ["ClaimedStep", "JobFuture", "JobLaunch", "JobPlace"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_Resting = Generator[float, None, T]
"""Does its work when it is asked to go on, and yields for how many seconds there is nothing to do."""

_FIRST_LOOK_S: Final = 0.05
"""Before the second look at a job; doubled up to a twelfth of the lease."""
_EXIT_S: Final = 5.0
"""How long a job whose step has ended may take to exit by itself."""


class ClaimedStep(Protocol):
    """A step whose lock runs inside the job."""

    def attempt(self, output_path: str, ticket: JobTicket | None = None) -> Any:
        """Makes an attempt, in the job with a ticket. See `LockedCallable.attempt`."""
        ...


@final
@dataclass(frozen=True, slots=True)
class JobPlace:
    """Where a step's jobs run, and as what."""

    name: str
    """That people know the step by."""
    client: JobClient
    submit: Callable[[str, Callable[[], Any]], JobHandle]
    """Submits a job there: its name, and what it calls."""
    timeout: float | None = None
    """Seconds from a job's beginning after which its launch ends it; None: its engine does, or nobody."""


@final
class JobFuture(Future[None]):
    """The outcome of a launch. Cancelling it never blocks; it is the launch's end that settles it."""

    def __init__(self, launch: "JobLaunch") -> None:
        """Begins the launch."""
        super().__init__()
        self._launch = launch
        self._is_stopped = False
        self.set_running_or_notify_cancel()
        launch.begin(self._settle)

    def _settle(self, error: BaseException | None) -> None:
        if error is None or isinstance(error, StepAlreadyDone):
            self.set_result(None)
        else:
            self.set_exception(error)

    def cancel(self) -> bool:
        """Ends a job of this machine, and leaves one on a cluster to itself. Called again, it ends that one too."""
        # On a thread of its own: several jobs are given their grace side by side.
        stop = self._launch.terminate if self._is_stopped else self._launch.stop
        self._is_stopped = True
        threading.Thread(target=stop, name="marin-trace-stops-a-job").start()
        return False


@final
class JobLaunch:
    """One step's way through an engine, with its retries. `begin` is called once."""

    def __init__(
        self,
        step: ClaimedStep,
        output_path: str,
        options: AttemptOptions,
        place: JobPlace,
        *,
        memory: ClaimMemory,
        observer: AttemptObserver | None = None,
    ) -> None:
        """Prepares a launch.

        Args:
            step: What the job calls.
            output_path: Where it writes.
            options: Of its attempts.
            place: Where they are made.
            memory: Of earlier looks at this output.
            observer: Learns which epoch was the last.
        """
        self._step = step
        self._output_path = output_path
        self._options = options
        self._place = place
        self._client = place.client
        self._memory = memory
        self._observer = observer
        self._log = AttemptLog(output_path)
        self._driver = driver_for(output_path).answering(
            {
                ReadyKeeper: lambda operation: ready_keeper(output_path),
                AskEngine: lambda operation: self._ask(operation.job),
                Terminate: lambda operation: self._terminate(operation.job),
                Submit: lambda operation: self._submit(operation.claim),
            }
        )
        self._job: JobIdentity | None = None
        self._claimed: Claimed | None = None
        self._retries = options.retries
        self._handle: JobHandle | None = None
        self._deadline = float("inf")
        self._is_late = self._has_begun = self._has_ended = self._is_stopping = False
        self._talk: Talk | None = None

    def begin(self, settle: Callable[[BaseException | None], None]) -> None:
        """Begins to bring the step to its end, however often that takes; returns at once.

        Args:
            settle: Called once at the end, on any thread: None if a job has succeeded, else one of

                - StepAlreadyDone: The output is finished.
                - StepHeldElsewhere: Another attempt holds it, or the job was left to itself.
                - PreviousTaskFailedError: It failed before, or while this launcher waited for it.
                - JobFailedError: The job ended without having succeeded; what its step raised comes as it is.
        """
        self._talk = shared_turns().begin(self._run(), settle)

    def _run(self) -> _Resting[None]:
        while (error := (yield from self._launch_once())) is not None:
            if self._retries == 0 or self._is_stopping:
                raise error
            logger.warning(f"{self._output_path}: its job failed, {self._retries} retries left: {error}")
            self._retries -= 1

    def _hear_of_end(self) -> None:
        self._has_ended = True
        self._rouse()

    def _rouse(self) -> None:
        if self._talk is not None:
            self._talk.rouse()

    def stop(self) -> None:
        """Ends a job of this machine, its claim included; one on a cluster is left running. Blocks for its grace."""
        self._is_stopping = True
        self._rouse()
        handle, claimed = self._handle, self._claimed
        if self._client.is_local:
            if claimed is not None:
                self._give_back(claimed.claim, RunError("the run was interrupted"))
            if handle is not None:
                handle.terminate()
        elif handle is not None:
            logger.warning(
                f"{self._output_path}: job {handle.job_id} is left running on {self._client.name}; a re-run waits for "
                f"it, and `marin-trace cancel {self._output_path}` ends it"
            )

    def terminate(self) -> None:
        """Ends the job, wherever it runs. Blocks until the engine has done so."""
        if self._handle is not None:
            logger.warning(f"{self._output_path}: job {self._handle.job_id} is ended")
            self._handle.terminate()

    def _launch_once(self) -> _Resting[Exception | None]:
        """One claim and one job. What it failed of, if it did."""
        options = self._options
        options.check_links(self._output_path)
        self._handle = self._claimed = None
        self._is_late = False
        self._job = JobIdentity(job_name(self._place.name), self._client.name, _digest(options))
        draft = draft_claim(
            lease_s=options.lease_seconds, run_id=options.run_id, rerun_of=options.rerun_of, job=self._job
        )
        with living_attempt(draft.nonce):
            claimed = self._claimed = yield from self._claim(draft)
            lease = hold_claim(self._output_path, claimed, awaits_start=True)
            driver = self._driver.answering({ReadLease: lambda operation: lease.view()})
            try:
                handle = yield from self._submitted(driver, claimed.claim)
                view, state = yield from self._watched(driver, claimed.claim, handle, lease)
            finally:
                forget_claim(lease)
            if view is JobView.SUCCEEDED and not self._is_own(state.epoch, claimed.claim):
                self._observe(None)
        return (yield from self._outcome(view, state, handle))

    def _is_own(self, epoch: int, claim: ClaimRecord) -> bool:
        """Whether an epoch was claimed by this launch or its job: else what it made is a hit for this launcher."""
        if epoch == claim.epoch:
            return True
        path = self._log.claim(epoch)
        content = self._driver.store.get(path)
        return content is not None and ClaimRecord.from_bytes(content, path).job == claim.job

    def _claim(self, draft: ClaimRecord) -> _Resting[Claimed]:
        policy = self._memory.policy(self._output_path, self._options)
        until, pause = boottime() + draft.lease_s, _FIRST_LOOK_S
        while True:
            seen = self._memory.seen.get(self._output_path)
            with claiming():
                outcome = yield from self._driver.resting(claim_epoch(self._log, draft, policy, seen))
            if not isinstance(outcome, EngineSilent) or boottime() >= until or self._is_stopping:
                break
            yield random.uniform(0.0, pause)
            pause = min(2 * pause, draft.lease_s / 12)
        if isinstance(outcome, Held):
            self._memory.remember(self._output_path, outcome)
        claimed = attempt_of(self._driver, self._log, outcome).claimed
        self._observe(claimed.claim.epoch)
        return claimed

    def _observe(self, epoch: int | None) -> None:
        if self._observer is not None:
            self._observer.epoch = epoch

    # What the protocol asks of the engine.

    def _ask(self, job: JobIdentity) -> EngineWord:
        handle, word = self._found(job)
        if handle is None:
            return word
        return EngineWord.GONE if handle.status().is_over else EngineWord.ALIVE

    def _terminate(self, job: JobIdentity) -> EngineWord:
        if job.is_below_launcher:
            # Its lease has ended it: no engine starts it again, and there is nobody to ask but its own launcher.
            return EngineWord.GONE
        handle, word = self._found(job)
        if handle is None:
            return word
        handle.terminate()
        return EngineWord.GONE if handle.status().is_over else EngineWord.ALIVE

    def _found(self, job: JobIdentity) -> tuple[JobHandle | None, EngineWord]:
        """The live job of this name; without one, what that means."""
        if job.cluster != self._client.name:
            return None, EngineWord.UNKNOWN
        if job == self._job and self._handle is not None:
            return self._handle, EngineWord.ALIVE
        try:
            handle = self._client.find(job.name)
        except WorkerError as error:
            logger.warning(f"{self._client.name} does not answer about job {job.name}: {error}")
            return None, EngineWord.UNKNOWN
        # Of another launcher's local job this client knows nothing.
        is_known = job == self._job or not job.is_below_launcher
        return handle, EngineWord.GONE if is_known else EngineWord.UNKNOWN

    def _submit(self, claim: ClaimRecord) -> None:
        if self._is_stopping:
            raise RunError("the run was interrupted before the job was submitted")
        assert claim.job is not None
        call = functools.partial(self._step.attempt, self._output_path, JobTicket(claim.job, self._retries))
        self._handle = self._place.submit(claim.job.name, call)
        self._has_begun = False
        # It counts from when the job has begun; one that does not is given a lease longer for that.
        self._deadline = self._deadline_after(claim.lease_s)
        if self._is_stopping and self._client.is_local:
            self._handle.terminate()

    def _deadline_after(self, seconds: float) -> float:
        return float("inf") if self._place.timeout is None else boottime() + seconds + self._place.timeout

    def _submitted(self, driver: Driver, claim: ClaimRecord) -> _Resting[JobHandle]:
        try:
            is_submitted = yield from driver.resting(submit_job(self._log, claim))
        except BaseException as error:
            self._give_back(claim, error)
            raise
        if is_submitted:
            assert self._handle is not None
            return self._handle
        end = driver.run(read_state(self._log)).end
        if end is not None and end.nonce == claim.nonce and end.error is not None:
            raise WorkerError(explain(f"{self._output_path}: {end.error.message}"))
        raise StepHeldElsewhere(explain(f"{self._output_path}: somebody else has ended the claim for its job"))

    def _give_back(self, claim: ClaimRecord, error: BaseException) -> None:
        """Ends a claim whose job has not begun, without a verdict."""
        failure = failure_of(error, FailurePhase.JOB)
        try:
            self._driver.run(end_unstarted(self._log, claim, EndKind.RELEASED, failure))
        except StorageError as second:
            leave_claim_open()
            logger.error(f"{self._output_path}: attempt {claim.epoch} could not be released: {second}")  # noqa: TRY400

    # Watching it.

    def _watched(
        self, driver: Driver, claim: ClaimRecord, handle: JobHandle, lease: HeldLease
    ) -> _Resting[tuple[JobView, LogState]]:
        handle.when_over(self._hear_of_end)
        seen, pause = None, _FIRST_LOOK_S
        while True:
            while _waits_for_room(handle, lease) and not self._is_stopping:
                yield random.uniform(pause / 2, pause)
                pause = min(2 * pause, max(_FIRST_LOOK_S, claim.lease_s / 12))
            will_retry = self._retries > 0 and not self._is_stopping
            try:
                watch = yield from driver.resting(watch_job(self._log, claim, seen, will_retry=will_retry))
            except StoreUnavailableError as error:
                if handle.status().is_over:
                    raise
                logger.warning(f"{self._output_path}: cannot look at job {handle.job_id}: {error}")
            else:
                seen = watch.seen
                self._observe(watch.state.epoch)
                if seen is not None and not self._has_begun:
                    self._has_begun, self._deadline = True, self._deadline_after(0.0)
                if watch.view is not JobView.RUNS:
                    return watch.view, watch.state
            if self._is_stopping and not self._client.is_local:
                raise StepHeldElsewhere(explain(f"job {handle.job_id} is left running"))
            left = self._deadline - boottime()
            yield min(random.uniform(pause / 2, pause), left if left > 0 else pause)
            # After the job's end its keeper has the last word, in a moment.
            pause = _FIRST_LOOK_S if self._has_ended else min(2 * pause, max(_FIRST_LOOK_S, claim.lease_s / 12))
            self._has_ended = False
            if boottime() >= self._deadline and not handle.status().is_over:
                self._end_late(driver, claim, handle)

    def _end_late(self, driver: Driver, claim: ClaimRecord, handle: JobHandle) -> None:
        """Ends a job that is out of time. Its last attempt has failed; an earlier one is released."""
        self._is_late = True
        if self._retries == 0:
            request = CancelRecord("the step's timeout", f"it took longer than {self._place.timeout:g} s")
            epoch = driver.run(read_state(self._log)).epoch
            driver.run(request_cancel(self._log, max(epoch, claim.epoch), request))
        handle.terminate()

    def _outcome(self, view: JobView, state: LogState, handle: JobHandle) -> _Resting[Exception | None]:
        """What the job's end means; None: success."""
        if view is JobView.SUPERSEDED:
            handle.terminate()
            self._observe(None)
            raise StepHeldElsewhere(explain(f"another attempt at {self._output_path} has followed"))
        # It has written its verdict, and is about to exit. An engine may take long to notice that.
        is_awaited = self._client.is_local or view is not JobView.SUCCEEDED
        until = boottime() + _EXIT_S
        while is_awaited and not handle.status().is_over:
            if boottime() >= until:
                handle.terminate()
                break
            yield _FIRST_LOOK_S
        error = None if view is JobView.SUCCEEDED else self._error(view, state, handle)
        if error is None or existing_log(self._output_path, state.epoch) is not None:
            handle.forget()
        if view is JobView.FAILED and error is not None:
            # The job has used up the retries, or somebody has asked for its end.
            raise error
        return error

    def _error(self, view: JobView, state: LogState, handle: JobHandle) -> Exception:
        if self._is_late:
            return JobFailedError(
                explain(
                    f"{self._place.name} took longer than its timeout of {self._place.timeout:g} s",
                    facts=[f"log: {log}"] if (log := existing_log(self._output_path, state.epoch)) else (),
                )
            )
        failure = state.failure
        if failure is not None and failure.phase is FailurePhase.CANCEL:
            return JobFailedError(explain(f"{self._place.name} was {failure.message}"))
        error = handle.exception()
        if isinstance(error, Exception) and not isinstance(error, StepHeldElsewhere | StepAlreadyDone):
            return error
        why = failure.headline if failure is not None else f"job {handle.job_id} has ended without a verdict"
        return JobFailedError(explain(f"{self._place.name} {view}: {why}", facts=handle.logs().splitlines()[-20:]))


def _waits_for_room(handle: JobHandle, lease: HeldLease) -> bool:
    """Whether a look at the log would show nothing: the job has not begun, and the keeper looks with each heartbeat.

    Of a thousand jobs that wait, looks of their launcher's own would be three in four requests.
    """
    return not lease.is_handed_over and lease.lost is None and handle.status() is JobStatus.PENDING


def _digest(options: AttemptOptions) -> str:
    """Of what the job computes: the fingerprint and the sources of its functions, not of bytes that carry them."""
    identity = [options.record.get("fingerprint"), options.record.get("sources")]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()
