"""The canonical encoding: equal meaning, equal bytes, in every process; different meaning, different bytes."""

import datetime
import enum
import functools
import json
import os
import subprocess
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marin_trace import StepRef, deferred, lower, output, step, trace, unversioned
from marin_trace.errors import UnstableValueError
from marin_trace.ir.canonical import fingerprints, identity_bytes, memo_bytes, same_recipe
from marin_trace.ir.config_tree import flatten


def encoded(value: Any) -> bytes:
    return identity_bytes(flatten(value, []))


@dataclass(frozen=True)
class Config:
    a: Any = 1
    b: Any = 2


@dataclass(frozen=True)
class Other:
    a: Any = 1
    b: Any = 2


class Pair(NamedTuple):
    a: Any = 1
    b: Any = 2


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    a: Any = 1


class Perm(enum.Flag):
    READ = 1
    WRITE = 2


class Colour(enum.StrEnum):
    RED = "red"


class MyDict(dict[str, Any]):
    pass


def work(*args: Any, **kwargs: Any) -> Any: ...


EQUAL: list[tuple[Any, Any]] = [
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ({1, 2, 3}, {3, 2, 1}),
    (Config(b=1, a=2), Config(a=2, b=1)),
    (float("nan"), -float("nan")),
    ([unversioned(1)], [unversioned(2)]),
    ({"a": 1, "w": unversioned(3)}, {"a": 1}),
    (Config(a=1, b=unversioned(3)), Config(a=1, b=unversioned(4))),
    (Path("a/b"), Path("a//b")),
]

DISTINCT: list[Any] = [
    *(None, False, True, 0, 1, -1, 10, 0.0, -0.0, 1.0, 1j, "", "1", "None", b"", b"1", "N", ...),
    *([], (), set(), frozenset(), {}, [[]], [()], [None], [1], (1,), {1}, frozenset([1]), {1: None}, {"1": None}),
    *(
        [1, 2],
        [2, 1],
        [12],
        ["1", "2"],
        ["12"],
        [["1"], "2"],
        [unversioned(1)],
        [1, unversioned(1)],
        [unversioned(1), 1],
    ),
    *(
        Config(),
        Other(),
        Pair(),
        Config(1, 3),
        Config([1]),
        {"a": 1, "b": 2},
        Config(unversioned(1)),
        Config(b=unversioned(1)),
    ),
    *(Model(), Model(extra=1), Model(extra=2), Model(a=2)),
    *(Perm.READ, Perm.READ | Perm.WRITE, Perm(0), Colour.RED, "red", Perm),
    *(MyDict(), OrderedDict(), defaultdict(int), PurePosixPath("a"), Path("a"), "a", range(2), range(3), slice(1)),
    *(work, len, int, "int"),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal_meaning_has_equal_bytes(one: Any, other: Any) -> None:
    assert encoded(one) == encoded(other)


def test_different_meaning_has_different_bytes() -> None:
    value_by_bytes: dict[bytes, Any] = {}
    for value in DISTINCT:
        other = value_by_bytes.setdefault(encoded(value), value)
        assert other is value, f"{other!r} and {value!r} share an encoding"


def test_memo_keys_include_what_is_unversioned() -> None:
    assert memo_bytes(flatten(unversioned(1), [])) != memo_bytes(flatten(unversioned(2), []))
    assert memo_bytes(flatten(unversioned(1), [])) != memo_bytes(flatten(1, []))
    value = object()
    assert memo_bytes(flatten(value, [])) == memo_bytes(flatten(value, [])) != memo_bytes(flatten(object(), []))


def test_a_value_without_identity_has_no_identity_bytes() -> None:
    with pytest.raises(UnstableValueError, match="object has no stable identity"):
        encoded(object())


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
        | st.builds(Config, inner, inner)
    ),
    max_leaves=8,
)


def exact(value: Any) -> Any:
    """A value as text that tells apart what must be told apart."""
    match value:
        case dict():
            return {"dict": sorted((exact(key), exact(item)) for key, item in value.items())}.__repr__()
        case list() | tuple():
            return f"{type(value).__name__}{[exact(item) for item in value]}"
        case Config():
            return f"Config({exact(value.a)}, {exact(value.b)})"
        case _:
            return f"{type(value).__name__} {value!r}"


@given(PLAIN, PLAIN)
def test_encodings_are_equal_exactly_when_values_are(one: Any, other: Any) -> None:
    assert (encoded(one) == encoded(other)) == (exact(one) == exact(other))


@given(st.dictionaries(st.text(max_size=3), st.integers(), max_size=6))
def test_the_order_of_a_dict_never_counts(value: dict[str, int]) -> None:
    assert encoded(value) == encoded(dict(reversed(value.items())))


@step(name="data/{name}")
def data(name: str = "a", **options: Any) -> StepRef:
    return deferred(work)(output(), options)


def fingerprint(*args: Any, name: str = "made", version: Any = None, function: Any = work) -> str:
    @step(name=name, version=version)
    def body() -> StepRef:
        return deferred(function)(*[arg() if callable(arg) else arg for arg in args])

    return lower(trace(body))[-1].fingerprint


def other_work(*args: Any, **kwargs: Any) -> Any: ...


