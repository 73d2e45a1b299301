"""Recipes of every kind, whose fingerprints are pinned in ``tests/golden/fingerprints.json``.

A change of a pin makes everybody compute everything again: it is a commit of its own, with its cost in the message.
Write the pins anew with

    python -m tests.lowering.recipes > tests/golden/fingerprints.json

``--shuffle SEED`` makes the same configs with their dicts and sets built in another order.
"""

import datetime
import decimal
import enum
import functools
import json
import random
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from marin_trace import StepRef, StepSpec, deferred, lower, output, register_encoder, step, unversioned

UTC = datetime.UTC


class Optimizer(enum.Enum):
    ADAM = "adam"
    LION = "lion"


class Split(NamedTuple):
    train: float
    test: float


@dataclass(frozen=True)
class Shard:
    host: str
    rows: int


@dataclass(frozen=True)
class TrainConfig:
    lr: float
    layers: int = 2
    optimizer: Optimizer = Optimizer.ADAM
    mix: Mapping[str, float] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()
    split: Split = Split(0.9, 0.1)  # noqa: RUF009 (a named tuple is immutable)
    shards: list[Shard] = field(default_factory=list)
    data: str = ""
    out: str = ""


@dataclass(frozen=True)
class RenamedConfig:
    __marin_trace_identity__ = "OldConfig"

    size: int = 1


class Temperature:
    def __init__(self, kelvin: float) -> None:
        self.kelvin = kelvin


register_encoder(Temperature, lambda temperature: temperature.kelvin)


def consume(value: Any = None, out: str = "") -> dict[str, int]: ...


def make(path: str) -> None: ...


def train(config: TrainConfig) -> dict[str, Any]: ...


def collect(first: int, /, *rest: int, scale: float = 1.0, **named: Any) -> list[int]: ...


def scale(value: float, by: float = 2.0) -> float: ...


@dataclass(frozen=True)
class Model:
    width: int

    def grow(self, by: int) -> int: ...


_order = random.Random()
_shuffles = False


def any_order(items: Mapping[str, Any]) -> dict[str, Any]:
    """The same dict, in an order of today."""
    pairs = list(items.items())
    if _shuffles:
        _order.shuffle(pairs)
    return dict(pairs)


consumed, made, trained = deferred(consume), deferred(make), deferred(train)


@step(name="data/{name}")
def data(name: str) -> StepRef:
    return made(output() / "data.txt")


@step(name="use")
def use(value: Any) -> StepRef:
    return consumed(value)


@step(name="train/{name}")
def model(name: str, config: TrainConfig) -> StepRef:
    return trained(config)


@step(name="by-path")
def by_path(source: StepRef) -> StepRef:
    return consumed(source / "train" / "*.jsonl", out=output() / "x")


@step(name="many")
def many_calls() -> StepRef:
    first = deferred(scale)(2.0)
    second = deferred(scale)(first, by=3.0)
    return consumed([first, second, first["a"].b[0]])


@step(name="returns-tree")
def returns_tree() -> Any:
    first = consumed(1)
    return {"first": first, "words": first["n"], "plain": 7}


@step(name="versioned", version=3)
def with_version() -> StepRef:
    return consumed(1)


@step(name="options/{name}", retries=3, timeout=60.0, env_vars={"A": "1"}, description="about {name}")
def with_options(name: str) -> StepRef:
    return consumed(name)


def _step_of(function: Any, *args: Any, **kwargs: Any) -> Any:
    @step(name="call")
    def call() -> StepRef:
        return function(*args, **kwargs)

    return call()


RECIPES: dict[str, Callable[[], Any]] = {
    "none": lambda: use(None),
    "int": lambda: use(1),
    "float": lambda: use(1.0),
    "bool": lambda: use(True),
    "text": lambda: use("1"),
    "bytes": lambda: use(b"1"),
    "list": lambda: use([1, 2]),
    "tuple": lambda: use((1, 2)),
    "set": lambda: use({"a", "b", "c"}),
    "dict": lambda: use(any_order({"a": 1, "b": [2.5, None], "c": {"d": "é"}})),
    "dates": lambda: use(
        [datetime.date(2024, 5, 1), datetime.timedelta(hours=1), datetime.datetime(2024, 5, 1, tzinfo=UTC)]
    ),
    "numbers": lambda: use([decimal.Decimal("1.10"), 2 + 3j, float("nan"), -0.0, 10**30, range(3)]),
    "texts": lambda: use([uuid.UUID(int=7), PurePosixPath("a/b"), Optimizer.LION, Split(0.5, 0.5)]),
    "functions": lambda: use([scale, functools.partial(scale, by=4.0), Model(3).grow, len, Model]),
    "dataclass": lambda: model("tiny", TrainConfig(lr=0.1)),
    "nested-dataclass": lambda: model(
        "nested",
        TrainConfig(
            lr=1e-3,
            mix=any_order({"web": 0.7, "code": 0.2, "books": 0.1}),
            tags=frozenset({"x", "y", "z"}),
            shards=[Shard("a", 1), Shard("b", 2)],
        ),
    ),
    "renamed-class": lambda: use(RenamedConfig(2)),
    "encoder": lambda: use(Temperature(273.15)),
    "unversioned": lambda: use({"kept": 1, "dropped": unversioned(2), "items": [unversioned(3), 4]}),
    "own-output": lambda: data("raw"),
    "data-edge": lambda: use(data("raw")),
    "subpath-edge": lambda: by_path(data("raw")),
    "nonblocking-edge": lambda: use(data("raw").nonblocking()),
    "artifact-edge": lambda: use(data("raw").artifact["n"].size),
    "edges-in-containers": lambda: use({"a": [data("x")], "b": (data("y") / "sub", unversioned(data("z")))}),
    "hardcoded": lambda: use([StepRef.hardcoded("gs://bucket/raw"), StepRef.hardcoded("raw/web") / "*.txt"]),
    "chain": lambda: use(by_path(data("raw"))),
    "many-calls": many_calls,
    "returns-tree": returns_tree,
    "version": with_version,
    "run-options": lambda: with_options("slow"),
    "every-kind-of-parameter": lambda: _step_of(deferred(collect), 1, 2, 3, scale=0.5, **any_order({"a": 1, "b": 2})),
    "identity": lambda: _step_of(deferred(scale, identity="old.module:scale"), 1.0),
    "omit_when": lambda: _step_of(deferred(scale, omit_when={"by": 2.0}), 1.0),
    "unversioned-rule": lambda: _step_of(deferred(scale, unversioned=["by"]), 1.0, by=9.0),
}

SPECS: dict[str, Callable[[], StepSpec]] = {
    "spec": lambda: StepSpec("raw"),
    "spec-attrs": lambda: StepSpec("raw", hash_attrs=any_order({"url": "http://x", "shards": [1, 2]})),
    "spec-deps": lambda: StepSpec("clean", deps=[StepSpec("raw"), StepSpec("words")]),
}


def fingerprints() -> dict[str, str]:
    """The fingerprint of every recipe, by its name."""
    traced = {name: lower(recipe(), prefix="/data")[-1].fingerprint for name, recipe in RECIPES.items()}
    return traced | {name: spec().fingerprint for name, spec in SPECS.items()}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--shuffle"]:
        _shuffles = True
        _order.seed(int(sys.argv[2]))
    print(json.dumps(fingerprints(), indent=2))
