"""The experiment whose launchers are killed: eight steps in four layers; or four steps, two of them jobs.

What it leaves is a function of its recipe alone. Every step notes what it does in the journal that the environment
names, outside the outputs, so that a trial can compare what ran with what was committed.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Generator
from dataclasses import dataclass

from marin_trace import ResourceConfig, StepRef, deferred, executor_main, output, parse_flags, step, unversioned
from marin_trace.io import atomic_write
from marin_trace.storage.files import list_files, make_directory, open_data, read_bytes

JOURNAL_VARIABLE = "SOAK_JOURNAL"


@dataclass(frozen=True)
class SoakFlags:
    """The flags of this experiment."""

    pace: float = 0.03
    """Seconds between two pieces that a body writes; no part of the result."""

    jobs: bool = False
    """Another graph: four steps, two of which run in processes of their own."""


@dataclass(frozen=True)
class PartsConfig:
    """What a step makes of what."""

    output_path: str
    name: str
    inputs: tuple[str, ...] = ()
    parts: int = 4
    pace: float = 0.0


def note(event: str, config: PartsConfig, **facts: object) -> None:
    """Appends a line to the journal, in one write."""
    journal = os.environ.get(JOURNAL_VARIABLE)
    if journal is None:
        return
    line = json.dumps({"event": event, "output": config.output_path, "pid": os.getpid(), **facts})
    descriptor = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def noted(config: PartsConfig) -> Generator[None, None, None]:
    """Notes begin and end of a body, and at its begin whether no other process is in the same step's body.

    A lock on a file beside the journal tells; it is gone with the process that holds it.
    """
    journal = os.environ.get(JOURNAL_VARIABLE, os.devnull)
    place = hashlib.sha256(config.output_path.encode()).hexdigest()[:16]
    with open(f"{journal}-{place}" if journal != os.devnull else journal, "w") as marker:
        try:
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_alone = True
        except BlockingIOError:
            is_alone = False
        note("begins", config, is_alone=is_alone)
        yield
        note("ends", config)


def digest_of(directories: tuple[str, ...]) -> str:
    """Of all data files of the inputs. Temporary files of a writer that was killed are nobody's data."""
    digest = hashlib.sha256()
    for directory in directories:
        for path in sorted(file.path for file in list_files(directory)):
            if os.path.basename(path).startswith("part-"):
                digest.update(read_bytes(path))
    return digest.hexdigest()


def write_parts(config: PartsConfig) -> dict[str, str | int]:
    """Writes numbered files in two halves each: every second one atomically, the others under their final names."""
    with noted(config):
        seen = digest_of(config.inputs)
        make_directory(config.output_path)
        for number in range(config.parts):
            write_part(config, seen, number)
    return {"name": config.name, "seen": seen, "parts": config.parts}


def write_part(config: PartsConfig, seen: str, number: int) -> None:
    """One file."""
    path = f"{config.output_path}/part-{number}.txt"
    began_ns = time.time_ns()
    with atomic_write(path, "w") if number % 2 else open_data(path, "w") as stream:
        for half in ("first", "second"):
            stream.write(f"{config.name} {seen} {number} {half}\n" * 200)
            stream.flush()
            time.sleep(config.pace)
    note("wrote", config, file=os.path.basename(path), began_ns=began_ns)


parts = deferred(write_parts)


@step(name="soak/source/{name}")
def source(name: str, pace: float) -> StepRef:
    """Files out of nothing."""
    return parts(PartsConfig(output(), name, pace=unversioned(pace)))


@step(name="soak/clean/{name}")
def clean(name: str, raw: StepRef, pace: float) -> StepRef:
    """Files out of one input."""
    return parts(PartsConfig(output(), name, (raw,), pace=unversioned(pace)))


@step(name="soak/{name}", fresh=True)
def merged(name: str, inputs: tuple[StepRef, ...], pace: float) -> StepRef:
    """Files out of all inputs, in an output that is emptied first."""
    return parts(PartsConfig(output(), name, inputs, pace=unversioned(pace)))


@step(name="soak/job/{name}", resources=ResourceConfig.with_cpu(1), env_vars={"SOAK": "1"})
def job(name: str, raw: StepRef, pace: float) -> StepRef:
    """Files out of one input, in a process of its own."""
    return parts(PartsConfig(output(), name, (raw,), pace=unversioned(pace)))


@step(name="soak/all")
def everything(pace: float) -> StepRef:
    """Three sources, each cleaned, merged, and a report."""
    cleaned = tuple(clean(name, source(name, pace), pace) for name in "abc")
    return merged("report", (merged("merged", cleaned, pace), cleaned[0]), pace)


@step(name="soak/jobs")
def with_jobs(pace: float) -> StepRef:
    """A source, two jobs that read it, and a report."""
    raw = source("a", pace)
    return merged("report", (job("one", raw, pace), job("two", raw, pace)), pace)


def main() -> None:
    """Runs the experiment."""
    flags = parse_flags(SoakFlags)
    executor_main(steps=with_jobs(flags.pace) if flags.jobs else everything(flags.pace))


if __name__ == "__main__":
    main()
