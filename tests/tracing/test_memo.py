"""Memoised tracing: the same call is traced once, and what counts as the same."""

import dataclasses
import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from marin_trace import ResourceConfig, StepRef, deferred, output, step, trace, unversioned
from marin_trace.errors import ConfigTypeError, LeakedRefError


def work(*args: Any) -> Any: ...


run = deferred(work)
RUNS: list[Any] = []


@pytest.fixture(autouse=True)
def no_runs() -> None:
    RUNS.clear()


@step(name="made")
def make(*args: Any, **kwargs: Any) -> StepRef:
    RUNS.append(args)
    return run(output())


@dataclass(frozen=True)
class Config:
    value: Any


class Colour(enum.Enum):
    RED = 1


class Unencodable:
    pass


OBJECT = Unencodable()
REF = make("of another trace")

SAME: dict[str, tuple[Any, Any]] = {
    "numbers": (1, 1),
    "floats": (0.5, 0.5),
    "texts": ("a" * 3, "aaa"),
    "dicts in another order": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "sets": ({"a", "b", "c"}, {"c", "b", "a"}),
    "dataclasses": (Config([1]), Config([1])),
    "one object without an encoding": (OBJECT, OBJECT),
    "one ref": (REF, REF / "x" / ".." if False else REF),
    "not a number": (float("nan"), float("nan")),
    "enums": (Colour.RED, Colour(1)),
    "unversioned": (unversioned(3), unversioned(3)),
    "hardcoded": (StepRef.hardcoded("x"), StepRef.hardcoded("x")),
}

DIFFERENT: dict[str, tuple[Any, Any]] = {
    "true and one": (True, 1),
    "one and one point zero": (1, 1.0),
    "one and text": (1, "1"),
    "zero and minus zero": (0.0, -0.0),
    "text and bytes": ("a", b"a"),
    "list and tuple": ([1], (1,)),
    "none and text": (None, "None"),
    "false and empty": (False, ""),
    "dict and dataclass": ({"value": 1}, Config(1)),
    "objects without an encoding": (OBJECT, Unencodable()),
    "unversioned values": (unversioned(1), unversioned(2)),
    "versioned and unversioned": (1, unversioned(1)),
    "blocking and not": (REF, REF.nonblocking()),
    "subpaths": (REF, REF / "x"),
    "ref and artifact": (REF, REF.artifact),
    "artifact fields": (REF.artifact.a, REF.artifact.b),
    "nested": ({"k": [Config(True)]}, {"k": [Config(1)]}),
    "functions": (work, make.__wrapped__),
}


@pytest.mark.parametrize("name", SAME)
def test_equal_arguments_are_traced_once(name: str) -> None:
    first, second = SAME[name]
    graph = trace(lambda: [make(first), make(second), make(first)])
    assert len(RUNS) == 1
    assert len(graph.nodes) - isinstance(first, type(REF)) == 1


@pytest.mark.parametrize("name", DIFFERENT)
def test_different_arguments_are_traced_apart(name: str) -> None:
    first, second = DIFFERENT[name]
    trace(lambda: [make(first), make(second)])
    assert len(RUNS) == 2


def test_true_and_one_are_different_arguments() -> None:
    trace(lambda: [make(True), make(1), make(1.0)])
    assert [type(args[0]) for args in RUNS] == [bool, int, float]


def test_arguments_are_compared_as_bound() -> None:
    @step
    def named(a: int, b: int = 2) -> StepRef:
        RUNS.append((a, b))
        return run(output())

    trace(lambda: [named(1), named(1, 2), named(b=2, a=1), named(a=1)])
    assert RUNS == [(1, 2)]


def test_each_call_returns_a_fresh_ref_to_the_same_node() -> None:
    def pipeline() -> None:
        first, second = make(1), make(1)
        assert first is not second
        assert first.node is second.node
        assert first == second

    trace(pipeline)


def test_other_options_are_another_call_and_the_same_options_the_same() -> None:
    @step
    def optioned() -> StepRef:
        RUNS.append(1)
        return run(output())

    def pipeline() -> None:
        optioned()
        optioned.with_options(retries=1)()
        optioned.with_options(retries=1)()
        optioned.with_options(retries=True)() if False else None
        optioned.with_options(resources=ResourceConfig.with_cpu(2))()
        optioned.with_options(resources=ResourceConfig.with_cpu(2))()

    assert len(trace(pipeline).nodes) == len(RUNS) == 3


def test_options_made_anew_for_each_call_are_never_confused() -> None:
    def pipeline() -> None:
        for cpus in range(1, 30):
            make.with_options(resources=lambda cpus=cpus: ResourceConfig.with_cpu(cpus))()

    cpus = [node.options.resources.cpu for node in trace(pipeline).nodes]
    assert cpus == list(range(1, 30))


