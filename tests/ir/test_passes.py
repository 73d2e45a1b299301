"""Compiler passes: what each does to a graph, and that none changes what the graph means."""

import os
import warnings
from collections.abc import Callable, Collection
from typing import Any

import pytest

from marin_trace import MarinTraceWarning, ResourceConfig, StepRef, deferred, lower, output, step, trace, unversioned
from marin_trace.errors import FlagError, OptionsConflictError, OutputConflictError
from marin_trace.ir.canonical import fingerprints
from marin_trace.ir.graph import EdgeKind, Graph, Node, graph_of_refs
from marin_trace.ir.interpreter import interpret
from marin_trace.ir.passes.inline_groups import inline_groups
from marin_trace.ir.passes.merge_equal_steps import merge_equal_steps
from marin_trace.ir.passes.prune_completed import Action, prune_completed
from marin_trace.ir.passes.select import matching, matching_steps, select
from marin_trace.ir.verifier import verify


def work(*args: Any) -> Any:
    return args


run = deferred(work)


@step(name="{name}")
def make(name: str, *inputs: Any) -> StepRef:
    return run(output(), *inputs)


@step(name="{name}")
def ignore(name: str, *inputs: Any) -> StepRef:
    return run(output())


@step
def group(name: str, *after: Any) -> StepRef:
    model = make(f"{name}-model", make(f"{name}-data"))
    make(f"{name}-eval", model)
    return model


def names(graph: Graph) -> list[str]:
    return [node.name for node in graph.nodes]


def edges(graph: Graph) -> dict[str, list[tuple[str, str]]]:
    return {node.name: [(edge.kind.value, edge.producer.name) for edge in node.edges] for node in graph.nodes}


def meaning(graph: Graph) -> dict[str, Any]:
    """What each recipe leaves, whoever runs it."""
    by_node = fingerprints(graph.nodes)
    results = interpret(graph, lambda node: f"/out/{by_node[node]}")
    return {by_node[node]: value for node, value in results.items()}


def everything() -> None:
    data = make("data")
    twice = [group("a", data), group("b", ignore("x", data))]
    make("join", *twice, unversioned(data), data.nonblocking() / "y", twice[0].artifact[1])
    ignore("last", make("join2", *[make("data") for _ in range(3)]))


PASSES: dict[str, Callable[[Graph], Graph]] = {
    "merge": merge_equal_steps,
    "inline": inline_groups,
    "both": lambda graph: inline_groups(merge_equal_steps(graph)),
    "select all": lambda graph: select(graph, ["."]),
}


def joined() -> Graph:
    """A graph with equal steps of two traces."""
    return graph_of_refs([make("end", group("a"), make("data")), make("end2", group("a"), make("data"))])


def effects() -> Graph:
    """A graph with equal steps, and groups that steps call for their effect or run after."""

    @step
    def effect(ref: StepRef) -> None:
        make("effect", ref)

    @step
    def caller(ref: StepRef) -> StepRef:
        effect(ref)
        return run(output())

    @step
    def late(after: Any) -> None:
        make("late")

    @step
    def entry() -> None:
        late(effect(caller(make("a"))))

    return graph_of_refs([make("a"), entry(), caller(make("a"))])


@pytest.mark.parametrize("pipeline", [lambda: trace(everything), joined, effects])
@pytest.mark.parametrize("name", PASSES)
def test_a_pass_changes_no_meaning_and_leaves_a_verified_graph(name: str, pipeline: Callable[[], Graph]) -> None:
    graph = pipeline()
    after = PASSES[name](graph)
    verify(after)
    assert meaning(after) == meaning(graph)
    assert str(PASSES[name](after)) == str(after)


def test_equal_steps_of_two_traces_become_one() -> None:
    graph = merge_equal_steps(graph_of_refs([make("b", make("a")), make("c", make("a"))]))
    assert names(graph) == ["a", "b", "c"]
    assert edges(graph) == {"a": [], "b": [("data", "a")], "c": [("data", "a")]}
    assert graph.outputs[0].node is graph.nodes[1]


def test_merged_steps_unite_their_ordering_edges() -> None:
    graph = merge_equal_steps(graph_of_refs([ignore("b", make("x")), ignore("b", make("y"), make("z").nonblocking())]))
    assert edges(graph)["b"] == [("ordering", "x"), ("ordering", "y"), ("non-blocking", "z")]


def test_steps_with_another_output_path_are_not_merged() -> None:
    graph = merge_equal_steps(graph_of_refs([make("a"), make("a").with_output_path("x")]))
    assert len(graph.nodes) == 2


def test_a_graph_without_equal_steps_is_left_alone() -> None:
    graph = trace(lambda: make("b", make("a")))
    assert merge_equal_steps(graph) is graph
    assert inline_groups(graph) is graph


