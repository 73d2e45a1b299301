"""The printed IR, and the literate golden files: a pipeline, its graph, and its graph after some passes.

A golden file is edited by hand, so that every change of it is read.
"""

import enum
import functools
import re
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from marin_trace import ResourceConfig, StepRef, deferred, output, step, trace, unversioned
from marin_trace.ir.graph import Graph
from marin_trace.ir.passes.inline_groups import inline_groups
from marin_trace.ir.passes.merge_equal_steps import merge_equal_steps
from marin_trace.ir.passes.select import select
from marin_trace.ir.printer import letters, print_graph, print_value
from marin_trace.ir.verifier import verify

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.md"))
FENCE = re.compile(r"^```(\w+)(?: ([^\n]+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def after(graph: Graph, title: str) -> str:
    """What a text block's title asks for: ``traced``, or the graph after some passes, one after the other."""
    for name in [] if title == "traced" else title.split(", "):
        match name.split(" "):
            case ["merge_equal_steps"]:
                graph = merge_equal_steps(graph)
            case ["inline_groups"]:
                graph = inline_groups(graph)
            case ["select", pattern]:
                graph = select(graph, [pattern])
            case _:
                raise AssertionError(f"no such pass: {name}")
        verify(graph)
    return str(graph)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_golden_pipeline_prints_as_written_before_and_after_each_pass(path: Path) -> None:
    blocks = FENCE.findall(path.read_text(encoding="utf-8"))
    [source] = [text for language, _, text in blocks if language == "python"]
    module = types.ModuleType(f"golden_{path.stem}")
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), vars(module))
        graph = trace(module.pipeline)
        verify(graph)
        expected = {title: text.rstrip("\n") for language, title, text in blocks if language == "text"}
        assert {title: after(graph, title) for title in expected} == expected
        assert "traced" in expected
    finally:
        del sys.modules[module.__name__]


def test_there_are_golden_files() -> None:
    assert len(GOLDEN) >= 4


def test_steps_are_lettered_in_order() -> None:
    assert [letters(index) for index in (0, 25, 26, 51, 52, 701, 702)] == ["a", "z", "aa", "az", "ba", "zz", "aaa"]
    assert len({letters(index) for index in range(20_000)}) == 20_000


class Colour(enum.Enum):
    RED = 1


@dataclass(frozen=True)
class Config:
    path: Any
    size: int = 3


def work(config: Any = None, *rest: Any, size: int = 1, **more: Any) -> Any: ...


run = deferred(work)


@step(name="data")
def data() -> StepRef:
    return run(output())


VALUES: list[tuple[Any, str]] = [
    (1, "1"),
    ("a'b", '"a\'b"'),
    ([1, (2,), (), (3, 4)], "[1, (2,), (), (3, 4)]"),
    ({"b": 1, "a": {2}}, "{'b': 1, 'a': {2}}"),
    (set(), "set([])"),
    (frozenset([1]), "frozenset([1])"),
    (Config("x"), "Config(path='x', size=3)"),
    (Colour.RED, "Colour.RED"),
    (StepRef.hardcoded("gs://x"), "path('gs://x')"),
    (unversioned([1]), "unversioned([1])"),
    (functools.partial(work, 1, k=2), "partial(work, 1, k=2)"),
    (int, "int"),
    (work, "work"),
    (bytearray(b"x"), "<bytearray>"),
    (unversioned(object()), "unversioned(<object>)"),
]


@pytest.mark.parametrize(("value", "text"), VALUES, ids=[text for _, text in VALUES])
def test_a_value_is_printed_as_python_where_it_can_be(value: Any, text: str) -> None:
    @step
    def body() -> StepRef:
        return run(value)

    assert str(trace(body)) == f"a : body = work({text}, size=1)"


def test_refs_are_printed_by_letter_and_kind() -> None:
    @step
    def body() -> StepRef:
        ref = data()
        return run([ref, ref / "x", ref.nonblocking() / "y", ref.artifact.k["i"], output() / "z"])

    expected = "b : body = work([a, a/'x', ?a/'y', a.artifact.k['i'], self/'z'], size=1)"
    assert str(trace(body)).split("\n")[1] == expected


def test_arguments_are_printed_as_they_were_given() -> None:
    @step
    def body() -> StepRef:
        return run(1, 2, 3, size=4, k=5)

    assert str(trace(body)) == "a : body = work(1, 2, 3, size=4, k=5)"


def test_options_that_were_given_are_printed() -> None:
    @step(
        resources=ResourceConfig.with_cpu(8),
        env_vars={"B": "secret", "A": "x"},
        pip_dependency_groups=["g", "h"],
        override_output_path="o/p",
        version=2,
        retries=3,
        timeout=60,
        fresh=True,
        description="not shown",
    )
    def body() -> StepRef:
        return run(output())

    head = "a : body [cpu=8 env=A,B pip=g,h at=o/p version=2 retries=3 timeout=60 fresh]"
    assert str(trace(body)) == f"{head} = work(self, size=1)"


def test_a_value_can_be_printed_alone() -> None:
    [node] = trace(data).nodes
    assert print_value(node.calls[0].arguments.values[0]) == "self"
    assert print_value(data() / "x") == "data/'x'"


def test_an_empty_graph_prints_as_nothing() -> None:
    assert print_graph(trace(lambda: None)) == ""
