"""References and projections: what they can do, and what each refuses with which hint."""

import copy
import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from marin_trace import StepRef, deferred, output, step, trace
from marin_trace.errors import GroupError, StepNameError, TraceError
from marin_trace.ir.graph import EdgeKind, graph_of_refs


@dataclass(frozen=True)
class Config:
    path: Any
    paths: Any = ()


def work(config: Any = None, *args: Any, **kwargs: Any) -> Any: ...


run = deferred(work)


@step(name="data/{name}")
def data(name: str = "a") -> StepRef:
    return run(output(), name)


@pytest.mark.parametrize(
    "make", [data, lambda: data() / "x", lambda: StepRef.hardcoded("a/b"), lambda: data().artifact.x[1]]
)
def test_repr_and_str_never_raise(make: Callable[[], Any]) -> None:
    value = make()
    assert str(value) == repr(value)
    assert repr(value).startswith("<Step")
    assert "%s and %r" % (value, value) == f"{value!r} and {value!s}"  # noqa: UP031


def test_paths_below_a_ref_are_refs() -> None:
    ref = data()
    assert repr(ref / "train" / "*.jsonl") == "<StepRef data/a/train/*.jsonl>"
    assert repr(ref.cd("train")) == repr(ref / "train")
    assert repr(ref / Path("x/y")) == "<StepRef data/a/x/y>"
    assert ref.name == (ref / "train").name == "data/a"
    assert StepRef.hardcoded("gs://bucket/raw/").name == "raw"
    assert repr(StepRef.hardcoded("gs://bucket/raw/") / "x") == "<StepRef gs://bucket/raw/x>"


@pytest.mark.parametrize("subpath", ["..", "a/../b", "/abs", "gs://x/y", "a//b", "a/", "", "a%2e", "a\nb", "a b", "."])
def test_an_unsafe_subpath_is_refused(subpath: str, at: Callable[[str], str]) -> None:
    with pytest.raises(StepNameError, match="is not a path below an output") as error:
        data() / subpath  # divided
    assert at("divided") in str(error.value)
    assert "ref / 'train'" in str(error.value).split("hint: ")[1]


@pytest.mark.parametrize("subpath", ["*.jsonl", "a/?x", "part-[0-9]", "{a,b}", "v=1", "a..b", "user@x"])
def test_globs_and_safe_subpaths_are_accepted(subpath: str) -> None:
    assert repr(data() / subpath) == f"<StepRef data/a/{subpath}>"


def test_a_subpath_that_is_no_text_is_refused() -> None:
    with pytest.raises(StepNameError, match="a path below an output is text, not int"):
        data() / 3  # type: ignore[operator]


@pytest.mark.parametrize("path", ["../x", "a//b", ""])
def test_an_unsafe_relative_hardcoded_path_is_refused(path: str) -> None:
    with pytest.raises(StepNameError, match="is not a path below an output"):
        StepRef.hardcoded(path)


def test_a_hardcoded_path_is_text() -> None:
    with pytest.raises(TraceError, match="a hardcoded path is text, not StepOutput"):
        StepRef.hardcoded(data())  # type: ignore[arg-type]


def test_step_ref_itself_is_abstract() -> None:
    with pytest.raises(TraceError, match="StepRef is abstract"):
        StepRef()


def test_refs_are_equal_when_they_mean_the_same_path() -> None:
    assert data() == data()
    assert data("a") != data("b")
    assert data() / "x" == data().cd("x")
    assert data() / "x" != data()
    assert data() == data().nonblocking()
    assert StepRef.hardcoded("gs://x/") == StepRef.hardcoded("gs://x")
    assert data() != data().with_output_path("elsewhere")
    assert data().with_output_path("elsewhere") == data().with_output_path("elsewhere/")
    assert StepRef.hardcoded("data/a") != data()


def test_refs_of_different_traces_are_equal_and_hash_equally() -> None:
    assert len({data(), data(), data("b"), data() / "x", StepRef.hardcoded("x"), StepRef.hardcoded("x")}) == 4
    assert {data(): 1}[data()] == 1


def test_a_ref_is_not_equal_to_other_things() -> None:
    assert data() is not None
    assert data() != None  # noqa: E711
    assert data() != 3
    assert data() not in [1, None, data("b")]


@pytest.mark.parametrize(
    "make", [data, lambda: data() / "x", lambda: StepRef.hardcoded("a/b"), lambda: data().artifact.x]
)
def test_copies_keep_the_ref_itself(make: Callable[[], Any]) -> None:
    value = make()
    config = Config(value, [value])
    assert copy.copy(value) is value
    assert copy.deepcopy(value) is value
    assert copy.deepcopy(config).path is value
    assert dataclasses.asdict(config)["paths"][0] is value
    assert dataclasses.replace(config, paths=()).path is value
    assert dataclasses.astuple(config)[0] is value


@pytest.mark.parametrize("make", [data, lambda: data().artifact, lambda: StepRef.hardcoded("x")])
def test_refs_are_immutable(make: Callable[[], Any]) -> None:
    with pytest.raises(TraceError, match=r"cannot set 'note' on .*: it is immutable"):
        make().note = 1


