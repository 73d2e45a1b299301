"""How a run is getting on: what runs since when, what is done, and how long the rest may take. Prints nothing."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Final, final

from marin_trace.planning.durations import in_words
from marin_trace.runtime.report import OutcomeKind, StepOutcome
from marin_trace.runtime.run_history import list_runs, read_runs
from marin_trace.runtime.run_plan import RunnableStep, RunPlan
from marin_trace.runtime.step_runner import EventKind, RunEvent

__all__ = ["Progress", "RunningStep", "Snapshot", "usual_seconds"]

_RUNS_LOOKED_AT: Final = 3
_SLOWEST: Final = 3
_BAD: Final = (OutcomeKind.FAILED,)
_SKIPPED: Final = (OutcomeKind.DEP_FAILED, OutcomeKind.NOT_STARTED)


@final
@dataclass(frozen=True, slots=True)
class RunningStep:
    """A step between its start and its end."""

    name: str
    output_path: str
    elapsed_s: float
    note: str | None = None
    """Who holds it, where another launcher runs it."""


@final
@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run at one moment."""

    total: int
    """Steps to run; finished ones are not counted."""
    done: int
    failed: int
    skipped: int
    running: tuple[RunningStep, ...]
    """The longest first."""
    left_s: float | None
    """An estimate of the rest; None where no step like those that are left has ever ended."""


@final
class Progress:
    """Follows a run by its events. Thread-safe: one thread tells, another looks."""

    def __init__(
        self,
        plan: RunPlan,
        *,
        usual_s: Mapping[str, float],
        limit: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begins.

        Args:
            plan: What is run.
            usual_s: How long steps took in earlier runs, by output path, as far as known.
            limit: How many run side by side.
            clock: Monotonic seconds.
        """
        self._limit = limit
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting = {path: plan.steps[path] for path in plan.to_run}
        self._total = len(self._waiting)
        self._usual_s = dict(usual_s)
        self._began: dict[str, tuple[RunnableStep, float]] = {}
        self._notes: dict[str, str] = {}
        self._outcomes: dict[OutcomeKind, int] = {}
        self._slowest: list[StepOutcome] = []
        self._started_at = clock()
        self._ended_s: dict[str | None, list[float]] = {}
        """How long steps took in this run, by template."""

    def hear(self, event: RunEvent) -> None:
        """Takes in what happened to a step."""
        step, path = event.step, event.step.output_path
        with self._lock:
            match event.kind:
                case EventKind.STARTED:
                    self._waiting.pop(path, None)
                    self._began[path] = (step, self._clock())
                case EventKind.HELD:
                    self._notes[path] = event.message or "another launcher runs it"
                case EventKind.ENDED:
                    self._waiting.pop(path, None)
                    self._began.pop(path, None)
                    self._notes.pop(path, None)
                    self._count(event)

    def _count(self, event: RunEvent) -> None:
        outcome = event.outcome
        assert outcome is not None
        self._outcomes[outcome.kind] = self._outcomes.get(outcome.kind, 0) + 1
        if outcome.kind is OutcomeKind.SUCCEEDED:
            self._slowest = sorted([*self._slowest, outcome], key=lambda step: -step.seconds)[:_SLOWEST]
            self._ended_s.setdefault(event.step.template, []).append(outcome.seconds)

    def snapshot(self) -> Snapshot:
        """The run as it stands."""
        with self._lock:
            now = self._clock()
            running = [
                RunningStep(step.name, path, now - began, self._notes.get(path))
                for path, (step, began) in self._began.items()
            ]
            counts = self._outcomes
            return Snapshot(
                total=self._total,
                done=sum(counts.values()),
                failed=sum(counts.get(kind, 0) for kind in _BAD),
                skipped=sum(counts.get(kind, 0) for kind in _SKIPPED),
                running=tuple(sorted(running, key=lambda step: -step.elapsed_s)),
                left_s=self._left_s(now),
            )

    def final_report(self) -> str:
        """What became of the run, and what took longest: two lines at most."""
        with self._lock:
            seconds = self._clock() - self._started_at
            counts = ", ".join(f"{count} {kind.value}" for kind, count in self._outcomes.items())
            slowest = [f"{step.name} {in_words(step.seconds)}" for step in self._slowest]
        lines = [f"{self._total} step{'' if self._total == 1 else 's'} in {in_words(seconds)}: {counts}"]
        return "\n".join([*lines, *([f"longest: {', '.join(slowest)}"] if len(slowest) > 1 else [])])

    def _left_s(self, now: float) -> float | None:
        """What is left of each step, side by side as far as the limit goes, and no less than the longest takes."""
        left: list[float] = []
        for path, (step, began) in self._began.items():
            usual = self._usual(path, step)
            if usual is None:
                return None
            left.append(max(0.0, usual - (now - began)))
        for path, step in self._waiting.items():
            usual = self._usual(path, step)
            if usual is None:
                return None
            left.append(usual)
        return max(sum(left) / self._limit, *left) if left else 0.0

    def _usual(self, path: str, step: RunnableStep) -> float | None:
        known = self._usual_s.get(path)
        if known is not None:
            return known
        ended = self._ended_s.get(step.template) if step.template is not None else None
        return sum(ended) / len(ended) if ended else None


def usual_seconds(directory: str, experiment: str | None, steps: Mapping[str, RunnableStep]) -> dict[str, float]:
    """How long steps took in this experiment's last runs: those of the same name, else others of the same template.

    Args:
        directory: Where run records lie.
        experiment: Whose runs.
        steps: By output path.

    Returns:
        Seconds by output path, of the steps that have ever been built.

    Raises:
        StorageError: The records cannot be read.
    """
    if experiment is None:
        return {}
    by_name: dict[str, float] = {}
    by_template: dict[str, list[float]] = {}
    for entry in _built(read_runs(list_runs(directory, experiment=experiment)[:_RUNS_LOOKED_AT])):
        by_name.setdefault(entry["name"], entry["seconds"])  # newest first
        by_template.setdefault(entry.get("template") or entry["name"], []).append(entry["seconds"])
    typical = {template: median(seconds) for template, seconds in by_template.items()}
    usual = {path: by_name.get(step.name, typical.get(step.template or step.name)) for path, step in steps.items()}
    return {path: seconds for path, seconds in usual.items() if seconds is not None}


def _built(records: Iterable[dict[str, Any] | None]) -> Iterable[dict[str, Any]]:
    for record in records:
        if record is not None:
            yield from (step for step in record["steps"] if step.get("outcome") == OutcomeKind.SUCCEEDED.value)
