"""Threads: each context has its own trace, and a deferred call never does its work at trace time."""

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from marin_trace import StepRef, deferred, output, step, trace
from marin_trace.errors import TraceError
from marin_trace.io import running_body

CALLS: list[Any] = []


def work(*args: Any) -> Any:
    CALLS.append(args)


run = deferred(work)


@pytest.fixture(autouse=True)
def no_calls() -> None:
    CALLS.clear()


@step(name="{name}")
def make(name: str, *inputs: Any) -> StepRef:
    return run(output(), *inputs)


def result_in_thread(fn: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(fn).result(timeout=30)


def test_threads_trace_independently() -> None:
    barrier = threading.Barrier(4)

    def pipeline(word: str) -> str:
        def traced() -> StepRef:
            ref = make(word)
            barrier.wait(timeout=30)
            return make(f"{word}-2", ref)

        return str(trace(traced))

    with ThreadPoolExecutor(4) as pool:
        printed = list(pool.map(pipeline, ["a", "b", "c", "d"]))
    assert printed == [str(trace(lambda w=w: make(f"{w}-2", make(w)))) for w in "abcd"]


def test_a_deferred_call_in_a_thread_without_a_trace_is_an_error_while_one_is_open(at: Callable[[str], str]) -> None:
    @step
    def body() -> StepRef:
        with pytest.raises(
            TraceError, match=r"work\(\) was called in a thread that traces nothing, while a trace is open"
        ) as error:
            result_in_thread(lambda: run(1))  # in a thread
        assert at("in a thread") in str(error.value)
        assert "contextvars.copy_context().run" in str(error.value).split("hint: ")[1]
        return run(output())

    body()
    assert CALLS == []


def test_a_deferred_call_in_a_thread_with_the_context_is_recorded() -> None:
    @step
    def body() -> StepRef:
        context = contextvars.copy_context()
        return result_in_thread(lambda: context.run(run, 1))

    assert [len(node.calls) for node in trace(body).nodes] == [1]
    assert CALLS == []


def test_a_thread_that_runs_a_body_may_call_while_a_trace_is_open() -> None:
    def running() -> None:
        token = running_body.set(True)
        run("work")
        running_body.reset(token)

    @step
    def body() -> StepRef:
        result_in_thread(running)
        return run(output())

    body()
    assert CALLS == [("work",)]


def test_a_deferred_call_in_a_thread_is_made_when_no_trace_is_open() -> None:
    make("a")
    with pytest.raises(ZeroDivisionError, match="division"):
        trace(lambda: 1 / 0)
    result_in_thread(lambda: run(1))
    assert CALLS == [(1,)]


def test_a_step_called_in_a_thread_of_a_body_has_a_trace_of_its_own() -> None:
    @step
    def body() -> StepRef:
        return run(output(), result_in_thread(lambda: make("inner")))

    graph = trace(body)
    assert [node.name for node in graph.nodes] == ["inner", "body"]


def test_a_context_that_outlives_its_body_records_nothing() -> None:
    contexts: list[contextvars.Context] = []

    @step
    def body() -> None:
        run(1)
        contexts.append(contextvars.copy_context())

    body()
    with pytest.raises(TraceError, match=r"context of body, whose body has ended\n  at .*test_threads\.py"):
        contexts[0].run(run, 2)
