"""Laws of artifacts: what is loaded equals what was saved, and what cannot be is told with its place."""

import datetime
import enum
import io
import json
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict, TypeVar

import numpy as np
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marin_trace.errors import ArtifactError
from marin_trace.runtime.artifact import ARTIFACT_FILE, Artifact, check_serialisable_annotation

UTC = datetime.UTC


class Colour(enum.Enum):
    RED = "red"
    MIXED = (1, 2)


class Level(enum.IntEnum):
    LOW = 1


@dataclass(frozen=True)
class Point:
    x: int
    y: float = 0.0


@dataclass(frozen=True)
class Pixel:
    x: int
    y: float = 0.0


@dataclass
class Corpus:
    files: int
    origin: Path
    at: datetime.datetime
    points: tuple[Point, ...] = ()
    best: Point | None = None
    digest: bytes = b""
    colour: Colour = Colour.RED
    by_name: dict[str, list[Point]] = field(default_factory=dict)
    total: int = field(init=False, default=0)


class Model(pydantic.BaseModel):
    name: str
    points: list[Point] = []
    rate: float = 0.1
    when: datetime.date | None = None


class Row(TypedDict):
    text: str
    tokens: NotRequired[int]


class Pair(NamedTuple):
    left: int
    right: Path = Path("r")


CORPUS = Corpus(
    3, Path("/data"), datetime.datetime(2026, 1, 2, 3, 4, tzinfo=UTC), (Point(1), Point(2, 0.5)), Point(9), b"\x00\xff",
    Colour.MIXED, {"a": [Point(4)]},
)  # fmt: skip

VALUES: list[tuple[Any, Any]] = [
    (None, None),
    (3, int),
    (2.5, float),
    (float("inf"), float),
    ("grüße \ud800", str),
    (b"\x00\xff", bytes),
    (True, bool),
    ([1, 2], list[int]),
    ((1, "a"), tuple[int, str]),
    ((), tuple[int, ...]),
    ({1, 2}, set[int]),
    (frozenset({"a"}), frozenset[str]),
    ({"a": 1}, dict[str, int]),
    ({1: "a", 2: "b"}, dict[int, str]),
    ({(1, 2): "a"}, dict[tuple[int, int], str]),
    ({"$bytes": "no"}, dict[str, str]),
    (Path("/a/b"), Path),
    (datetime.timedelta(seconds=90), datetime.timedelta),
    (datetime.date(2026, 1, 2), datetime.date),
    (Decimal("1.10"), Decimal),
    (uuid.UUID(int=5), uuid.UUID),
    (Level.LOW, Level),
    (Colour.MIXED, Colour),
    (CORPUS, Corpus),
    (Point(1), Point | None),
    (None, Point | None),
    (Pixel(1), Point | Pixel),
    ([Point(1), Pixel(2), "text", None], list[Point | Pixel | str | None]),
    (Model(name="m", points=[Point(1)], when=datetime.date(2026, 1, 2)), Model),
    ({"text": "a"}, Row),
    (Pair(1, Path("x")), Pair),
    ("b", Literal["a", "b"]),
    ([1, 2], Annotated[list[int], pydantic.Field(max_length=2)]),
    ((Point(1), {"m": Model(name="m")}), tuple[Point, dict[str, Model]]),
    ([1, 2], Sequence[int]),
    ({"a": 1}, Mapping[str, Any]),
    ("5", int | str),
]


@pytest.mark.parametrize(("value", "annotation"), VALUES, ids=lambda item: repr(item)[:40])
def test_what_is_loaded_equals_what_was_saved(tmp_path: Path, value: Any, annotation: Any) -> None:
    check_serialisable_annotation(annotation)
    Artifact.save(value, str(tmp_path))
    loaded = Artifact.load(str(tmp_path), annotation)
    assert loaded == value
    assert type(loaded) is type(value)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(value=JSON_VALUES)
def test_plain_values_come_back_without_an_annotation(tmp_path: Path, value: Any) -> None:
    Artifact.save(value, str(tmp_path))
    assert Artifact.load(str(tmp_path)) == value
    json.loads((tmp_path / ARTIFACT_FILE).read_text(), parse_constant=pytest.fail)


def test_the_file_is_readable(tmp_path: Path) -> None:
    Artifact.save(Point(1), str(tmp_path))
    assert (tmp_path / ARTIFACT_FILE).read_text() == '{"$type":"Point","x":1,"y":0.0}'
    assert Artifact.load(str(tmp_path)) == {"x": 1, "y": 0.0}


