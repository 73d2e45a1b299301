"""What is part of a fingerprint, and what is not: one test for each law."""

import enum
import functools
import math
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import InitVar, dataclass, make_dataclass
from typing import Any

import pytest

from marin_trace import ResourceConfig, StepRef, deferred, lower, output, register_encoder, step, trace, unversioned
from marin_trace.errors import ConfigError, FingerprintChangedError, UnstableValueError
from marin_trace.ir import canonical


def consume(value: Any = None, out: str = "") -> dict[str, int]: ...


def other(value: Any = None, out: str = "") -> dict[str, int]: ...


def named(first: Any, second: Any = 2, *, third: Any = 3) -> None: ...


def grown(first: Any, flag: bool = False) -> None: ...


@deferred
def produce(path: str, size: int) -> dict[str, int]: ...


@dataclass(frozen=True)
class Config:
    tokenizer: str = "bpe"
    workers: int = 1
    paths: tuple[Any, ...] = ()


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@step(name="source")
def source(size: int = 1) -> StepRef:
    return produce(output(), size)


def spec_of(body: Callable[[], Any], **options: Any) -> Any:
    """The spec of a step with this body; the body itself is no part of its fingerprint."""

    @step(name=options.pop("name", "one"), **options)
    def one() -> Any:
        return body()

    return lower(one(), prefix="/data")[-1]


def fingerprint(value: Any, **options: Any) -> str:
    return spec_of(lambda: deferred(consume)(value), **options).fingerprint


def fingerprint_of_call(function: Any, *args: Any, **kwargs: Any) -> str:
    return spec_of(lambda: function(*args, **kwargs)).fingerprint


def test_a_fingerprint_is_sha256_in_hex() -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", fingerprint(1))


def test_the_scheme_version_is_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(1)
    monkeypatch.setattr(canonical, "SCHEME", b"marin_trace recipe 2\n")
    assert fingerprint(1) != before


def test_the_rendered_name_is_part_of_it() -> None:
    assert fingerprint(1, name="a") != fingerprint(1, name="b")


@pytest.mark.parametrize("version", [2, "1", ""])
def test_the_version_is_part_of_it_and_typed(version: object) -> None:
    assert len({fingerprint(1), fingerprint(1, version=1), fingerprint(1, version=version)}) == 3


def test_the_function_is_part_of_it() -> None:
    assert fingerprint_of_call(deferred(consume), 1) != fingerprint_of_call(deferred(other), 1)


def test_the_order_of_the_calls_is_part_of_it() -> None:
    def body(*functions: Any) -> Any:
        return [function(1) for function in map(deferred, functions)][-1]

    assert spec_of(lambda: body(consume, other)) != spec_of(lambda: body(other, consume))
    assert spec_of(lambda: body(consume)) != spec_of(lambda: body(consume, consume))


def test_arguments_are_bound_by_name_with_defaults() -> None:
    call = deferred(named)
    ways = [
        fingerprint_of_call(call, 1),
        fingerprint_of_call(call, first=1),
        fingerprint_of_call(call, 1, 2),
        fingerprint_of_call(call, third=3, second=2, first=1),
    ]
    assert len(set(ways)) == 1
    assert fingerprint_of_call(call, 2, 1) != ways[0]


def test_what_is_returned_is_part_of_it() -> None:
    def body(choose: Callable[[Any, Any], Any]) -> Any:
        return choose(deferred(consume)(1), deferred(consume)(2))

    choices = [lambda a, b: a, lambda a, b: b, lambda a, b: None, lambda a, b: [a, b], lambda a, b: b["k"]]
    assert len({spec_of(lambda choose=choose: body(choose)).fingerprint for choose in choices}) == len(choices)


DISTINCT = [
    *(None, 0, 0.0, -0.0, False, "", b"", 0j, "0", (), [], {}, set(), frozenset(), math.nan, "None"),
    *([1, 2], (1, 2), [2, 1], {1, 2}, [[1], 2], [1, [2]], ["12"], ["1", "2"], {1: 2}, {"1": 2}, {1: "2"}),
    *(Colour.RED, Colour.BLUE, Config(), Config(workers=2), Config("x"), {"tokenizer": "bpe"}, Config, consume),
    *({"a": None}, {"a": unversioned(1), "b": 2}, [unversioned(1), 2], [2, unversioned(1)], [2], range(2), slice(2)),
]


