"""Edges: what each call of a step leaves behind in the body that made it."""

from collections.abc import Callable
from typing import Any

import pytest

from marin_trace import StepRef, deferred, lower, output, step, trace, unversioned
from marin_trace.errors import CycleError
from marin_trace.ir.graph import graph_of_refs
from marin_trace.ir.passes.inline_groups import inline_groups
from marin_trace.ir.passes.merge_equal_steps import merge_equal_steps


def work(*args: Any) -> Any: ...


run = deferred(work)


@step(name="{name}")
def make(name: str, *inputs: Any) -> StepRef:
    return run(output(), *inputs)


@step(name="{name}")
def ignore(name: str, *inputs: Any) -> StepRef:
    """A step that uses none of its inputs."""
    return run(output())


def edges_of(body: Callable[..., Any], *args: Any) -> list[tuple[str, str]]:
    """Kind and producer of each edge of the last step of a pipeline."""
    return [(edge.kind.value, edge.producer.name) for edge in trace(body, *args).nodes[-1].edges]


def test_a_used_call_leaves_a_data_edge_for_each_use() -> None:
    @step
    def body() -> StepRef:
        a = make("a")
        run(output(), a)
        return run(a / "x", {"k": [a]})

    graph = trace(body)
    assert [(edge.kind.value, str(edge.path)) for edge in graph.nodes[-1].edges] == [
        ("data", "args[1]"),
        ("data", "args[0]"),
        ("data", "args[1]['k'][0]"),
    ]


def test_an_artifact_leaves_a_data_edge() -> None:
    @step
    def body() -> StepRef:
        return run(make("a").artifact.size)

    assert edges_of(body) == [("data", "a")]


def test_a_call_never_used_leaves_an_ordering_edge() -> None:
    @step
    def body() -> StepRef:
        make("a")
        return run(output())

    assert edges_of(body) == [("ordering", "a")]


def test_a_call_that_was_passed_to_another_step_is_that_steps() -> None:
    @step
    def body() -> StepRef:
        return run(output(), make("b", make("a")))

    assert edges_of(body) == [("data", "b")]


def test_a_call_passed_to_a_step_that_ignores_it_is_still_that_steps() -> None:
    @step
    def body() -> StepRef:
        return run(output(), ignore("b", make("a")))

    graph = trace(body)
    assert [(node.name, [(e.kind.value, e.producer.name) for e in node.edges]) for node in graph.nodes] == [
        ("a", []),
        ("b", [("ordering", "a")]),
        ("body", [("data", "b")]),
    ]


def test_only_the_artifact_passed_on_is_passed_on_too() -> None:
    @step
    def body() -> StepRef:
        return run(output(), make("b", make("a").artifact))

    assert edges_of(body) == [("data", "b")]


def test_each_call_is_an_occurrence_of_its_own() -> None:
    @step
    def body() -> StepRef:
        make("b", make("a"))
        make("a")
        return run(output())

    assert edges_of(body) == [("ordering", "b"), ("ordering", "a")]


def test_unused_ref_argument_is_an_ordering_edge() -> None:
    assert edges_of(lambda: ignore("b", make("a"))) == [("ordering", "a")]


@pytest.mark.parametrize("wrap", [lambda r: [r], lambda r: {"k": r}, lambda r: (r / "x",), lambda r: r.artifact.x])
def test_unused_refs_in_trees_are_ordering_edges(wrap: Callable[[Any], Any]) -> None:
    assert edges_of(lambda: ignore("b", wrap(make("a")))) == [("ordering", "a")]


def test_an_unused_nonblocking_argument_does_not_wait() -> None:
    assert edges_of(lambda: ignore("b", make("a").nonblocking())) == [("non-blocking", "a")]


def test_a_used_ref_argument_is_a_data_edge_only() -> None:
    assert edges_of(lambda: make("b", make("a"))) == [("data", "a")]


def test_a_ref_argument_passed_on_is_that_steps() -> None:
    @step
    def body(ref: Any) -> StepRef:
        return run(output(), make("b", ref))

    assert edges_of(lambda: body(make("a"))) == [("data", "b")]


def test_nonblocking_replaces_the_occurrence_it_derives_from() -> None:
    @step
    def body() -> StepRef:
        return run(output(), make("a").nonblocking() / "x")

    assert edges_of(body) == [("non-blocking", "a")]


def test_an_unused_nonblocking_call_does_not_wait() -> None:
    @step
    def body() -> StepRef:
        make("a").nonblocking()
        return run(output())

    assert edges_of(body) == [("non-blocking", "a")]


def test_nonblocking_replaces_only_the_occurrence_it_derives_from() -> None:
    @step
    def body() -> StepRef:
        make("a")
        make("a").nonblocking()
        return run(output())

    assert edges_of(body) == [("ordering", "a"), ("non-blocking", "a")]


def test_where_blocking_and_nonblocking_meet_blocking_wins() -> None:
    @step
    def body() -> StepRef:
        a = make("a")
        return run(a, a.nonblocking())

    graph = trace(body)
    assert edges_of(body) == [("data", "a"), ("non-blocking", "a")]
    spec = lower(graph)[-1]
    assert [dep.name for dep in spec.deps] == ["a"]
    assert list(spec.nonblocking_deps) == []


def test_a_nonblocking_argument_is_nonblocking() -> None:
    spec = lower(trace(lambda: make("b", make("a").nonblocking())))[-1]
    assert spec.deps == []
    assert [dep.name for dep in spec.nonblocking_deps] == ["a"]


