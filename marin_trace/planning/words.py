"""How plans are counted in words."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from marin_trace.planning.plan import PlannedAction

__all__ = ["counted"]

_WORDS: Final = {
    PlannedAction.HIT: "finished",
    PlannedAction.RUN: "would run",
    PlannedAction.WAIT: "would wait for another launcher",
    PlannedAction.SKIP: "skipped",
}


def counted(actions: Iterable[PlannedAction]) -> str:
    """The counts by action: ``4 steps: 1 finished, 3 would run``."""
    counts = Counter(actions)
    number = counts.total()
    parts = [f"{counts[action]} {words}" for action, words in _WORDS.items() if counts[action]]
    return f"{number} step{'' if number == 1 else 's'}: {', '.join(parts) or 'nothing to do'}"
