"""Laws of `Turns`: who waits holds no thread, and is woken in time."""

import threading
from collections.abc import Generator
from queue import SimpleQueue
from typing import Any

from marin_trace.runtime.turns import Turns

PATIENCE_S = 30.0


def test_many_that_wait_hold_no_thread() -> None:
    turns, ended, before = Turns(max_threads=2), SimpleQueue[Any](), threading.active_count()
    begun = [threading.Event() for _ in range(300)]

    def talk(number: int) -> Generator[float]:
        begun[number].set()
        yield 1_000.0

    talks = [turns.begin(talk(number), ended.put) for number in range(300)]
    assert all(event.wait(PATIENCE_S) for event in begun)
    assert threading.active_count() <= before + 3
    for waiting in talks:
        waiting.rouse()
    assert [ended.get(timeout=PATIENCE_S) for _ in talks] == [None] * 300


def test_they_go_on_in_the_order_of_their_times() -> None:
    turns, order = Turns(max_threads=1), SimpleQueue[float]()

    def talk(seconds: float) -> Generator[float]:
        yield seconds
        order.put(seconds)

    for seconds in (0.09, 0.03, 0.06):
        turns.begin(talk(seconds), lambda error: None)
    assert [order.get(timeout=PATIENCE_S) for _ in range(3)] == [0.03, 0.06, 0.09]


def test_what_a_talk_raises_is_its_settlement() -> None:
    settled = SimpleQueue[Any]()

    def talk() -> Generator[float]:
        yield 0.0
        raise LookupError("told to")

    Turns().begin(talk(), settled.put)
    error = settled.get(timeout=PATIENCE_S)
    assert isinstance(error, LookupError)
    assert settled.empty()


def test_one_that_is_roused_at_work_does_not_rest() -> None:
    turns, at_work, go_on, ended = Turns(), threading.Event(), threading.Event(), SimpleQueue[Any]()

    def talk() -> Generator[float]:
        at_work.set()
        go_on.wait(PATIENCE_S)
        yield 1_000.0

    begun = turns.begin(talk(), ended.put)
    at_work.wait(PATIENCE_S)
    begun.rouse()
    go_on.set()
    assert ended.get(timeout=PATIENCE_S) is None


def test_a_talk_has_one_turn_at_a_time() -> None:
    turns, ended = Turns(max_threads=8), SimpleQueue[Any]()
    at_work = overlaps = 0

    def talk() -> Generator[float]:
        nonlocal at_work, overlaps
        for _ in range(200):
            at_work += 1
            overlaps += at_work > 1
            at_work -= 1
            yield 0.0001

    begun = turns.begin(talk(), ended.put)
    while ended.empty():
        begun.rouse()
    assert overlaps == 0


def test_rousing_one_that_is_over_does_nothing() -> None:
    turns, ended = Turns(), SimpleQueue[Any]()

    def talk() -> Generator[float]:
        yield from ()

    begun = turns.begin(talk(), ended.put)
    assert ended.get(timeout=PATIENCE_S) is None
    begun.rouse()
    turns.begin(talk(), ended.put)
    assert ended.get(timeout=PATIENCE_S) is None
    assert ended.empty()
