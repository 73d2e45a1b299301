"""The reference interpreter: the meaning of a graph, and of one body.

:func:`interpret` runs a graph one step after the other, with nothing between: no cache, no lock, no storage. The
runtime must leave what it leaves, for every legal interleaving; passes must not change it. :func:`run_body` is also
what a lowered step runs.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from marin_trace.ir.config_tree import Record, Tree, materialise
from marin_trace.ir.refs import (
    DeferredResult,
    HardcodedPath,
    OwnOutput,
    StepOutput,
    project,
    projection_steps,
    source_of,
)
from marin_trace.ir.signatures import CallPlan

if TYPE_CHECKING:
    from marin_trace.ir.graph import Graph, Node


def interpret(graph: "Graph", output_path: "Callable[[Node], str]") -> "dict[Node, Any]":
    """Runs every step of a graph, in order, in this thread.

    **Phase**: run time.

    Args:
        graph: A verified graph: producers come first.
        output_path: Where each step writes.

    Returns:
        What each step returned (its artifact).
    """
    artifact_by_node: dict[Node, Any] = {}
    for node in graph.nodes:

        def value_of(leaf: Any, results: Sequence[Any], node: "Node" = node) -> Any:
            match leaf:
                case OwnOutput():
                    return below(output_path(node), leaf.subpath)
                case StepOutput():
                    return below(output_path(leaf.step_node()), leaf.subpath)
                case HardcodedPath():
                    return leaf.path
                case DeferredResult():
                    return project(results[source_of(leaf).index], projection_steps(leaf))
                case _:
                    return project(artifact_by_node[source_of(leaf).node], projection_steps(leaf))

        calls = [(call.function.function, call.arguments) for call in node.calls]
        artifact_by_node[node] = run_body(calls, node.returned, value_of)
    return artifact_by_node


def run_body(
    calls: Iterable[tuple[Callable[..., Any], Record]], returned: Tree, value_of: Callable[[Any, Sequence[Any]], Any]
) -> Any:
    """Makes the calls of one body, in order, and returns what the body returned.

    Args:
        calls: Each function with its arguments.
        returned: The tree of the artifact.
        value_of: From a leaf, and the results of the calls made so far, to its value.
    """
    results: list[Any] = []

    def value(leaf: Any) -> Any:
        return value_of(leaf, results)

    for function, arguments in calls:
        plan = arguments.plan
        assert isinstance(plan, CallPlan)
        results.append(plan.call(function, [materialise(argument, value) for argument in arguments.values]))
    return materialise(returned, value)


def below(path: str, subpath: str) -> str:
    """A path below an output path; the output path itself for an empty subpath."""
    return f"{path.rstrip('/')}/{subpath}" if subpath else path
