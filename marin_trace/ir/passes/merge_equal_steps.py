"""Merges steps that are one step: equal fingerprint and output path, called in different places or traces."""

import dataclasses
import warnings
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from marin_trace.errors import CycleError, MarinTraceWarning, OptionsConflictError, explain
from marin_trace.ir.canonical import fingerprints, memo_bytes
from marin_trace.ir.config_tree import substitute, unversioned_parts
from marin_trace.ir.graph import Edge, EdgeKind, Graph, Group, Node, Options, topological_order
from marin_trace.ir.passes.inline_groups import read_steps, steps_of
from marin_trace.ir.passes.rewrite import rewritten
from marin_trace.ir.refs import (
    DeferredResult,
    OwnOutput,
    StepArtifact,
    StepOutput,
    projection_steps,
    render_steps,
    source_of,
)
from marin_trace.ir.verifier import find_cycle


def merge_equal_steps(graph: Graph, fingerprint_by_node: dict[Node, str] | None = None) -> Graph:
    """The graph with one step for each fingerprint and output path: the first in trace order.

    The ordering edges of merged steps are united. Of unversioned values the first step's win, with a warning; of run
    options an explicit one beats one that was not given.

    Args:
        graph: Any graph.
        fingerprint_by_node: The fingerprints, where the caller has them.

    Raises:
        OptionsConflictError: Two of them were given different run options.
        CycleError: Their edges, united, lead in a circle.
    """
    fingerprint_by_node = fingerprint_by_node or fingerprints(graph.nodes)
    first_by_key: dict[tuple[str, str | None], Node] = {}
    merged_by_first: dict[Node, Node] = {}
    first_by_other: dict[Node | Group, Node] = {}
    for node in graph.nodes:
        first = first_by_key.setdefault((fingerprint_by_node[node], node.override_output_path), node)
        if first is not node:
            first_by_other[node] = first
            merged_by_first[first] = _merged(merged_by_first.get(first, first), node, first, fingerprint_by_node)
    if not first_by_other:
        return graph
    read = read_steps(graph)
    same_by_first: dict[Node, set[Node | Group]] = {first: {first} for first in merged_by_first}
    for other, first in first_by_other.items():
        same_by_first[first].add(other)
    for first, same in same_by_first.items():
        merged_by_first[first] = _without_own_groups(merged_by_first[first], same, read)

    def producers_of(node: Node) -> Iterable[Any]:
        for edge in merged_by_first.get(node, node).edges:
            producer = edge.producer
            steps = steps_of(producer) if isinstance(producer, Group) else (producer,)
            kept = [first_by_other.get(step, step) for step in steps]
            yield from kept if not isinstance(producer, Group) else (step for step in kept if step is not node)

    nodes = [node for node in graph.nodes if node not in first_by_other]
    try:
        kept = topological_order(nodes, producers_of)
    except CycleError:
        raise _cycle(find_cycle(nodes, producers_of), first_by_other) from None
    return rewritten(dataclasses.replace(graph, nodes=kept), merged_by_first, first_by_other)


def _without_own_groups(merged: Node, same: set[Node | Group], read: Collection[Node | Group]) -> Node:
    """A merged step that runs after a group which it is itself a step of now: it runs after the group's other steps."""

    def others(child: Node | Group) -> list[Node] | None:
        steps = steps_of(child) if isinstance(child, Group) else ()
        return None if same.isdisjoint(steps) else [step for step in steps if step not in same]

    edges: list[Edge] = []
    for edge in merged.edges:
        steps = others(edge.producer)
        weak, strong = EdgeKind.WEAK_ORDERING, EdgeKind.ORDERING
        edges += [edge] if steps is None else [Edge(weak if step in read else strong, step) for step in steps]
    called: dict[Node | Group, None] = {}
    for child in merged.called:
        steps = others(child)
        called |= dict.fromkeys([child] if steps is None else steps)
    return dataclasses.replace(merged, edges=tuple(edges), called=tuple(called))


