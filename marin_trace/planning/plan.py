"""The plan of a run: for each step what would happen, and why. Reads nothing; the snapshot was read before."""

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, final

from marin_trace.ir.graph import Graph, Group, Node, Scope
from marin_trace.ir.passes.inline_groups import steps_of
from marin_trace.lowering.step_spec import StepSpec
from marin_trace.runtime.options import RunOptions
from marin_trace.runtime.records import FieldChange
from marin_trace.runtime.run_plan import RunnableStep, RunPlan
from marin_trace.runtime.status import StatusKind, StepStatus

__all__ = [
    "Explanation",
    "Plan",
    "PlannedAction",
    "PlannedGroup",
    "PlannedStep",
    "Reasons",
    "action_of_members",
    "planned",
    "readers_of",
]


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
class Explanation:
    """What changed since an earlier build."""

    cause: str
    """Output path of the step that changed first: the step itself, or one that it reads, however far upstream."""
    changes: tuple[FieldChange, ...] = ()
    """Of a step that changed first: the fields that differ from an earlier build."""


@final
@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step of a plan."""

    name: str
    action: PlannedAction
    reason: str
    output_path: str
    deps: tuple[str, ...]
    """The output paths that it waits for."""
    group_path: tuple[str, ...] = ()
    """The names of the groups around it, outermost first."""
    group_templates: tuple[str, ...] = ()
    """What their names were made from."""
    template: str | None = None
    """What its name was made from; None for a spec that was written by hand."""
    explanation: Explanation | None = None
    """None: it is finished, or nothing of this name was built before."""
    warnings: tuple[str, ...] = ()
    """What speaks against using a finished output, each complete alone."""
    adopted_from: str | None = None
    """Of a hit: the output that was adopted."""
    adoptable: str | None = None
    """Of a miss: what older output it could adopt, in words; the reason ends with it."""


@final
@dataclass(frozen=True, slots=True)
class PlannedGroup:
    """A group: it runs nothing, and stands as its steps do."""

    name: str
    group_path: tuple[str, ...]
    """The names of the groups around it, outermost first."""
    steps: tuple[str, ...]
    """The output paths of its steps, those of inner groups too."""


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do."""

    steps: tuple[PlannedStep, ...]
    """Dependencies first."""
    groups: tuple[PlannedGroup, ...] = ()
    """Inner groups first."""

    def count(self, action: PlannedAction) -> int:
        """How many steps have an action."""
        return sum(step.action is action for step in self.steps)

    @property
    def is_done(self) -> bool:
        """Whether a run would find nothing to do."""
        return not any(step.action in (PlannedAction.RUN, PlannedAction.WAIT) for step in self.steps)

    def by_path(self) -> dict[str, PlannedStep]:
        """The steps by output path."""
        return {step.output_path: step for step in self.steps}


