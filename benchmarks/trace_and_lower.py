"""How long tracing, fingerprinting and lowering take, beside a floor written by hand.

Question: what does a step cost between its decorator and its StepSpec, and does that depend on how many there are?

    python benchmarks/trace_and_lower.py                # 10,001 and 100,001 steps
    python benchmarks/trace_and_lower.py --columns 1000 # 10,001 steps only

The pipeline has columns of ten stages and one step that joins them. The floor builds the same graph as a dict of dicts
and takes the sha256 of each step's JSON: what the least code does that knows the answer's shape. Both are measured in
turn, in one process; the figures are medians of five runs.
"""

import argparse
import gc
import hashlib
import json
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from unittest import mock

from marin_trace import Graph, StepRef, deferred, lower, output, step, trace
from marin_trace.ir.canonical import fingerprints

STAGES = 10
RUNS = 5


@dataclass(frozen=True)
class StageConfig:
    """What one stage is given."""

    source: str
    output_path: str
    column: int
    stage: int
    scale: float = 1.0
    mode: str = "fast"


@deferred
def work(config: StageConfig) -> None:
    """Stands for a library function; never called here."""


@deferred
def join(paths: list[str], output_path: str) -> None:
    """Stands for a library function with many inputs."""


@step(name="column-{column}/stage-{stage}")
def run_stage(column: int, stage: int, source: StepRef) -> StepRef:
    """One stage of one column."""
    return work(StageConfig(source, output(), column, stage))


@step(name="join")
def joined(ends: list[StepRef]) -> StepRef:
    """All columns together."""
    return join(ends, output())


def pipeline(columns: int) -> StepRef:
    """The graph under test."""
    ends: list[StepRef] = []
    for column in range(columns):
        ref: StepRef = StepRef.hardcoded("gs://bucket/raw")
        for stage in range(STAGES):
            ref = run_stage(column, stage, ref)
        ends.append(ref)
    return joined(ends)


def floor(columns: int) -> dict[str, str]:
    """The same graph by hand: from name to sha256."""
    graph: dict[str, dict[str, object]] = {}
    ends: list[str] = []
    for column in range(columns):
        previous = "gs://bucket/raw"
        for stage in range(STAGES):
            name = f"column-{column}/stage-{stage}"
            config = {"source": previous, "column": column, "stage": stage, "scale": 1.0, "mode": "fast"}
            graph[name] = {"name": name, "config": config, "deps": [previous] if stage else []}
            previous = name
        ends.append(previous)
    graph["join"] = {"name": "join", "config": {}, "deps": ends}
    digests: dict[str, str] = {}
    for name, node in graph.items():
        recipe = [node, [digests[dep] for dep in node["deps"]]]  # type: ignore[union-attr]
        digests[name] = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    return digests


def seconds(function: Callable[[], object]) -> float:
    """How long one call takes, after a collection, and with what it returned still alive."""
    gc.collect()
    began = time.perf_counter()
    result = function()
    elapsed = time.perf_counter() - began
    del result
    return elapsed


def resident_bytes() -> int:
    """The memory that the process holds, in bytes."""
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * resource.getpagesize()


@dataclass(frozen=True)
class Figures:
    """Medians for one size, in seconds."""

    steps: int
    floor: float
    trace: float
    fingerprint: float
    lower: float
    """Fingerprints included."""
    collected: float
    """Tracing and lowering with Python's cyclic collector left running."""
    bytes_per_step: float

    def row(self) -> str:
        """One line of the table."""
        whole = self.trace + self.lower
        per_step = whole / self.steps * 1e6
        return (
            f"| {self.steps:,} | {self.floor:.3f} | {self.trace:.3f} | {self.lower:.3f} | {self.fingerprint:.3f} "
            f"| {per_step:.1f} | {whole / self.floor:.1f} | {self.collected / whole:.2f} | {self.bytes_per_step:,.0f} |"
        )


COLUMNS = (
    *("steps", "floor s", "trace s", "lower s", "of it fingerprints s"),
    *("µs per step", "ratio to floor", "collector on, ratio", "bytes per step"),
)


def measured(columns: int) -> Figures:
    """All figures for one size, each part in turn in every round."""
    before = resident_bytes()
    graph = trace(pipeline, columns)
    specs = lower(graph, prefix="/data")
    size = (resident_bytes() - before) / len(specs)
    rounds = [one_round(columns, graph) for _ in range(RUNS)]
    medians = [statistics.median(values) for values in zip(*rounds, strict=True)]
    return Figures(len(specs), *medians, bytes_per_step=size)


def one_round(columns: int, graph: Graph) -> tuple[float, float, float, float, float]:
    """Floor, trace, fingerprints, lower, and both with the collector on; in seconds."""

    def traced_and_lowered() -> object:
        with mock.patch("gc.disable"):
            return lower(trace(pipeline, columns), prefix="/data")

    return (
        seconds(lambda: floor(columns)),
        seconds(lambda: trace(pipeline, columns)),
        seconds(lambda: fingerprints(graph.nodes)),
        seconds(lambda: lower(graph, prefix="/data")),
        seconds(traced_and_lowered),
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--columns", type=int, nargs="*", default=[1_000, 10_000])
    sizes = parser.parse_args().columns
    figures = [measured(columns) for columns in sizes]
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    for entry in figures:
        print(entry.row())
    if len(figures) > 1:
        first, last = figures[0], figures[-1]
        growth = (last.trace + last.lower) / last.steps / ((first.trace + first.lower) / first.steps)
        print(f"\ntime per step, {last.steps:,} against {first.steps:,} steps: {growth:.2f} times")


if __name__ == "__main__":
    main()
