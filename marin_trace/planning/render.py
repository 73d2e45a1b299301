"""A plan as text: the tree of groups and steps, with action, reason and path of each."""

from collections.abc import Iterable, Mapping
from typing import final

from marin_trace.planning.plan import Plan, PlannedStep
from marin_trace.planning.words import counted


@final
class _Branch:
    """A group with what is in it, in the order of its first step."""

    def __init__(self) -> None:
        self.entries: dict[str, _Branch | PlannedStep] = {}

    def branch(self, name: str) -> "_Branch":
        found = self.entries.setdefault(f"group {name}", _Branch())
        assert isinstance(found, _Branch)
        return found

    def steps(self) -> "Iterable[PlannedStep]":
        for entry in self.entries.values():
            if isinstance(entry, _Branch):
                yield from entry.steps()
            else:
                yield entry


def render_plan(plan: Plan) -> str:
    """The text of a plan: a line per group, two per step, and the totals."""
    root = _Branch()
    for step in plan.steps:
        branch = root
        for group in step.group_path:
            branch = branch.branch(group)
        branch.entries[f"step {step.output_path}"] = step
    names = {step.output_path: step.name for step in plan.steps}
    lines = list(_lines(root, "", names))
    total = counted(step.action for step in plan.steps)
    return "\n".join([*lines, "" if lines else "nothing to do", total]).strip("\n")


def _lines(branch: _Branch, indent: str, names: Mapping[str, str]) -> Iterable[str]:
    steps = [entry for entry in branch.entries.values() if isinstance(entry, PlannedStep)]
    width = max((len(step.name) for step in steps), default=0)
    last = len(branch.entries) - 1
    for index, (key, entry) in enumerate(branch.entries.items()):
        is_top = not indent and isinstance(entry, _Branch)
        mark = "" if is_top else "└─ " if index == last else "├─ "
        below = "" if is_top else indent + ("   " if index == last else "│  ")
        if isinstance(entry, _Branch):
            yield f"{indent}{mark}{key.removeprefix('group ')}  ({counted(step.action for step in entry.steps())})"
            yield from _lines(entry, below or " ", names)
            continue
        yield f"{indent}{mark}{entry.action:<4} {entry.name:<{width}}  {entry.reason}"
        needs = f"  needs {', '.join(names[dep] for dep in entry.deps if dep in names)}" if entry.deps else ""
        yield f"{below}     {entry.output_path}{needs}"