def test_the_kind_of_a_data_edge_is_part_of_the_fingerprint() -> None:
    specs = [
        lower(trace(lambda w=wrap: make("b", w(make("a")))))[-1] for wrap in (lambda r: r, lambda r: r.nonblocking())
    ]
    assert specs[0].fingerprint != specs[1].fingerprint


def test_ordering_edges_are_no_part_of_the_fingerprint() -> None:
    with_edge, without = lower(trace(lambda: ignore("b", make("a"))))[-1], lower(trace(lambda: ignore("b")))[-1]
    assert with_edge.fingerprint == without.fingerprint
    assert [dep.name for dep in with_edge.deps] == ["a"]


def test_with_output_path_replaces_the_call_by_the_redirected_step() -> None:
    @step
    def body() -> StepRef:
        return run(output(), make("a").with_output_path("custom/path") / "x")

    graph = trace(body)
    assert [node.override_output_path for node in graph.nodes] == ["custom/path", None]
    assert edges_of(body) == [("data", "a")]


def test_an_unused_redirected_call_is_waited_for_and_the_original_is_not() -> None:
    @step
    def body() -> StepRef:
        make("a").with_output_path("custom/path")
        return run(output())

    graph = trace(body)
    assert [(node.name, node.override_output_path) for node in graph.nodes] == [("a", "custom/path"), ("body", None)]
    assert edges_of(body) == [("ordering", "a")]


def test_a_redirected_call_is_the_groups_member_instead_of_the_original() -> None:
    @step
    def group() -> StepRef:
        return make("a").with_output_path("custom/path")

    graph = trace(group)
    assert [node.override_output_path for node in graph.nodes] == ["custom/path"]
    assert graph.groups[0].members == graph.nodes


def test_a_redirected_argument_replaces_the_argument() -> None:
    @step
    def body(ref: Any) -> StepRef:
        return run(output(), ref.with_output_path("custom/path"))

    graph = trace(lambda: body(make("a")))
    assert [(e.kind.value, e.producer.override_output_path) for e in graph.nodes[-1].edges] == [("data", "custom/path")]


def test_a_redirect_changes_no_fingerprint() -> None:
    plain = lower(trace(lambda: make("b", make("a"))))
    moved = lower(trace(lambda: make("b", make("a").with_output_path("custom/path"))))
    assert [spec.fingerprint for spec in moved] == [spec.fingerprint for spec in plain]
    assert moved[0].output_path.endswith("/custom/path")


def test_an_unversioned_ref_leaves_an_ordering_edge() -> None:
    assert edges_of(lambda: make("b", unversioned(make("a")))) == [("ordering", "a")]


@pytest.mark.parametrize("wrap", [lambda r: {"k": r}, lambda r: [r / "x"], lambda r: r.artifact.x])
def test_refs_below_unversioned_leave_ordering_edges(wrap: Callable[[Any], Any]) -> None:
    @step
    def body() -> StepRef:
        return run(output(), unversioned(wrap(make("a"))))

    assert edges_of(body) == [("ordering", "a")]


def test_a_ref_used_versioned_and_unversioned_is_a_data_edge() -> None:
    @step
    def body() -> StepRef:
        a = make("a")
        return run(a, unversioned(a))

    assert [dep.name for dep in lower(trace(body))[-1].deps] == ["a"]
    assert ("data", "a") in edges_of(body)


def test_a_ref_made_elsewhere_and_captured_leaves_a_data_edge() -> None:
    a = make("a")

    @step
    def body() -> StepRef:
        return run(output(), a)

    graph = graph_of_refs(body())
    assert [node.name for node in graph.nodes] == ["a", "body"]


def test_a_caught_call_that_raised_takes_nothing_along() -> None:
    @step
    def bad(ref: StepRef) -> StepRef:
        raise ValueError("mine")

    @step
    def body() -> StepRef:
        with pytest.raises(ValueError, match="mine"):
            bad(make("a"))
        return run(output())

    assert edges_of(body) == [("ordering", "a")]


def test_a_cycle_that_merging_makes_names_both_lines(at: Callable[[str], str]) -> None:
    first = ignore("b", ignore("a"))  # a before b
    second = ignore("a", ignore("b"))  # b before a
    with pytest.raises(CycleError, match="needs itself") as error:
        merge_equal_steps(graph_of_refs([first, second]))
    assert at("a before b") in str(error.value)
    assert at("b before a") in str(error.value)


def test_a_group_argument_that_leads_back_to_a_member_is_a_cycle(at: Callable[[str], str]) -> None:
    @step
    def group(after: Any) -> None:
        make("a")

    def pipeline() -> None:
        group(make("b", make("a")))  # leads back

    with pytest.raises(CycleError, match="needs itself") as error:
        inline_groups(trace(pipeline))
    assert at("leads back") in str(error.value)


def test_a_nonblocking_ref_that_a_group_leaves_unused_is_read_by_its_steps() -> None:
    @step
    def watch(ref: StepRef) -> None:
        make("inside")

    @step
    def entry() -> None:
        watch(make("watched").nonblocking())

    flat = inline_groups(trace(entry))
    assert [root.name for root in flat.roots] == ["inside"]
    assert [(edge.kind.value, edge.producer.name) for edge in flat.roots[0].edges] == [("non-blocking", "watched")]
