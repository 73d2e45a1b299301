"""The pause of the cyclic garbage collector: it ends with the trace, however that ends."""

import gc
from collections.abc import Iterator

import pytest

from marin_trace import StepRef, deferred, output, step, trace
from marin_trace.ir.collector import collector_paused


@pytest.fixture(autouse=True)
def collector_on() -> Iterator[None]:
    gc.enable()
    yield
    gc.enable()


@step
def traced(states: list[bool]) -> StepRef:
    states.append(gc.isenabled())
    return deferred(repr)(output())


def test_the_collector_pauses_while_a_trace_is_open_and_goes_on_afterwards() -> None:
    states: list[bool] = []
    trace(lambda: traced(states))
    assert states == [False]
    assert gc.isenabled()


def test_the_collector_goes_on_after_an_exception() -> None:
    with pytest.raises(ZeroDivisionError, match="division"):
        trace(lambda: 1 / 0)
    assert gc.isenabled()


def test_nested_pauses_are_one() -> None:
    with collector_paused():
        with collector_paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    with collector_paused():
        pass
    assert not gc.isenabled()


def test_what_somebody_froze_stays_frozen() -> None:
    gc.freeze()
    try:
        count = gc.get_freeze_count()
        with collector_paused():
            pass
        assert gc.get_freeze_count() >= count - 100
    finally:
        gc.unfreeze()
