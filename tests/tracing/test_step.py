"""``@step``: its options, its decorating, its location, and what a call of it leaves."""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import pytest

from marin_trace import ResourceConfig, StepRef, deferred, lower, output, step, trace, versioned
from marin_trace.errors import ConfigError, ConfigTypeError, CycleError, StepNameError, TraceError
from marin_trace.ir.graph import Node, Options
from marin_trace.tracing.step import StepFunction


def work(*args: Any, **kwargs: Any) -> Any: ...


run = deferred(work)


def only_node(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Node:
    [node] = trace(fn, *args, **kwargs).nodes
    return node


def test_a_bare_step_is_named_after_its_function() -> None:
    @step
    def fineweb() -> StepRef:
        """What it does."""
        return run(output())

    assert fineweb().name == "fineweb"
    assert fineweb.__name__ == "fineweb"
    assert fineweb.__doc__ == "What it does."
    assert repr(fineweb) == "<step fineweb>"


def test_calling_a_step_traces_its_body_and_returns_a_ref() -> None:
    @step
    def make(word: str) -> StepRef:
        return run(output(), word)

    ref = make("a")
    assert isinstance(ref, StepRef)
    assert str(trace(make, "a")) == "a : make = work(self, 'a')"


def test_trace_takes_a_step_or_a_plain_function() -> None:
    @step
    def make(word: str) -> StepRef:
        return run(output(), word)

    def plain(word: str, *, times: int) -> list[StepRef]:
        return [make(f"{word}{index}") for index in range(times)]

    graph = trace(plain, "x", times=3)
    assert len(graph.nodes) == 3
    assert [ref.node for ref in graph.outputs] == list(graph.nodes)
    assert trace(make, "a").outputs.name == "make"


def test_a_traced_function_may_have_a_parameter_of_any_name() -> None:
    @step(name="{fn}")
    def make(fn: str, self: int = 1) -> StepRef:
        return run(output(), self)

    assert str(trace(make, fn="a", self=2)) == "a : a = work(self, 2)"


def test_nodes_come_in_post_order_of_tracing() -> None:
    @step(name="{name}")
    def make(name: str, *inputs: StepRef) -> StepRef:
        return run(output(), *inputs)

    @step(name="join")
    def join() -> StepRef:
        left = make("left")
        return run(left, make("right", make("under")))

    assert [node.name for node in trace(join).nodes] == ["left", "under", "right", "join"]


def test_two_traces_of_a_pipeline_print_equally() -> None:
    @step(name="{name}")
    def make(name: str, config: dict[str, Any]) -> StepRef:
        return run(output(), config, {"a", "b", "c"})

    def pipeline() -> None:
        make("x", {"k": [make("y", {})]})

    assert str(trace(pipeline)) == str(trace(pipeline))


OPTIONS: dict[str, Any] = {
    "description": "what for",
    "resources": ResourceConfig.with_cpu(8),
    "env_vars": {"A": "1"},
    "pip_dependency_groups": ("gpu",),
    "override_output_path": "custom/path",
    "version": 3,
    "retries": 2,
    "timeout": 60.0,
    "fresh": True,
    "expect_fingerprint": "1a2b3c4d",
}


def test_there_is_a_test_of_every_option() -> None:
    assert OPTIONS.keys() == {field.name for field in dataclasses.fields(Options)}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_is_kept_whether_given_to_the_step_or_to_the_call(name: str) -> None:
    def body() -> StepRef:
        return run(output())

    given = {name: OPTIONS[name]}
    assert only_node(step(**given)(body)).options.given() == given
    assert only_node(step(body).with_options(**given)).options.given() == given


def test_with_options_overrides_what_the_step_was_given_and_leaves_the_step_alone() -> None:
    @step(name="made", retries=1, version="a")
    def make() -> StepRef:
        return run(output())

    again = only_node(make.with_options(retries=5, name="again", timeout=2))
    assert (again.name, again.options.given()) == ("again", {"retries": 5, "version": "a", "timeout": 2})
    assert only_node(make).options.given() == {"retries": 1, "version": "a"}


@pytest.mark.parametrize("make", [lambda: step(retrys=2), lambda: step(lambda: None).with_options(retrys=2)])
def test_an_unknown_option_is_an_error_with_the_nearest_name(make: Callable[[], Any]) -> None:
    with pytest.raises(ConfigError, match="a step has no option 'retrys'") as error:
        make()
    assert "hint: did you mean 'retries'?" in str(error.value)
    assert "test_step.py:" in str(error.value)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"retries": -1}, "retries is a whole number ≥ 0, not -1"),
        ({"retries": 1.5}, "retries is a whole number"),
        ({"timeout": 0}, "timeout is a number of seconds > 0"),
        ({"expect_fingerprint": "1a2b"}, "expect_fingerprint is 8 to 64 hex digits"),
        ({"expect_fingerprint": "1A2B3C4D"}, "expect_fingerprint is 8 to 64 hex digits"),
        ({"version": 1.5}, "version is a text or a whole number"),
        ({"env_vars": {"A": 1}}, r"env_vars\['A'\] is text, not int\n"),
        ({"env_vars": {"DATA": StepRef.hardcoded("gs://x")}}, r"env_vars\['DATA'\] is text, not <StepRef gs://x>"),
    ],
)
def test_an_option_that_cannot_be_is_refused_where_it_is_given(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match) as error:
        step(**options)(lambda: None)
    assert "test_step.py:" in str(error.value)


