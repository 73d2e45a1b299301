"""Work on many files: in this process, or over the cores where there are enough of them to be worth a process."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Final, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

FILES_PER_PROCESS: Final = 40
"""Below twice this many files processes cost more than they save: each takes some 0.1 s to start."""


def mapped(function: Callable[[Sequence[_Item]], list[_Result]], items: Sequence[_Item]) -> list[_Result]:
    """The results of a function that takes some of the items and returns as many results, in order.

    Args:
        function: Can be pickled.
        items: Can be pickled.
    """
    processes = min(os.cpu_count() or 1, len(items) // FILES_PER_PROCESS)
    if processes < 2:
        return function(items)
    # Several parts for each process, so that none waits long for one with large files.
    size = -(-len(items) // (processes * 4))
    parts = [items[start : start + size] for start in range(0, len(items), size)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return [result for results in pool.map(function, parts) for result in results]