@final
@dataclass(frozen=True, slots=True)
class Reasons:
    """What is known beyond the statuses, each by output path."""

    forced_through: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    """For outputs that are forced because they read a forced one: the name of that step."""
    explanations: Mapping[str, Explanation] = field(default_factory=dict[str, Explanation])
    gone: Collection[str] = frozenset()
    """Outputs that an earlier run of this experiment had finished, and that are no longer there."""
    warnings: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Of finished outputs."""
    adoptable: Mapping[str, str] = field(default_factory=dict[str, str])
    """Of missing outputs: what older output a step could adopt, in words."""


NO_REASONS = Reasons()
_NAMED_FIELDS: Final = 3


def planned(
    run_plan: RunPlan,
    options: RunOptions,
    graph: Graph,
    spec_by_node: Mapping[Node, StepSpec],
    *,
    reasons: Reasons = NO_REASONS,
) -> Plan:
    """The plan, in words.

    Args:
        run_plan: What the runner decided.
        options: Of the run.
        graph: The traced graph, for the groups.
        spec_by_node: Which step became which spec.
        reasons: What else is known of the steps.
    """
    scope_by_output: dict[str, Scope] = {}
    for node in graph.nodes:
        scope_by_output.setdefault(spec_by_node[node].output_path, node.scope)
    to_run = frozenset(run_plan.to_run)
    failed = _will_fail(run_plan, options)
    groups_below: dict[Scope | None, tuple[tuple[str, ...], tuple[str, ...]]] = {None: ((), ())}
    steps: list[PlannedStep] = []
    for path, step in run_plan.steps.items():
        action, reason = _action_and_reason(run_plan, options, path, to_run, failed, reasons)
        adoptable = reasons.adoptable.get(path) if action is PlannedAction.RUN else None
        scope = scope_by_output.get(path)
        # Steps side by side have the groups around them in common.
        parent = None if scope is None else scope.parent
        if scope is not None and parent not in groups_below:
            groups = scope.groups()
            groups_below[parent] = (tuple(group.name for group in groups), tuple(group.template for group in groups))
        names, templates = groups_below[parent]
        steps.append(
            PlannedStep(
                name=step.name,
                action=action,
                reason=reason if adoptable is None else f"{reason}; {adoptable}",
                output_path=path,
                deps=tuple(run_plan.waits[path]),
                group_path=names,
                group_templates=templates,
                template=step.template,
                explanation=reasons.explanations.get(path),
                adopted_from=run_plan.statuses[path].adopted_from if action is PlannedAction.HIT else None,
                adoptable=adoptable,
                warnings=reasons.warnings.get(path, ()) if action is PlannedAction.HIT else (),
            )
        )
    groups = [_planned_group(group, spec_by_node, run_plan.steps) for group in graph.groups]
    return Plan(tuple(steps), tuple(group for group in groups if group.steps))


def _planned_group(group: Group, spec_by_node: Mapping[Node, StepSpec], steps: Collection[str]) -> PlannedGroup:
    paths = dict.fromkeys(spec_by_node[node].output_path for node in steps_of(group))
    return PlannedGroup(group.name, group.group_path, tuple(path for path in paths if path in steps))


def action_of_members(actions: Collection[PlannedAction]) -> PlannedAction:
    """How a group stands: it would run if any of its steps would, and is a hit if nothing of it is left to do."""
    for action in (PlannedAction.RUN, PlannedAction.WAIT, PlannedAction.HIT):
        if action in actions:
            return action
    return PlannedAction.SKIP if actions else PlannedAction.HIT


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
    reasons: Reasons,
) -> tuple[PlannedAction, str]:
    status = run_plan.statuses[path]
    if path in failed:
        return PlannedAction.SKIP, failed[path]
    if path not in to_run:
        if run_plan.is_finished(path):
            return PlannedAction.HIT, "; ".join([_hit_reason(status, run_plan), *reasons.warnings.get(path, ())])
        return PlannedAction.SKIP, "never built, and nothing unfinished needs it"
    miss = _miss_reason(status, is_gone=path in reasons.gone)
    if path in options.forced:
        through = reasons.forced_through.get(path)
        forced = "forced" if through is None else f"forced through {through}"
        return PlannedAction.RUN, forced if status.is_finished else f"{forced}; {miss}"
    if status.kind is StatusKind.RUNNING:
        return PlannedAction.WAIT, f"running on {status.owner}"
    explanation = reasons.explanations.get(path)
    if explanation is None:
        return PlannedAction.RUN, miss
    if explanation.cause != path:
        return PlannedAction.RUN, f"{miss}; {run_plan.steps[explanation.cause].name} changed"
    return PlannedAction.RUN, f"{miss}; {_changed_fields(explanation)}"


def _changed_fields(explanation: Explanation) -> str:
    names = [change.path for change in explanation.changes]
    if not names:
        return "an earlier build differs in nothing that was recorded"
    return f"{', '.join(names[:_NAMED_FIELDS])}{', …' if len(names) > _NAMED_FIELDS else ''} changed"


def _hit_reason(status: StepStatus, run_plan: RunPlan) -> str:
    if status.kind is StatusKind.LEGACY_SUCCESS:
        return "finished by an older system"
    if status.adopted_from:
        return f"adopted from {status.adopted_from}"
    rebuilt = [
        run_plan.steps[path].name
        for path, epoch in status.inputs.items()
        if path in run_plan.statuses and run_plan.statuses[path].epoch > epoch
    ]
    return f"finished; built before {', '.join(rebuilt)} was built again" if rebuilt else "finished"


def _miss_reason(status: StepStatus, *, is_gone: bool) -> str:
    match status.kind:
        case StatusKind.FAILED:
            return f"failed before: {_error_line(status)}"
        case StatusKind.RELEASED:
            return "an attempt was given up before its end"
        case StatusKind.ABANDONED | StatusKind.FENCED:
            return "the launcher that ran it is gone"
        case _:
            built = "was built by an earlier run, and is gone" if is_gone else "never built"
            return f"{built}; an older system's RUNNING or lock file lies there" if status.foreign_run else built


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
        source = next((dep for dep in read_deps_of(step) if dep.output_path in through), None)
        if source is not None:
            through[path] = through[source.output_path] or source.name
    return through


def read_deps_of(step: RunnableStep) -> Collection[RunnableStep]:
    """What a step's recipe reads: without ordering edges, where it is known which those are."""
    return step.read_deps if isinstance(step, StepSpec) else step.deps
