"""Passes keep the meaning of a graph, and leave graphs that the verifier accepts."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marin_trace import Graph
from marin_trace.ir.canonical import fingerprints
from marin_trace.ir.graph import EdgeKind, Node
from marin_trace.ir.passes.inline_groups import inline_groups, steps_of
from marin_trace.ir.passes.merge_equal_steps import merge_equal_steps
from marin_trace.ir.passes.prune_completed import Action, prune_completed
from marin_trace.ir.passes.select import select
from marin_trace.ir.verifier import verify
from tests.properties.pipelines import PROGRAMS, Program, meaning

LAW = settings(deadline=None, derandomize=True, max_examples=80)


def merged_and_inlined(graph: Graph) -> Graph:
    return inline_groups(merge_equal_steps(graph))


PASSES: dict[str, Callable[[Graph], Graph]] = {
    "merge_equal_steps": merge_equal_steps,
    "inline_groups": inline_groups,
    "both": merged_and_inlined,
    "the other way": lambda graph: merge_equal_steps(inline_groups(graph)),
    "twice": lambda graph: merged_and_inlined(merged_and_inlined(graph)),
    "select everything": lambda graph: select(graph, ["."]),
}


@pytest.mark.parametrize("name", PASSES)
@LAW
@given(program=PROGRAMS)
def test_a_pass_keeps_the_meaning(name: str, program: Program) -> None:
    graph = program.graph()
    after = PASSES[name](graph)
    verify(after)
    assert meaning(after) == meaning(graph)


@LAW
@given(PROGRAMS)
def test_merging_leaves_each_recipe_and_place_once(program: Program) -> None:
    merged = merge_equal_steps(program.graph())
    by_node = fingerprints(merged.nodes)
    keys = [(by_node[node], node.override_output_path) for node in merged.nodes]
    assert len(set(keys)) == len(keys)
    assert merge_equal_steps(merged) is merged


@LAW
@given(PROGRAMS)
def test_inlining_leaves_no_group(program: Program) -> None:
    flat = inline_groups(program.graph())
    assert flat.groups == ()
    assert all(isinstance(edge.producer, Node) for node in flat.nodes for edge in node.edges)
    assert all(isinstance(root, Node) for root in flat.roots)
    assert inline_groups(flat) is flat


@LAW
@given(PROGRAMS)
def test_inlining_loses_no_step(program: Program) -> None:
    """What the roots bring in, when nothing is finished, is the whole pipeline."""
    flat = inline_groups(program.graph())
    assert set(prune_completed(flat, ())) == set(flat.nodes)
    assert set(prune_completed(flat, ()).values()) == {Action.RUN}


@LAW
@given(PROGRAMS, st.data())
def test_a_selection_means_what_it_means_in_the_whole(program: Program, data: st.DataObject) -> None:
    graph = program.graph()
    named = data.draw(st.sampled_from([step.name for step in (*graph.nodes, *graph.groups)]))
    part = select(graph, [f"^{named}$".replace(".", r"\.")])
    verify(part)
    assert {node.scope for node in part.nodes} <= {node.scope for node in graph.nodes}
    assert part.groups == ()
    wanted = {step for group in graph.groups if group.name == named for step in steps_of(group)}
    assert {node.scope for node in wanted or graph.nodes if wanted or node.name == named} <= {
        n.scope for n in part.nodes
    }
    whole, selected = meaning(graph), meaning(part)
    for kind in ("artifacts", "files"):
        assert selected[kind].items() <= whole[kind].items()


@LAW
@given(PROGRAMS, st.data())
def test_pruning_is_the_least_fixed_point_of_what_is_wanted(program: Program, data: st.DataObject) -> None:
    flat = merged_and_inlined(program.graph())
    finished, forced = (data.draw(st.sets(st.sampled_from(flat.nodes))) for _ in range(2))
    actions = prune_completed(flat, finished, forced=forced)
    assert actions == expected_actions(flat, finished, forced)


def expected_actions(flat: Graph, finished: set[Node], forced: set[Node]) -> dict[Node, Action]:
    """The rule, word by word: wanted are the roots, what is forced, and what an unfinished wanted step needs."""
    done = finished - forced
    wanted: set[Any] = {*flat.roots, *forced}
    for node in reversed(flat.nodes):  # consumers before producers
        if node in wanted and node not in done:
            wanted |= {edge.producer for edge in node.edges if edge.kind is not EdgeKind.WEAK_ORDERING}
    return {node: Action.HIT if node in done else Action.RUN if node in wanted else Action.SKIP for node in flat.nodes}


@LAW
@given(PROGRAMS, st.data())
def test_what_runs_after_pruning_finds_all_that_it_waits_for(program: Program, data: st.DataObject) -> None:
    flat = merged_and_inlined(program.graph())
    finished = data.draw(st.sets(st.sampled_from(flat.nodes)))
    actions = prune_completed(flat, finished)
    for node in flat.nodes:
        if actions[node] is Action.RUN:
            waits = [edge for edge in node.edges if edge.kind in (EdgeKind.DATA, EdgeKind.ORDERING)]
            assert all(actions[edge.producer] is not Action.SKIP for edge in waits)


@LAW
@given(PROGRAMS)
def test_two_traces_print_equally(program: Program) -> None:
    first, second = program.graph(), program.graph()
    assert str(first) == str(second)
    assert str(merged_and_inlined(first)) == str(merged_and_inlined(second))


@LAW
@given(PROGRAMS)
def test_passes_are_silent_about_equal_values(program: Program) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        merged_and_inlined(program.graph())
