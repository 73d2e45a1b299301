"""What refs and results refuse: every use as a value, each with its own hint, at the user's line."""

import math
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marin_trace import StepRef, deferred, output, step, trace
from marin_trace.errors import ConcretizationError, TraceError


def work(*args: Any) -> Any: ...


run = deferred(work)


@step(name="data/{name}")
def data(name: str = "a") -> StepRef:
    return run(output(), name)


# Operation, what is done, and a part of the hint that belongs to it.
REFUSED: list[tuple[str, Callable[[Any], Any], str]] = [
    ("f-string", lambda ref: f"{ref}/train", "write `ref / 'train'` instead of f\"{ref}/train\""),
    ("format", lambda ref: "{}".format(ref), 'in a name template write "{ref.name}"'),  # noqa: UP032
    ("format with a spec", lambda ref: format(ref, ">20"), "write `ref / 'train'`"),
    ("os.path.join", lambda ref: os.path.join(ref, "train"), "instead of os.path.join(ref, 'train')"),
    ("fspath", os.fspath, "open files in a function wrapped by deferred()"),
    ("open", lambda ref: open(ref), "open files in a function wrapped by deferred()"),  # noqa: SIM115
    ("Path", Path, "write `ref / 'train'`"),
    ("if", bool, "write `ref is not None`"),
    ("not", lambda ref: not ref, "write `ref is not None`"),
    ("iterate", list, "several refs go into a list"),
    ("unpack", lambda ref: (*ref,), "several refs go into a list"),
    ("len", len, "take lengths in a function wrapped by deferred()"),
    ("in", lambda ref: "train" in ref, "look in a function wrapped by deferred()"),
    ("add", lambda ref: ref + "/train", "instead of ref + '/train'"),
    ("add on the right", lambda ref: "gs://" + ref, "write `ref / 'train'`"),
    ("less", lambda ref: ref < "b", "sorted(refs, key=lambda ref: ref.name)"),
    ("sort", lambda ref: sorted([data("b"), ref]), "sorted(refs, key=lambda ref: ref.name)"),
    ("int", int, "its value is ref.artifact"),
    ("float", float, "its value is ref.artifact"),
    ("bytes", bytes, "its value is ref.artifact"),
    ("index of a list", lambda ref: [1, 2][ref], "its value is ref.artifact"),
    ("multiply", lambda ref: ref * 2, "a ref supports ref / 'sub'"),
    ("percent", lambda ref: ref % 3, "a ref supports ref / 'sub'"),
    ("divide by", lambda ref: "gs://bucket" / ref, "a ref supports ref / 'sub'"),
    ("equals text", lambda ref: ref == "data/a", "compare names: ref.name == 'fineweb'"),
    ("differs from text", lambda ref: ref != "data/a", "compare names"),
    ("text equals", lambda ref: "data/a" == ref, "compare names"),  # noqa: SIM300
    ("equals bytes", lambda ref: ref == b"data/a", "compare names"),
    ("equals a Path", lambda ref: ref == Path("data/a"), "compare names"),
    ("pickle", pickle.dumps, "send the lowered StepSpec"),
    ("item", lambda ref: ref["train"], "write ref.artifact['k']"),
    ("slice", lambda ref: ref[:3], "write ref.artifact['k']"),
    ("set an item", lambda ref: ref.__setitem__("a", 1), "write files in a function wrapped by deferred()"),
    ("with", lambda ref: ref.__enter__(), "a ref is a path, not a file"),
    ("next", lambda ref: next(ref), "a ref is a path, not a file"),
    ("call", lambda ref: ref(), "a ref is what a step call has returned already"),
    ("endswith", lambda ref: ref.endswith(".json"), "test the text that you built the ref from"),
    ("split", lambda ref: ref.split("/"), "its step is ref.name"),
    ("parent", lambda ref: ref.parent, "pass the ref of the step itself"),
    ("exists", lambda ref: ref.exists(), "what exists is known at run time"),
    ("joinpath", lambda ref: ref.joinpath("train"), "write `ref / 'train'`"),
    ("read_text", lambda ref: ref.read_text(), "gets the path as a str"),
]

ROOTS: list[tuple[str, Callable[[], StepRef]]] = [
    ("step", data),
    ("below a step", lambda: data() / "train"),
    ("hardcoded", lambda: StepRef.hardcoded("gs://bucket/raw")),
    ("own", output),
]