def _cycle(cycle: list[Node], first_by_other: Mapping[Any, Node]) -> CycleError:
    """What to say of a cycle: every line that called one of its steps."""
    lines: dict[Node, dict[str, None]] = {node: {str(node.location): None} for node in cycle}
    for other, first in first_by_other.items():
        if first in lines:
            lines[first][str(other.location)] = None
    width = max(len(node.name) for node in cycle)
    return CycleError(
        explain(
            f"{cycle[0].name} needs itself, since equal steps are one",
            facts=["needs, in turn:", *(f"  {node.name:<{width}}  {', '.join(lines[node])}" for node in cycle)],
            hint="an unused ref argument means 'run after'; drop the one that leads back",
        )
    )


def _merged(merged: Node, other: Node, first: Node, fingerprint_by_node: Mapping[Node, str]) -> Node:
    _warn_of_different_values(first, other, fingerprint_by_node)
    options = _merged_options(merged.options, other.options, first, other)
    known = {(edge.kind, edge.producer) for edge in merged.edges}
    united = [e for e in other.edges if e.kind is EdgeKind.ORDERING or (e.kind is EdgeKind.NONBLOCKING and not e.path)]
    orderings = [Edge(e.kind, e.producer) for e in united if (e.kind, e.producer) not in known]
    called = tuple(dict.fromkeys((*merged.called, *other.called)))
    return dataclasses.replace(merged, options=options, edges=(*merged.edges, *orderings), called=called)


def _warn_of_different_values(first: Node, other: Node, fingerprint_by_node: Mapping[Node, str]) -> None:
    for a, b in zip(first.calls, other.calls, strict=True):
        for name, mine, theirs in zip(a.arguments.plan.names, a.arguments.values, b.arguments.values, strict=True):
            if _unversioned_key(mine, fingerprint_by_node) != _unversioned_key(theirs, fingerprint_by_node):
                message = explain(
                    f"{first.name} is called with different unversioned values for {a.function.label}({name}): "
                    "the first call's win",
                    facts={"first": first.location, "second": other.location},
                    hint="give both calls the same value",
                )
                warnings.warn_explicit(message, MarinTraceWarning, other.location.file, other.location.line)
                return


def _unversioned_key(tree: Any, fingerprint_by_node: Mapping[Node, str]) -> list[bytes]:
    """What of a value is no part of the identity; refs by meaning, since those of two traces are different objects."""

    def meaning(leaf: Any, _: object) -> Any:
        match leaf:
            case StepOutput():
                return f"{leaf.blocking} {fingerprint_by_node[leaf.step_node()]} {leaf.subpath}"
            case StepArtifact():
                return f"{fingerprint_by_node[source_of(leaf).step_node()]}{render_steps(projection_steps(leaf))}"
            case OwnOutput():
                return f"output() {leaf.subpath}"
            case DeferredResult():
                return f"{source_of(leaf).index}{render_steps(projection_steps(leaf))}"
            case _:
                return leaf

    return [memo_bytes(substitute(part, meaning)) for part in unversioned_parts(tree)]


def _merged_options(a: Options, b: Options, first: Node, other: Node) -> Options:
    changes: dict[str, Any] = {}
    for name, value in b.given().items():
        mine = getattr(a, name)
        if mine is None or (name == "expect_fingerprint" and value.startswith(mine)):
            changes[name] = value
        elif name == "expect_fingerprint" and mine.startswith(value):
            continue
        elif name in (*Options.RUN_OPTIONS, "expect_fingerprint") and not _same_option(mine, value):
            raise OptionsConflictError(
                explain(
                    f"{first.name} is called with two different {name}",
                    facts={
                        "first": f"{first.location}  {_shown(name, mine)}",
                        "second": f"{other.location}  {_shown(name, value)}",
                    },
                    hint="give it in one place: on @step, or in one of the calls",
                )
            )
    return dataclasses.replace(a, **changes) if changes else a


def _shown(name: str, value: Any) -> object:
    """An option's value; of environment variables the names alone, since a value may be a secret."""
    return ", ".join(sorted(value)) if name == "env_vars" else value


def _same_option(a: object, b: object) -> bool:
    return type(a) is type(b) and a == b