def test_resources_may_be_computed_from_the_bound_arguments() -> None:
    @step(resources=lambda size: ResourceConfig.with_cpu(size))
    def make(name: str, size: int = 2) -> StepRef:
        return run(output())

    @step(resources=lambda **arguments: ResourceConfig.with_cpu(len(arguments)))
    def counted(a: int, b: int = 2, **more: int) -> StepRef:
        return run(output())

    assert only_node(make, "x").options.resources == ResourceConfig.with_cpu(2)
    assert only_node(make, "x", 7).options.resources == ResourceConfig.with_cpu(7)
    assert only_node(counted, 1, c=3).options.resources == ResourceConfig.with_cpu(4)


def test_resources_that_ask_for_an_unknown_argument_are_an_error(at: Callable[[str], str]) -> None:
    @step(resources=lambda size: ResourceConfig.with_cpu(size))
    def make(name: str) -> StepRef:
        return run(output())

    with pytest.raises(ConfigError, match="resources= asks for 'size'") as error:
        make("x")  # asked
    assert at("asked") in str(error.value)


def test_an_override_path_is_a_template_and_may_be_absolute() -> None:
    @step(override_output_path="gs://bucket/{name}/v1/")
    def make(name: str) -> StepRef:
        return run(output())

    assert only_node(make, "x").override_output_path == "gs://bucket/x/v1"


@pytest.mark.parametrize("path", ["../x", "experiments/x", "a//b", "gs://b/../x", "gs://b/<StepRef x>", "gs://b/a\nb"])
def test_an_unsafe_override_path_is_an_error(path: str, at: Callable[[str], str]) -> None:
    @step(override_output_path="{path}")
    def make(path: str) -> StepRef:
        return run(output())

    with pytest.raises(StepNameError) as error:
        make(path)  # overridden
    assert at("overridden") in str(error.value)


def test_run_options_never_enter_a_fingerprint() -> None:
    def body() -> StepRef:
        return run(output())

    [plain] = lower(trace(step(body)))
    for name in set(OPTIONS) - {"version", "expect_fingerprint"}:
        [spec] = lower(trace(step(**{name: OPTIONS[name]})(body)), prefix="/other")
        assert spec.fingerprint == plain.fingerprint
    [salted] = lower(trace(step(version=1)(body)))
    assert salted.fingerprint != plain.fingerprint


@pytest.mark.parametrize("name", ["..", "a/../b", "/abs", "a//b", "a b", "gs://x", "a%b", "", "a/", "ü"])
def test_an_unsafe_step_name_is_an_error(name: str, at: Callable[[str], str]) -> None:
    @step(name="{name}")
    def make(name: str) -> StepRef:
        return run(output())

    with pytest.raises(StepNameError, match="is not a step name") as error:
        make(name)  # named
    assert at("named") in str(error.value)


def test_the_directory_of_the_run_records_is_no_step_name() -> None:
    @step(name="experiments/{name}")
    def make(name: str) -> StepRef:
        return run(output())

    @step(name="experiments/group")
    def group() -> StepRef:
        return make.with_options(name="made")("x")

    with pytest.raises(StepNameError, match="a step cannot be named 'experiments/x': experiments/ under the prefix"):
        make("x")
    assert group().name == "made"


class Methods:
    """A class with a step among its methods."""

    def __init__(self, word: str) -> None:
        self.word = word

    @step(name="method/{word}")
    def make(self, word: str) -> StepRef:
        return run(output(), self.word, word)


def test_a_method_can_be_a_step() -> None:
    assert str(only_node(Methods("a").make, "b").calls[0].arguments.values[0].items[1:]) == "('a', 'b')"


async def asynchronous() -> None: ...


def generating() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("decorated", "match"),
    [
        (asynchronous, "asynchronous is asynchronous or a generator"),
        (generating, "generating is asynchronous or a generator"),
        (Methods, "@step decorates a function, not type"),
        (3, "@step decorates a function, not int"),
        (step(lambda: None), "<lambda> is a step already"),
    ],
)
def test_only_a_plain_function_can_be_a_step(decorated: Any, match: str) -> None:
    with pytest.raises(TraceError, match=match) as error:
        step(decorated)
    assert "test_step.py:" in str(error.value)


