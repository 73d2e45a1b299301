"""The one walker: every container, snapshots, substitution without ``__init__``, and what it refuses."""

import array
import collections
import collections.abc
import copy
import datetime
import decimal
import enum
import functools
import io
import os
import re
import types
import uuid
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple

import attrs
import numpy as np
import pydantic
import pytest

from marin_trace import StepRef, deferred, output, register_encoder, step, trace, unversioned, versioned
from marin_trace.errors import ConfigError, UnstableValueError
from marin_trace.ir import config_tree
from marin_trace.ir.config_tree import Found, flatten, leaves, materialise, substitute
from marin_trace.ir.interpreter import interpret
from marin_trace.ir.records import plan_of


def work(config: Any = None, *args: Any, **kwargs: Any) -> Any:
    return config


run = deferred(work)


@step(name="data")
def data() -> StepRef:
    return run(output())


def received(value: Any) -> Any:
    """What a function gets that is passed ``value`` in a step."""

    @step(name="made")
    def body() -> StepRef:
        return run(value)

    graph = trace(body)
    return interpret(graph, lambda node: f"/out/{node.name}")[graph.nodes[-1]]


@dataclass
class Plain:
    path: Any
    rest: Any = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Slotted:
    path: Any
    rest: Any = None


@dataclass(kw_only=True)
class Derived(Plain):
    extra: Any = 3
    count: ClassVar[int] = 0


@dataclass
class Initialised:
    path: Any
    scale: InitVar[int] = 2
    scaled: int = field(init=False, default=0)

    def __post_init__(self, scale: int) -> None:
        self.scaled = scale * 10


class Model(pydantic.BaseModel):
    path: Any
    rest: Any = None


