"""Work on many files: in this process, or over the cores where there are enough of them to be worth processes."""

import gc
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from types import TracebackType
from typing import Final, TypeVar, final

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

FILES_PER_PROCESS: Final = 40
"""Below twice this many files processes cost more than they save: each takes some 0.3 s to start."""

_OBJECTS_BEFORE_COLLECTION: Final = 50_000
"""Syntax trees are many objects that live for long: to look through them as often as Python does takes a tenth of the
time. Made of cycles, they are not kept for good."""


@final
class Workers:
    """Processes for as long as a ``with`` block lasts; none where there are few files.

    Args:
        files: How many there are.
    """

    def __init__(self, files: int) -> None:
        self._processes: Final = min(os.cpu_count() or 1, files // FILES_PER_PROCESS)
        self._pool: ProcessPoolExecutor | None = None
        self._collection = gc.get_threshold()

    def __enter__(self) -> "Workers":
        _collect_rarely()
        if self._processes > 1:
            self._pool = ProcessPoolExecutor(
                self._processes, mp_context=get_context("spawn"), initializer=_collect_rarely
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        gc.set_threshold(*self._collection)
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[[Sequence[_Item]], list[_Result]], items: Sequence[_Item]) -> list[_Result]:
        """The results of a function that takes some of the items and returns as many results, in order.

        Args:
            function: Can be pickled.
            items: Can be pickled.
        """
        if self._pool is None or not items:
            return function(items)
        # Several parts for each process, so that none waits long for one with large files.
        size = -(-len(items) // (self._processes * 4))
        parts = [items[start : start + size] for start in range(0, len(items), size)]
        return [result for results in self._pool.map(function, parts) for result in results]


def _collect_rarely() -> None:
    gc.set_threshold(_OBJECTS_BEFORE_COLLECTION, 20, 20)
