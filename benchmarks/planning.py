"""How long it takes to see that nothing is to be done, from process start, beside a floor and two other tools.

Questions: what does a plan cost beyond imports and reading? Does it grow with the number of steps, or with what else
lies under the prefix? What does a store cost that answers after 50 ms? Is a finished re-run as quick as doit's?

    python benchmarks/planning.py                        # every table, in /dev/shm
    python benchmarks/planning.py --only plan rerun      # some of them
    python benchmarks/planning.py --plot docs/images     # and the plot over the number of steps

The pipeline is columns of ten stages, traced from an experiment file. Its outputs are copies of what a real run leaves,
each under its own name and fingerprint, so that 100,000 steps can be had. A figure is the shortest of several
processes, started in turn with those that it is compared with, in processor seconds: outputs lie in memory, so nothing
is waited for, and what else the machine does matters less. Only the slow store is measured by the clock.

The floor of a plan is a process that imports what the experiment imports and reads the same `end` files. doit and
joblib.Memory are measured where they are installed, with their imports taken out: each of doit's tasks has a file as
target and one as dependency; joblib's is a loop of calls that are all cached.
"""

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STAGES = 10

EXPERIMENT = '''
from dataclasses import dataclass

from marin_trace import StepRef, deferred, executor_main, output, parse_flags, step


@dataclass(frozen=True)
class Flags:
    columns: int = 100
    leaf: int = 0


@dataclass(frozen=True)
class StageConfig:
    source: str
    output_path: str
    column: int
    stage: int
    mode: str = "fast"


@deferred
def work(config: StageConfig) -> None:
    """Does nothing."""


@step(name="column-{column}/stage-{stage}")
def run_stage(column: int, stage: int, source: StepRef, leaf: int) -> StepRef:
    return work(StageConfig(source, output(), column, stage, f"fast-{leaf}"))


@step(name="columns")
def columns(flags: Flags):
    for column in range(flags.columns):
        ref = StepRef.hardcoded("raw")
        for stage in range(STAGES):
            is_leaf = column == 0 and stage == STAGES - 1
            ref = run_stage(column, stage, ref, flags.leaf if is_leaf else 0)


STAGES = 10

if __name__ == "__main__":
    flags = parse_flags(Flags)
    executor_main(steps=[columns(flags)])
'''

FLOOR = """
import sys
from marin_trace import executor_main, parse_flags
import draccus

for line in open(sys.argv[1]):
    with open(line.rstrip("\\n"), "rb") as stream:
        stream.read()
"""

LISTED = """
import sys
from marin_trace.cli.experiment import requested_by
from marin_trace.cli.outlook import outlook_of

with requested_by(sys.argv[1], sys.argv[2:], replaces_script=True) as request:
    for path, step in request.steps.items():
        print(path, step.name, step.fingerprint, ",".join(step.functions), step.template, sep="\\t")
"""

DODO = """
import os

def make(path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    open(path, "w").close()

def task_column():
    for column in range({columns}):
        for stage in range(10):
            target = f"out/{{column}}/{{stage}}"
            before = [f"out/{{column}}/{{stage - 1}}"] if stage else []
            yield dict(name=target, actions=[(make, [target])], targets=[target], file_dep=before)
"""

JOBLIB = """
import sys, time
from joblib import Memory

memory = Memory("cache", verbose=0)

@memory.cache
def stage(column, number, before):
    return column * 10 + number

def run():
    for column in range({columns}):
        value = 0
        for number in range(10):
            value = stage(column, number, value)

if sys.argv[1:] == ["fill"]:
    run()
else:
    began = time.process_time()
    run()
    print(time.process_time() - began)
"""


def environment() -> dict[str, str]:
    """What a measured process gets."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "MARIN_PREFIX": "prefix"}


def process(*argv: str, directory: str) -> tuple[float, str]:
    """Processor seconds of a Python process from its start to its end, its children's too, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(
        [sys.executable, *argv], cwd=directory, env=environment(), capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, ended.stdout


