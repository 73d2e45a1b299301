"""The type check: does each ref, artifact and result go where such a thing is expected?"""

import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Generic, Literal, NamedTuple, NewType, Protocol, TypedDict, TypeVar

import attrs
import pydantic
import pytest

from marin_trace import StepRef, deferred, lower, output, step, trace
from marin_trace.errors import ConfigTypeError
from marin_trace.ir.typecheck import (
    accepts_path,
    is_assignable,
    item_annotation,
    projected_annotation,
    wants_path_object,
)

T = TypeVar("T")
Shard = NewType("Shard", str)


class Opener(Protocol):
    def open(self) -> None: ...


class Stats(NamedTuple):
    count: int
    words: dict[str, list[float]]


class Options(TypedDict):
    path: str
    size: int


@dataclass
class Report:
    stats: Stats
    title: str | None = None


PATHLIKE = [str, str | None, Path, os.PathLike, os.PathLike[str], Any, object, T, Shard, Opener, "Unresolved"]
PATHLIKE += [
    Annotated[str, "meta"],
    Annotated[str | None, "meta"],
    str | int,
    inspect.Parameter.empty,
    StepRef,
    str | StepRef,
]
PATHLIKE += [Final[str], InitVar[str], Sequence[str], Iterable[str]]
NOT_PATHLIKE = [int, float, bool, bytes, None, int | None, list[str], dict[str, str], tuple[str, ...], set[str], Report]
NOT_PATHLIKE += [Literal["a", "b"], Annotated[int, "meta"], type[str], Callable[[str], str], Mapping[str, str]]


@pytest.mark.parametrize("annotation", PATHLIKE, ids=str)
def test_what_accepts_text_or_a_path_accepts_a_ref(annotation: Any) -> None:
    assert accepts_path(annotation)


@pytest.mark.parametrize("annotation", NOT_PATHLIKE, ids=str)
def test_what_accepts_neither_does_not(annotation: Any) -> None:
    assert not accepts_path(annotation)


@pytest.mark.parametrize(
    ("annotation", "wanted"),
    [
        (Path, True),
        (Path | None, True),
        (os.PathLike[str], True),
        (str, False),
        (str | Path, False),
        (Any, False),
        (int, False),
    ],
)
def test_a_path_object_is_wanted_where_text_is_not_accepted(annotation: Any, wanted: bool) -> None:
    assert wants_path_object(annotation) is wanted


@pytest.mark.parametrize(
    ("annotation", "key", "item"),
    [
        (list[str], 0, str),
        (tuple[int, str], 1, str),
        (tuple[int, str], 5, Any),
        (tuple[int, ...], 7, int),
        (dict[str, int], "k", int),
        (Mapping[str, Path] | None, "k", Path),
        (set[str], "{}", str),
        (Options, "size", int),
        (Options, "other", Any),
        (list, 0, Any),
        (list[str] | dict[str, int], 0, Any),
        (int, 0, Any),
    ],
)
def test_the_annotation_of_an_item(annotation: Any, key: Any, item: Any) -> None:
    assert item_annotation(annotation, key) == item


def test_the_annotation_of_a_projection() -> None:
    steps = ((".", "stats"), (".", "words"), ("[]", "a"), ("[]", 0))
    assert projected_annotation(Report, steps) is float
    assert projected_annotation(Report | None, steps[:2]) == dict[str, list[float]]
    assert projected_annotation(Report, ((".", "missing"),)) is Any
    assert projected_annotation(Report, (*steps[:3], ("[]", slice(1)))) is Any
    assert projected_annotation(Any, steps) is Any


class Base: ...


class Child(Base): ...


@pytest.mark.parametrize(
    ("given", "wanted", "fits"),
    [
        (Child, Base, True),
        (Base, Child, False),
        (int, float, True),
        (float, int, False),
        (int, str, False),
        (str, int, False),
        (str, str | None, True),
        (str | None, str, False),
        (None, str | None, True),
        (None, str, False),
        (Any, int, True),
        (int, Any, True),
        (list[int], Sequence[int], True),
        (list[int], dict[str, int], False),
        (Options, dict[str, Any], True),
        (Options, Mapping[str, Any], True),
        (Options, int, False),
        (Literal["a"], str, True),
        (Literal["a"], int, False),
        (T, int, True),
        (Base, Opener, True),
        (Annotated[int, "x"], Annotated[float, "y"], True),
        (bool, int, True),
    ],
)
def test_assignability(given: Any, wanted: Any, fits: bool) -> None:
    assert is_assignable(given, wanted) is fits


