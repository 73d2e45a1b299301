"""The verifier: what must be true of every graph, one function per rule.

Runs after tracing, before lowering, and in the tests after every pass. Rules about structure complain about compiler
passes and hand-built graphs; rules about configs complain about what users wrote. None does I/O.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePath
from typing import Any

from marin_trace.errors import CycleError, GraphError, LeakedRefError, UnstableValueError, explain
from marin_trace.ir.canonical import identity_of
from marin_trace.ir.config_tree import (
    TRACED,
    BoundFunction,
    Found,
    Opaque,
    Record,
    Sequence,
    Tree,
    Unversioned,
    leaves,
    short_repr,
)
from marin_trace.ir.config_tree import Mapping as MappingTree
from marin_trace.ir.findings import Finding, raise_findings
from marin_trace.ir.graph import Call, Graph, Group, Node
from marin_trace.ir.records import Absent, class_of
from marin_trace.ir.refs import HardcodedPath

_LEAK = re.compile(
    r"<?(?:StepRef|StepArtifact|DeferredResult)[ _%/-]|%3CStepRef|<(?:stepref|stepartifact|deferredresult) "
)
"""A recognisable beginning of the repr of a ref, an artifact or a deferred result, as it may survive in a text."""
_TAIL = re.compile(r"(?:^|/)([A-Za-z0-9._=+@,-]+)(?: \(nonblocking\))?>(?:/|$)")
"""What splitting such a repr at a slash leaves at its end; the name must be a step's to count."""

_CANNOT_LEAK = frozenset({type(None), bool, int, float, *TRACED}) - {HardcodedPath}


def verify(graph: Graph) -> None:
    """Raises what is wrong with a graph.

    Raises:
        CycleError: Steps need each other.
        GraphError: A consumer comes before its producer, or an edge leads out of the graph.
        MarinTraceError: A config holds what it must not hold; all complaints come at once.
    """
    verify_order(graph)
    raise_findings(list(verify_nodes(graph.nodes)))


def verify_order(graph: Graph) -> None:
    """Rule: every producer is in the graph, before its consumers.

    Raises:
        CycleError: It cannot come before them, since steps need each other.
        GraphError: It is not in the graph, or comes later than it could.
    """
    seen: set[Node | Group] = set(graph.groups)
    for node in graph.nodes:
        for edge in node.edges:
            if edge.producer not in seen:
                if edge.producer in set(graph.nodes):
                    raise_cycle(graph.nodes)
                raise GraphError(_misplaced(node, edge.producer))
        seen.add(node)


def _misplaced(node: Node, producer: Node | Group) -> str:
    return explain(
        f"{node.name} needs {producer.name}, which does not come before it in the graph",
        at=node.location,
        facts={"producer": f"{producer.name}  {producer.location}"},
    )


def producers_of(node: Node) -> Iterator[Node | Group]:
    """What a step's edges lead to."""
    return (edge.producer for edge in node.edges)


def raise_cycle(nodes: Iterable[Node], producers: Callable[[Node], Iterable[Any]] = producers_of) -> None:
    """Raises the first cycle among ``nodes``; returns where there is none. O(V + E), no recursion.

    Raises:
        CycleError: Naming each step of the cycle and its line.
    """
    cycle = find_cycle(list(nodes), producers)
    if cycle:
        width = max(len(node.name) for node in cycle)
        raise CycleError(
            explain(
                f"{cycle[0].name} needs itself",
                at=cycle[0].location,
                facts=["needs, in turn:", *(f"  {node.name:<{width}}  {node.location}" for node in cycle)],
                hint="an unused ref argument means 'run after'; drop the one that leads back",
            )
        )


def find_cycle(nodes: list[Node], producers: Callable[[Node], Iterable[Any]] = producers_of) -> list[Node]:
    """The steps of one cycle, consumer before producer, or an empty list."""
    in_graph, finished = set(nodes), set[Node]()
    for start in nodes:
        trail: dict[Node, None] = {}
        stack: list[tuple[Node, Iterator[Node]]] = []
        if start not in finished:
            stack.append((start, iter(producers(start))))
            trail[start] = None
        while stack:
            node, remaining = stack[-1]
            producer = next(remaining, None)
            if producer is None:
                stack.pop()
                del trail[node]
                finished.add(node)
            elif producer in trail:
                steps = list(trail)
                return steps[steps.index(producer) :]
            elif producer in in_graph and producer not in finished:
                trail[producer] = None
                stack.append((producer, iter(producers(producer))))
    return []