def test_values_are_typed() -> None:
    by_fingerprint: dict[str, Any] = {}
    for value in DISTINCT:
        known = by_fingerprint.setdefault(fingerprint(value), value)
        assert known is value, f"{known!r} and {value!r} share a fingerprint"


def test_a_class_counts_by_its_name_without_its_module() -> None:
    here, moved = (make_dataclass("Moved", [("x", int)]) for _ in range(2))
    moved.__module__ = "another.module"
    renamed = make_dataclass("Renamed", [("x", int)])
    assert fingerprint(here(1)) == fingerprint(moved(1)) != fingerprint(renamed(1))


@dataclass
class Scaled:
    base: int
    factor: InitVar[int] = 1

    def __post_init__(self, factor: int) -> None:
        self.scaled = self.base * factor

    @functools.cached_property
    def squared(self) -> int:
        return self.base**2


def test_what_an_object_holds_beside_its_fields_is_identity() -> None:
    assert fingerprint(Scaled(2, 3)) == fingerprint(Scaled(2, 3)) != fingerprint(Scaled(2, 4))


def test_a_cached_property_that_was_asked_for_changes_nothing() -> None:
    asked = Scaled(2, 3)
    assert asked.squared == 4
    assert fingerprint(asked) == fingerprint(Scaled(2, 3))


def test_dicts_and_sets_have_no_order() -> None:
    letters = [chr(97 + number) for number in range(26)]
    assert fingerprint(dict.fromkeys(letters, 1)) == fingerprint(dict.fromkeys(letters[::-1], 1))
    assert fingerprint(set(letters)) == fingerprint({*reversed(letters)})
    assert fingerprint({"a": {"x": 1, "y": 2}, "b": 1}) == fingerprint({"b": 1, "a": {"y": 2, "x": 1}})


def test_a_subclass_of_a_dict_is_not_the_dict() -> None:
    assert fingerprint(OrderedDict(a=1)) != fingerprint({"a": 1})


def test_the_path_and_the_artifact_of_a_step_are_different_edges() -> None:
    assert fingerprint(source()) != fingerprint(source().artifact)


def test_the_fingerprint_of_the_producer_is_part_of_it() -> None:
    assert fingerprint(source(1)) != fingerprint(source(2))
    assert fingerprint(source(1).artifact) != fingerprint(source(2).artifact)


def test_the_subpath_and_the_projection_are_part_of_it() -> None:
    ref = source()
    values = [ref, ref / "a", ref / "a" / "b", ref.artifact, ref.artifact.a, ref.artifact["a"], ref.artifact[0]]
    assert len({fingerprint(value) for value in values}) == len(values)
    assert fingerprint(ref / "a" / "b") == fingerprint(ref / "a/b")


def test_a_nonblocking_edge_is_not_a_blocking_one() -> None:
    assert fingerprint(source()) != fingerprint(source().nonblocking())


def test_own_output_is_a_marker_with_its_subpath() -> None:
    def own(sub: str | None = None, **options: Any) -> str:
        return spec_of(lambda: deferred(consume)(output() / sub if sub else output()), **options).fingerprint

    assert own() != own("a") != own("b")
    assert own() == own(override_output_path="elsewhere")
    assert own() != fingerprint(StepRef.hardcoded("one"))


def test_hardcoded_paths_count_as_text() -> None:
    paths = ["gs://a/b", "gs://a/c", "/a/b", "a/b"]
    values = [*map(StepRef.hardcoded, paths), *paths]
    assert len({fingerprint(value) for value in values}) == len(values)
    assert fingerprint(StepRef.hardcoded("a") / "b") == fingerprint(StepRef.hardcoded("a/b"))


def test_the_prefix_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ref = source()
    places = [lower(ref, prefix=prefix)[-1].fingerprint for prefix in ("/a", "gs://b/c", "memory://d")]
    monkeypatch.setenv("MARIN_PREFIX", "/other")
    assert {*places, lower(ref)[-1].fingerprint} == {places[0]}