@dataclass(frozen=True)
class Config:
    path: str
    size: int = 1
    paths: Sequence[list[str]] = ()
    by_name: Mapping[str, int] | None = None
    anything: Any = None
    inner: "Config | None" = None


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    size: int = 1


@attrs.define
class Attrs:
    size: int = 1


class Pair(NamedTuple):
    size: int = 1


class Plain:
    def __init__(self, size: int = 1) -> None: ...


def work(
    config: Config | None = None, *paths: str, size: int = 1, pair: tuple[str, int] | None = None, **more: int
) -> Stats: ...


def untyped(a=None, b=None): ...


def unresolvable(a: "NoSuchName", b: int = 1) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def takes(stats: Stats | None = None, count: int = 0, text: str = "", words: list[float] | None = None) -> Report: ...


@step(name="data")
def data() -> Any:
    return deferred(work)(Config("x"))


ACCEPTED: list[Callable[[Any], Any]] = [
    lambda ref: deferred(work)(Config(ref, paths=[[ref / "x"]], anything={"k": ref}, inner=Config(ref))),
    lambda ref: deferred(work)(None, ref, ref / "x", pair=(ref, 1)),
    lambda ref: deferred(untyped)(ref, b=[ref]),
    lambda ref: deferred(unresolvable)(ref, b=ref),
    lambda ref: deferred(takes)(ref.artifact, ref.artifact.count, words=ref.artifact.words["a"]),
    lambda ref: deferred(takes)(deferred(work)(), count=deferred(work)().count),
    lambda ref: deferred(len)(ref),
]

REFUSED: list[tuple[Callable[[Any], Any], str, str]] = [
    (
        lambda ref: deferred(work)(Config("x", size=ref)),
        r"work\(config\.size\) was given <StepRef data>, and is annotated int",
        "ref.artifact",
    ),
    (lambda ref: deferred(work)(Config("x", inner=Config("y", ref))), r"work\(config\.inner\.size\)", "ref.artifact"),
    (lambda ref: deferred(work)(Config("x", paths=[ref])), r"work\(config\.paths\[0\]\)", r"[ref]"),
    (lambda ref: deferred(work)(Config("x", by_name={"a": ref})), r"work\(config\.by_name\['a'\]\)", "ref.artifact"),
    (lambda ref: deferred(work)(size=ref), r"work\(size\)", "annotate the field as str"),
    (lambda ref: deferred(work)(pair=("a", ref)), r"work\(pair\[1\]\)", "ref.artifact"),
    (lambda ref: deferred(work)(more=ref), r"work\(more\['more'\]\)", "ref.artifact"),
    (lambda ref: deferred(work)(size=output()), r"work\(size\) was given <StepRef output\(\) of body>", "annotate"),
    (lambda ref: deferred(work)(size=StepRef.hardcoded("x")), r"work\(size\) was given <StepRef x>", "annotate"),
    (lambda ref: deferred(untyped)(Model.model_construct(size=ref)), r"untyped\(a\.size\)", "ref.artifact"),
    (lambda ref: deferred(untyped)(Attrs(ref)), r"untyped\(a\.size\)", "ref.artifact"),
    (lambda ref: deferred(untyped)([Pair(ref)]), r"untyped\(a\[0\]\.size\)", "ref.artifact"),
    (lambda ref: deferred(Plain)(ref), r"Plain\(size\)", "ref.artifact"),
    (lambda ref: deferred(Config)("x", ref), r"Config\(size\)", "ref.artifact"),
    (
        lambda ref: deferred(takes)(text=ref.artifact),
        r"takes\(text\) was given <StepArtifact data>, which is Stats, and is annotated str",
        "ref.artifact.field",
    ),
    (lambda ref: deferred(takes)(text=ref.artifact.count), r"which is int, and is annotated str", "ref.artifact.field"),
    (
        lambda ref: deferred(takes)(text=deferred(work)()),
        r"takes\(text\) was given <DeferredResult of work\(\)>",
        "ref.artifact.field",
    ),
    (lambda ref: deferred(takes)(deferred(takes)()), r"which is Report, and is annotated", "ref.artifact.field"),
]


