"""How steps stand: finished, running, failed, stopped, waiting. From statuses that were read before; reads nothing."""

import enum
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, final

from marin_trace.planning.durations import age_of
from marin_trace.planning.outputs_below import RecordedStep, Unreadable, name_of_output
from marin_trace.runtime.log_records import StepFailure
from marin_trace.runtime.report import OutcomeKind
from marin_trace.runtime.run_plan import RunnableStep
from marin_trace.runtime.status import StatusKind, StepStatus

__all__ = [
    "StepStanding",
    "StepState",
    "counted_states",
    "error_line",
    "is_finished",
    "standing_json",
    "standing_of",
    "standing_of_steps",
    "standing_under_prefix",
]


class StepState(enum.StrEnum):
    """How a step stands."""

    FAILED = "failed"
    UNREADABLE = "unreadable"
    """Its log is damaged."""
    RUNNING = "running"
    STOPPED = "stopped"
    """Its last attempt was given up without a verdict, or its launcher is gone; nobody runs it."""
    WAITING = "waiting"
    """To be built, and never begun."""
    NOT_NEEDED = "unneeded"
    """Not built, and nothing unfinished needs it."""
    FINISHED = "finished"


_NAMED: Final = 3
_SKIPPED: Final = (OutcomeKind.DEP_FAILED, OutcomeKind.NOT_STARTED, OutcomeKind.INTERRUPTED)
_STATE_OF_KIND: Final = {
    StatusKind.SUCCESS: StepState.FINISHED,
    StatusKind.LEGACY_SUCCESS: StepState.FINISHED,
    StatusKind.FAILED: StepState.FAILED,
    StatusKind.RUNNING: StepState.RUNNING,
    StatusKind.ABANDONED: StepState.STOPPED,
    StatusKind.RELEASED: StepState.STOPPED,
    StatusKind.FENCED: StepState.STOPPED,
    StatusKind.MISSING: StepState.WAITING,
}


@final
@dataclass(frozen=True, slots=True)
class StepStanding:
    """A step, and how it stands."""

    name: str
    output_path: str
    state: StepState
    detail: str = ""
    """For people: the owner, the error, what is waited for."""
    status: StepStatus = field(default_factory=StepStatus)
    """As it was read; of an output that cannot be read, that of a missing one."""
    waits_for: tuple[str, ...] = ()
    """The output paths of unfinished steps that it waits for, where that is known."""

    @property
    def since(self) -> str | None:
        """When the state began: the claim of a running step, the end of another; UTC, ISO 8601."""
        return self.status.owner.since if self.status.owner else self.status.ended_at


def standing_of(name: str, output_path: str, status: StepStatus | Unreadable) -> StepStanding:
    """How one step stands, as its own log tells it."""
    if isinstance(status, Unreadable):
        return StepStanding(name, output_path, StepState.UNREADABLE, status.problem)
    return StepStanding(name, output_path, _STATE_OF_KIND[status.kind], _detail(status), status)


def standing_of_steps(
    steps: Mapping[str, RunnableStep], statuses: Mapping[str, StepStatus | Unreadable], to_run: Collection[str]
) -> list[StepStanding]:
    """How the steps of an experiment stand, in their order.

    Args:
        steps: By output path.
        statuses: Of each.
        to_run: The output paths of those that a run would bring to finished.
    """
    standings: list[StepStanding] = []
    for path, step in steps.items():
        status = statuses[path]
        standing = standing_of(step.name, path, status)
        if isinstance(status, Unreadable) or standing.state is not StepState.WAITING:
            standings.append(standing)
            continue
        deps = dict.fromkeys(dep.output_path for dep in step.deps)
        open_deps = tuple(dep for dep in deps if dep in steps and not is_finished(statuses[dep]))
        state = StepState.WAITING if path in to_run else StepState.NOT_NEEDED
        names = [steps[dep].name for dep in open_deps]
        detail = f"for {_some(names)}" if open_deps and state is StepState.WAITING else standing.detail
        standings.append(StepStanding(step.name, path, state, detail, status, open_deps))
    return standings


def is_finished(status: StepStatus | Unreadable) -> bool:
    """Whether an output is known to be there to be read."""
    return isinstance(status, StepStatus) and status.is_finished


def standing_under_prefix(
    outputs: Mapping[str, StepStatus | Unreadable], recorded: Mapping[str, RecordedStep], prefix: str
) -> list[StepStanding]:
    """How everything below a prefix stands, by output path; what the newest run of an experiment skipped is waiting.

    Args:
        outputs: By output path, those that have a log or a token.
        recorded: What run records know.
        prefix: That of the outputs.
    """
    standings = [standing_of(_name(path, recorded, prefix), path, status) for path, status in outputs.items()]
    for path, step in recorded.items():
        if path in outputs or not step.is_latest or step.outcome not in _SKIPPED:
            continue
        cause = recorded.get(step.cause or "")
        detail = f"for {cause.name}" if cause is not None else f"since run {step.run_id}"
        waits_for = (cause.output_path,) if cause is not None else ()
        standings.append(StepStanding(step.name, path, StepState.WAITING, detail, waits_for=waits_for))
    return sorted(standings, key=lambda standing: standing.output_path)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def _name(path: str, recorded: Mapping[str, RecordedStep], prefix: str) -> str:
    return recorded[path].name if path in recorded else name_of_output(path, prefix)


def _detail(status: StepStatus) -> str:
    match status.kind:
        case StatusKind.FAILED | StatusKind.RELEASED:
            return error_line(status.error) if status.error else ""
        case StatusKind.RUNNING | StatusKind.ABANDONED:
            owner = status.owner
            where = "" if owner is None else f"{owner.host} pid {owner.pid}{f' job {owner.job}' if owner.job else ''}"
            return f"{where} is dead" if status.kind is StatusKind.ABANDONED else where
        case StatusKind.FENCED:
            return "its launcher was gone"
        case StatusKind.LEGACY_SUCCESS:
            return "by an older system"
        case StatusKind.MISSING if status.foreign_run:
            return "an older system's RUNNING or lock file lies there"
        case _:
            return ""


def error_line(error: StepFailure) -> str:
    """What an attempt failed of, in a line: the last one of the message; of our own, the first, which says it all."""
    return error.headline if error.type.startswith("marin_trace.") else error.last_line


def standing_json(standing: StepStanding, now: datetime) -> dict[str, Any]:
    """As a JSON object."""
    status, owner, error = standing.status, standing.status.owner, standing.status.error
    return {
        "name": standing.name,
        "output_path": standing.output_path,
        "state": standing.state.value,
        "status": status.kind.value,
        "attempt": status.epoch or None,
        "since": standing.since,
        "age_seconds": age_of(standing.since, now),
        "owner": owner and {"host": owner.host, "pid": owner.pid, "job": owner.job},
        "error": error and {"type": error.type, "phase": error.phase.value, "message": error.message},
        "waits_for": list(standing.waits_for),
        "detail": standing.detail,
    }


def counted_states(standings: Iterable[StepStanding]) -> dict[str, int]:
    """How many steps stand so, for every state that some have."""
    states = [standing.state for standing in standings]
    return {state.value: states.count(state) for state in StepState if state in states}