def test_arrays_lie_beside_the_json(tmp_path: Path) -> None:
    value = {"w": np.arange(6.0).reshape(2, 3), "same": np.arange(6.0).reshape(2, 3), "n": np.int64(4)}
    Artifact.save(value, str(tmp_path))
    assert len(list(tmp_path.glob(".artifact-*.npy"))) == 1
    loaded = Artifact.load(str(tmp_path), dict[str, Any])
    assert np.array_equal(loaded["w"], value["w"])
    assert loaded["n"] == 4
    Artifact.save(np.zeros(2, np.float32), str(tmp_path))
    assert Artifact.load(str(tmp_path), np.ndarray).dtype == np.float32


@dataclass
class Holder:
    parts: dict[str, Any]


UNSTORABLE = [
    ({"a": [1, threading.Lock()]}, r"artifact\['a'\]\[1\] cannot be stored: it is a _thread.lock"),
    (Holder({"f": len}), r"artifact.parts\['f'\] cannot be stored: it is a builtin_function_or_method"),
    (object(), "artifact cannot be stored: it is a object"),
    (int, "artifact cannot be stored: it is a type"),
    (np.array([object()]), "artifact is an array of Python objects"),
    ((n for n in [1]), "it is a generator"),
    (pydantic.SecretStr("s3cr3t"), "SecretStr"),
]


