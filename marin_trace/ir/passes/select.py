"""``--run_only``: what matches, and what it needs."""

import dataclasses
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

from marin_trace.errors import FlagError, explain
from marin_trace.ir.graph import Graph, Group, Node, graph_of
from marin_trace.ir.passes.inline_groups import inline_groups, steps_of


class NamedStep(Protocol):
    """A step that is no part of a graph (a hand-written spec), and can be named all the same."""

    @property
    def name(self) -> str: ...


@final
@dataclass(frozen=True, slots=True)
class Matches:
    """What patterns match."""

    nodes: "list[Node | Group]"
    """Of the graph, in its order."""
    others: list[NamedStep]


def select(graph: Graph, patterns: Sequence[str], *, flag: str = "--run_only") -> Graph:
    """The part of a graph that matching steps and groups need; they are its roots.

    Args:
        graph: Any graph.
        patterns: Regexes, searched in step and group names.
        flag: Who asks, in messages.

    Raises:
        FlagError: A pattern is no regex, or matches nothing; near names are shown.
    """
    return selected(graph, matching(graph, patterns, flag=flag).nodes)


def selected(graph: Graph, roots: Sequence[Node | Group]) -> Graph:
    """The part of a graph that some of its steps and groups need, without groups.

    Groups are inlined first, so that a step keeps what its group runs after. For a group among ``roots``, those of its
    steps become roots that no other step of it reads.
    """
    steps = [step for root in roots for step in (_ends_of(root) if isinstance(root, Group) else (root,))]
    flat = inline_groups(dataclasses.replace(graph, roots=tuple(dict.fromkeys(steps))))
    part = graph_of(flat.roots, flat.outputs)
    kept = set(part.nodes)
    return dataclasses.replace(part, nodes=tuple(node for node in flat.nodes if node in kept))


def _ends_of(group: Group) -> list[Node]:
    steps = steps_of(group)
    read = {edge.producer for step in steps for edge in step.edges if edge.reads}
    return [step for step in steps if step not in read]


def matching(graph: Graph, patterns: Sequence[str], *, flag: str, others: Sequence[NamedStep] = ()) -> Matches:
    """The steps and groups whose names a pattern matches; each pattern must match one. See :func:`select`."""
    named: list[Any] = [*graph.nodes, *graph.groups, *others]
    found: dict[int, Any] = {}
    for pattern in patterns:
        regex = _compiled(pattern, flag)
        matches = [step for step in named if regex.search(step.name)]
        if not matches:
            raise _no_match(pattern, flag, [step.name for step in named])
        found.update((id(step), step) for step in matches)
    matched = [step for step in named if id(step) in found]
    nodes = [step for step in matched if isinstance(step, Node | Group)]
    return Matches(nodes, [step for step in matched if not isinstance(step, Node | Group)])


def matching_steps(
    graph: Graph, patterns: Sequence[str], *, flag: str, others: Sequence[NamedStep] = ()
) -> "StepMatches":
    """The same, with groups replaced by their steps."""
    found = matching(graph, patterns, flag=flag, others=others)
    steps = [step for node in found.nodes for step in (steps_of(node) if isinstance(node, Group) else (node,))]
    return StepMatches(list(dict.fromkeys(steps)), found.others)


@final
@dataclass(frozen=True, slots=True)
class StepMatches:
    """What patterns match, groups resolved."""

    nodes: list[Node]
    others: list[NamedStep]


def _compiled(pattern: str, flag: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise FlagError(explain(f"{flag} {pattern!r} is no regular expression: {error}")) from None


def _no_match(pattern: str, flag: str, names: list[str]) -> FlagError:
    names = list(dict.fromkeys(names))
    near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.4) or names[:3]
    return FlagError(
        explain(
            f"{flag} {pattern!r} matches no step or group",
            facts={"there are": ", ".join(near) + (" …" if len(names) > len(near) else "")},
        )
    )
