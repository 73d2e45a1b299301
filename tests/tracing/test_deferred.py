"""Deferred calls: recorded in bodies, made elsewhere; what a body is, and what never leaves it."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pydantic
import pytest

from marin_trace import StepRef, deferred, output, step, trace
from marin_trace.errors import ConfigError, ConfigTypeError, LeakedRefError, TraceError
from marin_trace.ir.config_tree import leaves
from marin_trace.ir.graph import EdgeKind, Node
from marin_trace.ir.interpreter import interpret
from marin_trace.ir.refs import DeferredResult, source_of


@dataclass
class Log:
    entries: list[Any]


LOG = Log([])


@pytest.fixture(autouse=True)
def fresh_log() -> None:
    LOG.entries.clear()


def note(*args: Any, **kwargs: Any) -> Any:
    """Remembers its arguments."""
    LOG.entries.append((args, kwargs))
    return args[0] if args else None


run = deferred(note)


def only_node(fn: Callable[..., Any], *args: Any) -> Node:
    [node] = trace(fn, *args).nodes
    return node


def ran(fn: Callable[..., Any], *args: Any) -> Any:
    """What the last step of a pipeline returns when it is interpreted."""
    graph = trace(fn, *args)
    return interpret(graph, lambda node: f"/out/{node.name}")[graph.nodes[-1]]


def test_a_deferred_call_in_a_body_is_recorded_and_not_made() -> None:
    @step
    def body() -> StepRef:
        result = run(1)
        assert type(result) is DeferredResult
        return result

    assert [call.function.label for call in only_node(body).calls] == ["note"]
    assert LOG.entries == []


def test_a_deferred_call_outside_any_step_is_made() -> None:
    assert run(1, key=2) == 1
    assert LOG.entries == [((1,), {"key": 2})]


def test_a_deferred_call_in_a_plain_function_under_trace_is_an_error(at: Callable[[str], str]) -> None:
    def plain() -> None:
        run(1)  # under trace

    with pytest.raises(TraceError, match=r"note\(\) was called outside any step: nothing would run it") as error:
        trace(plain)
    assert at("under trace") in str(error.value)
    assert "hint: call it in a function decorated with @step" in str(error.value)
    assert LOG.entries == []


def test_deferring_changes_neither_the_function_nor_its_name_and_doc() -> None:
    before = dict(vars(note))
    assert run.__name__ == "note"
    assert run.__doc__ == "Remembers its arguments."
    assert run.__wrapped__ is note
    assert inspect.signature(run) == inspect.signature(note)
    assert vars(note) == before


def posonly(a: int, /, b: int = 2, *rest: int, c: int, d: int = 4, **more: int) -> Any:
    return a, b, rest, c, d, more


def test_every_kind_of_parameter_is_bound_by_name_with_defaults() -> None:
    @step
    def body() -> StepRef:
        return deferred(posonly)(1, c=3, a=7)

    record = only_node(body).calls[0].arguments
    assert record.plan.names == ("a", "b", "rest", "c", "d", "more")
    assert ran(body) == (1, 2, (), 3, 4, {"a": 7})


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((1, 5, 6, 7), {"c": 3, "x": 9}), ((1,), {"c": 3}), ((1, 2), {"c": 0, "d": 1, "b2": 3}), ((1,), {"b": 3, "c": 3})],
)
def test_a_recorded_call_gets_what_a_direct_call_gets(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    @step
    def body() -> StepRef:
        return deferred(posonly)(*args, **kwargs)

    assert ran(body) == posonly(*args, **kwargs)


def takes_self(self: Any, fn: Any = None, args: Any = (), **kwargs: Any) -> Any:
    return self, fn, args, kwargs


def test_parameters_may_have_any_name() -> None:
    @step
    def body(self: Any, args: Any) -> StepRef:
        return deferred(takes_self)(self=self, fn=2, args=args, function=4)

    assert ran(lambda: body(self=1, args=3)) == (1, 2, 3, {"function": 4})


def test_a_builtin_without_a_signature_can_be_deferred() -> None:
    @step
    def body() -> StepRef:
        return deferred(dict)([("a", 1)], b=2)

    assert ran(body) == {"a": 1, "b": 2}


class Counter:
    """A class with a constructor and methods."""

    def __init__(self, start: int, step_size: int = 1) -> None:
        self.start, self.step_size = start, step_size

    def count(self, by: int) -> int:
        return self.start + by * self.step_size

    @classmethod
    def named(cls, text: str) -> str:
        return f"{cls.__name__} {text}"

    @staticmethod
    def plain(text: str) -> str:
        return text


@dataclass(frozen=True)
class Scale:
    factor: int

    def apply(self, value: int) -> int:
        return self.factor * value

    def __call__(self, value: int) -> int:
        return self.factor + value

    @deferred
    def deferred_apply(self, value: int) -> int:
        return self.factor * value


CALLABLES: dict[str, tuple[Callable[..., Any], tuple[Any, ...], Any]] = {
    "partial": (functools.partial(posonly, 1, c=3), (5,), (1, 5, (), 3, 4, {})),
    "partial of a partial": (functools.partial(functools.partial(posonly, 1), 2, c=3), (5,), (1, 2, (5,), 3, 4, {})),
    "bound method": (Scale(3).apply, (5,), 15),
    "classmethod": (Counter.named, ("x",), "Counter x"),
    "staticmethod": (Counter.plain, ("x",), "x"),
    "callable instance": (Scale(3), (5,), 8),
    "partial of a bound method": (functools.partial(Scale(3).apply, 4), (), 12),
    "builtin": (sorted, ([2, 1],), [1, 2]),
    "class": (Scale, (3,), Scale(3)),
}


@pytest.mark.parametrize("name", CALLABLES)
def test_every_kind_of_callable_can_be_deferred(name: str) -> None:
    function, args, expected = CALLABLES[name]

    @step
    def body() -> StepRef:
        return deferred(function)(*args)

    assert ran(body) == expected


class RemoteFunction:
    """As Ray's: it holds the function, and cannot be called."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: object) -> None:
        raise TypeError("Remote functions cannot be called directly")


