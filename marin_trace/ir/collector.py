"""Pausing Python's cyclic garbage collector while many long-lived objects are made.

Tracing and lowering allocate objects that stay and make no garbage cycles, so the collector would scan all of them
again and again: some 40 % of the time of a large trace.
"""

import gc
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final


class _Pause:
    """How many pauses are open in the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._was_on = False

    def enter(self) -> None:
        with self._lock:
            if self._count == 0:
                self._was_on = gc.isenabled()
                gc.disable()
            self._count += 1

    def leave(self) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0 and self._was_on:
                _spare_the_young_generation()
                gc.enable()


def _spare_the_young_generation() -> None:
    """Moves all young objects to the oldest generation, without a scan.

    The next collection would otherwise go through everything that was made meanwhile, at once. Freezing and unfreezing
    is how CPython moves whole generations in O(1). Where somebody has frozen many objects on purpose, theirs stay
    frozen and the scan happens; the few that the interpreter freezes when it starts do not matter.
    """
    if gc.get_freeze_count() < _FEW:
        gc.freeze()
        gc.unfreeze()


_FEW: Final = 10_000
"""Unfreezing so many objects makes no collection noticeably longer; CPython 3.12 begins with some 400."""

_pause: Final = _Pause()


@contextmanager
def collector_paused() -> Generator[None]:
    """Pauses the collector within the block. Nested and concurrent blocks share one pause."""
    _pause.enter()
    try:
        yield
    finally:
        _pause.leave()
