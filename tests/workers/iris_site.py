"""A real Iris controller with its workers in one process, on loopback: its jobs are processes of this machine.

That process is not the tests' own: it has warnings and threads of its own, leaves a login token in its home directory,
and may be killed with all that it started. It has workers for processors, and slices of fake TPUs of two machines each.

Run as a module, with a home directory, it is the cluster: it prints its address and runs until its input ends. Each
line of that names a machine that it is to lose.
"""

import contextlib
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marin_trace.runtime.process_tree import carriers_of
from tests.workers.engines import require_module, skip_engine

ROOT = Path(__file__).parents[2]
SLICE_TYPE = "v5p-16"
"""Of the slices that the cluster has: two machines of four chips."""
MACHINES = 2
PROCESSOR_CORES = 256
"""Of each machine, of which there are one or two for processors."""
MACHINE_TYPE = "v5p-8"
"""Of slices that are one machine."""
WRONG_SLICE_TYPE = "v5litepod-16"
"""Of slices that the cluster has with the wrong number of machines: Iris takes such a job and never places it."""


@dataclass(frozen=True)
class IrisCluster:
    """A controller that runs."""

    url: str
    iris: Any
    """A client of its own, for what only tests do."""
    process: "subprocess.Popen[bytes]"

    @property
    def address(self) -> str:
        """As ``fray://…`` takes it."""
        return self.url.removeprefix("http://")

    def preempt(self, job: str, *, ranks: Sequence[int] | None = None) -> None:
        """Takes the machines of a running job away, of all its processes or of some."""
        from iris.cluster.types import TaskAttempt  # pyright: ignore[reportMissingImports]

        tasks = self._tasks_of(job)
        taken = tasks if ranks is None else [tasks[rank] for rank in ranks]
        results = self.iris.preempt_tasks([TaskAttempt(task_id=task.task_id) for task in taken], reason="a test")
        assert all(result.accepted for result in results), results

    def lose(self, machine: str) -> None:
        """Has a machine vanish with all that runs there; the controller is to notice by itself."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{machine}\n".encode())
        self.process.stdin.flush()
        assert self.process.stdout.readline() == b"lost\n"

    def machines(self) -> set[str]:
        """Those that the controller has ever heard of."""
        return {worker.worker_id for worker in self.iris.list_workers()}

    def machines_of(self, job: str) -> list[str]:
        """The machines on which the processes of a job run, or ran last, in the order of their ranks."""
        return [task.worker_id for task in self._tasks_of(job)]

    def _tasks_of(self, job: str) -> list[Any]:
        return sorted(self.iris.list_tasks(self.job_id(job)), key=lambda task: str(task.task_id))

    def job_id(self, name: str) -> Any:
        """Iris's id of a job that has this name."""
        (found,) = (job.job_id for job in self.iris.list_jobs() if str(job.job_id).endswith(f"/{name}"))
        return found

    def job_names(self) -> list[str]:
        """The names of all jobs that were ever submitted."""
        return [str(job.job_id).rpartition("/")[2] for job in self.iris.list_jobs()]


def require_iris() -> None:
    """Skips the test where marin-fray and Iris's controller cannot be installed or are not."""
    if sys.version_info < (3, 12) or sys.version_info >= (3, 14):
        skip_engine(f"marin-fray needs Python 3.12 or 3.13, and this is {sys.version_info[0]}.{sys.version_info[1]}")
    require_module("fray", "marin-fray")
    require_module("iris", "marin-iris")
    require_module("kubernetes", "marin-iris[controller]")


@contextlib.contextmanager
def iris_cluster(directory: Path) -> Iterator[IrisCluster]:
    """Runs a controller for as long as the block lasts.

    Args:
        directory: For its home directory, its log, and all that it keeps.
    """
    from iris.client.client import IrisClient  # pyright: ignore[reportMissingImports]

    environment = {
        **os.environ,
        "HOME": str(directory),
        "TMPDIR": str(directory),
        # Its jobs are started in the working tree, and find what the tests find.
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
    }
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.workers.iris_site"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    with process, process.stdin:
        url = process.stdout.readline().decode().strip()
        assert url, (directory / "log").read_text()
        iris = IrisClient.remote(url)
        try:
            yield IrisCluster(url, iris, process)
        finally:
            iris.shutdown()


def main() -> None:
    """The cluster's process."""
    from iris.cluster.config import (  # pyright: ignore[reportMissingImports]
        IrisClusterConfig,
        make_local_config,
    )
    from iris.cluster.lifecycle import connect_cluster  # pyright: ignore[reportMissingImports]

    groups = {
        "processors": _group("processors", "cpu"),
        "slices": _group("slices", "tpu", SLICE_TYPE, MACHINES),
        "machines": _group("machines", "tpu", MACHINE_TYPE),
        "wrong": _group("wrong", "tpu", WRONG_SLICE_TYPE, MACHINES),
    }
    with connect_cluster(make_local_config(IrisClusterConfig(name="marin-trace-test", scale_groups=groups))) as url:
        print(url, flush=True)
        for line in sys.stdin:
            _lose(line.strip())
            print("lost", flush=True)


def _lose(machine: str) -> None:
    """Its worker answers no more, and no process there has time for a word: lease keepers neither."""
    from iris.cluster.worker.worker import Worker  # pyright: ignore[reportMissingImports]

    (worker,) = (found for found in gc.get_objects() if type(found) is Worker and found._worker_id == machine)
    worker.stop(preserve_containers=True)
    for pid in carriers_of(f"IRIS_WORKER_ID={machine}\0"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _group(name: str, kind: str, variant: str = "", machines: int = 1) -> Any:
    from iris.cluster.config import (  # pyright: ignore[reportMissingImports]
        LocalSliceConfig,
        ScaleGroupConfig,
        ScaleGroupResources,
        SliceConfig,
    )
    from iris.cluster.types import AcceleratorType, CapacityType  # pyright: ignore[reportMissingImports]

    resources = ScaleGroupResources(
        cpu_millicores=1000 * PROCESSOR_CORES,
        memory_bytes=10**12,
        disk_bytes=10**14,
        device_type=AcceleratorType(kind),
        device_variant=variant,
        device_count=4 if variant else 0,
        capacity_type=CapacityType.PREEMPTIBLE,
    )
    return ScaleGroupConfig(
        name=name,
        num_vms=machines,
        # Machines of processors are there from the beginning, slices are made when a job asks for them.
        buffer_slices=0 if variant else 1,
        max_slices=2,
        resources=resources,
        slice_template=SliceConfig(num_vms=machines, local=LocalSliceConfig()),
    )


if __name__ == "__main__":
    main()
