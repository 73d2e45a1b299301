"""How long the runner takes for steps that do nothing, beside a floor written by hand.

Questions: what does a step cost beyond its files and their fsyncs? Does a chain show polling? Is work side by side?
Does the cost of a step depend on how many there are?

    python benchmarks/cold_run.py                     # on this directory's disk and on /dev/shm
    python benchmarks/cold_run.py --directory /mnt/x  # on another disk

The cold run is 1,001 no-op steps: 100 chains of ten, and one that joins them. Measured is the whole call of
`StepRunner.run`: reading what is there, planning, start and end of the lease keeper, the steps, the run's record. Not
in it are the imports, the making of the specs, and git's answers, which are asked for once a process.

The floor writes the same files with the same bytes (copied from a finished run) and the same five fsyncs a step, from
four threads, and nothing else: it lists and reads nothing, and renames where a run links, because a run's control files
must not replace any. Both are measured in turn; the figures are minima. Where doit is installed it runs the same graph
beside them; its figure has the start of its process in it, and it writes one empty file a step.
"""

import argparse
import gc
import importlib.util
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from marin_trace import StepSpec
from marin_trace.runtime.options import RunOptions
from marin_trace.runtime.schedule import Schedule
from marin_trace.runtime.step_runner import StepRunner

CHAINS, LENGTH = 100, 10
ROUNDS = 7
THREADS = 4
SLEEPERS_IDEAL_S = 7.0
"""100 steps that sleep a second, 16 at a time."""


def nothing(path: str) -> None:
    """The body of a step that has none."""


def chains(prefix: str) -> StepSpec:
    """1,001 steps: the chains, and one that joins them."""
    ends = [chain(prefix, LENGTH, f"chain-{number}") for number in range(CHAINS)]
    return StepSpec("joined", deps=ends, fn=nothing, output_path_prefix=prefix)


def chain(prefix: str, length: int, name: str) -> StepSpec:
    """Steps that each need the one before."""
    previous: list[StepSpec] = []
    for number in range(length):
        previous = [StepSpec(f"{name}/step-{number}", deps=previous, fn=nothing, output_path_prefix=prefix)]
    return previous[0]


def run(root: StepSpec, prefix: str, *, max_concurrent: int = THREADS) -> float:
    """Seconds that one run takes."""
    runner = StepRunner(options=RunOptions(prefix=prefix))
    gc.collect()
    began = time.perf_counter()
    runner.run([root], max_concurrent=max_concurrent)
    return time.perf_counter() - began


@dataclass(frozen=True)
class Written:
    """The files that one step leaves: name and content, and whether its file and directory are fsynced."""

    files: tuple[tuple[str, bytes, bool], ...]


def files_of(output: Path) -> Written:
    """What a step of a finished run has left, in the order in which a run writes it."""
    names = (
        (".executor/000001.claim", False),
        (".executor_info", False),
        (".artifact.json", True),
        (".executor/000001.manifest", True),
        (".executor/000001.end", True),
        (".executor_status", False),
    )
    written = tuple((name, (output / name).read_bytes(), synced) for name, synced in names)
    assert {name for name, _, _ in written} == {
        str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()
    }
    return Written(written)


def floor(outputs: dict[str, Written], prefix: str) -> float:
    """Seconds that writing the same files with the same fsyncs takes, and nothing else."""
    paths = list(outputs)

    def write(begin: int) -> None:
        for path in paths[begin::THREADS]:
            write_step(f"{prefix}/{path}", outputs[path])

    threads = [threading.Thread(target=write, args=(begin,)) for begin in range(THREADS)]
    gc.collect()
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def write_step(directory: str, written: Written) -> None:
    """The files of one step: each whole or not at all, as a run writes them."""
    os.makedirs(f"{directory}/.executor")
    for name, content, synced in written.files:
        path = f"{directory}/{name}"
        descriptor = os.open(f"{path}.tmp", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        os.write(descriptor, content)
        if synced:
            os.fsync(descriptor)
        os.close(descriptor)
        os.rename(f"{path}.tmp", path)
        if synced and not name.endswith(".manifest"):
            directory_descriptor = os.open(os.path.dirname(path), os.O_RDONLY)
            os.fsync(directory_descriptor)
            os.close(directory_descriptor)


DODO = """
import os

def make(path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    open(path, "w").close()

def task_chain():
    for chain in range({chains}):
        for number in range({length}):
            target = f"out/{{chain}}/{{number}}"
            before = [f"out/{{chain}}/{{number - 1}}"] if number else []
            yield dict(name=target, actions=[(make, [target])], targets=[target], file_dep=before)
"""


def doit(directory: str) -> float | None:
    """Seconds that doit takes for the same chains; None where it is not installed."""
    if importlib.util.find_spec("doit") is None:
        return None
    Path(directory, "dodo.py").write_text(DODO.format(chains=CHAINS, length=LENGTH))
    command = [sys.executable, "-m", "doit", "run", "-n", str(THREADS), "-P", "thread"]
    began = time.perf_counter()
    subprocess.run(command, cwd=directory, check=True, capture_output=True)
    return time.perf_counter() - began


def cold_run(base: str) -> tuple[float, float, float | None]:
    """Minima of the floor, the cold run and doit on one disk, in seconds."""
    times: dict[str, list[float]] = {"floor": [], "run": [], "doit": []}
    with tempfile.TemporaryDirectory(dir=base) as directory:
        outputs = outputs_of_a_run(f"{directory}/run")
    for number in range(ROUNDS):
        with tempfile.TemporaryDirectory(dir=base) as directory:
            prefix = f"{directory}/run"
            measures: list[tuple[str, Callable[[], float]]] = [
                ("floor", lambda below=directory: floor(outputs, f"{below}/floor")),
                ("run", lambda below=prefix: run(chains(below), below)),
            ]
            # Each goes first in turn: a disk gives the inodes that it has at hand to the first.
            for name, measure in measures[:: -1 if number % 2 else 1]:
                times[name].append(measure())
            seconds = doit(directory)
            times["doit"] += [] if seconds is None else [seconds]
    return min(times["floor"]), min(times["run"]), min(times["doit"], default=None)


def outputs_of_a_run(prefix: str) -> dict[str, Written]:
    """What each step of a run has left, by its path below the prefix."""
    run(chains(prefix), prefix)
    shutil.rmtree(f"{prefix}/experiments")
    tokens = Path(prefix).rglob(".executor_status")
    outputs = {str(token.parent.relative_to(prefix)): files_of(token.parent) for token in tokens}
    assert len(outputs) == CHAINS * LENGTH + 1
    return outputs


def minimum(measure: Callable[[str], float], base: str, rounds: int = 3) -> float:
    """The shortest of several runs in empty directories, in seconds."""
    times: list[float] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir=base) as directory:
            times.append(measure(directory))
    return min(times)