@pytest.mark.parametrize("call", ACCEPTED)
def test_what_fits_is_accepted(call: Callable[[Any], Any]) -> None:
    @step
    def body() -> StepRef:
        return call(data())

    assert len(trace(body).nodes) >= 1


@pytest.mark.parametrize(("call", "match", "hint"), REFUSED)
def test_what_does_not_fit_is_an_error_with_its_config_path(call: Callable[[Any], Any], match: str, hint: str) -> None:
    @step
    def body() -> StepRef:
        return call(data())

    with pytest.raises(ConfigTypeError, match=match) as error:
        trace(body)
    assert hint in str(error.value).split("hint: ")[1]
    assert "test_typecheck.py:" in str(error.value)
    assert "step: body" in str(error.value)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (
            lambda: [deferred(work)(siz=4), deferred(takes)(siz=4)],
            r"takes\(\): got an unexpected keyword argument 'siz'",
        ),
        (lambda: deferred(takes)(1, 2, 3, 4, 5), r"takes\(\): too many positional arguments"),
        (lambda: deferred(takes)(1, stats=2), r"takes\(\): multiple values for argument 'stats'"),
        (lambda: deferred(Config)(), r"Config\(\): missing a required argument: 'path'"),
    ],
)
def test_arguments_bind_to_the_signature_at_trace_time(call: Callable[[], Any], match: str) -> None:
    @step
    def body() -> StepRef:
        return call()

    with pytest.raises(ConfigTypeError, match=match) as error:
        trace(body)
    assert "test_typecheck.py:" in str(error.value)


def test_all_findings_of_a_graph_come_as_one_error(at: Callable[[str], str]) -> None:
    @step(name="first")
    def first() -> StepRef:
        deferred(work)(size=output())  # one
        return deferred(work)(nothing="here", size=data())  # two

    @step(name="second")
    def second(ref: StepRef) -> StepRef:
        deferred(takes)(siz=1)  # three
        return deferred(work)(Config(path=str(ref)), object())  # type: ignore[arg-type]  # four and five

    with pytest.raises(ConfigTypeError, match=r"^5 mistakes in the pipeline") as error:
        trace(lambda: second(first()))
    text = str(error.value)
    assert [number for number in range(1, 7) if f"\n{number}. " in text] == [1, 2, 3, 4, 5]
    for mark in ("one", "two", "three", "four and five"):
        assert at(mark) in text
    for part in (
        "work(size)",
        "takes(): got an unexpected",
        "work(config.path) holds the text of a ref",
        "step: first",
        "step: second",
    ):
        assert part in " ".join(text.split()), part


class Container(Generic[T]):
    item: T


def generic(container: Container[str], item: list[T]) -> None: ...


def test_generics_and_type_variables_are_lenient() -> None:
    @step
    def body() -> StepRef:
        return deferred(generic)(container=deferred(work)(), item=[data()])

    with pytest.raises(ConfigTypeError, match=r"generic\(container\).*which is Stats, and is annotated"):
        trace(body)


SEEN: list[Any] = []


def look(text: str, place: Path, either: str | Path, anything: Any = None, places: tuple[Path, ...] = ()) -> None:
    SEEN.extend([text, place, either, anything, *places])


@step(name="looks")
def looks(ref: StepRef) -> StepRef:
    return deferred(look)(ref, ref / "x", ref, ref, (output(), ref))  # a Path


def test_a_function_gets_text_and_a_path_only_where_nothing_else_is_accepted() -> None:
    SEEN.clear()
    spec = lower(looks(StepRef.hardcoded("/data")), prefix="/prefix")[0]
    assert spec.fn is not None
    spec.fn(spec.output_path)
    assert ["/data", Path("/data/x"), "/data", "/data", Path(spec.output_path), Path("/data")] == SEEN


@pytest.mark.parametrize(("path", "prefix"), [("gs://bucket/x", "/prefix"), ("relative/x", "memory://prefix")])
def test_a_path_object_on_an_object_store_is_an_error_at_lowering(
    path: str, prefix: str, at: Callable[[str], str]
) -> None:
    ref = looks(StepRef.hardcoded(path))
    with pytest.raises(
        ConfigTypeError, match=r"look\(place\) is annotated to take a pathlib.Path, and would get .*://"
    ) as error:
        lower(ref, prefix=prefix)
    assert at("a Path") in str(error.value)
    assert "hint: annotate it as str" in str(error.value)
