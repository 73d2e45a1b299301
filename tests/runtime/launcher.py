"""Another launcher.

`hold PATH [LEASE [child]]`, `spin | defy | kernel PATH LEASE`, `job PATH LEASE READY GO` or `run DIRECTORY LOG`.
"""

import contextlib
import os
import subprocess
import sys
import types
from concurrent.futures import ThreadPoolExecutor

from marin_trace.errors import LeaseLostError
from marin_trace.runtime.artifact import Artifact
from marin_trace.runtime.disk_cache import Cached
from marin_trace.runtime.distributed_lock import distributed_lock
from marin_trace.runtime.keeper import dismiss_keeper
from marin_trace.runtime.options import AttemptOptions
from marin_trace.runtime.process_tree import descendants_of
from marin_trace.runtime.remote import remote
from marin_trace.storage.files import write_bytes


def hold(path: str, lease_s: str = "120", child: str = "") -> None:
    """Claims an output, says so, and ends its body when a line comes: `fail` fails it."""

    def body(output_path: str) -> str:
        if child:
            process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
            print(process.pid, flush=True)
        write_bytes(f"{output_path}/part", b"half")
        print("claimed", flush=True)
        if sys.stdin.readline() == "fail\n":
            raise ValueError("told to fail")
        return f"by {os.getpid()}"

    locked = distributed_lock(body).with_options(AttemptOptions(lease_seconds=float(lease_s)))
    Cached(locked, Artifact.save, Artifact.load)(path)
    print("done", flush=True)
    dismiss_keeper()
    print(f"children: {len(descendants_of(os.getpid()))}", flush=True)


def spin(path: str, lease_s: str) -> None:
    """Claims an output and never ends by itself."""

    def body(output_path: str) -> None:
        print("claimed", flush=True)
        while True:
            pass

    distributed_lock(body).with_options(AttemptOptions(lease_seconds=float(lease_s)))(path)


def defy(path: str, lease_s: str) -> None:
    """Claims an output, never ends, and takes no notice of what is raised into it."""

    def body(output_path: str) -> None:
        print("claimed", flush=True)
        while True:
            with contextlib.suppress(LeaseLostError):
                while True:
                    pass

    distributed_lock(body).with_options(AttemptOptions(lease_seconds=float(lease_s)))(path)


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


def kernel(path: str, lease_s: str) -> None:
    """Is a notebook's kernel for all that can be seen: claims an output, and tells what becomes of it."""
    sys.modules["ipykernel"] = types.ModuleType("ipykernel")

    def body(output_path: str) -> None:
        print("claimed", flush=True)
        try:
            while True:
                pass
        except LeaseLostError:
            print("told", flush=True)
            sys.stdin.readline()

    try:
        distributed_lock(body).with_options(AttemptOptions(lease_seconds=float(lease_s)))(path)
    except LeaseLostError:
        print("refused", flush=True)


def job(path: str, lease_s: str, ready: str, go: str) -> None:
    """Runs an output's body in a process of its own, which says through one pipe that it runs and waits at another."""

    def body(output_path: str) -> int:
        with open(ready, "w") as stream:
            stream.write(f"{os.getpid()}")
        with open(go) as stream:
            stream.read()
        return os.getpid()

    locked = distributed_lock(body).with_options(AttemptOptions(lease_seconds=float(lease_s)))
    step = remote(Cached(locked, Artifact.save, Artifact.load), name="body")
    with ThreadPoolExecutor() as pool:
        step.start(path, pool).result()
    print("done", flush=True)


if __name__ == "__main__":
    {"hold": hold, "run": run, "job": job, "kernel": kernel, "spin": spin, "defy": defy}[sys.argv[1]](*sys.argv[2:])
