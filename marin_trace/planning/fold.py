"""Plans folded for people: steps that say the same are one row, however many there are.

A *fan* is what one step function made within one group, with the same action for the same reason; groups that were made
by one function and hold the same rows are a fan, too. A fan of more than `LONGEST_FAN` is one row under its template.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

from marin_trace.planning.plan import Plan, PlannedAction, PlannedStep

__all__ = ["LONGEST_FAN", "Difference", "GroupRow", "Row", "StepRow", "differences", "rows_of", "titled"]

LONGEST_FAN: Final = 5
"""Steps of one kind that are shown one by one."""

_Key = tuple[object, ...]


@final
@dataclass(frozen=True, slots=True)
class StepRow:
    """A step, or a fan of steps."""

    title: str
    """The step's name, or the template of a fan."""
    reason: str
    """In a fan, names of causes are templates."""
    steps: tuple[PlannedStep, ...]
    key: _Key
    """Rows that may be one are equal in it."""

    @property
    def count(self) -> int:
        """How many entries it stands for."""
        return len(self.steps)


@final
@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group, or a fan of groups."""

    title: str
    names: tuple[str, ...]
    rows: "tuple[Row, ...]"
    key: _Key

    @property
    def count(self) -> int:
        """How many entries it stands for."""
        return len(self.names)

    @property
    def steps(self) -> tuple[PlannedStep, ...]:
        """All steps in it."""
        return tuple(step for row in self.rows for step in row.steps)


Row = StepRow | GroupRow


def rows_of(plan: Plan, *, full: bool = False) -> tuple[Row, ...]:
    """The rows of a plan: a tree of groups, each in the order of its first step.

    Args:
        plan: Any.
        full: One row for each step and group.
    """
    root = _Branch("", "")
    for step in plan.steps:
        branch = root
        for name, template in zip(step.group_path, step.group_templates or step.group_path, strict=True):
            branch = branch.branch(name, template)
        branch.entries[f"step {step.output_path}"] = step
    return _rows(root, plan.by_path(), full=full)


@final
class _Branch:
    """A group with what is in it, in the order of its first step."""

    def __init__(self, name: str, template: str) -> None:
        self.name = name
        self.template = template
        self.entries: dict[str, _Branch | PlannedStep] = {}

    def branch(self, name: str, template: str) -> "_Branch":
        """The group of this name in it."""
        found = self.entries.setdefault(f"group {name}", _Branch(name, template))
        assert isinstance(found, _Branch)
        return found


def _rows(branch: _Branch, by_path: Mapping[str, PlannedStep], *, full: bool) -> tuple[Row, ...]:
    rows: list[Row] = []
    for entry in branch.entries.values():
        if isinstance(entry, _Branch):
            inner = _rows(entry, by_path, full=full)
            key = ("group", entry.template, *((row.key, row.count) for row in inner))
            rows.append(GroupRow(entry.name, (entry.name,), inner, key))
        else:
            rows.append(_step_row(entry, by_path))
    return tuple(rows if full else _folded(rows))


def _step_row(step: PlannedStep, by_path: Mapping[str, PlannedStep]) -> StepRow:
    # What is not called through a step function is one of a kind.
    kind = step.template or step.output_path
    reason = "" if step.action is PlannedAction.WAIT else _general_reason(step, by_path)
    return StepRow(step.name, step.reason, (step,), ("step", kind, step.action, reason))


def _general_reason(step: PlannedStep, by_path: Mapping[str, PlannedStep]) -> str:
    """The reason with the cause's template in the place of its name, and without the paths of single outputs."""
    explanation, reason = step.explanation, step.reason
    if step.adopted_from is not None:
        reason = reason.replace(f"adopted from {step.adopted_from}", "adopted")
    if step.adoptable is not None:
        reason = reason.replace(step.adoptable, "outputs of these names exist: adopt them?")
    if explanation is None or explanation.cause == step.output_path:
        return reason
    cause = by_path[explanation.cause]
    return reason.replace(f"; {cause.name} changed", f"; {cause.template or cause.name} changed")


def _folded(rows: Sequence[Row]) -> list[Row]:
    by_key: dict[_Key, list[Row]] = {}
    for row in rows:
        by_key.setdefault(row.key, []).append(row)
    folded: list[Row] = []
    for row in rows:
        fan = by_key[row.key]
        if len(fan) <= LONGEST_FAN:
            folded.append(row)
        elif row is fan[0]:
            folded.append(_merged(fan))
    return folded


def _merged(fan: Sequence[Row]) -> Row:
    first = fan[0]
    if isinstance(first, StepRow):
        steps = tuple(step for row in fan for step in row.steps)
        is_general = len({step.reason for step in steps}) > 1 and steps[0].action is not PlannedAction.WAIT
        reason = str(first.key[-1]) if is_general else first.reason
        return StepRow(steps[0].template or first.title, reason, steps, first.key)
    groups = [row for row in fan if isinstance(row, GroupRow)]
    inner = tuple(_merged(rows) for rows in zip(*(group.rows for group in groups), strict=True))
    names = tuple(name for group in groups for name in group.names)
    return GroupRow(str(first.key[1]), names, inner, first.key)


def titled(row: Row) -> str:
    """A row's title, with how many it stands for: ``tokenize/{name} x 41``."""
    return row.title if row.count == 1 else f"{row.title} x {row.count}"


@final
@dataclass(frozen=True, slots=True)
class Difference:
    """A change of recipes, told once for all the steps in which it was made."""

    steps: tuple[PlannedStep, ...]
    """Those that changed first."""
    below: int
    """How many others are missing because of them."""

    @property
    def title(self) -> str:
        """Their names; of many, their template."""
        names = list(dict.fromkeys(step.name for step in self.steps))
        if len(names) <= LONGEST_FAN:
            return ", ".join(names)
        return f"{self.steps[0].template or f'{names[0]}, …'} x {len(self.steps)}"

    @property
    def lines(self) -> list[str]:
        """``config.path: old → new`` of each field."""
        explanation = self.steps[0].explanation
        return [str(change) for change in explanation.changes] if explanation is not None else []


def differences(steps: Iterable[PlannedStep]) -> list[Difference]:
    """What changed first, in the order of the plan; equal changes of one step function are one."""
    steps = list(steps)
    below: dict[str, int] = {}
    first: dict[_Key, list[PlannedStep]] = {}
    for step in steps:
        if step.explanation is None:
            continue
        if step.explanation.cause != step.output_path:
            below[step.explanation.cause] = below.get(step.explanation.cause, 0) + 1
        if step.explanation.changes or step.explanation.cause == step.output_path:
            key = (step.template or step.name, step.explanation.changes)
            first.setdefault(key, []).append(step)
    return [Difference(tuple(same), sum(below.get(step.output_path, 0) for step in same)) for same in first.values()]
