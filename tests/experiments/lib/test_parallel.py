import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextvars import ContextVar

import pytest

from experiments.lib.parallel import map_in_processes, map_in_threads
from marin_trace.errors import LeaseLostError
from marin_trace.io import lease_check

Map = Callable[..., Iterator]


@pytest.fixture(params=[(map_in_threads, 1), (map_in_threads, 4), (map_in_processes, 1), (map_in_processes, 2)])
def mapped(request: pytest.FixtureRequest) -> Callable[..., list]:
    function, workers = request.param
    return lambda *arguments: list(function(*arguments, workers=workers))


def test_results_come_in_the_order_of_the_items(mapped) -> None:
    assert mapped(abs, range(-50, 0)) == list(range(50, 0, -1))
    assert mapped(abs, []) == []


def test_the_error_of_an_item_is_the_error_of_the_map(mapped) -> None:
    with pytest.raises(ValueError, match="invalid literal for int"):
        mapped(int, ["1", "x", "3"])


def test_no_more_items_are_taken_than_are_worked_on() -> None:
    taken: list[int] = []
    results = map_in_threads(abs, (taken.append(number) or number for number in range(100)), workers=2)
    next(results)
    assert len(taken) == 6
    results.close()  # pyright: ignore[reportAttributeAccessIssue] - a generator has it


def test_a_thread_runs_in_the_context_of_the_caller() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="")
    variable.set("here")
    assert set(map_in_threads(lambda _: variable.get(), range(4), workers=2)) == {"here"}


def test_a_lost_lease_ends_the_map_before_the_next_item(mapped) -> None:
    checks = iter([None, None, LeaseLostError("somebody else owns the step")])

    def check() -> None:
        if (error := next(checks)) is not None:
            raise error

    reset = lease_check.set(check)
    try:
        with pytest.raises(LeaseLostError, match="somebody else"):
            mapped(abs, range(5))
    finally:
        lease_check.reset(reset)


@pytest.mark.parametrize("function", [map_in_threads, map_in_processes])
def test_no_workers_is_an_error(function: Map) -> None:
    with pytest.raises(ValueError, match="workers must be at least 1, not 0"):
        list(function(abs, [1], workers=0))


def test_a_killed_worker_is_an_error_with_a_hint() -> None:
    with pytest.raises(BrokenProcessPool, match="terminated abruptly") as caught:
        list(map_in_processes(os._exit, [1], workers=2))
    assert caught.value.__notes__ == ["hint: a killed worker process has often run out of memory; try fewer workers"]


def test_workers_end_with_a_killed_parent() -> None:
    code = (
        "from experiments.lib.parallel import map_in_processes\n"
        "import time, os, sys\n"
        "if __name__ == '__main__':\n"
        "    results = map_in_processes(time.sleep, [0, 600, 600], workers=2)\n"
        "    next(results)\n"
        "    import multiprocessing\n"
        "    print(*[child.pid for child in multiprocessing.active_children()], flush=True)\n"
        "    next(results)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        children = [int(pid) for pid in parent.stdout.readline().split()]
        parent.send_signal(signal.SIGKILL)
        # The children hold the pipe as well: it ends when the last of them has.
        parent.stdout.read()
    assert len(children) == 2
