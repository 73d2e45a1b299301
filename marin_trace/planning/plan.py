"""The plan of a run: for each step what would happen, and why. Reads statuses; writes nothing."""

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import final

from marin_trace.ir.graph import Graph, Node
from marin_trace.lowering.step_spec import StepSpec
from marin_trace.runtime.options import RunOptions
from marin_trace.runtime.run_plan import RunnableStep, RunPlan
from marin_trace.runtime.status import StatusKind, StepStatus


class PlannedAction(enum.StrEnum):
    """What a run would do about a step."""

    HIT = "hit"
    """Its output is there."""
    RUN = "run"
    WAIT = "wait"
    """Another launcher runs it at this moment."""
    SKIP = "skip"
    """Not built, and nothing unfinished needs it; or it cannot run."""


@final
@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One line of a plan."""

    name: str
    action: PlannedAction
    reason: str
    output_path: str
    deps: tuple[str, ...]
    """The names of the steps that it waits for."""
    group_path: tuple[str, ...] = ()
    """The groups around it, outermost first."""


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do."""

    steps: tuple[PlannedStep, ...]
    """Dependencies first."""
    groups: tuple[str, ...] = ()
    """The names of all groups."""

    def count(self, action: PlannedAction) -> int:
        """How many steps have an action."""
        return sum(step.action is action for step in self.steps)


def planned(
    run_plan: RunPlan,
    options: RunOptions,
    graph: Graph,
    spec_by_node: Mapping[Node, StepSpec],
    *,
    forced_through: Mapping[str, str | None] = MappingProxyType({}),
) -> Plan:
    """The plan, in words.

    Args:
        run_plan: What the runner decided.
        options: Of the run.
        graph: The traced graph, for the groups.
        spec_by_node: Which step became which spec.
        forced_through: For outputs that are forced because they read a forced one: the name of that step.
    """
    group_path_by_output: dict[str, tuple[str, ...]] = {}
    for node in graph.nodes:
        group_path_by_output.setdefault(spec_by_node[node].output_path, node.group_path)
    to_run = frozenset(run_plan.to_run)
    failed = _will_fail(run_plan, options)
    steps = tuple(
        PlannedStep(
            step.name,
            *_action_and_reason(run_plan, options, path, to_run, failed, forced_through.get(path)),
            path,
            tuple(dict.fromkeys(dep.name for dep in step.deps)),
            group_path_by_output.get(path, ()),
        )
        for path, step in run_plan.steps.items()
    )
    return Plan(steps, tuple(group.name for group in graph.groups))


def _will_fail(run_plan: RunPlan, options: RunOptions) -> dict[str, str]:
    """The steps that cannot be built, each with the reason, by output path."""
    failed: dict[str, str] = {}
    for path in run_plan.to_run:
        step, status = run_plan.steps[path], run_plan.statuses[path]
        if not options.force_run_failed and status.kind is StatusKind.FAILED:
            failed[path] = f"failed before ({_error_line(status)}), and --force_run_failed is false"
        elif not step.can_run:
            failed[path] = "never built, and has no function to build it"
        else:
            cause = next((dep for dep in run_plan.waits[path] if dep in failed), None)
            if cause is not None:
                failed[path] = f"needs {run_plan.steps[cause].name}, which will not be built"
    return failed


def _action_and_reason(  # noqa: PLR0917 (one caller, which has them all at hand)
    run_plan: RunPlan,
    options: RunOptions,
    path: str,
    to_run: Collection[str],
    failed: Mapping[str, str],
    through: str | None,
) -> tuple[PlannedAction, str]:
    status = run_plan.statuses[path]
    if path in failed:
        return PlannedAction.SKIP, failed[path]
    if path not in to_run:
        if run_plan.is_finished(path):
            return PlannedAction.HIT, _hit_reason(status, run_plan)
        return PlannedAction.SKIP, "never built, and nothing unfinished needs it"
    if path in options.forced:
        forced = "forced" if through is None else f"forced through {through}"
        return PlannedAction.RUN, forced if status.is_finished else f"{forced}; {_miss_reason(status)}"
    if status.kind is StatusKind.RUNNING:
        return PlannedAction.WAIT, f"running on {status.owner}"
    return PlannedAction.RUN, _miss_reason(status)


def _hit_reason(status: StepStatus, run_plan: RunPlan) -> str:
    if status.kind is StatusKind.LEGACY_SUCCESS:
        return "finished by an older system"
    rebuilt = [
        run_plan.steps[path].name
        for path, epoch in status.inputs.items()
        if path in run_plan.statuses and run_plan.statuses[path].epoch > epoch
    ]
    return f"finished; built before {', '.join(rebuilt)} was built again" if rebuilt else "finished"


def _miss_reason(status: StepStatus) -> str:
    match status.kind:
        case StatusKind.FAILED:
            return f"failed before: {_error_line(status)}"
        case StatusKind.RELEASED:
            return "an attempt was given up before its end"
        case StatusKind.ABANDONED | StatusKind.FENCED:
            return "the launcher that ran it is gone"
        case _:
            return "never built"


def _error_line(status: StepStatus) -> str:
    if status.error is None:
        return "no error recorded"
    # The first line: what follows in a message is detail, hints and, with pydantic, links.
    message = status.error.message.strip().splitlines()
    return f"{status.error.type}: {message[0]}" if message else status.error.type


def readers_of(steps: Mapping[str, RunnableStep], output_paths: Collection[str]) -> dict[str, str | None]:
    """What reads these outputs, directly or through others, and the outputs themselves.

    Args:
        steps: By output path, dependencies first.
        output_paths: Some of them.

    Returns:
        By output path, dependencies first: the name of the step through which it is reached, None for those given.
    """
    through: dict[str, str | None] = {}
    for path, step in steps.items():
        if path in output_paths:
            through[path] = None
            continue
        read = step.read_deps if isinstance(step, StepSpec) else step.deps
        source = next((dep for dep in read if dep.output_path in through), None)
        if source is not None:
            through[path] = through[source.output_path] or source.name
    return through
