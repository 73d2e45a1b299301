"""`StepRunner`: runs steps in the order of their dependencies, side by side, to one report or one error.

Event-driven: one thread waits on one queue for whatever ends next; nothing is polled. The runner only invokes
executables; what caches, locks or runs elsewhere was composed before. Decisions are `run_plan`'s and `schedule`'s.
"""

import heapq
import itertools
import logging
import math
import random
import time
import traceback
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from queue import Empty, SimpleQueue
from typing import Any, Final, final

from marin_trace.errors import (
    ConfigError,
    MarinTraceError,
    RunError,
    RunFailedError,
    StepHeldElsewhere,
    StorageError,
    explain,
)
from marin_trace.runtime.attempt import utc_now
from marin_trace.runtime.capture import existing_log, routed_output
from marin_trace.runtime.executable import AttemptObserver, Executable, observing
from marin_trace.runtime.keeper import dismiss_keeper, hearing_of_ends, prepare_keeper
from marin_trace.runtime.log_records import AttemptLog
from marin_trace.runtime.options import RunOptions
from marin_trace.runtime.pool import BodyPool, InlinePool, ThreadPool
from marin_trace.runtime.protocol import TOKEN_DEP_FAILED
from marin_trace.runtime.provenance import current_provenance
from marin_trace.runtime.records import new_run_id
from marin_trace.runtime.report import OutcomeKind, ResolvedStep, RunReport, StepOutcome
from marin_trace.runtime.run_plan import RunnableStep, RunPlan, plan_run
from marin_trace.runtime.run_record import RunRecordWriter
from marin_trace.runtime.schedule import Schedule
from marin_trace.runtime.status import StatusKind
from marin_trace.safe_text import printable, redact_text
from marin_trace.storage.control_store import hurried_stores, is_object_store, patient_store_for
from marin_trace.storage.links import refuse_links_out_of
from marin_trace.storage.store_probe import check_store
from marin_trace.workers.machine import usable_cores

__all__ = ["EventKind", "RunEvent", "StepRunner"]

logger = logging.getLogger(__name__)

_LOCAL: Final = "local"
_ELSEWHERE: Final = "elsewhere"
_KILL_S: Final = 15.0
"""How much longer processes are waited for, which are killed when they do not stop by themselves."""
_SECOND_INTERRUPT_S: Final = 10.0
"""How long an interrupted run with jobs on a cluster stays for a second interrupt, which ends them."""
_TOKEN_PATIENCE_S: Final = 2.0
"""For the token of a skipped step, of which there may be hundreds, one after the other."""
_FIRST_WAIT_S: Final = 0.05
"""Before the second look at a step that another launcher holds; doubled up to a twelfth of the lease."""


class EventKind(StrEnum):
    """What happened to a step."""

    STARTED = "started"
    HELD = "held"
    """Another launcher runs it; told once."""
    ENDED = "ended"


@final
@dataclass(frozen=True, slots=True)
class RunEvent:
    """Something happened to a step; told on the runner's thread."""

    kind: EventKind
    step: RunnableStep
    outcome: StepOutcome | None = None
    """Of an ENDED step."""
    message: str | None = None
    """Of a HELD step: who holds it."""


