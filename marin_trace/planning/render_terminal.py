"""A plan on a terminal: one line a row, coloured, in the terminal's width."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from rich.text import Text

from marin_trace.planning.fold import Row, StepRow, differences, rows_of, titled
from marin_trace.planning.plan import Plan, PlannedAction, PlannedStep
from marin_trace.planning.render import CHANGED_TITLE, difference_lines, needs_text
from marin_trace.planning.words import counted

__all__ = ["terminal_lines"]

_STYLES: Final = {
    PlannedAction.HIT: "green",
    PlannedAction.RUN: "yellow",
    PlannedAction.WAIT: "cyan",
    PlannedAction.SKIP: "dim",
}
_LEAST_REASON: Final = 24
"""Columns: where fewer are left, a reason begins on a line of its own."""
_LEAST_NEEDS: Final = 10
_HASH: Final = 9
"""Columns of a dash and eight digits."""


def terminal_lines(plan: Plan, *, width: int, full: bool = False) -> list[Text]:
    """The lines of a plan, none wider than the terminal.

    Outputs are shown as name and hash; where they lie is said once, below.

    Args:
        plan: Any.
        width: Columns.
        full: Show each step of a long fan.
    """
    lines = list(_lines(rows_of(plan, full=full), "", plan.by_path(), width))
    changed = [line for difference in differences(plan.steps) for line in difference_lines(difference)]
    if changed:
        lines += [Text(), Text(CHANGED_TITLE, "bold"), *_wrapped(changed, width)]
    total = counted(step.action for step in plan.steps)
    base = next((base for step in plan.steps if (base := _base_of(step)) is not None), None)
    lines += [Text() if lines else Text("nothing to do"), *_wrapped([total], width, style="bold")]
    lines += [] if base is None else _wrapped([f"outputs lie below {base}"], width, style="dim")
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines


def _lines(rows: Sequence[Row], indent: str, by_path: Mapping[str, PlannedStep], width: int) -> Iterable[Text]:
    titles = [len(titled(row)) + _HASH * _is_hashed(row) for row in rows if isinstance(row, StepRow)]
    column = min(max(titles, default=0), width // 2)
    for index, row in enumerate(rows):
        is_last = index == len(rows) - 1
        is_top = not indent and not isinstance(row, StepRow)
        mark = "" if is_top else "└─ " if is_last else "├─ "
        below = "" if is_top else indent + ("   " if is_last else "│  ")
        if isinstance(row, StepRow):
            needs = needs_text(row, by_path)
            yield from _step_lines(row, needs, (f"{indent}{mark}", below), column, width)
        else:
            total = counted(step.action for step in row.steps)
            yield Text.assemble(f"{indent}{mark}", (titled(row), "bold"), (f"  ({total})", "dim"))
            yield from _lines(row.rows, below or " ", by_path, width)


def _step_lines(row: StepRow, needs: str, margins: tuple[str, str], column: int, width: int) -> Iterable[Text]:
    first, below = margins
    action = row.steps[0].action
    hashed = row.steps[0].output_path[-_HASH:] if _is_hashed(row) else ""
    line = Text.assemble(first, (f"{action:<4} ", _STYLES[action]), titled(row), (hashed, "dim"))
    start = len(first) + 5 + column + 2
    left = width - max(start, len(line) + 2)
    reason = [row.reason]
    if left >= _LEAST_REASON or len(row.reason) <= left:
        line.pad_right(max(2, start - len(line)))
        reason = textwrap.wrap(row.reason, left) or [""]
        line.append(reason.pop(0))
        left -= len(row.reason)
        if needs and not reason and left > _LEAST_NEEDS:
            line.append(f"  ← {needs}", "dim")
    yield line
    for part in _wrapped(reason, width - len(below) - 5):
        yield Text.assemble(below, "     ", part)
    if row.count == 1 and not hashed:
        yield Text.assemble(below, "     ", (_cropped(row.steps[0].output_path, width - len(below) - 5), "dim"))


def _is_hashed(row: StepRow) -> bool:
    return row.count == 1 and _base_of(row.steps[0]) is not None


def _base_of(step: PlannedStep) -> str | None:
    """Where an output lies whose path ends with its name and hash."""
    path = step.output_path[:-_HASH]
    return path[: -len(step.name) - 1] if path.endswith(f"/{step.name}") else None


def _wrapped(texts: Iterable[str], width: int, style: str = "") -> list[Text]:
    lines: list[Text] = []
    for text in texts:
        indent = " " * (len(text) - len(text.lstrip()))
        lines += [Text(line, style) for line in textwrap.wrap(text, max(width, 10), subsequent_indent=f"{indent}  ")]
    return lines


def _cropped(path: str, width: int) -> str:
    """A path without its beginning, where it is too long: its end tells more."""
    return path if len(path) <= width else f"…{path[len(path) - width + 1 :]}"
