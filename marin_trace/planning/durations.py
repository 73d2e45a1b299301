"""Times as people say them. The moments in records are UTC and were taken by the clocks of many machines."""

from datetime import UTC, datetime
from typing import Final

__all__ = ["age_of", "in_words", "moment_of"]

_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86400


def in_words(seconds: float) -> str:
    """A duration in one or two units.

    Example:
        >>> [in_words(seconds) for seconds in (0.24, 12.4, 75, 7380, 200_000)]
        ['0.2 s', '12 s', '1 min 15 s', '2 h 3 min', '2 d 7 h']
    """
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    for unit, below, names in ((_DAY, _HOUR, ("d", "h")), (_HOUR, _MINUTE, ("h", "min")), (_MINUTE, 1, ("min", "s"))):
        if whole >= unit:
            rest = whole % unit // below
            return f"{whole // unit} {names[0]}" + (f" {rest} {names[1]}" if rest else "")
    return f"{whole} s"


def moment_of(text: object) -> datetime | None:
    """A recorded moment; None where there is none, or nothing that can be read as one.

    Example:
        >>> moment_of("2026-01-31T23:59:59+00:00").year, moment_of("yesterday")
        (2026, None)
    """
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def age_of(text: object, now: datetime) -> float | None:
    """Seconds from a recorded moment until now; never negative, though the clock that took it may go ahead."""
    moment = moment_of(text)
    return None if moment is None else max((now - moment).total_seconds(), 0.0)