def test_of_a_function_that_ray_hides_the_function_is_deferred() -> None:
    @step
    def body() -> StepRef:
        return deferred(RemoteFunction(posonly))(1, 2, c=3)

    assert only_node(body).calls[0].function.identity == f"{__name__}:posonly"
    assert ran(body) == posonly(1, 2, c=3)


def test_what_a_partial_binds_and_the_self_of_a_method_are_config() -> None:
    @step
    def body(function: Any) -> StepRef:
        return deferred(function)(5)

    partial = only_node(body, functools.partial(posonly, 1, c=3)).calls[0]
    method = only_node(body, Scale(3).apply).calls[0]
    assert partial.function.identity == f"{__name__}:posonly"
    assert {str(path): leaf for path, leaf in leaves(partial.arguments)}["c"] == 3
    assert method.function.identity == f"{__name__}:Scale.apply"
    assert ("self.factor", 3) in [(str(path), leaf) for path, leaf in leaves(method.arguments)]


def test_a_deferred_method_binds_its_instance() -> None:
    @step
    def body() -> StepRef:
        return Scale(3).deferred_apply(5)

    assert ran(body) == 15
    assert Scale(3).deferred_apply(5) == 15


def test_deferred_works_as_a_decorator_with_and_without_options() -> None:
    @deferred
    def bare() -> None: ...

    @deferred(identity="lib:old_name")
    def moved() -> None: ...

    assert bare.identity == f"{__name__}:{bare.__qualname__}"
    assert moved.identity == "lib:old_name"


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: deferred(run), TraceError, "note is deferred already"),
        (lambda: deferred(trace_class), TraceError, "trace_class is a step: its call is traced, not recorded"),
        (lambda: deferred(trace_class()), ConfigTypeError, r"deferred\(\) takes a function or class, not StepOutput"),
        (lambda: deferred(3), ConfigTypeError, r"deferred\(\) takes a function or class, not int"),
        (lambda: deferred(note, identity=" "), ConfigError, "identity= is empty"),
    ],
)
def test_what_is_no_function_cannot_be_deferred(make: Callable[[], Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match) as caught:
        make()
    assert "test_deferred.py:" in str(caught.value)


async def asynchronous() -> None: ...


async def asynchronous_generator() -> Any:
    yield 1


@pytest.mark.parametrize("function", [asynchronous, asynchronous_generator])
def test_an_asynchronous_function_cannot_be_deferred(function: Any, at: Callable[[str], str]) -> None:
    with pytest.raises(TraceError, match=f"cannot defer {function.__name__}: it is asynchronous") as error:
        deferred(function)  # async
    assert at("async") in str(error.value)
    assert "asyncio.run()" in str(error.value)


def add(a: int, b: int) -> int:
    return a + b


def test_the_calls_of_a_body_run_in_program_order() -> None:
    @step
    def body() -> StepRef:
        run("first")
        run("second")
        return run("third")

    assert ran(body) == "third"
    assert [args for args, _ in LOG.entries] == [("first",), ("second",), ("third",)]


def test_a_placeholder_is_an_argument_of_later_calls_of_its_body() -> None:
    @step
    def body() -> StepRef:
        three = deferred(add)(1, 2)
        return deferred(add)(three, three)

    assert ran(body) == 6


def test_attributes_and_items_of_a_placeholder_project_lazily() -> None:
    @step
    def body() -> StepRef:
        config = deferred(Scale)({"deep": [7]})
        return run(config.factor["deep"][0])

    assert ran(body) == 7


def test_a_call_is_never_dropped_because_it_was_not_returned() -> None:
    @step
    def body() -> None:
        run("effect")

    assert ran(body) is None
    assert LOG.entries == [(("effect",), {})]


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        (lambda a, b: (a, b), (1, 2)),
        (lambda a, b: {"first": a, "rest": [b, 3]}, {"first": 1, "rest": [2, 3]}),
        (lambda a, b: Scale(a), Scale(1)),
        (lambda a, b: b, 2),
        (lambda a, b: "plain", "plain"),
        (lambda a, b: None, None),
        (lambda a, b: output() / "x", "/out/body/x"),
        (lambda a, b: {"at": output(), "from": StepRef.hardcoded("gs://x")}, {"at": "/out/body", "from": "gs://x"}),
    ],
)
def test_what_the_body_returns_is_the_artifact(returned: Callable[[Any, Any], Any], expected: Any) -> None:
    @step
    def body() -> Any:
        return returned(run(1), run(2))

    assert ran(body) == expected


