"""What passes share: replacing nodes of a frozen graph, and everything that holds them."""

import dataclasses
from collections.abc import Mapping
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
        renewed = _renewed_node(edited.get(node, node), new)
        nodes.append(renewed)
        new.update(dict.fromkeys((node, *dropped_by_kept.get(node, ())), renewed))
    groups = [_renewed_group(group, new) for group in graph.groups]
    return Graph(
        tuple(nodes),
        tuple(groups),
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


def _renewed_group(group: Group, new: dict[Node | Group, Node | Group]) -> Group:
    renewed = dataclasses.replace(
        group,
        members=tuple(dict.fromkeys(new.get(member, member) for member in group.members)),
        called=tuple(dict.fromkeys(new.get(child, child) for child in group.called)),
        after=tuple(_renewed_edge(edge, new) for edge in group.after),
        returned=substitute(group.returned, lambda leaf, _: _renewed_leaf(leaf, new)),
    )
    new[group] = renewed
    return renewed


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