@final
class StepRunner:
    """Runs steps. One call of `run` at a time."""

    def __init__(
        self,
        *,
        options: RunOptions | None = None,
        plan: RunPlan | None = None,
        on_event: Callable[[RunEvent], None] | None = None,
        resolve: Callable[[Any], ResolvedStep] | None = None,
        clock: Callable[[], float] = time.monotonic,
        stop_grace_s: float = 5.0,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Prepares a runner.

        Args:
            options: Of the run.
            plan: What `plan_run` gave for the steps that `run` will be given, where the caller has asked it already.
            on_event: Told of each step's start and end.
            resolve: What the caller's name for a step stands for, for the report.
            clock: Monotonic seconds, for timings.
            stop_grace_s: How long bodies are waited for after Ctrl-C.
            sleep: Waits for a second Ctrl-C, which ends the jobs on a cluster.
        """
        self._options = options or RunOptions()
        self._plan = plan
        self._on_event = on_event
        self._resolve = resolve
        self._clock = clock
        self._stop_grace_s = stop_grace_s
        self._sleep = sleep

    def run(
        self,
        steps: Iterable[RunnableStep],
        *,
        dry_run: bool = False,
        force_run_failed: bool = True,
        max_concurrent: int | None = None,
    ) -> RunReport:
        """Brings the steps to finished: runs what is not, dependencies first.

        Args:
            steps: In any order; what they depend on is found from them.
            dry_run: Decide and report, and write nothing.
            force_run_failed: Run again what failed before.
            max_concurrent: Bound on this machine's work, in cpus declared or steps (default: the larger of 4 and the
                number of cores). At 1 bodies run in the calling thread.

        Returns:
            What became of each step, dependencies first.

        Raises:
            RunFailedError: Steps failed: it holds what each of them raised. All that did not depend on them has run.
            MarinTraceError: The steps contradict each other or what lies in the store; nothing was started.
            KeyboardInterrupt: The run was interrupted; its claims are released.
        """
        options = replace(
            self._options,
            force_run_failed=self._options.force_run_failed and force_run_failed,
            run_id=self._options.run_id or new_run_id(),
        )
        plan = plan_run(steps, options) if self._plan is None else self._plan
        options = replace(options, adopted=plan.adopted)
        if dry_run:
            return self._report(_foreseen(plan, options), options, dry_run=True)
        _check_stores(plan.to_run, allow_unsafe=options.allow_unsafe_store)
        limit = max(4, usable_cores()) if max_concurrent is None else max_concurrent
        for name, bound in (("max_concurrent", limit), ("max_jobs", options.max_jobs)):
            if bound < 1:
                raise ConfigError(explain(f"{name} is a whole number of at least 1, not {bound}"))
        try:
            if plan.to_run:
                prepare_keeper(plan.to_run[0])
            provenance = options.provenance or current_provenance()
            run = _Run(plan, replace(options, provenance=provenance), limit, self._clock)
            with routed_output(), hearing_of_ends(run.hear_of_end):
                return self._execute(run)
        finally:
            dismiss_keeper()

    def _execute(self, run: "_Run") -> RunReport:
        started_at, began = utc_now(), self._clock()
        record = RunRecordWriter(run.plan, run.options, run.limit, started_at)
        try:
            run.execute(self._tell)
        except BaseException as error:
            logger.warning(f"run {run.options.run_id}: {type(error).__name__}, stopping {len(run.in_flight)} steps")
            with hurried_stores():
                self._stop(run)
                record.write("interrupted", run.ordered_outcomes(), self._clock() - began)
            raise
        finally:
            run.pool.shutdown(wait=not run.in_flight)
        outcomes = run.ordered_outcomes()
        failed = [outcome for outcome in outcomes if outcome.kind is OutcomeKind.FAILED]
        path = record.write("failed" if failed else "succeeded", outcomes, self._clock() - began)
        report = self._report(outcomes, run.options, record_path=path, seconds=self._clock() - began)
        logger.info(f"run {run.options.run_id}: {report}")
        if failed:
            raise _run_failed(report, failed)
        return report

    def _stop(self, run: "_Run") -> None:
        try:
            run.stop(self._stop_grace_s, self._sleep)
        except KeyboardInterrupt:
            logger.warning(f"run {run.options.run_id}: interrupted again, not waiting for {len(run.in_flight)} steps")
            run.give_up()

    def _report(
        self,
        outcomes: Iterable[StepOutcome],
        options: RunOptions,
        *,
        dry_run: bool = False,
        record_path: str | None = None,
        seconds: float = 0.0,
    ) -> RunReport:
        run_id = options.run_id or ""
        report = RunReport(tuple(outcomes), dry_run, run_id, record_path, seconds, adopted=options.adopted)
        return report if self._resolve is None else report.with_resolver(self._resolve)

    def _tell(self, event: RunEvent) -> None:
        if self._on_event is not None:
            self._on_event(event)


@final
@dataclass(slots=True)
class _InFlight:
    """A step between its first start and its end."""

    executable: Executable
    observer: AttemptObserver = field(default_factory=AttemptObserver)
    began: float = 0.0
    wait_s: float = _FIRST_WAIT_S
    future: Future[Any] | None = None


@final
class _Run:
    """The state of one run: lives as long as `StepRunner.run`, and is touched by its thread alone."""

    def __init__(self, plan: RunPlan, options: RunOptions, limit: int, clock: Callable[[], float]) -> None:
        self.plan = plan
        self.options = options
        self.limit = limit
        self.clock = clock
        self.pool: BodyPool = InlinePool() if limit == 1 else ThreadPool(limit)
        self.in_flight: dict[str, _InFlight] = {}
        self.outcomes: dict[str, StepOutcome] = {}
        self._began: dict[str, _InFlight] = {}
        self._executables = _executables(plan, options)
        self._lanes = {
            path: _ELSEWHERE if executable.runs_elsewhere else _LOCAL for path, executable in self._executables.items()
        }
        waits = {path: plan.waits[path] for path in plan.to_run}
        self._schedule = Schedule(waits, first=plan.first, lane_of=self._lanes)
        self._used: dict[str, int] = {_LOCAL: 0, _ELSEWHERE: 0}
        self._events: SimpleQueue[tuple[str, Future[Any] | None]] = SimpleQueue()
        self._held: list[tuple[float, int, str]] = []
        self._held_paths: set[str] = set()
        self._sequence = itertools.count()
        self._has_failed = False
        self._left_jobs: list[Future[Any]] = []
        self._started_at = clock()
        self._warn_of_large_steps()

    def execute(self, tell: Callable[[RunEvent], None]) -> None:
        """Runs everything that was planned; returns when each step is settled."""
        for path in self.plan.to_run:
            if not self.plan.steps[path].can_run:
                self._fail(path, _cannot_run(self.plan.steps[path]), tell)
        while not self._schedule.is_over and not self._is_halted():
            for lane in (_ELSEWHERE, _LOCAL):
                self._start_ready(lane, tell)
            self._settle_next(tell)
        while self.in_flight:
            self._settle_next(tell)
        for path in self.plan.to_run:
            if path not in self.outcomes:
                self._end(path, self._outcome(path, OutcomeKind.NOT_STARTED), tell)

    def _is_halted(self) -> bool:
        return self.options.fail_fast and self._has_failed

    def stop(self, grace_s: float, sleep: Callable[[float], object]) -> None:
        """Interrupts what runs, and waits a while for it to release its claims. No new step starts.

        Raises:
            KeyboardInterrupt: A second interrupt: `give_up` is to follow.
        """
        self.pool.interrupt()
        for path, step in list(self.in_flight.items()):
            if step.future is None:  # it was interrupted in this very thread
                del self.in_flight[path]
            else:
                step.future.cancel()
                if self._lanes[path] == _ELSEWHERE:
                    self._left_jobs.append(step.future)
        self._await_ends(self.clock() + grace_s, self.in_flight)
        # A process of this machine is killed when its own grace is over: it must not outlive the run.
        self._await_ends(self.clock() + _KILL_S, [path for path in self.in_flight if self._is_own_process(path)])
        if self._left_jobs:
            logger.warning(
                f"jobs left running: {len(self._left_jobs)}; Ctrl-C within {_SECOND_INTERRUPT_S:g} s ends them too"
            )
            sleep(_SECOND_INTERRUPT_S)
        self._settle_as_interrupted()

    def give_up(self) -> None:
        """Ends the jobs that were left running, without waiting, and settles what has not ended as interrupted."""
        for job in self._left_jobs:
            job.cancel()
        self._settle_as_interrupted()

    def _settle_as_interrupted(self) -> None:
        for path in self.in_flight:
            if self._lanes[path] == _LOCAL and not self._is_own_process(path):
                logger.error(f"{path}: its function did not stop; its claim stays until this process has ended")
        for path in self.plan.to_run:
            if path not in self.outcomes:
                self.outcomes[path] = self._outcome(path, OutcomeKind.INTERRUPTED)

    def _await_ends(self, deadline: float, paths: Collection[str]) -> None:
        with suppress(Empty):
            while any(path in self.in_flight for path in paths):
                path, future = self._events.get(timeout=max(0.0, deadline - self.clock()))
                if future is not None:
                    self.in_flight.pop(path, None)

    def _is_own_process(self, path: str) -> bool:
        running = self.in_flight[path]
        return self._lanes[path] == _LOCAL and running.future is not None and not self.pool.owns(running.future)

    def ordered_outcomes(self) -> list[StepOutcome]:
        """What became of each step, dependencies first."""
        return [self.outcomes.get(path) or _settled_before(self.plan, path) for path in self.plan.steps]

    def _start_ready(self, lane: str, tell: Callable[[RunEvent], None]) -> None:
        while (path := self._schedule.peek(lane)) is not None and self._fits(path, lane):
            self._schedule.take(lane)
            self._start(path, tell)

    def _fits(self, path: str, lane: str) -> bool:
        if lane == _ELSEWHERE:
            return self._used[lane] < self.options.max_jobs
        # A step that declares more than the bound runs alone.
        return self._used[lane] == 0 or self._used[lane] + self._weight(path) <= self.limit

    def _warn_of_large_steps(self) -> None:
        cores = usable_cores()
        for path, lane in self._lanes.items():
            declared = self.plan.steps[path].declared_cpu
            if lane == _LOCAL and declared is not None and declared > cores:
                name = self.plan.steps[path].name_with_hash
                logger.warning(f"{name}: declares {declared:g} cpus, this machine has {cores}: it runs alone")

    def _weight(self, path: str) -> int:
        declared = self.plan.steps[path].declared_cpu
        return 1 if self._lanes[path] == _ELSEWHERE or declared is None else max(1, math.ceil(declared))

    def _start(self, path: str, tell: Callable[[RunEvent], None]) -> None:
        step = self.plan.steps[path]
        running = self._began.get(path)
        if running is None:
            running = _InFlight(self._executables.pop(path), began=self.clock())
            self._began[path] = running
            logger.info(f"{step.name_with_hash}: starts")
            tell(RunEvent(EventKind.STARTED, step))
        self.in_flight[path] = running
        self._used[self._lanes[path]] += self._weight(path)
        try:
            with observing(running.observer):
                running.future = running.executable.start(path, self.pool)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the step's outcome
            running.future = Future()
            running.future.set_exception(error)
        running.future.add_done_callback(lambda future: self._events.put((path, future)))

    def hear_of_end(self, path: str) -> None:
        """Has an output that is waited for looked at, since another attempt of this process has ended. Any thread."""
        if path in self._held_paths:
            self._events.put((path, None))

    def _settle_next(self, tell: Callable[[RunEvent], None]) -> None:
        """Waits until a step ends, or is to be looked at again, and deals with that."""
        patience = max(0.0, self._held[0][0] - self.clock()) if self._held else None
        try:
            path, future = self._events.get(timeout=patience)
        except Empty:
            while self._held and self._held[0][0] <= self.clock():
                self._look_again(heapq.heappop(self._held)[2])
            return
        if future is not None:
            self._settle(path, future, tell)
        elif path in self._held_paths:
            self._held = [entry for entry in self._held if entry[2] != path]
            heapq.heapify(self._held)
            self._look_again(path)

    def _look_again(self, path: str) -> None:
        self._held_paths.discard(path)
        self._schedule.put_back(path)

    def _settle(self, path: str, future: Future[Any], tell: Callable[[RunEvent], None]) -> None:
        running = self.in_flight.pop(path)
        self._used[self._lanes[path]] -= self._weight(path)
        error = CancelledError() if future.cancelled() else future.exception()
        match error:
            case None:
                kind = OutcomeKind.HIT if running.observer.epoch is None else OutcomeKind.SUCCEEDED
                self._schedule.succeed(path)
                self._end(path, self._outcome(path, kind), tell)
            case StepHeldElsewhere():
                self._hold(path, running, error, tell)
            case KeyboardInterrupt():
                raise error
            case _:
                self._fail(path, error, tell)

    def _hold(self, path: str, running: _InFlight, error: StepHeldElsewhere, tell: Callable[[RunEvent], None]) -> None:
        self._held_paths.add(path)
        if running.wait_s == _FIRST_WAIT_S:
            logger.info(f"{self.plan.steps[path].name_with_hash}: waits: {error}")
            tell(RunEvent(EventKind.HELD, self.plan.steps[path], message=str(error)))
        due = self.clock() + random.uniform(running.wait_s / 2, running.wait_s)
        running.wait_s = min(2 * running.wait_s, max(_FIRST_WAIT_S, self.options.lease_seconds / 12))
        heapq.heappush(self._held, (due, next(self._sequence), path))

    def _fail(self, path: str, error: BaseException, tell: Callable[[RunEvent], None]) -> None:
        step = self.plan.steps[path]
        outcome = self._outcome(path, OutcomeKind.FAILED, error=_with_note(error, step, self._began.get(path)))
        self._has_failed = True
        skipped = self._schedule.fail(path)
        self._end(path, outcome, tell)
        for dependent in skipped:
            self._end(dependent, self._outcome(dependent, OutcomeKind.DEP_FAILED, cause=path), tell)

    def _end(self, path: str, outcome: StepOutcome, tell: Callable[[RunEvent], None]) -> None:
        self.outcomes[path] = outcome
        step = self.plan.steps[path]
        match outcome.kind:
            case OutcomeKind.FAILED:
                logger.error(f"{step.name_with_hash}: failed: {_first_line(outcome.error)}")
            case OutcomeKind.NOT_STARTED:
                logger.info(f"{step.name_with_hash}: not started, another step has failed")
            case OutcomeKind.DEP_FAILED:
                logger.warning(f"{step.name_with_hash}: skipped, {outcome.cause} failed")
                _leave_token(path, self.options)
            case _:
                logger.info(f"{step.name_with_hash}: {outcome.kind} after {outcome.seconds:.1f} s")
        tell(RunEvent(EventKind.ENDED, step, outcome))

    def _outcome(
        self, path: str, kind: OutcomeKind, *, error: BaseException | None = None, cause: str | None = None
    ) -> StepOutcome:
        step, running = self.plan.steps[path], self._began.get(path)
        return StepOutcome(
            name=step.name,
            output_path=path,
            kind=kind,
            seconds=self.clock() - running.began if running else 0.0,
            error=error,
            cause=cause,
            epoch=running.observer.epoch if running else None,
            location=step.location,
            began_after=running.began - self._started_at if running else None,
            log_path=existing_log(path, running.observer.epoch) if error is not None and running else None,
        )


def _executables(plan: RunPlan, options: RunOptions) -> dict[str, Executable]:
    # Made before anything starts: what cannot run is told now, not hours later; all such findings at once.
    executables: dict[str, Executable] = {}
    problems: list[Exception] = []
    for path in plan.to_run:
        if not plan.steps[path].can_run:
            continue
        try:
            executables[path] = plan.steps[path].executable(options)
        except MarinTraceError as error:
            problems.append(error)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise RunFailedError(f"{len(problems)} steps cannot start; nothing has run", problems)
    return executables


def _foreseen(plan: RunPlan, options: RunOptions) -> Iterable[StepOutcome]:
    to_run = frozenset(plan.to_run)
    for path, step in plan.steps.items():
        if path not in to_run:
            yield _settled_before(plan, path)
            continue
        failed_before = plan.statuses[path].kind is StatusKind.FAILED and not options.force_run_failed
        kind = OutcomeKind.WOULD_FAIL if failed_before or not step.can_run else OutcomeKind.WOULD_RUN
        yield StepOutcome(step.name, path, kind, location=step.location)


def _settled_before(plan: RunPlan, path: str) -> StepOutcome:
    kind = OutcomeKind.HIT if plan.is_finished(path) else OutcomeKind.NOT_NEEDED
    step = plan.steps[path]
    return StepOutcome(step.name, path, kind, location=step.location)


def _check_stores(paths: Iterable[str], *, allow_unsafe: bool) -> None:
    """Tries each store in which something is to be built, where that is needed."""
    first_by_store = {path.split("/")[:3][-1]: path for path in paths if is_object_store(path)}
    if not first_by_store:
        return

    for path in first_by_store.values():
        check_store(AttemptLog(path).directory, allow_unsafe=allow_unsafe)


def _cannot_run(step: RunnableStep) -> RunError:
    return RunError(
        explain(
            f"{step.name} must be built, and has no function to build it",
            at=step.location,
            facts={"output": step.output_path},
            hint="StepSpec(..., fn=...) or put the finished output at its path",
        )
    )


def _with_note(error: BaseException, step: RunnableStep, running: _InFlight | None) -> BaseException:
    attempt = f", attempt {running.observer.epoch}" if running and running.observer.epoch else ""
    place = f"\n  at {step.location}" if step.location else ""
    log = existing_log(step.output_path, running.observer.epoch) if running else None
    kept = f"\n  log: {log}" if log else ""
    error.add_note(f"in step {step.name}{attempt}: {step.output_path}{place}{kept}")
    return error


def _run_failed(report: RunReport, failed: list[StepOutcome]) -> RunFailedError:
    skipped = report.count(OutcomeKind.DEP_FAILED)
    names = ", ".join(outcome.name for outcome in failed[:5]) + (", …" if len(failed) > 5 else "")
    because = f", {skipped} skipped because of {'it' if len(failed) == 1 else 'them'}" if skipped else ""
    not_started = report.count(OutcomeKind.NOT_STARTED)
    because += f", {not_started} not started" if not_started else ""
    summary = f"{len(failed)} of {len(report.outcomes)} steps failed{because}: {names}"
    error = RunFailedError(summary, [_as_exception(outcome) for outcome in failed])
    error.report = report
    return error


def _as_exception(outcome: StepOutcome) -> Exception:
    if isinstance(outcome.error, Exception):
        return outcome.error
    # A group of exceptions cannot hold a SystemExit.
    wrapped = RunError(f"{outcome.name} raised {type(outcome.error).__name__}: {outcome.error}")
    wrapped.__cause__ = outcome.error
    return wrapped


def _first_line(error: BaseException | None) -> str:
    """An error as one line of the log: the rest of its message is in the run's error and record."""
    return redact_text(printable("".join(traceback.format_exception_only(error)).split("\n", 1)[0]))


def _leave_token(output_path: str, options: RunOptions) -> None:
    """For older tools, where there is no log: the step was skipped. Never read as a failure."""
    log = AttemptLog(output_path)
    try:
        store = patient_store_for(output_path, patience_s=_TOKEN_PATIENCE_S)
        refuse_links_out_of(options.root_of(output_path) or output_path, log.status_token)
        if not store.list(log.directory):
            store.put_if_absent(log.status_token, TOKEN_DEP_FAILED.encode())
    except StorageError as error:
        logger.warning(f"{output_path}: its status token could not be written: {error}")