def test_of_different_unversioned_values_the_first_wins_with_a_warning(at: Callable[[str], str]) -> None:
    first = make("a", unversioned(1))  # first value
    second = make("a", unversioned(2))  # second value
    with pytest.warns(
        MarinTraceWarning, match=r"a is called with different unversioned values for work\(args\)"
    ) as caught:
        graph = merge_equal_steps(graph_of_refs([first, second]))
    assert "unversioned(1)" in str(graph)
    assert at("first value") in str(caught[0].message)
    assert at("second value") in str(caught[0].message)


@pytest.mark.parametrize(
    "value",
    [
        lambda: 1,
        lambda: make("d"),
        lambda: {"k": [make("d") / "x"]},
        lambda: make("d").artifact.x,
        lambda: StepRef.hardcoded("y"),
    ],
)
def test_equal_unversioned_values_of_two_traces_draw_no_warning(value: Callable[[], Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = merge_equal_steps(graph_of_refs([make("a", unversioned(value())), make("a", unversioned(value()))]))
    assert names(graph)[-1] == "a"


def test_an_explicit_option_beats_one_that_was_not_given() -> None:
    plain, explicit = make("a"), make.with_options(retries=3, resources=ResourceConfig.with_cpu(2))("a")
    for refs in ([plain, explicit], [explicit, plain]):
        [node] = merge_equal_steps(graph_of_refs(refs)).nodes
        assert node.options.retries == 3
        assert node.options.resources == ResourceConfig.with_cpu(2)


@pytest.mark.parametrize(
    ("one", "other"),
    [({"retries": 1}, {"retries": 2}), ({"timeout": 1}, {"timeout": 2}), ({"env_vars": {"A": "1"}}, {"env_vars": {}})],
)
def test_two_explicit_options_that_differ_are_an_error_naming_both_lines(
    one: Any, other: Any, at: Callable[[str], str]
) -> None:
    refs = [
        make.with_options(**one)("a"),  # one option
        make.with_options(**other)("a"),  # other option
    ]
    with pytest.raises(OptionsConflictError, match=f"a is called with two different {next(iter(one))}") as error:
        lower(refs)
    assert at("one option") in str(error.value)
    assert at("other option") in str(error.value)


def test_two_equal_explicit_options_are_no_conflict() -> None:
    refs = [make.with_options(retries=1)("a"), make.with_options(retries=1)("a")]
    assert len(merge_equal_steps(graph_of_refs(refs)).nodes) == 1


def test_two_descriptions_are_no_conflict_and_the_first_wins() -> None:
    refs = [make.with_options(description=text)("a") for text in ("one", "two")]
    assert merge_equal_steps(graph_of_refs(refs)).nodes[0].options.description == "one"


def test_two_recipes_for_one_output_path_are_an_error_naming_both_lines(at: Callable[[str], str]) -> None:
    refs = [
        make("a").with_output_path("same"),  # one recipe
        make("b").with_output_path("same"),  # other recipe
    ]
    with pytest.raises(OutputConflictError, match=f"two steps would write .*{os.sep}same") as error:
        lower(refs)
    assert at("one recipe") in str(error.value)
    assert at("other recipe") in str(error.value)


def test_an_override_inside_another_steps_output_is_an_error() -> None:
    with pytest.raises(OutputConflictError, match="the output of b would lie inside that of a"):
        lower([make("a").with_output_path("out"), make("b").with_output_path("out/inner/deep")])


def test_inlining_makes_roots_of_members_that_nobody_reads() -> None:
    graph = inline_groups(trace(lambda: group("a")))
    assert {root.name for root in graph.roots} == {"a-model", "a-eval"}
    assert graph.groups == ()


def test_an_inlined_graph_holds_all_that_its_roots_reach() -> None:
    @step
    def late(after: Any) -> None:
        make("b")

    @step
    def entry() -> None:
        late(make("a"))
        late(group("g"))

    graph = inline_groups(trace(entry))
    [b] = [node for node in graph.nodes if node.name == "b"]
    assert {edge.producer.name for edge in b.edges} == {"a", "g-model"}
    verify(select(graph, ["^b$"]))
    assert {node.name for node in select(graph, ["^b$"]).nodes} == {"a", "g-data", "g-model", "b"}


def test_an_inlined_graph_waits_for_members_without_bringing_in_those_that_are_read() -> None:
    @step
    def consumer() -> StepRef:
        group("a")
        return run(output())

    kinds = {name: kind for kind, name in edges(inline_groups(trace(consumer)))["consumer"]}
    assert kinds == {"a-data": "weak ordering", "a-model": "weak ordering", "a-eval": "ordering"}


def test_select_keeps_what_matches_and_what_it_needs() -> None:
    graph = select(trace(everything), ["^a-model$"])
    assert names(graph) == ["data", "a-data", "a-model"], "with what its group runs after"
    assert [root.name for root in graph.roots] == ["a-model"]


def test_select_may_name_a_group_and_several_patterns() -> None:
    graph = trace(everything)
    assert set(names(select(graph, ["^group$"]))) >= {"a-data", "a-model", "a-eval"}
    assert set(names(select(graph, ["^x$", "^a-data$"]))) == {"data", "a-data", "x"}


def test_a_pattern_that_matches_nothing_is_an_error_with_near_names() -> None:
    with pytest.raises(FlagError, match="--run_only 'a-modle' matches no step or group") as error:
        select(trace(everything), ["a-modle"])
    assert "a-model" in str(error.value)
    with pytest.raises(FlagError, match=r"--force '\[' is no regular expression"):
        matching(trace(everything), ["["], flag="--force")


def test_matching_steps_replaces_groups_by_their_steps() -> None:
    found = matching_steps(trace(lambda: group("a")), ["^group$"], flag="--force")
    assert {node.name for node in found.nodes} == {"a-data", "a-model", "a-eval"}


def actions(graph: Graph, finished: Collection[str] = (), forced: Collection[str] = ()) -> dict[str, str]:
    flat = inline_groups(graph)

    def named(wanted: Collection[str]) -> list[Node]:
        return [node for node in flat.nodes if node.name in wanted]

    made = prune_completed(flat, named(finished), forced=named(forced))
    return {node.name: action.value for node, action in made.items()}


def chain() -> Graph:
    return graph_of_refs(make("c", make("b", make("a"))))


@pytest.mark.parametrize(
    ("finished", "forced", "expected"),
    [
        ([], [], "run run run"),
        (["a"], [], "hit run run"),
        (["b"], [], "skip hit run"),
        (["c"], [], "skip skip hit"),
        (["a", "b", "c"], [], "hit hit hit"),
        (["a", "b", "c"], ["b"], "hit run hit"),
        (["b", "c"], ["b"], "run run hit"),
        (["c"], ["a"], "run skip hit"),
    ],
)
def test_nothing_upstream_of_a_finished_step_is_built_unless_something_needs_it(
    finished: list[str], forced: list[str], expected: str
) -> None:
    assert list(actions(chain(), finished, forced).values()) == expected.split()


def test_an_input_whose_every_consumer_is_finished_is_not_rebuilt() -> None:
    @step
    def entry() -> None:
        make("model", make("data"))

    assert actions(trace(entry), finished=["model"]) == {"data": "skip", "model": "hit"}


def test_members_of_a_wanted_group_that_nobody_reads_are_wanted() -> None:
    @step
    def consumer(ref: StepRef) -> StepRef:
        return run(output(), ref)

    graph = trace(lambda: consumer(group("a")))
    assert actions(graph, finished=["a-data", "a-model"]) == {
        "a-data": "hit",
        "a-model": "hit",
        "a-eval": "run",
        "consumer": "run",
    }


def test_members_of_a_group_that_a_finished_step_called_are_not_wanted() -> None:
    @step
    def consumer() -> StepRef:
        group("a")
        return run(output())

    assert actions(trace(consumer), finished=["consumer"])["a-eval"] == "skip"
    assert actions(trace(consumer))["a-eval"] == "run"


def test_a_step_called_for_ordering_is_wanted_with_its_caller_only() -> None:
    graph = graph_of_refs(ignore("b", make("a")))
    assert actions(graph) == {"a": "run", "b": "run"}
    assert actions(graph, finished=["b"]) == {"a": "skip", "b": "hit"}


def test_a_nonblocking_producer_is_wanted_with_its_consumer() -> None:
    graph = graph_of_refs(make("b", make("a").nonblocking()))
    assert actions(graph) == {"a": "run", "b": "run"}
    assert actions(graph, finished=["b"]) == {"a": "skip", "b": "hit"}


def test_a_weak_ordering_edge_brings_nothing_into_a_run() -> None:
    @step
    def effects() -> None:
        make("model", make("data"))

    @step
    def consumer() -> StepRef:
        effects()
        return run(output())

    assert actions(trace(consumer), finished=["model"]) == {"data": "skip", "model": "hit", "consumer": "run"}


def test_passes_are_in_the_order_of_the_graph_and_of_known_kinds() -> None:
    graph = inline_groups(merge_equal_steps(trace(everything)))
    assert list(prune_completed(graph, [])) == list(graph.nodes)
    assert set(Action) == {"hit", "run", "skip"}
    assert {edge.kind for node in graph.nodes for edge in node.edges} <= set(EdgeKind)


def test_a_merged_step_of_a_group_that_the_other_runs_after_runs_after_its_other_steps() -> None:
    @step
    def prepare() -> None:
        make("data")
        ignore("train")

    @step
    def entry() -> None:
        ignore("train", prepare())

    flat = inline_groups(merge_equal_steps(trace(entry)))
    assert [node.name for node in flat.nodes] == ["data", "train"]
    assert [(edge.kind.value, edge.producer.name) for edge in flat.nodes[1].edges] == [("ordering", "data")]