def chained(directory: str) -> float:
    """Milliseconds for each of a chain's 1,000 no-op steps: a runner that polls would wait between two of them."""
    return run(chain(directory, 1_000, "chain"), directory)


def sleepers(directory: str) -> float:
    """Seconds for 100 steps that sleep a second, 16 at a time."""

    def sleep(path: str) -> None:
        time.sleep(1.0)

    steps = [StepSpec(f"sleep-{number}", fn=sleep, output_path_prefix=directory) for number in range(100)]
    root = StepSpec("awake", deps=steps, fn=nothing, output_path_prefix=directory)
    return run(root, directory, max_concurrent=16)


def scheduling(steps: int) -> float:
    """Microseconds for each of so many ready steps to be handed out and settled."""
    schedule = Schedule({str(number): () for number in range(steps)})
    began = time.perf_counter()
    while (key := schedule.peek()) is not None:
        schedule.succeed(schedule.take())
    assert schedule.is_over
    assert key is None
    return (time.perf_counter() - began) / steps * 1e6


def memory_per_step() -> float:
    """Bytes that a run holds for each of 10,000 steps that wait for their turn."""

    def resident() -> int:
        with open("/proc/self/statm") as stream:
            return int(stream.read().split()[1]) * resource.getpagesize()

    from marin_trace.runtime.run_plan import plan_run

    steps = [StepSpec(f"wide/step-{number}", fn=nothing, output_path_prefix="/nowhere") for number in range(10_000)]
    gc.collect()
    before = resident()
    options = RunOptions(prefix="/nowhere")
    plan = plan_run(steps, options)
    executables = [plan.steps[path].executable(options) for path in plan.to_run]
    return (resident() - before) / len(executables)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--directory", default=".", help="on the disk to measure")
    parser.add_argument("--memory", default="/dev/shm", help="a directory in memory")  # noqa: S108 - a tmpfs on purpose
    parser.add_argument("--quick", action="store_true", help="the cold run alone")
    options = parser.parse_args()
    with ThreadPoolExecutor(1) as warm:  # the first thread of a process costs more
        warm.submit(nothing, "").result()
    print("| 1,001 no-op steps | floor s | run s | ratio | doit s |\n| --- | --- | --- | --- | --- |")
    for name, base in (("disk", options.directory), ("memory", options.memory)):
        lowest, seconds, other = cold_run(base)
        shown = "not installed" if other is None else f"{other:.3f}"
        print(f"| {name} | {lowest:.3f} | {seconds:.3f} | {seconds / lowest:.2f} | {shown} |", flush=True)
    if options.quick:
        return
    print("\n| | |\n| --- | --- |")
    for name, base in (("disk", options.directory), ("memory", options.memory)):
        print(f"| a chain of 1,000 no-op steps, {name} | {minimum(chained, base):.2f} ms each |")
    slept = minimum(sleepers, options.directory, 1)
    print(f"| 100 steps that sleep 1 s, 16 at a time | {slept:.3f} s, {slept / SLEEPERS_IDEAL_S:.3f} of the ideal |")
    for steps in (1_000, 10_000, 100_000):
        print(f"| {steps:,} ready steps scheduled | {scheduling(steps):.2f} µs each |")
    print(f"| memory of a planned step | {memory_per_step():,.0f} bytes |")


if __name__ == "__main__":
    main()