class OpenModel(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    size: int = 1


@attrs.define
class Attrs:
    path: Any
    rest: Any = None


@attrs.frozen(slots=False)
class AttrsDict:
    path: Any
    _private: Any = None


class Named(NamedTuple):
    path: Any
    rest: Any = None


class MyDict(dict[str, Any]):
    pass


class MyList(list[Any]):
    pass


def joined(*parts: Any, **named: Any) -> Any: ...


CONTAINERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "dataclass": (Plain, "config.path"),
    "slots dataclass": (Slotted, "config.path"),
    "derived dataclass": (lambda r: Derived(path=1, extra=r), "config.extra"),
    "InitVar dataclass": (Initialised, "config.path"),
    "pydantic": (lambda r: Model(path=r), "config.path"),
    "pydantic extra": (lambda r: OpenModel(other=r), "config.__pydantic_extra__['other']"),
    "attrs": (Attrs, "config.path"),
    "attrs without slots": (AttrsDict, "config.path"),
    "private attrs": (lambda r: AttrsDict(1, r), "config._private"),
    "NamedTuple": (Named, "config.path"),
    "dict": (lambda r: {"a": r}, "config['a']"),
    "dict key": (lambda r: {r: 1}, "config.keys()"),
    "tuple in a dict key": (lambda r: {(1, r): 1}, "config.keys()[1]"),
    "dict subclass": (lambda r: MyDict(a=r), "config['a']"),
    "defaultdict": (lambda r: collections.defaultdict(list, a=r), "config['a']"),
    "OrderedDict": (lambda r: collections.OrderedDict(a=r), "config['a']"),
    "mappingproxy": (lambda r: types.MappingProxyType({"a": r}), "config['a']"),
    "list": (lambda r: [0, r], "config[1]"),
    "list subclass": (lambda r: MyList([r]), "config[0]"),
    "tuple": (lambda r: (r,), "config[0]"),
    "set": (lambda r: {r}, "config['{}']"),
    "frozenset": (lambda r: frozenset([r, 1]), "config['{}']"),
    "partial": (lambda r: functools.partial(joined, r), "config[0]"),
    "partial keyword": (lambda r: functools.partial(joined, key=r), "config['key']"),
    "versioned": (versioned, "config"),
    "nested": (lambda r: Plain([{"k": (Model(path=Attrs(r)),)}]), "config.path[0]['k'][0].path.path"),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_refs_are_found_in_every_container(name: str) -> None:
    build, path = CONTAINERS[name]
    ref = data()

    @step(name="made")
    def body() -> StepRef:
        return run(build(ref))

    [edge] = body().node.edges
    assert edge.kind.value == "data"
    assert edge.producer is ref.node
    assert str(edge.path) == path


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_function_gets_the_same_container_with_paths(name: str) -> None:
    build, _ = CONTAINERS[name]
    expected, got = build("/out/data"), received(build(data()))
    assert type(got) is type(expected)
    if isinstance(expected, functools.partial):
        assert (got.func, got.args, got.keywords) == (expected.func, expected.args, expected.keywords)
    else:
        assert got == expected


def test_the_state_of_a_container_is_kept() -> None:
    counts = received(collections.defaultdict(int, a=1))
    assert counts["missing"] == 0
    built = received(Initialised("x", 5))
    assert (built.scaled, received(OpenModel(other=2)).model_extra) == (50, {"other": 2})
    assert received(Model(path=1)).model_fields_set == {"path"}


class Normalising:
    """Counts how often objects are made by ``__init__``."""

    made = 0


@dataclass
class Checked:
    path: Any

    def __post_init__(self) -> None:
        Normalising.made += 1
        self.derived = f"derived of {self.path!r}"


def test_substitution_runs_neither_init_nor_post_init() -> None:
    Normalising.made = 0
    got = received(Checked(data()))
    assert got.path == "/out/data"
    assert got.derived == "derived of <StepRef data>"
    assert Normalising.made == 1


def test_unset_fields_stay_unset() -> None:
    half = Slotted.__new__(Slotted)
    object.__setattr__(half, "path", 1)
    assert not hasattr(received(half), "rest")


class Colour(enum.Enum):
    RED = "r"


class Level(enum.IntFlag):
    LOW = 1
    HIGH = 2


class Text(str):
    __slots__ = ()


VALUES: list[Any] = [
    *(None, True, 1, 1.5, 2j, "x", b"x", ..., range(3), slice(1, 2)),
    *(Path("a/b"), PurePosixPath("a")),
    *(datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), datetime.date(2020, 1, 1), datetime.timedelta(1)),
    *(decimal.Decimal("1.10"), uuid.UUID(int=1), re.compile("a+", re.IGNORECASE)),
    *(Colour.RED, Level.LOW | Level.HIGH, Level(0), Text("x"), bytearray(b"x")),
    *(np.float32(1.5), np.dtype("int8"), int, list[int], types, len, joined, Named, StepRef.hardcoded),
]


@pytest.mark.parametrize("value", VALUES, ids=[type(value).__name__ for value in VALUES])
def test_plain_values_pass_through_with_their_type(value: Any) -> None:
    got = received(value)
    assert type(got) is type(value)
    assert got == value


def test_arrays_are_snapshots() -> None:
    array_ = np.arange(3)

    @step
    def body() -> StepRef:
        result = run(array_)
        array_[0] = 9
        return result

    graph = trace(body)
    assert interpret(graph, lambda _: "")[graph.nodes[0]].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("value", "mutate"),
    [
        ([1], lambda v: v.append(2)),
        ({"a": [1]}, lambda v: v["a"].append(2)),
        (Plain([1]), lambda v: v.path.append(2)),
        ({1}, lambda v: v.add(2)),
        (bytearray(b"a"), lambda v: v.extend(b"b")),
        (Model(path=[1]), lambda v: v.path.append(2)),
    ],
)
def test_later_mutation_has_no_effect(value: Any, mutate: Callable[[Any], Any]) -> None:
    before = copy.deepcopy(value)

    @step
    def body() -> StepRef:
        result = run(value)
        mutate(value)
        return result

    graph = trace(body)
    assert interpret(graph, lambda _: "")[graph.nodes[0]] == before != value


