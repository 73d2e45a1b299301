"""Decides what a run must do, given which steps are finished."""

import enum
from collections.abc import Collection

from marin_trace.ir.graph import EdgeKind, Graph, Node


class Action(enum.StrEnum):
    """What a run does about a step."""

    HIT = "hit"
    """Its output is there."""
    RUN = "run"
    SKIP = "skip"
    """Not built, and nothing unfinished needs it."""


def prune_completed(graph: Graph, finished: Collection[Node], *, forced: Collection[Node] = ()) -> dict[Node, Action]:
    """The action of every step.

    Wanted are the roots, forced steps, and whatever an unfinished wanted step has an edge to, weak ordering edges
    excepted. What is wanted and unfinished runs; nothing upstream of a finished step does, unless something unfinished
    needs it.

    Args:
        graph: Without groups (after ``inline_groups``).
        finished: The steps whose output is there.
        forced: Steps that count as unfinished.
    """
    assert not graph.groups
    done = set(finished) - set(forced)
    running: set[Node] = set()
    stack = [root for root in (*graph.roots, *forced) if isinstance(root, Node)]
    while stack:
        node = stack.pop()
        if node in done or node in running:
            continue
        running.add(node)
        stack += [
            edge.producer
            for edge in node.edges
            if edge.kind is not EdgeKind.WEAK_ORDERING and isinstance(edge.producer, Node)
        ]

    def action(node: Node) -> Action:
        if node in running:
            return Action.RUN
        return Action.HIT if node in done else Action.SKIP

    return {node: action(node) for node in graph.nodes}
