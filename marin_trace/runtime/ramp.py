"""How many steps are started side by side: as many as pay, decided by how long those that run take. No I/O, no clock.

Python runs one thread at a time. Steps that take less than a millisecond spend it in the interpreter: 1,001 of them on
a disk in memory take 0.8 to 1.4 s in four threads and 0.5 s in one. So a run begins with one step at a time, and
doubles that whenever it sees that steps take longer: a few fsyncs do. Sixteen side by side are reached after 32 ms.
"""

from typing import Final, final

__all__ = ["LOOK_S", "Ramp"]

LOOK_S: Final = 0.008
"""Between two looks, as long as the width is below its limit and something waits to be started."""
_SHORT_S: Final = 0.001
"""A step that takes less gains nothing from company."""


@final
class Ramp:
    """The width of a run: how much may run side by side at this moment."""

    __slots__ = ("_ended", "_limit", "width")

    def __init__(self, limit: int, *, first: int = 1) -> None:
        """Begins a run.

        Args:
            limit: The bound that the user gave.
            first: The width to begin with.
        """
        self.width = min(first, limit)
        self._limit = limit
        self._ended = 0

    @property
    def is_at_limit(self) -> bool:
        """Whether looking is over."""
        return self.width >= self._limit

    def count_end(self) -> None:
        """Says that a step has ended."""
        self._ended += 1

    def look(self) -> None:
        """Says that `LOOK_S` went by: doubles the width if the steps that ran in it were not short."""
        if self._ended * _SHORT_S < self.width * LOOK_S:
            self.width = min(2 * self.width, self._limit)
        self._ended = 0
