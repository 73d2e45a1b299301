"""The verifier: leaked texts of refs, and graphs that contradict themselves."""

import dataclasses
import json
import os
import pprint
import shlex
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from marin_trace import StepRef, deferred, output, step, trace, unversioned
from marin_trace.errors import CycleError, GraphError, LeakedRefError
from marin_trace.ir.graph import Edge, EdgeKind, Graph, Node, graph_of, topological_order
from marin_trace.ir.verifier import find_cycle, raise_cycle, verify


@dataclass
class Config:
    value: Any


class Text(str):
    __slots__ = ()


def work(config: Any = None, *args: Any, **kwargs: Any) -> Any: ...


run = deferred(work)


@step(name="data/{name}")
def data(name: str = "fineweb", *inputs: Any) -> StepRef:
    return run(output(), *inputs)


LEAKS: list[tuple[str, Callable[[Any], Any], str]] = [
    ("str", str, "config"),
    ("repr in an f-string", lambda ref: f"{ref!r}/train", "config"),
    ("percent", lambda ref: "%s/train" % ref, "config"),  # noqa: UP031
    ("percent of a tuple", lambda ref: "%s-%r" % (1, ref), "config"),  # noqa: UP031
    ("str.format of repr", lambda ref: "{!r}".format(ref), "config"),  # noqa: UP032
    ("join", lambda ref: "/".join(["gs://b", str(ref)]), "config"),
    ("list in text", lambda ref: f"{[ref]}", "config"),
    ("basename", lambda ref: os.path.basename(str(ref)), "config"),
    ("dirname", lambda ref: os.path.dirname(str(ref)), "config"),
    ("Path", lambda ref: Path(str(ref)), "config"),
    ("PurePosixPath", lambda ref: PurePosixPath("a") / str(ref), "config"),
    ("bytes", lambda ref: str(ref).encode(), "config"),
    ("text subclass", lambda ref: Text(str(ref)), "config"),
    ("json", lambda ref: json.dumps({"path": str(ref)}), "config"),
    ("url", lambda ref: urllib.parse.quote(str(ref)), "config"),
    ("shell", lambda ref: shlex.join(["ls", str(ref)]), "config"),
    ("pprint", pprint.pformat, "config"),
    ("lower", lambda ref: str(ref).lower(), "config"),
    ("strip", lambda ref: str(ref).strip("<>"), "config"),
    ("artifact", lambda ref: str(ref.artifact.x), "config"),
    ("result", lambda ref: f"{run(1)!r}", "config"),
    ("own output", lambda ref: str(output()), "config"),
    ("hardcoded", lambda ref: str(StepRef.hardcoded("gs://b/x")), "config"),
    ("in a hardcoded path", lambda ref: StepRef.hardcoded(f"gs://b/{ref!r}"), "config"),
    ("dataclass field", lambda ref: Config({"k": [str(ref)]}), r"config\.value\['k'\]\[0\]"),
    ("dict key", lambda ref: {str(ref): 1}, r"config\.keys\(\)"),
    ("set", lambda ref: {str(ref)}, r"config\['\{\}'\]"),
    ("unversioned", lambda ref: unversioned(str(ref)), "config"),
    ("repr of a config", lambda ref: repr(Config(ref)), "config"),
]


@pytest.mark.parametrize(("leak", "path"), [entry[1:] for entry in LEAKS], ids=[entry[0] for entry in LEAKS])
def test_the_text_of_a_ref_in_a_config_is_found_with_its_path(
    leak: Callable[[Any], Any], path: str, at: Callable[[str], str]
) -> None:
    @step
    def body() -> StepRef:
        return run(leak(data()))  # leaked

    with pytest.raises(LeakedRefError, match=rf"work\({path}\) holds the text of a ref: ") as error:
        trace(body)
    assert at("leaked") in str(error.value)
    assert "hint: pass the ref itself, or ref / 'sub'" in str(error.value)


@pytest.mark.parametrize(
    "value",
    [
        "a > b",
        "<html><b>x</b></html>",
        "x/y>z",
        "-> int",
        "data/fineweb",
        "StepReference",
        "<StepRefs",
        ">=3",
        b">\xff<",
        "fineweb>=1",
    ],
)
def test_text_that_merely_looks_odd_is_no_leak(value: Any) -> None:
    @step
    def body() -> StepRef:
        return run(value, [value], {"k": value}, data())

    assert len(trace(body).nodes) == 2


def test_a_leak_in_a_partial_is_found() -> None:
    import functools

    @step
    def body() -> StepRef:
        return run(functools.partial(work, path=str(data())))

    with pytest.raises(LeakedRefError, match=r"work\(config\['path'\]\) holds the text of a ref"):
        trace(body)


def two_nodes() -> tuple[Node, Node]:
    first, second = trace(lambda: data("b", data("a"))).nodes
    return first, second


def rewired(node: Node, *producers: Node) -> Node:
    return dataclasses.replace(node, edges=tuple(Edge(EdgeKind.ORDERING, producer) for producer in producers))


def test_a_good_graph_is_verified() -> None:
    verify(trace(lambda: data("b", data("a"))))


def test_a_consumer_before_its_producer_is_an_error() -> None:
    _first, second = two_nodes()
    with pytest.raises(GraphError, match="data/b needs data/a, which does not come before it in the graph") as error:
        verify(Graph((second,), (), None, (second,)))
    assert "test_verifier.py:" in str(error.value)


def ring(length: int) -> list[Node]:
    """A hand-built graph in which each step needs the next."""
    nodes = [dataclasses.replace(two_nodes()[0], name=f"step-{index}", edges=()) for index in range(length)]
    for index, node in enumerate(nodes):
        object.__setattr__(node, "edges", (Edge(EdgeKind.ORDERING, nodes[(index + 1) % length]),))
    return nodes


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_cycle_by_a_hand_built_graph_is_an_error_naming_each_step(length: int) -> None:
    nodes = ring(length)
    with pytest.raises(CycleError, match="step-0 needs itself") as error:
        verify(Graph(tuple(nodes), (), None, (nodes[0],)))
    assert all(f"{node.name}  " in str(error.value) for node in nodes)
    assert str(error.value).count("test_verifier.py:") == length + 1


def test_a_long_cycle_is_found_without_recursion() -> None:
    nodes = ring(5000)
    assert len(find_cycle(nodes)) == 5000
    with pytest.raises(CycleError, match="needs itself"):
        topological_order(nodes, lambda node: [edge.producer for edge in node.edges])


def test_without_a_cycle_nothing_is_raised() -> None:
    raise_cycle(two_nodes())
    assert find_cycle(list(two_nodes())) == []


def test_topological_order_changes_nothing_that_is_in_order() -> None:
    nodes = two_nodes()
    assert topological_order(nodes, lambda node: [edge.producer for edge in node.edges]) == nodes
    assert topological_order(nodes[::-1], lambda node: [edge.producer for edge in node.edges]) == nodes


def test_graph_of_needs_no_recursion() -> None:
    def chain() -> StepRef:
        ref: Any = None
        for index in range(3000):
            ref = data(str(index), ref)
        return ref

    last = trace(chain).nodes[-1]
    assert len(graph_of([last]).nodes) == 3000