@pytest.mark.parametrize(("operation", "hint"), [entry[1:] for entry in REFUSED], ids=[entry[0] for entry in REFUSED])
def test_using_a_ref_as_a_value_is_refused_with_its_own_hint(
    operation: Callable[[Any], Any], hint: str, at: Callable[[str], str]
) -> None:
    @step
    def body() -> StepRef:
        operation(data())
        return run(output())

    with pytest.raises(
        ConcretizationError, match=r"cannot .*<StepRef data/a>.*: it has no path until the step is lowered"
    ) as error:
        trace(body)
    assert hint in str(error.value).split("\n\nhint: ")[1]
    assert "  at " in str(error.value)
    assert Path(__file__).name in str(error.value)


@pytest.mark.parametrize("make", [make for _, make in ROOTS], ids=[name for name, _ in ROOTS])
def test_every_kind_of_ref_refuses_formatting_at_the_users_line(
    make: Callable[[], StepRef], at: Callable[[str], str]
) -> None:
    @step
    def body() -> StepRef:
        ref = make()
        f"{ref}/train"  # formatted
        return run(output())

    with pytest.raises(ConcretizationError, match="cannot format <StepRef") as error:
        trace(body)
    assert at("formatted") in str(error.value)


PROJECTION_REFUSED: list[tuple[str, Callable[[Any], Any], str]] = [
    ("f-string", lambda value: f"{value}", "format it in a function wrapped by deferred()"),
    ("if", bool, "branch in a function wrapped by deferred()"),
    ("iterate", list, "loop in a function wrapped by deferred()"),
    ("compare", lambda value: value == 3, "deferred(fn)(value)"),
    ("less", lambda value: value < 3, "deferred(fn)(value)"),
    ("add", lambda value: value + 1, "deferred(fn)(value)"),
    ("subtract from", lambda value: 1 - value, "deferred(fn)(value)"),
    ("divide", lambda value: value / 2, "deferred(fn)(value)"),
    ("int", int, "deferred(fn)(value)"),
    ("len", len, "deferred(fn)(value)"),
    ("in", lambda value: 1 in value, "deferred(fn)(value)"),
    ("method", lambda value: value.upper(), "call it in a function wrapped by deferred()"),
    ("pickle", pickle.dumps, "pass them to a function wrapped by deferred()"),
    ("open", lambda value: open(value), "deferred(fn)(value)"),  # noqa: SIM115
    ("key that is a result", lambda value: value[value], "deferred(fn)(value)"),
]


@pytest.mark.parametrize("source", [lambda: run(1), lambda: data().artifact, lambda: data().artifact.field["k"]])
@pytest.mark.parametrize(
    ("operation", "hint"), [entry[1:] for entry in PROJECTION_REFUSED], ids=[entry[0] for entry in PROJECTION_REFUSED]
)
def test_using_a_result_as_a_value_is_refused_with_its_own_hint(
    source: Callable[[], Any], operation: Callable[[Any], Any], hint: str
) -> None:
    @step
    def body() -> StepRef:
        operation(source())
        return run(output())

    with pytest.raises(ConcretizationError, match="it has no value until the step runs") as error:
        trace(body)
    assert hint in str(error.value).split("\n\nhint: ")[1]
    assert f"at {os.path.relpath(__file__)}:" in str(error.value) or Path(__file__).name in str(error.value)


def test_an_attribute_of_a_ref_cannot_be_deleted(at: Callable[[str], str]) -> None:
    ref = StepRef.hardcoded("gs://bucket/raw")
    with pytest.raises(TraceError, match="cannot delete 'path' of <StepRef gs://bucket/raw>") as caught:
        del ref.path  # deleted
    assert at("deleted") in str(caught.value)


def test_reflected_operators_are_refused_as_the_others_are() -> None:
    ref = StepRef.hardcoded("gs://bucket/raw")
    operations = [lambda: 1 // ref, lambda: divmod(1, ref), lambda: 1 @ ref, lambda: 1 & ref, lambda: 1 << ref]
    for operation in [*operations, lambda: math.trunc(ref)]:
        with pytest.raises(ConcretizationError, match="cannot compute with <StepRef"):
            operation()
