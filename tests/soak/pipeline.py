"""The experiment whose launchers are killed: eight steps in four layers, some in pieces and some whole at once.

What it leaves is a function of its recipe alone. Every step notes what it does in the journal that the environment
names, outside the outputs, so that a trial can compare what ran with what was committed.
"""

import hashlib
import json
import os
import time
from dataclasses import dataclass

from marin_trace import ResourceConfig, StepRef, deferred, executor_main, output, parse_flags, step, unversioned
from marin_trace.io import atomic_write

JOURNAL_VARIABLE = "SOAK_JOURNAL"


@dataclass(frozen=True)
class SoakFlags:
    """The flags of this experiment."""

    pace: float = 0.03
    """Seconds between two pieces that a body writes; no part of the result."""

    with_job: bool = False
    """Whether a ninth step runs in a process of its own."""


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


def digest_of(directories: tuple[str, ...]) -> str:
    """Of all data files of the inputs. Temporary files of a writer that was killed are nobody's data."""
    digest = hashlib.sha256()
    for directory in directories:
        for name in sorted(os.listdir(directory)):
            if name.startswith("part-"):
                with open(os.path.join(directory, name), "rb") as stream:
                    digest.update(stream.read())
    return digest.hexdigest()


def write_parts(config: PartsConfig) -> dict[str, str | int]:
    """Writes numbered files in two halves each: every second one atomically, the others under their final names."""
    note("begins", config)
    seen = digest_of(config.inputs)
    os.makedirs(config.output_path, exist_ok=True)
    for number in range(config.parts):
        path = f"{config.output_path}/part-{number}.txt"
        halves = [f"{config.name} {seen} {number} {line}\n" * 200 for line in ("first", "second")]
        began_ns = time.time_ns()
        with atomic_write(path, "w") if number % 2 else open(path, "w") as stream:
            for half in halves:
                stream.write(half)
                stream.flush()
                time.sleep(config.pace)
        note("wrote", config, file=os.path.basename(path), began_ns=began_ns)
    note("ends", config)
    return {"name": config.name, "seen": seen, "parts": config.parts}


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


@step(name="soak/job", resources=ResourceConfig.with_cpu(1), env_vars={"SOAK": "1"})
def job(inputs: tuple[StepRef, ...], pace: float) -> StepRef:
    """The same, in a process of its own."""
    return parts(PartsConfig(output(), "job", inputs, pace=unversioned(pace)))


@step(name="soak/all")
def soak(pace: float, with_job: bool) -> list[StepRef]:
    """Three sources, each cleaned, merged, and a report."""
    cleaned = tuple(clean(name, source(name, pace), pace) for name in "abc")
    last = merged("merged", cleaned, pace)
    report = merged("report", (last, cleaned[0]), pace)
    return [report, job((last,), pace)] if with_job else [report]


def main() -> None:
    """Runs the experiment."""
    flags = parse_flags(SoakFlags)
    executor_main(steps=soak(flags.pace, flags.with_job))


if __name__ == "__main__":
    main()