def test_step_objects_made_anew_are_different_steps() -> None:
    def maker(number: int) -> Any:
        @step(name="made")
        def made() -> StepRef:
            return run(output(), number)

        return made

    assert len(trace(lambda: [maker(number)() for number in range(30)]).nodes) == 30


def test_objects_made_anew_for_each_call_are_never_confused() -> None:
    graph = trace(lambda: [make(Unencodable()) for _ in range(30)])
    assert len(RUNS) == len(graph.nodes) == 30


def test_the_memo_ends_with_its_trace() -> None:
    trace(make, 1)
    trace(make, 1)
    make(1)
    assert len(RUNS) == 3


def test_an_argument_is_a_snapshot() -> None:
    config = {"steps": [1]}

    @step
    def keeps(config: Any) -> StepRef:
        return run(output(), config)

    def pipeline() -> list[StepRef]:
        first = keeps(config)
        config["steps"].append(2)
        return [first, keeps(config)]

    first, second = trace(pipeline).nodes
    printed = [str(node.calls[0].arguments.values[0].items[1].values[0].items) for node in (first, second)]
    assert printed == ["(1,)", "(1, 2)"]


def test_what_a_call_receives_is_a_snapshot_too() -> None:
    @dataclass
    class Mutable:
        items: list[int]

    @step
    def body() -> StepRef:
        config = Mutable([1])
        result = run(config)
        config.items.append(2)
        config.items = []
        return result

    assert "Mutable(items=[1])" in str(trace(body))


def test_call_that_raised_leaves_nothing() -> None:
    fail = [True]

    @step
    def flaky() -> StepRef:
        RUNS.append(1)
        run("recorded before the failure")
        if fail[0]:
            raise ValueError("mine")
        return run(output())

    def pipeline() -> StepRef:
        with pytest.raises(ValueError, match="mine"):
            flaky()
        fail[0] = False
        return flaky()

    graph = trace(pipeline)
    assert len(RUNS) == 2
    assert [len(node.calls) for node in graph.nodes] == [2]


def test_mistakes_in_a_call_that_raised_are_forgotten_and_found_again() -> None:
    @step
    def inner() -> StepRef:
        RUNS.append("inner")
        return deferred(callback)("too many", "arguments")

    @step
    def failing() -> None:
        inner()
        raise ValueError("mine")

    def caught() -> None:
        with pytest.raises(ValueError, match="mine"):
            failing()

    assert trace(caught).nodes == ()
    with pytest.raises(ConfigTypeError, match=r"callback\(\): too many positional arguments"):
        trace(lambda: [caught(), inner()])
    assert RUNS == ["inner"] * 3


def test_a_call_that_raised_is_no_cycle_when_called_again() -> None:
    @step
    def always(n: int) -> StepRef:
        raise ValueError("mine")

    def pipeline() -> None:
        for _ in range(2):
            with pytest.raises(ValueError, match="mine"):
                always(1)

    assert trace(pipeline).nodes == ()


def test_a_diamond_runs_each_body_once() -> None:
    @step(name="level/{depth}")
    def level(depth: int) -> StepRef:
        RUNS.append(depth)
        return run(output(), *([level(depth - 1), level(depth - 1)] if depth else []))

    graph = trace(level, 40)
    assert sorted(RUNS) == list(range(41))
    assert len(graph.nodes) == 41
    assert sum(len(node.edges) for node in graph.nodes) == 80


def test_a_diamond_of_groups_runs_each_body_once() -> None:
    @step(name="group/{depth}")
    def group(depth: int) -> Any:
        RUNS.append(depth)
        return [group(depth - 1)[0], group(depth - 1)[0]] if depth else [make(0)]

    graph = trace(group, 12)
    assert len(RUNS) == 14
    assert len(graph.groups) == 13


def test_a_memoised_call_still_refuses_what_may_not_be_passed() -> None:
    @step
    def body() -> StepRef:
        result = run(1)
        with pytest.raises(LeakedRefError, match="was passed to the step made"):
            make(result)
        return make(result)

    with pytest.raises(LeakedRefError, match="was passed to the step made"):
        body()


def test_replacing_a_field_makes_another_call() -> None:
    config = Config(1)
    trace(lambda: [make(config), make(dataclasses.replace(config, value=2)), make(Config(2))])
    assert len(RUNS) == 2


def callback() -> None: ...


@pytest.mark.parametrize("make_value", [lambda: callback, lambda: deferred(callback).__wrapped__])
def test_the_same_function_is_the_same_argument(make_value: Callable[[], Any]) -> None:
    trace(lambda: [make(make_value()), make(make_value())])
    assert len(RUNS) == 1
