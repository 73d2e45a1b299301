"""What a run did, or would do: one frozen value."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final, Protocol, final

from marin_trace.errors import ArtifactError, explain

__all__ = ["OutcomeKind", "RunReport", "StepOutcome"]


class OutcomeKind(StrEnum):
    """What became of a step. Stored in run records."""

    HIT = "hit"
    """Its output was there, or another launcher made it meanwhile."""
    SUCCEEDED = "succeeded"
    """It ran and was committed."""
    FAILED = "failed"
    DEP_FAILED = "dep_failed"
    """Skipped: what it needs failed."""
    NOT_NEEDED = "not_needed"
    """Not built, and nothing unfinished needs it."""
    INTERRUPTED = "interrupted"
    """Stopped, or never begun, because the run was interrupted."""
    NOT_STARTED = "not_started"
    """Never begun: another step had failed, and ``--fail_fast`` was given."""
    WOULD_RUN = "would_run"
    """In a dry run."""
    WOULD_FAIL = "would_fail"
    """In a dry run: it failed before, and must not be run again; or it has no function."""


_IN_WORDS: Final = {
    OutcomeKind.SUCCEEDED: "built",
    OutcomeKind.HIT: "found finished",
    OutcomeKind.FAILED: "failed",
    OutcomeKind.DEP_FAILED: "skipped because of a failure",
    OutcomeKind.INTERRUPTED: "interrupted",
    OutcomeKind.NOT_STARTED: "not started",
    OutcomeKind.WOULD_RUN: "would run",
    OutcomeKind.WOULD_FAIL: "would fail",
    OutcomeKind.NOT_NEEDED: "not needed",
}


@final
@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What became of one step."""

    name: str
    output_path: str
    kind: OutcomeKind
    seconds: float = 0.0
    """From its start to its end, by the runner's monotonic clock; waiting for another launcher counts."""
    error: BaseException | None = None
    """Of a failed step: what its function raised."""
    cause: str | None = None
    """Of a skipped step: the output path of the step that failed."""
    epoch: int | None = None
    """The attempt that ran; None if nothing did."""
    location: str | None = None
    """``file:line`` of the step call."""
    began_after: float | None = None
    """Seconds from the begin of the run to the step's; None if it never began."""
    log_path: str | None = None
    """Of a failed step: what its last attempt printed and logged."""


class ResolvedStep(Protocol):
    """What a caller's step stands for."""

    @property
    def output_path(self) -> str: ...
    @property
    def artifact_type(self) -> Any:
        """What the step is annotated to return; None where it is not."""
        ...


def _as_it_is(step: Any) -> ResolvedStep:
    return step


@final
@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run did, step by step, dependencies first."""

    outcomes: tuple[StepOutcome, ...]
    dry_run: bool
    run_id: str
    record_path: str | None = None
    """The run's record; None in a dry run."""
    seconds: float = 0.0
    adopted: Mapping[str, str] = field(default_factory=dict[str, str])
    """Outputs whose data lies elsewhere, with where."""
    resolve: Callable[[Any], ResolvedStep] = field(default=_as_it_is, repr=False, compare=False)
    """What the caller's name for a step (a ref, a spec) stands for."""

    def with_resolver(self, resolve: Callable[[Any], ResolvedStep]) -> "RunReport":
        """The same report, for callers that have refs of their own."""
        return replace(self, resolve=resolve)

    def output_path(self, step: Any) -> str:
        """Where a step's output lies; of an adopted one: where its data lies."""
        path = self.resolve(step).output_path
        for own, source in self.adopted.items():
            if path == own or path.startswith(f"{own}/"):
                return source + path[len(own) :]
        return path

    def artifact(self, step: Any) -> Any:
        """What a step returned.

        Raises:
            ArtifactError: It has none, it was not needed in this run, or it cannot be loaded as the type that was
                annotated.
        """
        from marin_trace.runtime.artifact import Artifact

        resolved = self.resolve(step)
        for outcome in self.outcomes:
            if outcome.output_path == resolved.output_path and outcome.kind is OutcomeKind.NOT_NEEDED:
                raise ArtifactError(
                    explain(
                        f"{outcome.name} has no artifact: it was not built, since nothing unfinished needs it",
                        at=outcome.location,
                        hint="give its ref to executor_main as well",
                    )
                )
        return Artifact.load(resolved)

    def count(self, kind: OutcomeKind) -> int:
        """How many steps ended so."""
        return sum(outcome.kind is kind for outcome in self.outcomes)

    @property
    def failed(self) -> tuple[StepOutcome, ...]:
        """The steps that failed themselves: each with its exception, the place of its call, and its log."""
        return tuple(outcome for outcome in self.outcomes if outcome.kind is OutcomeKind.FAILED)

    def cause_of(self, step: Any) -> StepOutcome | None:
        """The failed step because of which this one was skipped; None if it was not.

        Raises:
            KeyError: It was not in the run.
        """
        cause = self.outcome_of(step).cause
        return next((outcome for outcome in self.outcomes if outcome.output_path == cause), None)

    def outcome_of(self, step: Any) -> StepOutcome:
        """What became of a step.

        Raises:
            KeyError: It was not in the run.
        """
        path = self.resolve(step).output_path
        for outcome in self.outcomes:
            if outcome.output_path == path:
                return outcome
        raise KeyError(path)

    def includes(self, step: Any) -> bool:
        """Whether a step was in the run: ``--until`` and ``--run_only`` leave some out."""
        path = self.resolve(step).output_path
        return any(outcome.output_path == path for outcome in self.outcomes)

    def __str__(self) -> str:
        counts = Counter(outcome.kind for outcome in self.outcomes)
        parts = [f"{counts[kind]} {words}" for kind, words in _IN_WORDS.items() if counts[kind]]
        total = f"{len(self.outcomes)} step{'' if len(self.outcomes) == 1 else 's'}"
        return f"{total}: {', '.join(parts) or 'nothing to do'}" + ("" if self.dry_run else f" ({self.seconds:.1f} s)")
