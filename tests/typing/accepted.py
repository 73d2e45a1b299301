"""Checked by pyright, never run: what a type checker says about ordinary wiring code."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_type

from marin_trace import Graph, StepRef, StepSpec, deferred, lower, output, step, trace, unversioned, versioned


@dataclass(frozen=True)
class Stats:
    count: int


@dataclass(frozen=True)
class Config:
    train_paths: list[str]
    cache_path: str
    place: Path
    count: int
    workers: int = 4


def _tokenize(config: Config, *, seed: int = 0) -> Stats:
    return Stats(config.count + seed)


tokenize = deferred(_tokenize)
DeferredConfig = deferred(Config)


@deferred(identity="lib:old", unversioned=("path",), omit_when={"flag": False})
def decorated(path: str, flag: bool = False) -> Stats:
    return Stats(len(path))


@step
def bare(name: str) -> StepRef:
    return decorated(output())


@step(name="tokenize/{name}", retries=2)
def tokenize_dataset(name: str, data: StepRef, *, tokenizer: str = "llama3") -> StepRef:
    stats = tokenize(Config([data, data / "train"], output(), data / "x", data.artifact.count, unversioned(8)), seed=1)
    assert_type(stats, Any)
    DeferredConfig([data], output() / "y", data, stats.count)
    return stats


@step
def group(data: StepRef) -> dict[str, StepRef]:
    return {"a": tokenize_dataset("a", data), "b": tokenize_dataset("b", data, tokenizer="x")}


@step(name="all")
def entry() -> None:
    refs = group(bare("x"))
    assert_type(refs, dict[str, StepRef])
    bare(refs["a"].name)


ref = bare("x")
assert_type(ref, StepRef)
assert_type(ref / "x", StepRef)
assert_type(ref.cd("x"), StepRef)
assert_type(ref.nonblocking(), StepRef)
assert_type(ref.with_output_path("y"), StepRef)
assert_type(ref.name, str)
assert_type(ref.artifact, Any)
assert_type(output(), Any)
assert_type(versioned(3), int)
assert_type(unversioned("x"), str)
assert_type(entry(), None)
assert_type(tokenize_dataset.with_options(retries=1)("a", ref), StepRef)
assert_type(trace(entry), Graph)
assert_type(lower(trace(entry)), list[StepSpec])

text: str = ref
path: Path = ref / "x"
maker: Callable[[str], StepRef] = bare