@pytest.mark.parametrize("returned", [object, lambda: (x for x in ()), lambda: lambda: 1, lambda: note])
def test_what_cannot_be_part_of_an_artifact_is_refused(returned: Callable[[], Any], at: Callable[[str], str]) -> None:
    @step
    def body() -> Any:
        run(1)
        return returned()

    with pytest.raises(
        ConfigTypeError, match=r"the body of body returned .*, which cannot be part of an artifact"
    ) as error:
        body()  # odd return
    assert at("odd return") in str(error.value)


def test_the_artifact_type_is_the_annotation_of_the_returned_functions_result() -> None:
    @step
    def number() -> StepRef:
        return deferred(add)(1, 2)

    @step
    def tree() -> Any:
        return [deferred(add)(1, 2)]

    @step
    def part() -> Any:
        return deferred(Scale)(3).factor

    assert only_node(number).artifact_type is int
    assert only_node(tree).artifact_type is Any
    assert only_node(part).artifact_type is Any
    assert only_node(lambda: trace_class()).artifact_type is Scale


@step
def trace_class() -> StepRef:
    return deferred(Scale)(3)


def test_a_placeholder_escaping_to_another_body_is_an_error(at: Callable[[str], str]) -> None:
    kept: list[Any] = []

    @step
    def maker() -> StepRef:
        kept.append(run(1))  # made here
        return kept[0]

    @step
    def taker() -> StepRef:
        return run(kept[0])  # escaped

    def both() -> None:
        maker()
        taker()

    with pytest.raises(
        LeakedRefError, match=r"<DeferredResult of note\(\)> was used in the body of taker: it belongs to maker"
    ) as error:
        trace(both)
    assert at("escaped") in str(error.value)
    assert at("made here") in str(error.value)
    assert "ref.artifact" in str(error.value).split("hint: ")[1]


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: x.field, lambda x: {"k": (x,)}])
def test_a_placeholder_passed_to_another_step_is_an_error(wrap: Callable[[Any], Any], at: Callable[[str], str]) -> None:
    @step
    def inner(value: Any) -> StepRef:
        return run(value)

    @step
    def outer() -> None:
        inner(wrap(run(1)))  # passed on

    with pytest.raises(
        LeakedRefError, match="was passed to the step inner: a deferred result never leaves its body"
    ) as error:
        trace(outer)
    assert at("passed on") in str(error.value)
    assert "argument: value" in " ".join(str(error.value).split())