def test_each_materialisation_makes_new_containers() -> None:
    tree = flatten({"a": [Plain([1])]}, [])
    first, second = (materialise(tree, lambda leaf: leaf) for _ in range(2))
    first["a"][0].path.append(2)
    assert second == {"a": [Plain([1])]}


@dataclass
class FieldsAndItems(dict[str, Any]):
    size: int = 1


UNSTABLE: list[tuple[str, Callable[[], Any]]] = [
    ("lambda", lambda: lambda: 1),
    ("object with a default repr", object),
    ("open file", lambda: io.TextIOWrapper(io.BytesIO())),
    ("lock", __import__("threading").Lock),
    ("generator", lambda: (x for x in ())),
    ("iterator", lambda: iter([1])),
    ("deque", lambda: collections.deque([1])),
    ("array", lambda: array.array("i", [1])),
    ("partial of a lambda", lambda: functools.partial(lambda x: x, 1)),
    ("dataclass that is a dict", FieldsAndItems),
    ("method of an object", lambda: Holder().method),
    ("array of objects", lambda: np.array([object()])),
]


class Holder:
    def method(self) -> None: ...


@pytest.mark.parametrize("make", [make for _, make in UNSTABLE], ids=[name for name, _ in UNSTABLE])
def test_a_value_without_a_stable_identity_is_an_error_naming_its_config_path(
    make: Callable[[], Any], at: Callable[[str], str]
) -> None:
    @step
    def body() -> StepRef:
        return run(Plain(1, {"k": make()}))  # unstable

    with pytest.raises(UnstableValueError, match=r"work\(config\.rest\['k'\].*\) has no stable identity") as error:
        body()
    assert at("unstable") in str(error.value)
    hint = str(error.value).split("hint: ")[1]
    assert "unversioned(" in hint
    assert "register_encoder(" in hint


def test_a_step_given_as_a_value_hints_to_call_it() -> None:
    @step
    def body() -> StepRef:
        return run(Plain(data))

    with pytest.raises(UnstableValueError, match=r"work\(config\.path\) has no stable identity: <step data>") as error:
        body()
    assert "data()" in str(error.value).split("hint: ")[1]


def test_a_value_without_a_stable_identity_can_be_carried_unversioned() -> None:
    value = object()
    assert received([unversioned(value)])[0] is value


class Celsius:
    def __init__(self, degrees: float) -> None:
        self.degrees = degrees

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Celsius) and self.degrees == other.degrees

    __hash__ = None  # type: ignore[assignment]


class Warm(Celsius):
    pass


@pytest.fixture
def celsius() -> Any:
    register_encoder(Celsius, lambda value: {"degrees": value.degrees})
    yield
    del config_tree._encoder_by_type[Celsius]
    config_tree._handler_for.cache_clear()


@pytest.mark.usefixtures("celsius")
def test_a_registered_encoder_gives_an_identity_and_serves_subclasses() -> None:
    assert received(Celsius(3.0)) == Celsius(3.0)
    encodings = {flatten(value, []).encoding for value in (Celsius(1), Celsius(1), Celsius(2), Warm(1))}
    assert len(encodings) == 3


def test_an_encoder_that_returns_something_unstable_is_an_error() -> None:
    register_encoder(Celsius, lambda value: {"value": object()})
    try:
        with pytest.raises(UnstableValueError, match="the encoder registered for Celsius returned a value without"):
            flatten(Celsius(1), [])
    finally:
        del config_tree._encoder_by_type[Celsius]
        config_tree._handler_for.cache_clear()


class Uncopyable(bytearray):
    def __deepcopy__(self, memo: object) -> Any:
        raise ZeroDivisionError("no copies")


