"""A plan as plain text: the tree of groups and steps with action, reason and path of each, what changed, the totals."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from marin_trace.planning.fold import LONGEST_FAN, Difference, Row, StepRow, differences, rows_of, titled
from marin_trace.planning.plan import Plan, PlannedStep
from marin_trace.planning.words import counted

__all__ = ["CHANGED_TITLE", "difference_lines", "needs_text", "render_plan"]

CHANGED_TITLE: Final = "changed since an earlier build:"


def render_plan(plan: Plan, *, full: bool = False) -> str:
    """The text of a plan: a line per group, two per step or fan of steps, what changed first, and the totals.

    Args:
        plan: Any.
        full: Show each step of a long fan.
    """
    lines = list(_lines(rows_of(plan, full=full), "", plan.by_path()))
    changed = [line for difference in differences(plan.steps) for line in difference_lines(difference)]
    total = counted(step.action for step in plan.steps)
    parts = [lines, [CHANGED_TITLE, *changed] if changed else [], [total]]
    return "\n\n".join("\n".join(part) for part in parts if part) if lines else f"nothing to do\n{total}"


def _lines(rows: Sequence[Row], indent: str, by_path: Mapping[str, PlannedStep]) -> Iterable[str]:
    width = max((len(titled(row)) for row in rows if isinstance(row, StepRow)), default=0)
    for index, row in enumerate(rows):
        is_last = index == len(rows) - 1
        is_top = not indent and not isinstance(row, StepRow)
        mark = "" if is_top else "└─ " if is_last else "├─ "
        below = "" if is_top else indent + ("   " if is_last else "│  ")
        if isinstance(row, StepRow):
            yield f"{indent}{mark}{row.steps[0].action:<4} {titled(row):<{width}}  {row.reason}"
            needs = needs_text(row, by_path)
            yield f"{below}     {_place(row)}{f'  needs {needs}' if needs else ''}"
        else:
            yield f"{indent}{mark}{titled(row)}  ({counted(step.action for step in row.steps)})"
            yield from _lines(row.rows, below or " ", by_path)


def _place(row: StepRow) -> str:
    paths = [step.output_path for step in row.steps]
    return paths[0] if len(paths) == 1 else f"{os.path.commonprefix(paths).rpartition('/')[0]}/…"  # noqa: RUF071 - URLs


def needs_text(row: StepRow, by_path: Mapping[str, PlannedStep]) -> str:
    """What the steps of a row wait for: names, or templates of many."""
    paths = dict.fromkeys(path for step in row.steps for path in step.deps)
    deps = [by_path[path] for path in paths if path in by_path]
    names = list(dict.fromkeys(dep.name for dep in deps))
    if len(names) <= LONGEST_FAN:
        return ", ".join(names)
    by_title: dict[str, list[str]] = {}
    for dep in deps:
        by_title.setdefault(dep.template or dep.name, []).append(dep.name)
    shown = [same[0] if len(same) == 1 else f"{title} x {len(same)}" for title, same in by_title.items()]
    return ", ".join(shown[:LONGEST_FAN]) + (", …" if len(shown) > LONGEST_FAN else "")


def difference_lines(difference: Difference) -> Iterable[str]:
    """What changed, once: one line for one field, else a line each below the names."""
    lines = difference.lines or ["in nothing that was recorded"]
    tail = f"  {_below_text(difference)}" if difference.below else ""
    if len(lines) == 1:
        yield f"  {difference.title}  {lines[0]}{tail}"
        return
    yield f"  {difference.title}{tail}"
    yield from (f"    {line}" for line in lines)


def _below_text(difference: Difference) -> str:
    steps = "1 step" if difference.below == 1 else f"{difference.below} steps"
    return f"and {steps} below {'it' if len(difference.steps) == 1 else 'them'}"
