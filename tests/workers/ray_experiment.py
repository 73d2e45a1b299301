"""One remote step for tests that kill things: says when its body begins and ends, and lasts as long as it is told.

    python -m tests.workers.ray_experiment PREFIX LEASE_S

The body journals to ``PREFIX/journal`` and ends once ``PREFIX/go`` is there.
"""

import os
import sys
import time
from dataclasses import dataclass

from marin_trace import ResourceConfig, deferred, executor_main, output, step
from marin_trace.io import atomic_write, check_lease


@dataclass
class WorkConfig:
    output_path: str
    directory: str


def work(config: WorkConfig) -> int:
    journal(config.directory, "begins")
    while not os.path.exists(f"{config.directory}/go"):
        check_lease()
        time.sleep(0.05)
    with atomic_write(f"{config.output_path}/data", "w") as stream:
        stream.write(str(os.getpid()))
    journal(config.directory, "ends")
    return os.getpid()


def journal(directory: str, what: str) -> None:
    with open(f"{directory}/journal", "a") as stream:
        stream.write(f"{what} {os.getpid()}\n")


@step(name="work", resources=ResourceConfig.with_cpu(0.1))
def work_step(directory: str) -> object:
    return deferred(work, identity="tests:work")(WorkConfig(output(), directory))


if __name__ == "__main__":
    prefix, lease_s = sys.argv[1:3]
    sys.argv[1:] = ["--prefix", prefix, "--lease_seconds", lease_s, "--cluster", "ray"]
    executor_main(steps=[work_step(prefix)])