def verify_nodes(nodes: Iterable[Node]) -> Iterator[Finding]:
    """The findings of all rules about configs."""
    for node in nodes:
        for call in node.calls:
            # Most calls hold neither; that is found out here, without a generator each.
            for found in call.found:
                if class_of(found.leaf) in _MAY_BE_UNSTABLE:
                    yield from _unstable_values(node, call)
                    break
            if _any_may_leak(call.arguments.values):
                yield from _leaked_texts(node, call)


_MAY_BE_UNSTABLE = frozenset({Opaque, BoundFunction})


def _unstable_values(node: Node, call: Call) -> Iterator[Finding]:
    """Rule: what counts for the identity has one."""
    for found in call.found:
        if not found.versioned or class_of(found.leaf) not in _MAY_BE_UNSTABLE:
            continue
        complaint = _complaint_about(found)
        if complaint is not None:
            yield Finding(
                f"{call.function.label}({found.path}) has no stable identity: {complaint}",
                node.name,
                call.location,
                hint=_hint_about(found, call),
                error=UnstableValueError,
            )


def _hint_about(found: Found, call: Call) -> str:
    value: object = found.leaf.value if isinstance(found.leaf, Opaque) else None
    own_hint = getattr(type(value), "__marin_trace_hint__", None)
    if own_hint is not None:
        return own_hint(value)
    return (
        f"unversioned(...) if it does not change the result (also: deferred({call.function.label}, "
        f'unversioned=("{found.path}",))), else register_encoder(...) for its class, or pass a name'
    )


def _complaint_about(found: Found) -> str | None:
    if isinstance(found.leaf, Opaque):
        return None if found.leaf.encoding is not None else short_repr(found.leaf.value)
    try:
        identity_of(found.leaf.function)
    except UnstableValueError as error:
        return str(error).split("\n", 1)[0]
    return None


def _leaked_texts(node: Node, call: Call) -> Iterator[Finding]:
    """Rule: no text holds the repr of a ref, or a recognisable part of one."""
    for path, leaf in leaves(call.arguments):
        text = _text_of(leaf)
        if text is not None and is_leaked(text, node):
            yield Finding(
                f"{call.function.label}({path}) holds the text of a ref: {short_repr(text)}",
                node.name,
                call.location,
                hint="pass the ref itself, or ref / 'sub': text of a ref is no path",
                error=LeakedRefError,
            )


def _may_leak(tree: Tree) -> bool:
    """A quick look for the characters that every leak has."""
    kind = class_of(tree)
    if kind is str:
        return ">" in tree or "tepRef" in tree or "tepref" in tree
    if kind is Record or kind is MappingTree:
        return _any_may_leak(tree.values) or (kind is MappingTree and _any_may_leak(tree.keys))
    if kind is Sequence:
        return _any_may_leak(tree.items)
    if kind is BoundFunction:
        return _any_may_leak((*tree.args, *tree.keywords.values()))
    if kind is Unversioned:
        return _may_leak(tree.tree)
    if kind is Absent:
        return tree.holds_value and _may_leak(tree.value)
    text = _text_of(tree)
    return text is not None and _may_leak(text)


def _any_may_leak(trees: tuple[Tree, ...]) -> bool:
    for tree in trees:
        kind = class_of(tree)
        if kind in _CANNOT_LEAK:
            continue
        if kind is str:
            if ">" in tree or "tepRef" in tree or "tepref" in tree:
                return True
        elif _may_leak(tree):
            return True
    return False


def _text_of(leaf: Tree) -> str | None:
    if isinstance(leaf, Opaque):
        leaf = leaf.value
    if isinstance(leaf, str):
        return str.__str__(leaf)
    if isinstance(leaf, HardcodedPath):
        return leaf.path
    if isinstance(leaf, bytes):
        return leaf.decode("utf-8", "replace")
    return leaf.as_posix() if isinstance(leaf, PurePath) else None


def is_leaked(text: str, node: Node) -> bool:
    """Whether a text holds the repr of a ref, or the last part of the repr of one that ``node`` could know."""
    if _LEAK.search(text):
        return True
    tail = _TAIL.search(text)
    return (
        tail is not None
        and "<" not in text
        and any(producer.name.endswith(tail[1]) for producer in (node, *node.called))
    )