def test_a_value_that_cannot_be_copied_is_an_error() -> None:
    with pytest.raises(
        ConfigError, match=r"cannot take a snapshot of .*: copying Uncopyable failed with ZeroDivisionError"
    ):
        received(Uncopyable(b"x"))


def test_unversioned_is_taken_off_at_every_place() -> None:
    value = {"a": unversioned(1), "b": [unversioned([2]), 3], "c": Plain(unversioned({4: 5}))}
    assert received(value) == {"a": 1, "b": [[2], 3], "c": Plain({4: 5})}
    assert received(unversioned(unversioned(1))) == 1
    assert repr(unversioned(3)) == "unversioned(3)"


def test_leaves_name_every_part_by_its_path() -> None:
    tree = flatten(Plain([1, {"k": (2,)}], {3}), [])
    assert {str(path): leaf for path, leaf in leaves(tree)} == {
        "path[0]": 1,
        "path[1].keys()": "k",
        "path[1]['k'][0]": 2,
        "rest['{}']": 3,
    }


def test_leaves_of_the_identity_leave_unversioned_parts_out() -> None:
    tree = flatten([1, unversioned([2])], [])
    assert [leaf for _, leaf in leaves(tree)] == [1, 2]
    assert [leaf for _, leaf in leaves(tree, versioned_only=True)] == [1]


def test_what_is_found_says_where_and_whether_it_counts() -> None:
    found: list[Found] = []
    ref = StepRef.hardcoded("x")
    flatten([ref, unversioned({"k": ref})], found)
    assert [(entry.leaf, str(entry.path), entry.versioned) for entry in found] == [
        (ref, "[0]", True),
        (ref, "[1]['k']", False),
    ]


def test_substitution_shares_what_holds_no_ref() -> None:
    ref = StepRef.hardcoded("x")
    tree = flatten([{"plain": [1]}, Plain(ref), functools.partial(joined, ref), unversioned(ref)], [])
    new = substitute(tree, lambda leaf, path: "replaced")
    assert new is not tree
    assert new.items[0] is tree.items[0]
    assert substitute(tree, lambda leaf, path: leaf) is tree
    assert new.items[1].values[0] == "replaced"
    assert new.items[3].tree == "replaced"


def test_the_order_of_a_set_does_not_depend_on_its_making() -> None:
    words = [f"word{index}" for index in range(50)]
    one, other = flatten(set(words), []), flatten(set(words), [])
    assert one.items == other.items


def test_plans_are_made_once_for_a_class() -> None:
    assert plan_of(Plain) is plan_of(Plain)
    assert plan_of(int) is None


def test_a_deferred_function_is_a_value_too() -> None:
    assert received([run])[0]("x") == "x"


class Wrapper(collections.abc.MutableMapping[str, Any]):
    """A mapping that wraps a dict: its shallow copies share it."""

    def __init__(self) -> None:
        self.inner: dict[str, Any] = {"a": 1, "b": [2]}

    def __getitem__(self, key: str) -> Any:
        return self.inner[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.inner[key] = value

    def __delitem__(self, key: str) -> None:
        del self.inner[key]

    def __iter__(self) -> Any:
        return iter(self.inner)

    def __len__(self) -> int:
        return len(self.inner)


def test_taking_a_snapshot_leaves_a_wrapping_mapping_as_it_was() -> None:
    mapping = Wrapper()
    tree = flatten(mapping, [])
    first, second = (materialise(tree, lambda leaf: leaf) for _ in range(2))
    assert dict(mapping) == dict(first) == dict(second) == {"a": 1, "b": [2]}
    first.clear()
    assert dict(second) == dict(materialise(tree, lambda leaf: leaf)) == dict(mapping)


def test_the_environment_of_the_process_is_no_config_and_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARIN_TRACE_LAW", "kept")
    with pytest.raises(UnstableValueError, match=r"config.*no stable identity"):
        received(os.environ)
    assert received(unversioned(os.environ)) is os.environ
    assert os.environ["MARIN_TRACE_LAW"] == "kept"
