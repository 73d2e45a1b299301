"""`distributed_lock`: a function of an output path, run by one launcher at a time and at most once to success.

It knows the attempt log and nothing of caches, artifacts or steps. The commit happens while the claim is held: what
is to be saved is given to it through `LockedCallable.finishing`.
"""

import contextlib
import logging
import random
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from typing import Final, Generic, TypeVar, cast, final

from marin_trace.errors import (
    ArtifactError,
    LeaseLostError,
    PreviousTaskFailedError,
    RunError,
    StepAlreadyDone,
    StepHeldElsewhere,
    explain,
)
from marin_trace.io import lease_check, own_process_log, running_body
from marin_trace.runtime.attempt import (
    Attempt,
    ClaimMemory,
    attempt_of,
    check_inputs_unchanged,
    draft_claim,
    empty_output,
    failure_of,
)
from marin_trace.runtime.capture import captured, routed_output
from marin_trace.runtime.driver import Driver, driver_for
from marin_trace.runtime.executable import JobTicket, attempt_observer
from marin_trace.runtime.inputs import epochs_of_inputs
from marin_trace.runtime.interrupts import is_ending
from marin_trace.runtime.job_protocol import JobEntry, Left, enter_job
from marin_trace.runtime.keeper import HeldLease, forget_claim, hold_claim, ready_keeper, wait_for_an_end
from marin_trace.runtime.liveness import claiming, living_attempt
from marin_trace.runtime.log_records import AttemptLog, ClaimRecord, FailurePhase
from marin_trace.runtime.manifest import data_files, write_manifest
from marin_trace.runtime.operations import FinishingAct, ReadLease, ReadyKeeper
from marin_trace.runtime.options import AttemptOptions
from marin_trace.runtime.protocol import HEARTBEAT_FRACTION, ClaimPolicy, Held, Sighting, claim_epoch
from marin_trace.runtime.records import write_step_info
from marin_trace.storage.store_probe import check_store
from marin_trace.workers.gang import GangSeat, gang_seat
from marin_trace.workers.outcome import OutOfTime

