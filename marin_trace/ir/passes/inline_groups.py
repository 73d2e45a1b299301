"""Removes groups: what they mean becomes edges between steps, and roots."""

import dataclasses
from collections.abc import Iterable

from marin_trace.ir.graph import Edge, EdgeKind, Graph, Group, Node, topological_order
from marin_trace.ir.passes.rewrite import rewritten


def inline_groups(graph: Graph) -> Graph:
    """The graph without groups.

    - Every member of a group runs after the group's unused ref arguments.
    - A step that called a group for its effect runs after all members; it brings into a run those that no other step
      reads.
    - A step that uses a ref that a group returned waits for that ref's step alone, and still brings in the group's
      other members that no step reads.
    - A group among the roots is replaced by its members that no step reads.

    Raises:
        CycleError: An unused ref argument of a group leads back to one of its members.
    """
    if not graph.groups:
        return graph
    read = read_steps(graph)
    steps_by_group = {group: steps_of(group) for group in graph.groups}

    def unread(group: Group) -> list[Node]:
        return [step for step in steps_by_group[group] if step not in read]

    extra: dict[Node, list[Edge]] = {}
    for group in graph.groups:
        for step in steps_by_group[group] if group.after else ():
            extra.setdefault(step, []).extend(edge for edge in group.after if edge.producer is not step)
    edited: dict[Node, Node] = {}
    for node in graph.nodes:
        called = [child for child in node.called if isinstance(child, Group)]
        edges = (*node.edges, *extra.get(node, ()))
        if not called and len(edges) == len(node.edges):
            continue
        known = {edge.producer for edge in edges}
        brought = [Edge(EdgeKind.NONBLOCKING, step) for group in called if group not in known for step in unread(group)]
        brought = [edge for edge in brought if edge.producer not in known]
        inlined = [new for edge in edges for new in _inlined(edge, read, steps_by_group, node)]
        before = [edge.producer for edge in extra.get(node, ())]
        edited[node] = dataclasses.replace(
            node,
            edges=tuple(dict.fromkeys((*inlined, *brought))),
            called=tuple(dict.fromkeys(step for child in (*before, *node.called) for step in _steps(child))),
        )
    roots = [step for root in graph.roots for step in (unread(root) if isinstance(root, Group) else [root])]
    nodes = topological_order(graph.nodes, lambda node: (edge.producer for edge in edited.get(node, node).edges))
    return rewritten(Graph(nodes, (), graph.outputs, tuple(dict.fromkeys(roots))), edited)


def read_steps(graph: Graph) -> set[Node | Group]:
    """The steps to which another step has a data or non-blocking edge, those by way of its groups included."""
    read = {edge.producer for node in graph.nodes for edge in node.edges if edge.reads}
    for group in graph.groups:
        read |= {e.producer for e in group.after if e.reads and any(step is not e.producer for step in steps_of(group))}
    return read


def steps_of(group: Group) -> tuple[Node, ...]:
    """The steps of a group and of the groups that it called, in order. No recursion."""
    steps: dict[Node, None] = {}
    seen: set[Node | Group] = set()
    stack: list[Node | Group] = [group]
    while stack:
        member = stack.pop()
        if member in seen:
            continue
        seen.add(member)
        if isinstance(member, Group):
            stack.extend(reversed(member.members))
        else:
            steps[member] = None
    return tuple(steps)


def _steps(child: Node | Group) -> Iterable[Node]:
    return steps_of(child) if isinstance(child, Group) else (child,)


def _inlined(
    edge: Edge, read: set[Node | Group], steps_by_group: dict[Group, tuple[Node, ...]], consumer: Node
) -> Iterable[Edge]:
    if not isinstance(edge.producer, Group):
        return (edge,)
    return [
        Edge(EdgeKind.WEAK_ORDERING if step in read else EdgeKind.ORDERING, step)
        for step in steps_by_group[edge.producer]
        if step is not consumer
    ]
