"""The experiment whose launchers are killed while a step of it is a job on an Iris cluster.

The step notes in a journal when its body begins and ends, and ends when a file says so.
"""

import os
import time
from dataclasses import dataclass

from marin_trace import ResourceConfig, StepRef, deferred, executor_main, output, parse_flags, step, unversioned
from marin_trace.io import atomic_write


@dataclass(frozen=True)
class PipelineFlags:
    """The flags of this experiment."""

    directory: str = ""
    """Where the journal and the file ``go`` are."""

    retries: int = 0


@dataclass(frozen=True)
class WaitConfig:
    """What the step waits for."""

    output_path: str
    directory: str


def note(directory: str, event: str) -> None:
    """One line in the journal, in one write."""
    with open(f"{directory}/journal", "a") as stream:
        stream.write(f"{event} {os.getpid()}\n")


def wait_for_word(config: WaitConfig) -> int:
    """Ends when there is a file ``go``."""
    note(config.directory, "begins")
    while not os.path.exists(f"{config.directory}/go"):
        time.sleep(0.02)
    with atomic_write(f"{config.output_path}/said.txt", "w") as stream:
        stream.write("go")
    note(config.directory, "ends")
    return 42


@step(name="waits", resources=ResourceConfig.with_cpu(0.1, ram="1g", disk="1g"))
def waits(directory: str) -> StepRef:
    """A job."""
    return deferred(wait_for_word)(WaitConfig(output(), unversioned(directory)))


def main() -> None:
    """Runs the experiment."""
    flags = parse_flags(PipelineFlags)
    executor_main(steps=waits.with_options(retries=flags.retries)(flags.directory))


if __name__ == "__main__":
    main()
