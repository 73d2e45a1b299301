"""Laws of the pools."""

import contextvars
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from marin_trace.io import running_body
from marin_trace.runtime.pool import BodyPool, InlinePool, ThreadPool

where: contextvars.ContextVar[str] = contextvars.ContextVar("where", default="nowhere")


@pytest.fixture(params=[InlinePool, lambda: ThreadPool(3)], ids=["inline", "threads"])
def pool(request: pytest.FixtureRequest):
    made: BodyPool = request.param()
    yield made
    made.shutdown()


def test_a_call_gives_its_value_or_its_error(pool: BodyPool) -> None:
    assert pool.submit(divmod, 7, 2).result(30) == (3, 1)
    assert isinstance(pool.submit(divmod, 7, 0).exception(30), ZeroDivisionError)


def test_a_call_runs_in_a_copy_of_the_submitters_context(pool: BodyPool) -> None:
    token = where.set("here")
    assert pool.submit(lambda: (where.get(), running_body.get(), where.set("there"))[:2]).result(30) == ("here", True)
    assert (where.get(), running_body.get()) == ("here", False)
    where.reset(token)


def test_one_call_after_the_other_needs_one_thread() -> None:
    pool = ThreadPool(8)
    threads = {pool.submit(threading.get_ident).result(30) for _ in range(50)}
    pool.shutdown()
    assert len(threads) == 1


def test_calls_run_side_by_side_up_to_the_bound() -> None:
    pool, together = ThreadPool(3), threading.Barrier(3)
    calls = [pool.submit(together.wait, 30) for _ in range(6)]
    assert sorted(call.result(30) for call in calls) == [0, 0, 1, 1, 2, 2]
    pool.shutdown()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("marin-trace-body")]


def test_a_call_submitted_when_another_has_ended_runs_next_in_its_thread() -> None:
    pool, begin, ends, threads = ThreadPool(4), threading.Event(), threading.Event(), []

    def go_on(future: Future[Any]) -> None:
        threads.append(threading.get_ident())
        if len(threads) < 50:
            pool.submit(int).add_done_callback(go_on)
        else:
            ends.set()

    waiting = [pool.submit(begin.wait, 30) for _ in range(3)]
    waiting[0].add_done_callback(go_on)
    begin.set()
    assert ends.wait(30)
    pool.shutdown()
    assert len(set(threads)) == 1


def test_calls_submitted_when_another_has_ended_run_side_by_side() -> None:
    pool, begin, together, calls = ThreadPool(3), threading.Event(), threading.Barrier(3), []
    first = pool.submit(begin.wait, 30)
    first.add_done_callback(lambda future: calls.extend(pool.submit(together.wait, 30) for _ in range(3)))
    begin.set()
    assert first.result(30)
    pool.shutdown()
    assert sorted(call.result(30) for call in calls) == [0, 1, 2]


def test_an_interrupt_reaches_every_call_that_runs() -> None:
    pool, began = ThreadPool(2), threading.Barrier(3)

    def work() -> None:
        began.wait(30)
        while True:
            threading.Event().wait(0.001)

    calls = [pool.submit(work) for _ in range(2)]
    began.wait(30)
    pool.interrupt()
    assert {type(call.exception(30)) for call in calls} == {KeyboardInterrupt}
    assert pool.submit(int).result(30) == 0
    pool.shutdown()


def test_a_call_that_was_cancelled_before_it_began_does_not_run() -> None:
    pool, release, ran = ThreadPool(1), threading.Event(), []
    first = pool.submit(release.wait, 30)
    second: Future[None] = pool.submit(ran.append, 1)
    assert second.cancel()
    release.set()
    assert first.result(30)
    pool.shutdown()
    assert ran == []