def shortest(measures: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The shortest time of each, measured in turn."""
    times: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            times[name].append(measure())
    return {name: min(values) for name, values in times.items()}


def finished_site(directory: str, columns: int) -> str:
    """An experiment whose steps are all finished, as far as a plan can see; gives back the list of its `end` files."""
    Path(directory, "experiment.py").write_text(EXPERIMENT)
    Path(directory, "floor.py").write_text(FLOOR)
    Path(directory, "listed.py").write_text(LISTED)
    prefix = f"{directory}/prefix"
    _, listed = process(
        "listed.py", "experiment.py", "--columns", str(columns), "--prefix", prefix, directory=directory
    )
    rows = [line.split("\t") for line in listed.splitlines()]
    # One real run says what a step leaves; the others are copies of it under their own name and fingerprint.
    process("experiment.py", "--columns", "1", "--prefix", prefix, directory=directory)
    files = {name: Path(rows[1][0], name).read_text() for name in (".executor_info", *CONTROL_FILES)}
    for path, name, fingerprint, *_ in rows:
        write_output(path, files, {rows[1][0]: path, rows[1][1]: name, rows[1][2]: fingerprint})
    write_record(prefix, rows)
    ends = f"{directory}/ends.txt"
    Path(ends).write_text("".join(f"{path}/.executor/000001.end\n" for path, *_ in rows))
    return ends


def listed_steps(directory: str, *flags: str) -> list[list[str]]:
    """Output path, name, fingerprint, functions and template of each step of an experiment."""
    argv = ("listed.py", "experiment.py", *flags, "--prefix", f"{directory}/prefix")
    return [line.split("\t") for line in process(*argv, directory=directory)[1].splitlines()]


CONTROL_FILES = (".executor/000001.claim", ".executor/000001.end", ".executor/000001.manifest", ".executor_status")


def write_output(path: str, files: dict[str, str], replaced: dict[str, str]) -> None:
    """The files of a finished output."""
    os.makedirs(f"{path}/.executor", exist_ok=True)
    for name, content in files.items():
        for old, new in replaced.items():
            content = content.replace(old, new)  # noqa: PLW2901
        Path(path, name).write_text(content)


def write_record(prefix: str, rows: Iterable[list[str]]) -> None:
    """The record of the run that has built all of it."""
    (template,) = Path(prefix, "experiments").iterdir()
    record = json.loads(template.read_text())
    example = record["steps"][0]
    record["steps"] = [
        {
            **example,
            "name": name,
            "output_path": path,
            "fingerprint": fingerprint,
            "functions": [functions],
            "template": named,
            "outcome": "succeeded",
        }
        for path, name, fingerprint, functions, named in rows
    ]
    template.write_text(json.dumps(record))


def plan(directory: str, *flags: str) -> float:
    """Seconds of ``marin-trace plan`` from process start, folded."""
    argv = ("-m", "marin_trace.cli.main", "plan", "experiment.py", "--prefix", f"{directory}/prefix", *flags)
    return process(*argv, directory=directory)[0]


def rerun(directory: str, *flags: str) -> float:
    """Seconds of a run that finds everything finished, from process start."""
    return process("experiment.py", "--prefix", f"{directory}/prefix", *flags, directory=directory)[0]


def planning_table(base: str, sizes: Iterable[int], rounds: int) -> list[dict[str, float]]:
    """A finished plan, and one with a changed leaf, for several sizes."""
    print("\n| steps | floor s | plan s | ratio | one changed leaf s | re-run s | memory of the plan MB |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    rows: list[dict[str, float]] = []
    for size in sizes:
        columns = size // STAGES
        with tempfile.TemporaryDirectory(dir=base) as directory:
            ends = finished_site(directory, columns)
            few = ("--columns", str(columns))
            measures: dict[str, Callable[[], float]] = {
                "floor": lambda: process("floor.py", ends, directory=directory)[0],  # noqa: B023 - called at once
                "plan": lambda: plan(directory, *few),  # noqa: B023
                "leaf": lambda: plan(directory, *few, "--leaf", "1"),  # noqa: B023
                "rerun": lambda: rerun(directory, *few),  # noqa: B023
            }
            found = shortest(measures, rounds if size <= 10_000 else 1)
            megabytes = peak_megabytes(directory, few)
        rows.append({"steps": size, **found})
        print(
            f"| {size:,} | {found['floor']:.3f} | {found['plan']:.3f} | {found['plan'] / found['floor']:.2f} "
            f"| {found['leaf']:.3f} | {found['rerun']:.3f} | {megabytes:.0f} |",
            flush=True,
        )
    return rows


def peak_megabytes(directory: str, flags: Iterable[str]) -> float:
    """The most memory that planning holds."""
    script = (
        "import resource, runpy, sys; sys.argv[0] = 'marin-trace'\n"
        "from marin_trace.cli.main import main\n"
        "main(); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    argv = [sys.executable, "-c", script, "plan", "experiment.py", "--prefix", f"{directory}/prefix", *flags]
    ended = subprocess.run(argv, cwd=directory, env=environment(), capture_output=True, text=True, check=True)
    return int(ended.stderr.split()[-1]) * (1 if sys.platform == "darwin" else 1_024) / 1e6


def siblings_table(base: str, rounds: int) -> None:
    """A plan of 1,000 steps that are all to be built, with and without 200 other builds of each name beside them."""
    with tempfile.TemporaryDirectory(dir=base) as directory:
        finished_site(directory, 100)
        (record,) = Path(directory, "prefix", "experiments").iterdir()
        record.unlink()
        flags = ("--columns", "100")
        _, listed = process(
            "listed.py", "experiment.py", *flags, "--prefix", f"{directory}/prefix", directory=directory
        )
        paths = [line.split("\t")[0] for line in listed.splitlines()]
        for path in paths:
            os.rename(path, f"{path[:-8]}{0:08x}")
        without = shortest({"plan": lambda: plan(directory, *flags)}, rounds)["plan"]
        for path in paths:
            info = Path(f"{path[:-8]}{0:08x}", ".executor_info").read_bytes()
            for number in range(1, 200):
                beside = f"{path[:-8]}{number:08x}"
                os.makedirs(beside)
                Path(beside, ".executor_info").write_bytes(info)
        beside_s = shortest({"plan": lambda: plan(directory, *flags)}, rounds)["plan"]
    print("\n| 1,000 steps to build, no run record | s |\n| --- | --- |")
    print(f"| one earlier build of each name | {without:.3f} |")
    print(f"| 200 earlier builds of each name | {beside_s:.3f}, {beside_s / without:.2f} times |", flush=True)


def rerun_table(base: str, rounds: int) -> None:
    """A finished re-run of 1,000 steps in one process, imports left out, beside doit and joblib.Memory."""
    columns = 100
    with tempfile.TemporaryDirectory(dir=base) as directory:
        finished_site(directory, columns)
        Path(directory, "again.py").write_text(AGAIN)
        Path(directory, "dodo.py").write_text(DODO.format(columns=columns))
        Path(directory, "with_joblib.py").write_text(JOBLIB.format(columns=columns))

        def told(*argv: str) -> float:
            return float(process(*argv, directory=directory)[1].split()[-1])

        measures: dict[str, Callable[[], float]] = {"marin_trace": lambda: told("again.py", "--columns", str(columns))}
        if importlib.util.find_spec("doit"):
            process("-m", "doit", "run", directory=directory)
            Path(directory, "with_doit.py").write_text(WITH_DOIT)
            measures["doit"] = lambda: told("with_doit.py")
        if importlib.util.find_spec("joblib"):
            process("with_joblib.py", "fill", directory=directory)
            measures["joblib.Memory"] = lambda: told("with_joblib.py")
        found = shortest(measures, rounds)
    print("\n| 1,000 finished steps again, imports left out | s |\n| --- | --- |")
    for name, seconds in found.items():
        print(f"| {name} | {seconds:.3f} |", flush=True)


AGAIN = """
import sys, time
import draccus
import marin_trace.cli.outlook, marin_trace.executor, marin_trace.runtime.step_runner
import experiment
from marin_trace import executor_main

columns = int(sys.argv[2])
began = time.process_time()
executor_main(steps=[experiment.columns(experiment.Flags(columns=columns))], argv=[])
print(time.process_time() - began)
"""

WITH_DOIT = """
import io, sys, time
from contextlib import redirect_stdout
from doit.doit_cmd import DoitMain
import doit.cmd_run, doit.reporter, doit.loader, doit.dependency, doit.runner, dodo

began = time.process_time()
with redirect_stdout(io.StringIO()):
    code = DoitMain().run(["run"])
assert code == 0
print(time.process_time() - began)
"""


def slow_store_table(base: str, steps: int, delay_s: float) -> None:
    """Reading the statuses of finished steps from a store that answers each request after a while."""
    from marin_trace.runtime import status
    from marin_trace.storage import control_store

    class SlowStore(control_store.PatientStore):
        """A local store with a delay before each request, as a cloud has one."""

        __slots__ = ()

        def list(self, directory: str) -> list[str]:
            time.sleep(delay_s)
            return super().list(directory.removeprefix("gs:/"))

        def get(self, path: str) -> bytes | None:
            time.sleep(delay_s)
            return super().get(path.removeprefix("gs:/"))

    concurrency = 256
    with tempfile.TemporaryDirectory(dir=base) as directory:
        ends = Path(finished_site(directory, steps // STAGES)).read_text().splitlines()
        outputs = [f"gs:/{end.removesuffix('/.executor/000001.end')}" for end in ends]
        slow = SlowStore(control_store.control_store_for("/"))
        usual = status.patient_store_for
        status.patient_store_for = lambda path: slow
        try:
            began = time.perf_counter()
            found = status.read_statuses(outputs, concurrency=concurrency)
            seconds = time.perf_counter() - began
        finally:
            status.patient_store_for = usual
    assert all(entry.is_finished for entry in found.values())
    ideal = 2 * len(outputs) * delay_s / concurrency
    print(f"\n| {len(outputs):,} statuses, {delay_s * 1e3:.0f} ms a request | s |\n| --- | --- |")
    print(f"| two requests a step, {concurrency} in flight | {ideal:.3f} |")
    print(f"| read_statuses | {seconds:.3f}, {seconds / ideal:.2f} times |", flush=True)


def plot(rows: list[dict[str, float]], directory: str) -> None:
    """Seconds over the number of steps, both logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    labels = {
        "floor": "imports, and reading the files",
        "plan": "plan",
        "leaf": "plan, one leaf changed",
        "rerun": "re-run",
    }
    for name, label in labels.items():
        axes.plot([row["steps"] for row in rows], [row[name] for row in rows], marker="o", label=label)
    axes.set(xscale="log", yscale="log", xlabel="finished steps", ylabel="processor seconds from process start")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend()
    figure.savefig(Path(directory, "planning.svg"), metadata={"Date": None})


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--directory", default="/dev/shm", help="where outputs lie")  # noqa: S108 - a tmpfs on purpose
    parser.add_argument("--only", nargs="*", default=["plan", "siblings", "rerun", "slow"], help="which tables")
    parser.add_argument("--sizes", type=int, nargs="*", default=[100, 1_000, 10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plot", metavar="DIRECTORY", help="write planning.svg there; needs matplotlib")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (4_096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    if "plan" in options.only:
        rows = planning_table(options.directory, options.sizes, options.rounds)
        if options.plot:
            plot(rows, options.plot)
    if "siblings" in options.only:
        siblings_table(options.directory, options.rounds)
    if "rerun" in options.only:
        rerun_table(options.directory, options.rounds)
    if "slow" in options.only:
        slow_store_table(options.directory, 10_000, 0.05)


if __name__ == "__main__":
    main()