__all__ = ["LockedCallable", "PreviousTaskFailedError", "StepAlreadyDone", "StepHeldElsewhere", "distributed_lock"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_WAIT_S: Final = 0.05
"""Between the first two looks at a step that another launcher holds; doubled up to a twelfth of the lease."""


def distributed_lock(fn: Callable[[str], T], *, force_run_failed: bool = True) -> "LockedCallable[T]":
    """Runs ``fn(output_path)`` under a claim.

    Args:
        fn: Writes below the path that it is given; may be run again after a failure, and finds what it left.
        force_run_failed: Run again what failed before.

    Returns:
        A callable of the output path. It raises `StepAlreadyDone` if the output is finished, and
        `PreviousTaskFailedError` if it failed and may not be run again; it waits for a live holder.

    Example:
        >>> import tempfile
        >>> locked = distributed_lock(lambda path: f"built {path.rpartition('/')[2]}")
        >>> output = f"{tempfile.mkdtemp()}/corpus"
        >>> locked(output)
        'built corpus'
        >>> locked(output)  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        StepAlreadyDone: corpus is finished already (attempt 1)
    """
    return LockedCallable(fn, AttemptOptions(force_run_failed=force_run_failed))


@final
@dataclass(frozen=True, slots=True, eq=False)
class LockedCallable(Generic[T]):
    """What `distributed_lock` returns. Thread-safe; pickles if ``fn`` and ``save`` do."""

    fn: Callable[[str], T]
    """The function, unlocked."""
    options: AttemptOptions = field(default_factory=AttemptOptions)
    """How each attempt is made."""
    save: Callable[[T, str], None] | None = None
    """Saves what ``fn`` returned, inside the claim and before the commit."""
    sleep: Callable[[float], object] = wait_for_an_end
    """Between two looks at an output that another attempt holds; by default an attempt's end in this process wakes."""
    _memory: ClaimMemory = field(default_factory=ClaimMemory, repr=False, compare=False)

    @property
    def __wrapped__(self) -> Callable[[str], T]:
        """The function, unlocked."""
        return self.fn

    @property
    def runs_elsewhere(self) -> bool:
        """See `Executable`: a thread of this process."""
        return False

    def finishing(self, save: Callable[[T, str], None] | None) -> "LockedCallable[T]":
        """The same, with what is to be done between the function's return and the commit."""
        return replace(self, save=save)

    def with_options(self, options: AttemptOptions) -> "LockedCallable[T]":
        """The same, with other options for its attempts."""
        return replace(self, options=options)

    def start(self, output_path: str, pool: Executor) -> Future[T]:
        """Starts one attempt on the pool; see `Executable`."""
        return pool.submit(self.attempt, output_path)

    def __call__(self, output_path: str) -> T:
        """Runs it, waiting with jitter while another attempt holds the output."""
        for pause in self._pauses():
            try:
                return self.attempt(output_path)
            except StepHeldElsewhere as held:
                if pause == _FIRST_WAIT_S:
                    logger.info(f"waiting: {held}")
            self.sleep(random.uniform(pause / 2, pause))
        raise AssertionError("pauses never end")

    def _pauses(self) -> Iterator[float]:
        pause = _FIRST_WAIT_S
        while True:
            yield pause
            pause = min(2 * pause, max(_FIRST_WAIT_S, self.options.lease_seconds / 12))

    def attempt(self, output_path: str, ticket: JobTicket | None = None) -> T:
        """Runs it, or raises at once.

        Args:
            output_path: Where it writes.
            ticket: Of the job that this process is: it begins what was claimed for it, waiting where an earlier process
                of the same job may run still. A job that has nothing to do here raises `StepHeldElsewhere`. In a
                process of a gang that is not its first, the body runs beside the first one's, and None is returned.

        Raises:
            StepAlreadyDone: The output is finished.
            PreviousTaskFailedError: It failed before, or while this caller waited for it.
            StepHeldElsewhere: Another attempt holds it.
            LeaseLostError: The claim was lost; nothing was committed.
        """
        seat = None if ticket is None else gang_seat()
        is_shown_elsewhere = ticket is not None and own_process_log.get() is None
        # The process of a cluster's job is nobody's run: what it prints is kept beside the output by this alone.
        with routed_output() if is_shown_elsewhere else contextlib.nullcontext():
            if ticket is None or seat is None or seat.rank == 0:
                return self._attempt(output_path, ticket, seat)
            from marin_trace.runtime.gang_attempt import run_member  # most jobs are one process

            run_member(self.fn, output_path, ticket, seat, lease_seconds=self.options.lease_seconds)
            # What the step returns, its first process saves.
            return cast("T", None)

    def _attempt(self, output_path: str, ticket: JobTicket | None, seat: GangSeat | None) -> T:
        driver = driver_for(output_path).answering({ReadyKeeper: lambda operation: ready_keeper(output_path)})
        log = AttemptLog(output_path)
        options = self.options
        options.check_links(output_path)
        check_store(log.directory)
        for retries_left in range(options.retries if ticket is None else ticket.retries, -1, -1):
            draft = draft_claim(
                lease_s=options.lease_seconds,
                run_id=options.run_id,
                rerun_of=options.rerun_of,
                job=None if ticket is None else ticket.job,
            )
            with living_attempt(draft.nonce):
                attempt, lease = self._claim(driver, log, draft, seat)
                phase, is_left = _Phase(), False
                try:
                    return self._run(attempt, lease, phase, seat)
                except LeaseLostError as error:
                    attempt.release(failure_of(error, phase.now))
                    raise
                except Exception as error:
                    retried = retries_left > 0 and not isinstance(error, ArtifactError)
                    failure = failure_of(error, phase.now)
                    if not attempt.end_as_failed(failure, retried=retried, record=options.record) or seat is not None:
                        # A gang begins again as a whole: its launcher submits another.
                        raise
                    logger.warning(
                        f"{output_path}: attempt {attempt.epoch} failed, {retries_left} retries left: {error!r}"
                    )
                except OutOfTime as error:
                    # Whether it is tried again is for the job's launcher to bring about: this process has no more time.
                    attempt.end_as_failed(failure_of(error, phase.now), retried=retries_left > 0, record=options.record)
                    raise
                except BaseException as error:
                    has_ended = attempt.release(failure_of(error, phase.now))
                    # What a silent store keeps open here, the keeper ends after this process.
                    is_left = is_ending() and not has_ended
                    raise
                finally:
                    if not is_left:
                        forget_claim(lease)
        raise AssertionError("the last attempt returns or raises")

    def _claim(
        self, driver: Driver, log: AttemptLog, draft: ClaimRecord, seat: GangSeat | None
    ) -> tuple[Attempt, HeldLease]:
        policy = self._memory.policy(log.output_path, self.options)
        with claiming():
            if draft.job is None:
                outcome = driver.run(claim_epoch(log, draft, policy, self._memory.seen.get(log.output_path)))
            else:
                outcome = self._enter(driver, log, draft, policy, None if seat is None else seat.attempt or "")
        if isinstance(outcome, Left):
            raise StepHeldElsewhere(explain(f"this job has nothing to do at {log.output_path}: {outcome.why}"))
        if isinstance(outcome, Held):
            self._memory.remember(log.output_path, outcome)
        attempt = attempt_of(driver, log, outcome)
        observer = attempt_observer.get()
        if observer is not None:
            observer.epoch = attempt.epoch
        logger.debug(f"{log.output_path}: attempt {attempt.epoch} begins")
        lease = hold_claim(log.output_path, attempt.claimed)
        leased = driver.answering({ReadLease: lambda operation: lease.view()})
        return replace(attempt, driver=leased), lease

    def _enter(
        self, driver: Driver, log: AttemptLog, draft: ClaimRecord, policy: ClaimPolicy, gang: str | None
    ) -> JobEntry:
        """What this process of a job may do, once no earlier one of it can run any more."""
        seen: Sighting | None = None
        for pause in self._pauses():
            entry = driver.run(enter_job(log, draft, policy, seen, gang=gang))
            if not isinstance(entry, Held):
                return entry
            seen = entry.seen
            self.sleep(random.uniform(pause / 2, pause))
        raise AssertionError("pauses never end")

    def _run(self, attempt: Attempt, lease: HeldLease, phase: "_Phase", seat: GangSeat | None) -> T:
        """The body, the save and the commit, in this order. The caller ends the epoch if any of them raises."""
        output_path, options = attempt.log.output_path, self.options
        if options.fresh:
            empty_output(output_path)
        before = data_files(output_path)
        if options.info is not None:
            write_step_info(output_path, options.info, provenance=options.provenance, epoch=attempt.epoch)
        inputs = epochs_of_inputs(output_path, options.inputs)
        checks_lease = lease_check.set(attempt.lease_check())
        try:
            with contextlib.ExitStack() as captures, contextlib.ExitStack() as interruptible:
                patience_s = attempt.claim.lease_s * HEARTBEAT_FRACTION
                captures.enter_context(captured(attempt.log, attempt.epoch, patience_s=patience_s))
                interruptible.enter_context(lease.interruptible())
                with contextlib.nullcontext() if seat is None else _leading(attempt, seat):
                    value = self._body(output_path)

                def save() -> None:
                    self._save(value, output_path, phase)
                    captures.close()

                def manifest() -> str:
                    digest = write_manifest(attempt.driver, attempt.log, attempt.epoch, before)
                    # From here on the register alone decides: an interrupted commit would not know what it did.
                    interruptible.close()
                    return digest

                acts = {
                    FinishingAct.SAVE: save,
                    FinishingAct.LOOK_AT_INPUTS: lambda: self._look_at_inputs(output_path, inputs, phase),
                    FinishingAct.WRITE_MANIFEST: manifest,
                }
                attempt.finish(acts, record=options.record, inputs=inputs)
        finally:
            lease_check.reset(checks_lease)
        return value

    def _save(self, value: T, output_path: str, phase: "_Phase") -> None:
        phase.now = FailurePhase.SAVE
        if self.save is not None:
            self.save(value, output_path)

    def _look_at_inputs(self, output_path: str, inputs: dict[str, int], phase: "_Phase") -> None:
        phase.now = FailurePhase.COMMIT
        check_inputs_unchanged(output_path, inputs)

    def _body(self, output_path: str) -> T:
        is_running = running_body.set(True)
        try:
            return self.fn(output_path)
        except (StepAlreadyDone, StepHeldElsewhere) as error:
            # Of another output, whose lock the body used: to the caller it would mean this one.
            raise RunError(explain(f"the body of {output_path} raised {type(error).__name__}: {error}")) from error
        except SystemExit as error:
            raise RunError(explain(f"the body of {output_path} called sys.exit({error.code!r})")) from error
        finally:
            running_body.reset(is_running)


def _leading(attempt: Attempt, seat: GangSeat) -> contextlib.AbstractContextManager[None]:
    from marin_trace.runtime.gang_attempt import GangLead

    return GangLead(attempt, seat).leading()


@final
@dataclass(slots=True)
class _Phase:
    """What an attempt is doing."""

    now: FailurePhase = FailurePhase.BODY