def test_override_paths_and_redirects_are_no_part_of_it() -> None:
    assert fingerprint(1, override_output_path="elsewhere/x") == fingerprint(1)
    assert fingerprint(source().with_output_path("elsewhere/y")) == fingerprint(source())


def test_ordering_edges_are_no_part_of_it() -> None:
    def body() -> Any:
        source(2)
        return deferred(consume)(1)

    @step(name="one")
    def after(ref: StepRef) -> StepRef:
        return deferred(consume)(1)

    assert spec_of(body).fingerprint == lower(after(source(3)))[-1].fingerprint == fingerprint(1)
    assert fingerprint([unversioned(source(4))]) == fingerprint([unversioned(5)])


def test_run_options_are_no_part_of_it() -> None:
    options = {
        "description": "words",
        "resources": ResourceConfig.with_cpu(2),
        "env_vars": {"A": "1"},
        "pip_dependency_groups": ["tpu"],
        "retries": 2,
        "timeout": 5.0,
        "fresh": True,
    }
    assert {fingerprint(1, **{name: value}) for name, value in options.items()} == {fingerprint(1)}


def test_an_unversioned_field_or_entry_is_absent() -> None:
    assert fingerprint(Config(workers=unversioned(1))) == fingerprint(Config(workers=unversioned(9)))
    assert fingerprint(Config(workers=unversioned(1))) != fingerprint(Config(workers=1))
    assert fingerprint({"a": 1, "b": unversioned(2)}) == fingerprint({"a": 1})


def test_an_unversioned_item_keeps_its_place() -> None:
    assert fingerprint([unversioned(1), 2]) == fingerprint([unversioned([3]), 2])
    assert len({fingerprint([unversioned(1), 2]), fingerprint([2, unversioned(1)]), fingerprint([2])}) == 3


def test_an_unversioned_argument_is_absent() -> None:
    assert fingerprint(unversioned(1)) == fingerprint(unversioned("x"))


def test_unversioned_paths_of_a_deferred_function_are_absent() -> None:
    def one(config: Config, **rules: Any) -> str:
        return fingerprint_of_call(deferred(consume, **rules), config)

    rules = {"unversioned": ["value.workers", "value.paths[0]"]}
    assert one(Config(workers=1, paths=(1, 2)), **rules) == one(Config(workers=2, paths=(9, 2)), **rules)
    assert one(Config(paths=(1, 2)), **rules) != one(Config(paths=(1, 3)), **rules)


def test_a_field_that_omit_when_leaves_out_changes_nothing_while_it_equals_the_value() -> None:
    def before(first: Any) -> None: ...

    old = fingerprint_of_call(deferred(before, identity="m:grown"), 1)
    new = deferred(grown, identity="m:grown", omit_when={"flag": False})
    assert fingerprint_of_call(new, 1) == fingerprint_of_call(new, 1, flag=False) == old
    assert fingerprint_of_call(new, 1, flag=True) != old
    assert fingerprint_of_call(new, 1, flag=0) != old  # 0 is not False


def test_omit_when_reaches_into_configs() -> None:
    call = deferred(consume, omit_when={"value.tokenizer": "bpe"})
    dropped = fingerprint_of_call(deferred(consume, unversioned=["value.tokenizer"]), Config())
    assert fingerprint_of_call(call, Config()) == dropped != fingerprint_of_call(call, Config("other"))


def test_a_rule_about_a_field_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"(?s)consume has nothing at .*'value\.wokers'.*did you mean 'workers'"):
        fingerprint_of_call(deferred(consume, unversioned=["value.wokers"]), Config())


def test_identity_stands_for_a_function() -> None:
    moved = deferred(other, identity=f"{__name__}:consume")
    assert fingerprint_of_call(moved, 1) == fingerprint_of_call(deferred(consume), 1)


def test_identity_of_a_deferred_function_counts_where_it_is_a_value() -> None:
    assert fingerprint(deferred(other, identity="m:f")) == fingerprint(deferred(consume, identity="m:f"))