def test_a_placeholder_returned_by_another_body_is_an_error() -> None:
    kept: list[Any] = []

    @step
    def maker() -> None:
        kept.append(run(1))

    @step
    def taker() -> Any:
        run(2)
        return {"x": kept[0]}

    @step
    def group() -> Any:
        return [trace_class(), kept[0]]

    maker()
    for leaking in (taker, group):
        with pytest.raises(LeakedRefError, match=f"was used in the body of {leaking.__name__}: it belongs to maker"):
            leaking()


def test_a_placeholder_of_a_finished_trace_is_an_error() -> None:
    kept: list[Any] = []

    @step
    def body() -> None:
        kept.append(run(1))
        run(kept[0])

    body()
    first = kept[0]

    @step
    def later() -> None:
        run(first)

    with pytest.raises(LeakedRefError, match="was used in the body of later: it belongs to body"):
        later()


def test_output_passed_to_another_step_is_an_error(at: Callable[[str], str]) -> None:
    @step
    def inner(path: Any) -> StepRef:
        return run(path)

    @step
    def outer() -> StepRef:
        inner([output() / "x"])  # given away
        return run(output())

    with pytest.raises(LeakedRefError, match=r"output\(\) was passed to the step inner") as error:
        outer()
    assert at("given away") in str(error.value)
    assert "hint: in inner, write output()" in str(error.value)


def test_output_of_another_body_is_an_error() -> None:
    kept: list[Any] = []

    @step
    def maker() -> None:
        kept.append(output())
        run(kept[0])

    @step
    def taker() -> None:
        run(kept[0])

    maker()
    with pytest.raises(LeakedRefError, match=r"<StepRef output\(\) of maker> was used in the body of taker"):
        taker()


def test_a_body_with_calls_that_returns_another_steps_ref_is_an_error(at: Callable[[str], str]) -> None:
    @step
    def body(part: bool) -> Any:
        ref = trace_class()
        run(ref)
        return [ref.artifact.factor] if part else ref

    for part in (True, False):
        with pytest.raises(
            LeakedRefError, match="the body of body records calls of its own and returns <Step"
        ) as error:
            body(part)  # foreign
        assert at("foreign") in str(error.value)
        assert "so that this one is a group" in str(error.value)


class Model(pydantic.BaseModel):
    path: str
    size: int = 1


@pydantic.dataclasses.dataclass
class Checked:
    path: str


def read(config: Any) -> Any:
    return config


@pytest.mark.parametrize("cls", [Model, Checked])
@pytest.mark.parametrize("make", [trace_class, output, lambda: run(1), lambda: trace_class().artifact.factor])
def test_a_pydantic_error_about_a_ref_says_so(cls: Any, make: Callable[[], Any], at: Callable[[str], str]) -> None:
    @step
    def body() -> StepRef:
        return deferred(read)(cls(path=make()))  # validated

    with pytest.raises(
        ConfigTypeError, match=rf"{cls.__name__}\.path was given <.*>, which pydantic cannot check"
    ) as error:
        trace(body)
    assert at("validated") in str(error.value)
    assert f"{cls.__name__} = deferred(_{cls.__name__})" in str(error.value)