@pytest.mark.parametrize(("value", "message"), UNSTORABLE, ids=[message[-20:] for _, message in UNSTORABLE])
def test_what_cannot_be_stored_is_named_and_nothing_is_written(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        Artifact.save(value, str(tmp_path))
    with pytest.raises(ArtifactError, match=r"artifact\['bad'\]"):
        Artifact.save({"array": np.zeros(1), "bad": value}, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_value_that_contains_itself_is_refused(tmp_path: Path) -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(ArtifactError, match=r"artifact\[0\] contains itself"):
        Artifact.save(value, str(tmp_path))
    shared = [1]
    Artifact.save([shared, shared], str(tmp_path))


MISFITS = [
    ({"x": "a"}, Point, r"artifact\.x is 'a', expected int"),
    ({}, Point, r"artifact\.x is missing: the artifact was stored by another Point"),
    ({"x": 1, "z": 1}, Point, r"artifact\.z is not known"),
    ({"files": 1, "origin": "/", "at": "x"}, Corpus, r"artifact\.at: Input should be a valid datetime"),
    ([{"x": 1}, {"x": None}], list[Point], r"artifact\[1\]\.x is nothing, expected int"),
    ([1, 2], tuple[int], "2 items, expected 1"),
    ({"tokens": 1}, Row, r"artifact\.text is missing"),
    ({"name": 1}, Model, r"artifact\.name: Input should be a valid string"),
    ("green", Colour, "one of RED, MIXED"),
    (1.5, Point | str, r"artifact is 1\.5, expected"),
    ([1, 2, 3], Annotated[list[int], pydantic.Field(max_length=2)], "at most 2 items"),
    (3, np.ndarray, "artifact is 3, expected ndarray"),
]


@pytest.mark.parametrize(("stored", "annotation", "message"), MISFITS)
def test_a_misfit_names_its_field(tmp_path: Path, stored: Any, annotation: Any, message: str) -> None:
    Artifact.save(stored, str(tmp_path))
    with pytest.raises(ArtifactError, match=message):
        Artifact.load(str(tmp_path), annotation)


def test_a_missing_or_corrupt_artifact_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=rf"there is no artifact at {tmp_path}/\.artifact\.json"):
        Artifact.load(str(tmp_path))
    (tmp_path / ARTIFACT_FILE).write_text('{"a":')
    with pytest.raises(ArtifactError, match=rf"{tmp_path}/\.artifact\.json is truncated or corrupt"):
        Artifact.load(str(tmp_path))


def test_a_spec_brings_its_path_and_type(tmp_path: Path) -> None:
    @dataclass
    class Spec:
        output_path: str
        artifact_type: Any = Point

    Artifact.save(Point(1), str(tmp_path))
    assert Artifact.load(Spec(str(tmp_path))) == Point(1)
    assert Artifact.load(Spec(str(tmp_path)), dict[str, Any]) == {"x": 1, "y": 0.0}
    assert Artifact.load(tmp_path, Pixel) == Pixel(1)


def test_a_field_that_is_not_given_keeps_what_was_saved(tmp_path: Path) -> None:
    corpus = Corpus(1, Path("/"), datetime.datetime(2026, 1, 1, tzinfo=UTC))
    corpus.total = 7
    Artifact.save(corpus, str(tmp_path))
    assert Artifact.load(str(tmp_path), Corpus).total == 7


T = TypeVar("T")


@pytest.mark.parametrize(
    "annotation", [Any, object, T, "Unresolved", Iterator, None, np.ndarray, np.float32, list[Any], type[int] | None]
)
def test_the_check_of_annotations_accepts_what_may_be_stored(annotation: Any) -> None:
    storable = annotation not in (Iterator, type[int] | None)
    try:
        check_serialisable_annotation(annotation)
    except ArtifactError:
        assert not storable
    else:
        assert storable


class Plain:
    pass


@pytest.mark.parametrize(
    ("annotation", "name"),
    [(Plain, "Plain"), (list[Plain], "Plain"), (Callable[[], int], "Callable"), (io.TextIOWrapper, "TextIOWrapper"),
     (dict[str, Point | Plain], "Plain"), (Iterator[int], "Iterator"), (pydantic.SecretStr, "SecretStr")],
)  # fmt: skip
def test_the_check_of_annotations_names_what_cannot_be_stored(annotation: Any, name: str) -> None:
    with pytest.raises(ArtifactError, match=f"{name} cannot be stored\n  at exp.py:3"):
        check_serialisable_annotation(annotation, at="exp.py:3")


def test_in_memory_too() -> None:
    Artifact.save({"a": np.ones(2)}, "memory://artifacts/x")
    assert Artifact.load("memory://artifacts/x")["a"].tolist() == [1.0, 1.0]


@dataclass
class Before:
    rows: int
    words: int


@dataclass
class After:
    rows: int
    tokens: int


@dataclass
class Around:
    inner: After


def test_what_an_older_class_wrote_names_the_fields_that_are_missing_and_new_and_the_file(tmp_path: Path) -> None:
    Artifact.save({"inner": Before(1, 2)}, str(tmp_path))
    with pytest.raises(
        ArtifactError, match=r"artifact\.inner\.tokens is missing, artifact\.inner\.words is not"
    ) as caught:
        Artifact.load(str(tmp_path), Around)
    assert str(caught.value).splitlines()[1] == f"  in {tmp_path}/.artifact.json"
    assert "hint: give new fields a default, or build the step again" in str(caught.value)


def test_an_artifact_that_was_edited_by_hand_names_field_and_file(tmp_path: Path) -> None:
    Artifact.save(After(1, 2), str(tmp_path))
    file = tmp_path / ".artifact.json"
    file.write_text(file.read_text().replace('"tokens":2', '"tokens":"many"'))
    with pytest.raises(ArtifactError, match=r"artifact\.tokens is 'many', expected int\n  in .*/.artifact.json"):
        Artifact.load(str(tmp_path), After)


def test_a_jax_pytree_comes_back(tmp_path: Path) -> None:
    jax = pytest.importorskip("jax", reason="jax is not installed")

    class State(NamedTuple):
        step: Any
        params: dict[str, Any]

    tree = State(jax.numpy.array(3), {"w": jax.numpy.ones((2, 3), jax.numpy.bfloat16), "b": [jax.numpy.zeros(2), None]})
    Artifact.save(tree, str(tmp_path))
    typed = Artifact.load(str(tmp_path), State)
    plain = Artifact.load(str(tmp_path))
    for loaded in (typed, State(**plain)):
        assert jax.tree.structure(loaded) == jax.tree.structure(tree)
        equal = jax.tree.map(lambda a, b: bool((a == b).all() and a.dtype == b.dtype), loaded, tree)
        assert jax.tree.all(equal)
    Artifact.save({"w": tree.params["w"]}, str(tmp_path))
    assert isinstance(Artifact.load(str(tmp_path), dict[str, jax.Array])["w"], jax.Array)


@pytest.mark.parametrize("package", ["numpy", "jax", "pydantic"])
def test_a_package_that_another_thread_is_importing_is_no_obstacle(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, ModuleType(package))
    assert Artifact.save(After(1, 2), str(tmp_path)) is None
    assert '"tokens":2' in (tmp_path / ARTIFACT_FILE).read_text()


def test_a_jax_key_is_refused_by_name(tmp_path: Path) -> None:
    jax = pytest.importorskip("jax", reason="jax is not installed")
    with pytest.raises(ArtifactError, match=r"artifact\['key'\] .*key"):
        Artifact.save({"key": jax.random.key(0)}, str(tmp_path))
