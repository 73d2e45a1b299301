"""Another launcher, for tests with several processes: `hold PATH` or `run DIRECTORY LOG`."""

import os
import sys

from marin_trace.runtime.artifact import Artifact
from marin_trace.runtime.disk_cache import Cached
from marin_trace.runtime.distributed_lock import distributed_lock


def hold(path: str) -> None:
    """Claims an output, says so, and ends its body when a line comes: `fail` fails it."""

    def body(output_path: str) -> str:
        os.makedirs(output_path, exist_ok=True)
        with open(f"{output_path}/part", "w") as stream:
            stream.write("half")
        print("claimed", flush=True)
        if sys.stdin.readline() == "fail\n":
            raise ValueError("told to fail")
        return f"by {os.getpid()}"

    Cached(distributed_lock(body), Artifact.save, Artifact.load)(path)
    print("done", flush=True)


def run(directory: str, log: str) -> None:
    """Builds ten outputs, each of which appends a line to a log."""
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(10):

        def body(output_path: str) -> int:
            descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(descriptor, f"{output_path}\n".encode())
            os.close(descriptor)
            return os.getpid()

        Cached(distributed_lock(body), Artifact.save, Artifact.load)(f"{directory}/step-{number}")
    print("done", flush=True)


if __name__ == "__main__":
    {"hold": hold, "run": run}[sys.argv[1]](*sys.argv[2:])