RECIPES: dict[str, Callable[[], str]] = {
    "base": lambda: fingerprint(1),
    "name": lambda: fingerprint(1, name="other"),
    "version": lambda: fingerprint(1, version=1),
    "text version": lambda: fingerprint(1, version="1"),
    "function": lambda: fingerprint(1, function=other_work),
    "argument": lambda: fingerprint(2),
    "arguments": lambda: fingerprint(1, 2),
    "ref": lambda: fingerprint(data),
    "other ref": lambda: fingerprint(lambda: data("b")),
    "ref of another recipe": lambda: fingerprint(lambda: data("a", x=1)),
    "subpath": lambda: fingerprint(lambda: data() / "x"),
    "nonblocking": lambda: fingerprint(lambda: data().nonblocking()),
    "artifact": lambda: fingerprint(lambda: data().artifact),
    "artifact field": lambda: fingerprint(lambda: data().artifact.x),
    "artifact item": lambda: fingerprint(lambda: data().artifact["x"]),
    "own output": lambda: fingerprint(output),
    "own subpath": lambda: fingerprint(lambda: output() / "x"),
    "hardcoded": lambda: fingerprint(lambda: StepRef.hardcoded("data/a")),
    "text": lambda: fingerprint("data/a"),
}


def test_every_part_of_a_recipe_counts() -> None:
    made = {name: make() for name, make in RECIPES.items()}
    assert len(set(made.values())) == len(made)
    assert made == {name: make() for name, make in RECIPES.items()}


def test_the_order_of_calls_and_what_is_returned_count() -> None:
    def of(body: Callable[[], Any]) -> str:
        return lower(trace(step(name="made")(body)))[0].fingerprint

    run, other = deferred(work), deferred(other_work)
    bodies: list[Callable[[], Any]] = [
        lambda: [run(1), other(1)][1],
        lambda: [other(1), run(1)][1],
        lambda: [run(1), other(1)][0],
        lambda: [run(1), other(1)],
        lambda: [run(1), other(1)][1].field,
        lambda: [[run(1), other(1)], None][1],
    ]
    assert len({of(body) for body in bodies}) == len(bodies)


def test_a_change_upstream_changes_everything_downstream() -> None:
    def chain(**options: Any) -> list[str]:
        return [spec.fingerprint for spec in lower(trace(lambda: middle(data("a", **options))))]

    @step(name="middle")
    def middle(ref: StepRef) -> StepRef:
        return deferred(work)(ref)

    assert all(one != other for one, other in zip(chain(), chain(x=1), strict=True))


SCRIPT = """
import json, sys
from marin_trace import deferred, lower, output, step, trace
def work(*args, **kwargs): ...
@step(name="made")
def made():
    words = ["a", "b", "c", "d", "e"]
    nested = {word: {1.5, word} for word in words}
    return deferred(work, identity="lib:work")(output(), set(words), frozenset(words), nested, b=1, a=2)
print(json.dumps([spec.fingerprint for spec in lower(trace(made))]))
"""


def test_no_hash_seed_or_process_leaks_into_a_fingerprint(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = Path(__file__).parents[2]
    seen = set()
    for seed in ("0", "1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, env=environment)
        seen.add(*json.loads(done.stdout))
    assert len(seen) == 1


def test_fingerprints_are_sha256_of_the_recipe() -> None:
    graph = trace(data)
    [digest] = fingerprints(graph.nodes).values()
    assert len(digest) == 64
    assert int(digest, 16) >= 0


def test_steps_of_different_traces_have_the_same_recipe() -> None:
    assert same_recipe(data().node, data().node)
    assert not same_recipe(data().node, data("b").node)
    assert not same_recipe(data().node, data().with_output_path("x").node)


def test_fingerprinting_a_long_chain_needs_no_recursion() -> None:
    @step(name="stage")
    def stage(before: Any) -> StepRef:
        return deferred(work)(before)

    def chain() -> StepRef:
        ref: Any = None
        for _ in range(2000):
            ref = stage(ref)
        return ref

    nodes = trace(chain).nodes
    assert len(set(fingerprints(nodes).values())) == 2000


class Zone(datetime.tzinfo):
    """A time zone without a repr of its own."""

    def utcoffset(self, dt: datetime.datetime | None) -> datetime.timedelta:
        return datetime.timedelta(hours=1)

    def tzname(self, dt: datetime.datetime | None) -> str:
        return "one"


def test_no_address_of_a_time_zone_is_encoded() -> None:
    kept = [Zone(), Zone()]
    first, second = (encoded(datetime.datetime(2026, 1, 1, tzinfo=zone)) for zone in kept)
    assert first == second != encoded(datetime.datetime(2026, 1, 1))  # noqa: DTZ001 (without a zone on purpose)
    with pytest.raises(UnstableValueError, match="Zone has no stable identity"):
        encoded(kept[0])


@pytest.mark.parametrize(
    "config",
    [
        lambda n: functools.partial(encoded, unversioned(n)),
        lambda n: functools.partial(encoded, value=unversioned(n)),
        lambda n: {unversioned(n): 1, "a": 2},
        unversioned,
    ],
)
def test_an_unversioned_value_is_left_out_wherever_it_is(config: Callable[[int], Any]) -> None:
    def fingerprint(n: int) -> str:
        @step
        def body() -> Any:
            deferred(Config)(config(n))
            return unversioned(n)

        return lower(trace(body))[0].fingerprint

    assert fingerprint(1) == fingerprint(2)