def test_arguments_that_do_not_fit_the_step_are_an_error_in_pythons_words(at: Callable[[str], str]) -> None:
    @step
    def make(name: str) -> StepRef:
        return run(output())

    with pytest.raises(ConfigTypeError, match=r"make\(\): missing a required argument: 'name'") as error:
        make()  # type: ignore[call-arg]  # unbound
    assert at("unbound") in str(error.value)
    with pytest.raises(ConfigTypeError, match=r"make\(\): got an unexpected keyword argument 'size'"):
        make("a", size=3)  # type: ignore[call-arg]


def test_a_step_has_the_location_of_its_call(at: Callable[[str], str]) -> None:
    @step
    def make() -> StepRef:
        return run(output())  # recorded

    def pipeline() -> None:
        make()  # the call

    node = only_node(pipeline)
    assert str(node.location).endswith(at("the call"))
    assert str(node.calls[0].location).endswith(at("recorded"))


def test_a_step_that_calls_itself_with_the_same_arguments_is_a_cycle(at: Callable[[str], str]) -> None:
    @step(name="loop/{word}")
    def loop(word: str) -> Any:
        return middle(word)  # inner

    @step(name="middle/{word}")
    def middle(word: str) -> Any:
        return loop(word)  # back

    with pytest.raises(CycleError, match="loop/a calls itself with the same arguments") as error:
        loop("a")  # outer
    text = str(error.value)
    assert at("back") in text.split("\n")[1]
    assert [line.split()[0] for line in text.split("while tracing:\n")[1].split("\n\n", maxsplit=1)[0].split("\n")] == [
        "loop/a",
        "middle/a",
    ]
    assert at("outer") in text
    assert at("inner") in text


def test_a_step_may_call_itself_with_other_arguments() -> None:
    @step(name="down/{n}")
    def down(n: int) -> StepRef:
        return run(output(), *([down(n - 1)] if n else []))

    assert [node.name for node in trace(down, 2).nodes] == ["down/0", "down/1", "down/2"]


def test_nesting_that_reaches_the_recursion_limit_says_how_to_pass_refs() -> None:
    @step(name="down/{n}")
    def down(n: int) -> StepRef:
        return run(output(), down(n - 1))

    with pytest.raises(
        TraceError, match=r"steps call each other .* deep, which reaches Python's recursion limit"
    ) as error:
        down(sys.getrecursionlimit())
    assert "data = stage(data)" in str(error.value).split("hint: ")[1]
    assert "test_step.py:" in str(error.value)


def test_a_long_chain_of_refs_is_no_nesting() -> None:
    @step(name="stage/{index}")
    def stage(index: int, before: Any) -> StepRef:
        return run(output(), before)

    def chain() -> StepRef:
        ref: Any = None
        for index in range(3 * sys.getrecursionlimit()):
            ref = stage(index, ref)
        return ref

    graph = trace(chain)
    assert len(lower(graph)) == len(graph.nodes) == 3 * sys.getrecursionlimit()


def test_a_config_that_contains_itself_is_an_error(at: Callable[[str], str]) -> None:
    ring: list[Any] = []
    ring.append({"again": ring})

    @step
    def make() -> StepRef:
        return run(ring)  # ring

    with pytest.raises(TraceError, match="a config nests deeper than Python's recursion limit, or contains itself"):
        make()


def test_versioned_changes_nothing() -> None:
    value = object()
    assert versioned(value) is value


def test_steps_are_typed_generically() -> None:
    assert isinstance(step(lambda: None), StepFunction)


def test_an_exception_in_a_body_leaves_no_trace_open() -> None:
    @step
    def bad(fail: bool) -> StepRef:
        if fail:
            raise ValueError("mine")
        return run(output())

    with pytest.raises(ValueError, match="mine"):
        trace(lambda: bad(True))
    with pytest.raises(TraceError, match="outside a step"):
        output()
    assert bad(False).name == "bad"


def test_a_recursion_of_the_users_own_stays_what_it_is() -> None:
    def endless(depth: int) -> int:
        return endless(depth + 1)

    @step
    def body() -> None:
        endless(0)

    with pytest.raises(RecursionError, match="maximum recursion depth"):
        body()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"name": 3}, "name is a text, not 3"),
        ({"description": 3}, "description is a text, not 3"),
        ({"timeout": "1h"}, "timeout is a number of seconds > 0, not '1h'"),
        ({"env_vars": {1: "x"}}, "the name of an environment variable is text, not 1"),
    ],
)
def test_an_option_of_another_type_is_an_error_at_the_users_line(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=rf"{complaint}\n  at .*test_step\.py"):
        step(**options)(run)


def test_one_pip_group_may_be_given_as_text() -> None:
    [node] = trace(step(name="tpu", pip_dependency_groups="tpu")(lambda: run())).nodes
    assert node.options.pip_dependency_groups == ("tpu",)