def test_identity_gives_a_lambda_one() -> None:
    def same_parameters(x: Any) -> None: ...

    named_by_hand = deferred(same_parameters, identity="m:f")
    assert fingerprint_of_call(deferred(lambda x: x, identity="m:f"), 1) == fingerprint_of_call(named_by_hand, 1)
    with pytest.raises(UnstableValueError, match=r"(?s)is a lambda.*test_fingerprints\.py:\d+.*identity="):
        fingerprint_of_call(deferred(lambda x: x), 1)


def test_a_renamed_class_keeps_its_identity() -> None:
    @dataclass
    class NewName:
        __marin_trace_identity__ = "OldName"
        x: int = 1

    old = make_dataclass("OldName", [("x", int, 1)])
    assert fingerprint(NewName()) == fingerprint(old()) != fingerprint(NewName(2))


class Opaque:
    def __init__(self, content: object) -> None:
        self.content = content


def test_register_encoder_gives_a_class_an_identity() -> None:
    class Known(Opaque): ...

    class Below(Known): ...

    register_encoder(Known, lambda value: {"content": value.content})
    assert fingerprint(Known([1])) == fingerprint(Known([1])) != fingerprint(Known([2]))
    assert fingerprint(Below([1])) != fingerprint(Known([1]))


def test_an_encoder_that_returns_something_unstable_is_an_error() -> None:
    class Wrong(Opaque): ...

    register_encoder(Wrong, lambda value: value.content)
    with pytest.raises(UnstableValueError, match=r"(?s)encoder registered for .*Wrong.*test_fingerprints\.py:\d+"):
        fingerprint(Wrong(threading.Lock()))


UNSTABLE = {
    "lambda": lambda: lambda x: x,
    "lock": threading.Lock,
    "generator": lambda: (x for x in "ab"),
    "object": lambda: Opaque(1),
    "instance": object,
    "iterator": lambda: iter([1]),
}


@pytest.mark.parametrize("kind", UNSTABLE)
def test_a_value_without_a_stable_identity_is_an_error_that_names_its_path(kind: str) -> None:
    with pytest.raises(UnstableValueError) as caught:
        fingerprint({"key": [0, UNSTABLE[kind]()]})
    message = str(caught.value)
    assert message.startswith("consume(value['key'][1]) has no stable identity")
    assert "test_fingerprints.py:" in message
    assert "register_encoder" in message
    assert "unversioned" in message


@pytest.mark.parametrize("kind", UNSTABLE)
def test_unversioned_takes_a_value_without_identity(kind: str) -> None:
    assert fingerprint([unversioned(UNSTABLE[kind]())]) == fingerprint([unversioned(1)])


def test_an_open_file_has_no_identity() -> None:
    with open(__file__) as stream, pytest.raises(UnstableValueError, match=r"consume\(value\) has no stable identity"):
        fingerprint(stream)


def test_the_pinned_fingerprint_passes() -> None:
    pinned = fingerprint(1)
    assert fingerprint(1, expect_fingerprint=pinned[:8]) == fingerprint(1, expect_fingerprint=pinned) == pinned


def test_any_change_of_a_pinned_step_is_an_error_with_its_line() -> None:
    pinned = fingerprint(1)
    with pytest.raises(FingerprintChangedError) as caught:
        fingerprint(2, expect_fingerprint=pinned[:8])
    message = str(caught.value)
    assert message.startswith(f"one has the fingerprint {fingerprint(2)[:8]}, and pins {pinned[:8]}")
    assert re.search(r"test_fingerprints\.py:\d+", message)
    assert f'expect_fingerprint="{fingerprint(2)[:8]}"' in message


@pytest.mark.parametrize("pin", ["", "123", "xyz12345", "A" * 8, "a" * 65])
def test_a_pin_is_8_to_64_hex_digits(pin: str) -> None:
    with pytest.raises(ConfigError, match=r"expect_fingerprint is 8 to 64 hex digits"):
        step(name="one", expect_fingerprint=pin)(named)


def test_two_traces_have_the_same_fingerprints() -> None:
    def pipeline() -> StepRef:
        source(1)
        return source(2)

    first, second = (lower(trace(pipeline)) for _ in range(2))
    assert [spec.fingerprint for spec in first] == [spec.fingerprint for spec in second]
