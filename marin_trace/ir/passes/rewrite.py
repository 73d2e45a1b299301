"""What passes share: replacing nodes of a frozen graph, and everything that holds them."""

import dataclasses
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from marin_trace.ir.config_tree import Found, Record, flatten, materialise, substitute
from marin_trace.ir.graph import Call, Edge, Graph, Group, Node
from marin_trace.ir.refs import StepArtifact, StepOutput, projection_steps, source_of


def rewritten(
    graph: Graph, edited: Mapping[Node, Node], aliases: Mapping[Node | Group, Node] = MappingProxyType({})
) -> Graph:
    """The graph with some steps changed, and all refs, edges and groups pointing at the changed ones.

    Steps that reach no changed one are shared with the original.

    Args:
        graph: Its nodes in the order of the result, without those that ``aliases`` drops.
        edited: The changed copy of a step.
        aliases: Which step of the graph stands for one that was dropped.
    """
    if not edited and not aliases:
        return graph
    dropped_by_kept: dict[Node, list[Node | Group]] = {}
    for dropped, kept in aliases.items():
        dropped_by_kept.setdefault(kept, []).append(dropped)
    new: dict[Node | Group, Node | Group] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        current = edited.get(node, node)
        _renew_groups((*current.called, *(edge.producer for edge in current.edges)), new)
        renewed = _renewed_node(current, new)
        nodes.append(renewed)
        new.update(dict.fromkeys((node, *dropped_by_kept.get(node, ())), renewed))
    _renew_groups(graph.groups, new)
    groups = [new[group] for group in graph.groups]
    return Graph(
        tuple(nodes),
        tuple(group for group in groups if isinstance(group, Group)),
        materialise(flatten(graph.outputs, []), lambda leaf: _renewed_leaf(leaf, new)),
        tuple(dict.fromkeys(new.get(root, root) for root in graph.roots)),
    )


def _renewed_node(node: Node, new: Mapping[Node | Group, Node | Group]) -> Node:
    called = tuple(dict.fromkeys(new.get(child, child) for child in node.called))
    edges = tuple(_renewed_edge(edge, new) for edge in node.edges)
    calls = tuple(_renewed_call(call, new) for call in node.calls)
    is_same = (
        called == node.called and edges == node.edges and all(a is b for a, b in zip(calls, node.calls, strict=True))
    )
    return node if is_same else dataclasses.replace(node, called=called, edges=edges, calls=calls)


def _renew_groups(found: Iterable[Node | Group], new: dict[Node | Group, Node | Group]) -> None:
    """Renews the groups among ``found``, inner ones first, once their steps are renewed. No recursion."""
    stack = [group for group in found if isinstance(group, Group) and group not in new]
    while stack:
        group = stack[-1]
        if group in new:
            stack.pop()
            continue
        parts = (*group.members, *group.called, *(edge.producer for edge in group.after))
        inner = [part for part in parts if isinstance(part, Group) and part not in new]
        if inner:
            stack += inner
            continue
        new[group] = _renewed_group(group, new)
        stack.pop()


def _renewed_group(group: Group, new: Mapping[Node | Group, Node | Group]) -> Group:
    members = tuple(dict.fromkeys(new.get(member, member) for member in group.members))
    called = tuple(dict.fromkeys(new.get(child, child) for child in group.called))
    after = tuple(_renewed_edge(edge, new) for edge in group.after)
    returned = substitute(group.returned, lambda leaf, _: _renewed_leaf(leaf, new))
    is_same = returned is group.returned and (members, called, after) == (group.members, group.called, group.after)
    if is_same:
        return group
    return dataclasses.replace(group, members=members, called=called, after=after, returned=returned)


def _renewed_edge(edge: Edge, new: Mapping[Node | Group, Node | Group]) -> Edge:
    producer = new.get(edge.producer, edge.producer)
    return edge if producer is edge.producer else edge._replace(producer=producer)


def _renewed_call(call: Call, new: Mapping[Node | Group, Node | Group]) -> Call:
    arguments = substitute(call.arguments, lambda leaf, _: _renewed_leaf(leaf, new))
    if arguments is call.arguments:
        return call
    assert isinstance(arguments, Record)
    found = tuple(Found(_renewed_leaf(leaf, new), path, versioned) for leaf, path, versioned in call.found)
    return dataclasses.replace(call, arguments=arguments, found=found)


def _renewed_leaf(leaf: Any, new: Mapping[Node | Group, Node | Group]) -> Any:
    if isinstance(leaf, StepOutput):
        node = new.get(leaf.node, leaf.node)
        return leaf if node is leaf.node else StepOutput(node, leaf.subpath, leaf.blocking, leaf.occurrence, leaf.group)
    if isinstance(leaf, StepArtifact):
        source = source_of(leaf)
        renewed = _renewed_leaf(source, new)
        return leaf if renewed is source else StepArtifact(renewed, projection_steps(leaf))
    return leaf
