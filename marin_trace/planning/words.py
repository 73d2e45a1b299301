"""How plans are counted in words, and how sizes and ages are said."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Final

from marin_trace.planning.plan import PlannedAction

__all__ = ["age_text", "counted", "size_text"]

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


def size_text(size: int) -> str:
    """Bytes, as people say them.

    Example:
        >>> size_text(999), size_text(1_230_000_000_000)
        ('999 B', '1.2 TB')
    """
    number, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if number < 999.5 or unit == "PB":
            break
        number /= 1000
    return f"{number:.0f} {unit}" if unit == "B" or number >= 99.5 else f"{number:.1f} {unit}"


def age_text(seconds: float | None) -> str:
    """An age, as people say it.

    Example:
        >>> age_text(59), age_text(7_200), age_text(41 * 86_400), age_text(None)
        ('1 minute old', '2 hours old', '41 days old', 'of unknown age')
    """
    if seconds is None:
        return "of unknown age"
    for unit, length, up_to in (("minute", 60, 90), ("hour", 3_600, 48), ("day", 86_400, math.inf)):
        number = max(1, round(seconds / length))
        if number < up_to:
            return f"{number} {unit}{'' if number == 1 else 's'} old"
    raise AssertionError("there is no oldest age")
