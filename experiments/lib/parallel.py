"""Ordered maps over threads and over processes, with a bounded number of items in flight.

Results come in the order of the items whatever the number of workers, so that what is written from them is the same.
The step's lease is checked before each item.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextvars import copy_context
from typing import TypeVar

from marin_trace.io import check_lease

__all__ = ["map_in_processes", "map_in_threads"]

Item = TypeVar("Item")
Result = TypeVar("Result")

IN_FLIGHT = 3
"""Items for each worker that are taken before the first of them is yielded: enough that a slow one stops nobody."""


def map_in_threads(function: Callable[[Item], Result], items: Iterable[Item], *, workers: int) -> Iterator[Result]:
    """``map`` over threads, for work that waits: each call runs in a copy of the caller's context.

    Raises:
        ValueError: ``workers`` is less than 1.
    """
    _check_workers(workers)
    with ThreadPoolExecutor(workers) as pool:
        try:
            yield from _in_order(
                lambda item: pool.submit(copy_context().run, function, item), items, in_flight=workers * IN_FLIGHT
            )
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def map_in_processes(function: Callable[[Item], Result], items: Iterable[Item], *, workers: int) -> Iterator[Result]:
    """``map`` over processes, for work that computes. With one worker it stays in this process.

    Args:
        function: Of a module, or a ``partial`` of one: it is pickled, as are items and results.
        items: Taken as results are consumed.
        workers: Processes; they are started anew rather than forked, since this process may have threads. They end
            with this one, even if it is killed. Libraries that start threads of their own use one in each.

    Raises:
        ValueError: ``workers`` is less than 1.
        BrokenProcessPool: A worker was killed from outside.
    """
    _check_workers(workers)
    if workers == 1:
        for item in items:
            check_lease()
            yield function(item)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker) as pool:
        try:
            yield from _in_order(lambda item: pool.submit(function, item), items, in_flight=workers * IN_FLIGHT)
        except BrokenProcessPool as error:
            error.add_note("hint: a killed worker process has often run out of memory; try fewer workers")
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _in_order(submit: Callable[[Item], Future[Result]], items: Iterable[Item], *, in_flight: int) -> Iterator[Result]:
    pending: deque[Future[Result]] = deque()
    for item in items:
        check_lease()
        pending.append(submit(item))
        if len(pending) >= in_flight:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _check_workers(workers: int) -> None:
    if workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")


def _begin_worker() -> None:
    """Begins a worker process: Ctrl-C is the parent's to handle, and an orphan would wait for work forever."""
    # Libraries with threads of their own would start one for each core in each worker.
    os.environ.update(OMP_NUM_THREADS="1", RAYON_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait_and_exit() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait_and_exit, daemon=True).start()