def test_hasattr_says_no_for_what_a_ref_lacks() -> None:
    assert not hasattr(data(), "endswith")
    assert not hasattr(data(), "__array__")
    assert not hasattr(data(), "whatever")
    assert not hasattr(data().artifact, "__array_interface__")
    assert not hasattr(data().artifact, "_repr_html_")
    assert inspect.unwrap(data().artifact) == data().artifact
    with pytest.raises(AttributeError, match="has no attribute 'whatever'"):
        data().whatever  # noqa: B018


def test_an_artifact_projects_attributes_and_items_lazily() -> None:
    assert repr(data().artifact.vocab["a"].size) == "<StepArtifact data/a.vocab['a'].size>"
    assert data().artifact.x == data().artifact.x
    assert data().artifact.x != data().artifact.y
    assert len({data().artifact.x, data().artifact.x}) == 1


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: StepRef.hardcoded("x").artifact, "<StepRef x> has no artifact: only the output of a called step has"),
        (lambda: StepRef.hardcoded("x").with_output_path("y"), r"has no with_output_path\(\)"),
        (lambda: (data() / "sub").artifact, "it is a path below an output"),
        (lambda: data().nonblocking().artifact, "cannot take the artifact of .*nonblocking.*: nobody waits for it"),
    ],
)
def test_an_artifact_belongs_to_a_step_that_is_waited_for(make: Callable[[], Any], match: str) -> None:
    with pytest.raises(TraceError, match=match) as error:
        make()
    assert Path(__file__).name in str(error.value)


def test_own_output_has_no_artifact_and_is_not_waited_for() -> None:
    @step
    def body(operation: str) -> StepRef:
        ref = output()
        return run({"artifact": lambda: ref.artifact, "nonblocking": ref.nonblocking}[operation]())

    for operation in ("artifact", "nonblocking"):
        with pytest.raises(TraceError, match=rf"<StepRef output\(\) of body> has no {operation}"):
            body(operation)


def test_nonblocking_of_a_hardcoded_path_is_the_path() -> None:
    assert StepRef.hardcoded("x").nonblocking() == StepRef.hardcoded("x")


@pytest.mark.parametrize("path", ["../up", "experiments/x", "gs://b/../c", "a b", ""])
def test_an_unsafe_output_path_is_refused(path: str, at: Callable[[str], str]) -> None:
    with pytest.raises(StepNameError) as error:
        data().with_output_path(path)  # redirected
    assert at("redirected") in str(error.value)


@pytest.mark.parametrize("path", ["custom/path", "gs://b/x", "/abs/x/"])
def test_a_redirected_ref_writes_where_it_is_told(path: str) -> None:
    node = data().with_output_path(path).node
    assert node.override_output_path == path.rstrip("/")
    assert node.name == "data/a"


@pytest.mark.parametrize("use", [lambda ref: ref / "x", lambda ref: ref.artifact, lambda ref: ref.nonblocking(), run])
def test_a_group_that_returned_nothing_is_no_path(use: Callable[[Any], Any]) -> None:
    @step
    def silent() -> None:
        data()

    @step
    def consumer() -> StepRef:
        use(silent())
        return run(output())

    with pytest.raises(GroupError, match="cannot use silent as a path: it is a group that returned nothing") as error:
        trace(consumer)
    assert Path(__file__).name in str(error.value)
    assert "hint: return a ref from its body" in str(error.value)


def test_a_ref_of_a_finished_trace_joins_another() -> None:
    ref = data()

    @step
    def consumer(given: StepRef) -> StepRef:
        return run(given)

    graph = graph_of_refs(consumer(ref))
    assert [node.name for node in graph.nodes] == ["data/a", "consumer"]
    assert graph.nodes[1].edges[0].producer is ref.node
    assert graph.nodes[1].edges[0].kind is EdgeKind.DATA


def test_output_outside_a_step_is_an_error(at: Callable[[str], str]) -> None:
    with pytest.raises(TraceError, match=r"output\(\) was called outside a step") as error:
        output()  # outside
    assert at("outside") in str(error.value)
    assert "@step" in str(error.value).split("hint: ")[1]


def test_output_in_a_plain_function_under_trace_is_an_error() -> None:
    with pytest.raises(TraceError, match=r"output\(\) was called outside a step"):
        trace(lambda: output())


def test_refs_in_a_set_are_ordered_by_name_and_line_not_by_address() -> None:
    @step(name="item/{n}")
    def item(n: int) -> StepRef:
        return deferred(print)(n)

    @step(name="same")
    def same(n: int) -> StepRef:
        return deferred(print)(n)

    @step
    def reader(refs: set[StepRef]) -> None:
        deferred(print)(refs)

    def order(numbers: list[int]) -> list[str]:
        kept = [item(n) for n in numbers] + [same(n) for n in numbers]
        return [str(call.arguments.values[0].items[0]) for node in reader(set(kept)).node.called for call in node.calls]

    assert order([3, 1, 4, 2]) == order([2, 4, 1, 3]) == order([1, 2, 3, 4])