def test_a_pydantic_error_in_a_plain_function_under_trace_says_so_too(at: Callable[[str], str]) -> None:
    class Lists(pydantic.BaseModel):
        paths: list[str]

    with pytest.raises(ConfigTypeError, match=r"Lists\.paths\.0 was given <StepRef trace_class>") as error:
        trace(lambda: Lists(paths=[trace_class()]))  # plain
    assert at("plain") in str(error.value)
    assert "Lists(paths=…)" in str(error.value).split("hint: ")[1]


def test_a_pydantic_error_about_something_else_is_left_alone() -> None:
    @step
    def body() -> StepRef:
        return deferred(read)(Model(path="x", size="many"))  # type: ignore[arg-type]

    with pytest.raises(pydantic.ValidationError, match="size"):
        trace(body)


class PostInit:
    def __init__(self, path: str) -> None:
        assert isinstance(path, str)
        self.path = path


@pytest.mark.parametrize("cls", [Model, Checked, PostInit])
def test_a_deferred_class_builds_its_config_at_run_time(cls: Any) -> None:
    @step
    def body() -> StepRef:
        return deferred(read)(deferred(cls)(path=output() / "x"))

    built = ran(body)
    assert type(built) is cls
    assert built.path == "/out/body/x"


def test_each_call_gets_arguments_of_its_own() -> None:
    def grow(items: list[int]) -> list[int]:
        items.append(1)
        return items

    shared: list[int] = []

    @step
    def body() -> Any:
        grown = deferred(grow, identity="grow")
        return [grown(shared), grown(shared)]

    assert ran(body) == [[1], [1]]
    assert shared == []


def test_step_calls_of_one_body_are_unordered_and_end_before_its_calls_begin() -> None:
    @step
    def first() -> StepRef:
        return run("first")

    @step
    def second() -> StepRef:
        return run("second")

    @step
    def body() -> StepRef:
        run("body")
        first()
        second()

    graph = trace(body)
    assert [(node.name, [edge.producer.name for edge in node.edges]) for node in graph.nodes] == [
        ("first", []),
        ("second", []),
        ("body", ["first", "second"]),
    ]


def test_a_placeholder_remembers_its_call() -> None:
    kept: list[Any] = []

    @step
    def body() -> None:
        kept.append(run(1))  # recorded

    body()
    assert source_of(kept[0]).label == "note"
    assert str(source_of(kept[0]).location).endswith(
        f":{inspect.getsourcelines(test_a_placeholder_remembers_its_call)[1] + 5}"
    )


def test_an_exception_in_a_body_is_the_users_own_and_leaves_no_trace_open() -> None:
    @step
    def body() -> None:
        run(1)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        body()
    assert run(5) == 5
    assert [call for call, _ in LOG.entries] == [(5,)]


def keyword_only(first: int, *, second: int) -> None: ...


def test_a_keyword_only_parameter_takes_nothing_by_position(at: Callable[[str], str]) -> None:
    @step
    def body() -> None:
        deferred(keyword_only)(1, 2)  # type: ignore[misc]  # by position

    with pytest.raises(ConfigTypeError, match=r"keyword_only\(\): too many positional arguments") as caught:
        trace(body)
    assert at("by position") in str(caught.value)


def test_a_call_that_is_refused_is_not_recorded() -> None:
    leaked: list[Any] = []

    @step
    def first() -> None:
        leaked.append(run(1))

    @step
    def second(used: StepRef) -> None:
        with pytest.raises(LeakedRefError, match="belongs to first"):
            run(used, leaked[0])
        run(2)

    node = trace(lambda: second(first())).nodes[-1]
    assert len(node.calls) == 1
    assert [edge.kind for edge in node.edges] == [EdgeKind.ORDERING]


def test_a_deferred_class_is_no_method_of_the_class_that_holds_it() -> None:
    class Library:
        config = deferred(Log)

    assert Library().config([1]) == Log([1])
