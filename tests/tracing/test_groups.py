"""Groups: steps whose bodies record no deferred call of their own."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from marin_trace import MarinTraceWarning, StepRef, deferred, lower, output, step, trace
from marin_trace.errors import GroupError
from marin_trace.ir.graph import EdgeKind, Graph, graph_of_refs
from marin_trace.ir.passes.inline_groups import inline_groups


def work(*args: Any) -> Any: ...


run = deferred(work)


@step(name="{name}")
def make(name: str, *inputs: Any) -> StepRef:
    return run(output(), *inputs)


@dataclass(frozen=True)
class Outputs:
    model: Any
    reports: list[Any]
    note: str = "plain"


def names(graph: Graph) -> list[str]:
    return [node.name for node in graph.nodes]


def edges(graph: Graph) -> dict[str, list[tuple[str, str]]]:
    return {node.name: [(edge.kind.value, edge.producer.name) for edge in node.edges] for node in graph.nodes}


def test_a_step_without_deferred_calls_is_a_group_and_has_no_spec() -> None:
    @step(name="all")
    def entry() -> None:
        make("a")
        make("b")

    graph = trace(entry)
    assert names(graph) == ["a", "b"]
    assert [(group.name, [member.name for member in group.members]) for group in graph.groups] == [("all", ["a", "b"])]
    assert [spec.name for spec in lower(graph)] == ["a", "b"]


def test_an_entry_that_only_calls_leaves_and_returns_nothing_loses_none() -> None:
    @step
    def entry() -> None:
        make("eval", make("model", make("data")))

    assert names(graph_of_refs(entry())) == ["data", "model", "eval"]


def test_a_group_that_returned_a_ref_is_that_ref_and_remembers_the_group() -> None:
    @step
    def train() -> StepRef:
        model = make("model")
        make("eval", model)
        return model / "final"

    ref = train()
    assert repr(ref) == "<StepRef model/final>"
    assert names(graph_of_refs(ref)) == ["model", "eval"]


TREES: list[tuple[str, Callable[[Any, Any], Any], Callable[[Any], Any]]] = [
    ("tuple", lambda a, b: (a, b), lambda tree: tree[1]),
    ("list", lambda a, b: [a, b], lambda tree: tree[1]),
    ("dict", lambda a, b: {"a": a, "b": b}, lambda tree: tree["b"]),
    ("dataclass", lambda a, b: Outputs(a, [b]), lambda tree: tree.reports[0]),
    ("nested", lambda a, b: {"x": [(a, Outputs(b, []))], "y": "plain"}, lambda tree: tree["x"][0][1].model),
    ("set", lambda a, b: {b}, lambda tree: next(iter(tree))),
]


@pytest.mark.parametrize(("build", "pick"), [entry[1:] for entry in TREES], ids=[entry[0] for entry in TREES])
def test_a_group_returns_a_tree_of_refs(build: Callable[[Any, Any], Any], pick: Callable[[Any], Any]) -> None:
    @step
    def group() -> Any:
        return build(make("a"), make("b"))

    tree = group()
    ref = pick(tree)
    assert type(tree) is type(build(1, 2))
    assert isinstance(ref, StepRef)
    assert ref.name == "b"
    assert names(graph_of_refs(ref)) == ["a", "b"]


def test_each_call_of_a_group_returns_a_tree_of_its_own() -> None:
    @step
    def group() -> Any:
        return {"a": [make("a")]}

    def pipeline() -> None:
        first, second = group(), group()
        first["a"].append("mine")
        assert second["a"] == [first["a"][0]]

    trace(pipeline)


def test_a_group_may_return_a_ref_that_it_was_given() -> None:
    @step
    def through(ref: StepRef) -> StepRef:
        make("effect")
        return ref

    assert names(graph_of_refs(through(make("given")))) == ["given", "effect"]


def test_a_group_may_return_an_artifact_among_refs() -> None:
    @step
    def group() -> Any:
        ref = make("a")
        return {"ref": ref, "size": ref.artifact.size}

    graph = trace(lambda: make("b", group()["size"]))
    assert edges(graph)["b"] == [("data", "a")]


def test_a_hardcoded_path_that_a_group_returned_remembers_the_group() -> None:
    @step
    def published() -> StepRef:
        make("upload")
        return StepRef.hardcoded("gs://bucket/published")

    assert names(graph_of_refs(published())) == ["upload"]
    assert names(graph_of_refs([published() / "sub"])) == ["upload"]
    assert published() == StepRef.hardcoded("gs://bucket/published")


@pytest.mark.parametrize("value", [3, "text", [], {"a": 1}, (None,), Outputs(1, [])])
def test_a_group_that_returns_no_ref_is_an_error(value: Any, at: Callable[[str], str]) -> None:
    @step
    def group() -> Any:
        make("a")
        return value

    with pytest.raises(GroupError, match=r"the group group returned .* without a ref in it") as error:
        group()  # no ref
    assert at("no ref") in str(error.value)
    assert "deferred()" in str(error.value).split("hint: ")[1]


def test_a_group_that_returns_a_bare_artifact_is_an_error() -> None:
    @step
    def group() -> Any:
        return make("a").artifact

    with pytest.raises(GroupError, match="the group group returned StepArtifact without a ref in it"):
        group()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("version", 1),
        ("expect_fingerprint", "1a2b3c4d"),
        ("override_output_path", "x"),
        ("retries", 0),
        ("timeout", 3),
        ("fresh", False),
        ("env_vars", {"A": "1"}),
        ("pip_dependency_groups", ["x"]),
        ("resources", lambda: 3),
    ],
)
def test_an_option_that_says_how_to_run_is_an_error_in_a_group(
    option: str, value: Any, at: Callable[[str], str]
) -> None:
    @step(**{option: value})
    def group() -> None:
        make("a")

    with pytest.raises(GroupError, match=f"group is a group .*, and a group has no {option}") as error:
        group()  # optioned
    assert at("optioned") in str(error.value)
    assert f"with_options({option}=" in str(error.value).split("hint: ")[1]


def test_a_group_may_have_a_name_and_a_description() -> None:
    @step(name="all/{word}", description="for {word}")
    def group(word: str) -> None:
        make("a")

    [group_node] = trace(group, "x").groups
    assert (group_node.name, group_node.options.description) == ("all/x", "for x")


def test_output_in_a_group_is_an_error_at_its_line(at: Callable[[str], str]) -> None:
    @step
    def group() -> None:
        make("a")
        output()  # own output

    with pytest.raises(GroupError, match=r"group is a group .*, and a group has no output\(\)") as error:
        group()
    assert at("own output") in str(error.value)
    assert "did you forget deferred()" in str(error.value).split("hint: ")[1]


def test_a_body_that_recorded_nothing_draws_a_warning_at_the_call(at: Callable[[str], str]) -> None:
    @step
    def empty() -> None:
        work("at trace time")

    with pytest.warns(
        MarinTraceWarning, match="empty recorded nothing: whatever its body did was done at trace time"
    ) as caught:
        empty()  # empty
    assert at("empty") in str(caught[0].message)
    assert at("empty") == f"{caught[0].filename.rsplit('/', 1)[-1]}:{caught[0].lineno}"
    assert "did you forget deferred()" in str(caught[0].message)


def test_a_group_that_only_passes_a_ref_on_draws_no_warning() -> None:
    @step
    def through(ref: StepRef) -> StepRef:
        return ref

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert through(make("a")).name == "a"


def test_a_group_called_for_its_effect_orders_after_all_members() -> None:
    @step
    def group() -> None:
        make("b", make("a"))

    @step
    def consumer() -> StepRef:
        group()
        return run(output())

    graph = trace(consumer)
    assert edges(graph)["consumer"] == [("ordering", "group")]
    assert edges(inline_groups(graph))["consumer"] == [("weak ordering", "a"), ("ordering", "b")]


def test_consumers_of_an_aliased_ref_wait_for_that_step_only() -> None:
    @step
    def group() -> Any:
        make("slow")
        return make("quick")

    @step
    def consumer() -> StepRef:
        return run(output(), group())

    graph = inline_groups(trace(consumer))
    assert edges(graph)["consumer"] == [("data", "quick"), ("non-blocking", "slow")]


def test_a_group_whose_ref_is_not_used_orders_after_all_members() -> None:
    @step
    def group() -> Any:
        make("other")
        return make("returned")

    @step
    def consumer() -> StepRef:
        group()
        return run(output())

    graph = inline_groups(trace(consumer))
    assert edges(graph)["consumer"] == [("ordering", "other"), ("ordering", "returned")]


def test_a_member_of_a_dict_that_is_not_used_is_not_waited_for() -> None:
    @step
    def group() -> Any:
        return {"a": make("a"), "b": make("b")}

    @step
    def consumer() -> StepRef:
        return run(output(), group()["a"])

    graph = inline_groups(trace(consumer))
    assert edges(graph)["consumer"] == [("data", "a"), ("non-blocking", "b")]


def test_groups_nest_and_know_their_path() -> None:
    @step
    def inner() -> StepRef:
        return make("a")

    @step
    def middle() -> Any:
        return [inner()]

    @step
    def outer() -> Any:
        return middle()[0]

    graph = trace(outer)
    assert [group.name for group in graph.groups] == ["inner", "middle", "outer"]
    assert graph.nodes[0].group_path == ("outer", "middle", "inner")
    assert names(graph_of_refs(outer())) == ["a"]


def test_a_ref_of_nested_groups_brings_in_the_members_of_all() -> None:
    @step
    def inner() -> StepRef:
        make("inner effect".replace(" ", "-"))
        return make("a")

    @step
    def outer() -> StepRef:
        make("outer-effect")
        return inner()

    assert names(graph_of_refs(outer())) == ["outer-effect", "inner-effect", "a"]


def test_a_helper_like_default_train_composes_in_another_step() -> None:
    @step(name="train/{name}/all")
    def default_train(name: str, data: StepRef) -> StepRef:
        model = make(f"train/{name}", data)
        make(f"eval/{name}", model)
        return model

    @step
    def entry() -> None:
        make("report", default_train("tiny", make("data")))

    graph = graph_of_refs(entry())
    assert names(graph) == ["data", "train/tiny", "eval/tiny", "report"]
    assert edges(inline_groups(graph))["report"] == [("data", "train/tiny")]


def test_a_nonblocking_alias_keeps_the_groups_other_members() -> None:
    @step
    def group() -> StepRef:
        make("effect")
        return make("model")

    @step
    def entry() -> None:
        make("watch", group().nonblocking())

    graph = inline_groups(trace(entry))
    assert names(graph) == ["effect", "model", "watch"]
    assert edges(graph)["watch"] == [("non-blocking", "model")]
    assert [root.name for root in graph.roots] == ["effect", "watch"]


def test_an_unused_nonblocking_alias_is_not_waited_for() -> None:
    @step
    def group() -> StepRef:
        return make("model")

    @step
    def body() -> StepRef:
        group().nonblocking()
        return run(output())

    assert edges(inline_groups(trace(body)))["body"] == [("non-blocking", "model")]


def test_a_redirected_alias_stands_for_the_redirected_step_only() -> None:
    @step
    def group() -> StepRef:
        return make("model")

    @step
    def entry() -> StepRef:
        return group().with_output_path("elsewhere")

    [node] = graph_of_refs(entry()).nodes
    assert node.override_output_path == "elsewhere"


def test_an_alias_used_in_another_group_keeps_its_edges() -> None:
    @step
    def first() -> StepRef:
        return make("a")

    @step
    def second(ref: StepRef) -> StepRef:
        return make("b", ref)

    @step
    def entry() -> None:
        make("c", second(first()))

    assert edges(trace(entry)) == {"a": [], "b": [("data", "a")], "c": [("data", "b")]}


def test_an_unused_ref_argument_of_a_group_orders_all_its_members() -> None:
    @step
    def group(after: StepRef) -> Any:
        make("a")
        return make("b")

    @step
    def entry() -> None:
        group(make("first"))

    graph = inline_groups(trace(entry))
    assert edges(graph) == {"first": [], "a": [("ordering", "first")], "b": [("ordering", "first")]}


def test_a_group_given_a_group_that_returned_nothing_runs_after_its_members() -> None:
    @step
    def silent() -> None:
        make("a")

    @step
    def later(after: Any) -> None:
        make("b")

    @step
    def entry() -> None:
        later(silent())

    assert edges(inline_groups(trace(entry)))["b"] == [("ordering", "a")]


def test_one_function_is_a_group_or_a_step_by_what_its_body_recorded() -> None:
    @step(name="either/{works}")
    def either(works: bool) -> Any:
        return run(output()) if works else make("a")

    graph = trace(lambda: [either(True), either(False)])
    assert names(graph) == ["either/True", "a"]
    assert [group.name for group in graph.groups] == ["either/False"]


def test_a_group_is_no_node_with_edges_in_the_inlined_graph() -> None:
    @step
    def group() -> None:
        make("a")

    graph = inline_groups(trace(group))
    assert graph.groups == ()
    assert [root.name for root in graph.roots] == ["a"]
    assert all(edge.kind is not EdgeKind.WEAK_ORDERING for node in graph.nodes for edge in node.edges)


@step
def pair() -> StepRef:
    make("other")
    return make("a")


def places(fn: Callable[..., Any]) -> list[str]:
    return [spec.output_path for spec in lower(trace(fn), prefix="/p") if spec.override_output_path]


def test_two_redirects_of_one_returned_ref_are_two_members() -> None:
    @step
    def group() -> list[StepRef]:
        ref = pair()
        return [ref.with_output_path("x"), ref.with_output_path("y")]

    @step
    def entry() -> None:
        group()

    assert places(entry) == ["/p/x", "/p/y"]
    assert len(trace(entry).nodes) == 3


def test_a_redirect_replaces_the_step_before_and_after_nonblocking() -> None:
    @step
    def before() -> None:
        run(pair().with_output_path("x").nonblocking())

    @step
    def after() -> None:
        run(pair().nonblocking().with_output_path("x"))

    assert names(trace(before)) == ["other", "a", "before"]
    assert names(trace(after)) == ["other", "a", "after"]


def test_a_redirect_looks_at_each_nested_group_once() -> None:
    @step(name="nest/{depth}")
    def nest(depth: int) -> StepRef:
        return nest(depth - 1) if depth else make("a")

    assert nest(60).with_output_path("x").name == "a"
