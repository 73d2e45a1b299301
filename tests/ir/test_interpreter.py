"""The reference interpreter: the meaning of a graph and of a body."""

from typing import Any

import pytest

from marin_trace import StepRef, deferred, output, step, trace, unversioned
from marin_trace.ir.graph import Graph
from marin_trace.ir.interpreter import below, interpret


def look(*args: Any, **kwargs: Any) -> Any:
    return {"args": args, **kwargs}


run = deferred(look)


def results(graph: Graph) -> dict[str, Any]:
    return {node.name: value for node, value in interpret(graph, lambda node: f"/out/{node.name}").items()}


@step(name="{name}")
def make(name: str, *args: Any, **kwargs: Any) -> StepRef:
    return run(*args, **kwargs)


def test_refs_become_paths() -> None:
    def pipeline() -> None:
        data = make("data")
        make("all", data, data / "x", data.nonblocking() / "*.json", StepRef.hardcoded("gs://b/y"), unversioned(data))

    assert results(trace(pipeline))["all"]["args"] == (
        "/out/data",
        "/out/data/x",
        "/out/data/*.json",
        "gs://b/y",
        "/out/data",
    )


def test_own_output_becomes_the_steps_path() -> None:
    @step
    def body() -> StepRef:
        return run(output(), output() / "x")

    assert results(trace(body))["body"]["args"] == ("/out/body", "/out/body/x")


def test_artifacts_become_values() -> None:
    def pipeline() -> None:
        data = make("data", size=[1, {"k": 2}])
        make("all", data.artifact["size"][1]["k"], whole=data.artifact)

    made = results(trace(pipeline))["all"]
    assert made == {"args": (2,), "whole": {"args": (), "size": [1, {"k": 2}]}}


def test_results_of_earlier_calls_become_values() -> None:
    @step
    def body() -> Any:
        first = run(1)
        return {"both": [first["args"][0], run(first)["args"]]}

    assert results(trace(body))["body"] == {"both": [1, ({"args": (1,)},)]}


def test_every_step_runs_once_in_order() -> None:
    ran: list[str] = []

    def note(name: str, *_: Any) -> None:
        ran.append(name)

    @step(name="{name}")
    def noted(name: str, *inputs: Any) -> StepRef:
        return deferred(note, identity="note")(name, *inputs)

    def diamond() -> None:
        top = noted("top")
        noted("join", noted("left", top), noted("right", top))

    interpret(trace(diamond), lambda node: node.name)
    assert ran == ["top", "left", "right", "join"]


def test_what_a_function_does_to_its_arguments_is_seen_by_nobody_else() -> None:
    def grow(items: list[int]) -> list[int]:
        items.append(1)
        return items

    config: list[int] = []

    @step
    def body() -> StepRef:
        deferred(grow, identity="grow")(config)
        return deferred(grow, identity="grow")(config)

    graph = trace(body)
    assert results(graph) == results(graph) == {"body": [1]}


def test_an_exception_is_the_functions_own() -> None:
    def fail() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        results(trace(step(lambda: deferred(fail, identity="fail")()).with_options(name="x")))


def test_paths_are_joined_by_one_slash() -> None:
    assert [below("a/", "b"), below("a", ""), below("gs://b", "x/y")] == ["a/b", "a", "gs://b/x/y"]
