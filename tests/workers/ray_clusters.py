"""Ray clusters for tests: small, gone with their test session, and with nothing left in the home directory.

A cluster lives in a process of its own, which starts its nodes and ends with the tests, however they end:

    python -m tests.workers.ray_clusters

It reads commands as JSON lines, and answers each with one.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.workers.engines import require_module

_OBJECT_STORE_BYTES = 80 * 2**20
_SETTINGS = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray announces that it will leave the devices of jobs without accelerators alone.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # A node that vanished is noticed within seconds.
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


@dataclass(frozen=True)
class Node:
    """One machine that a cluster pretends to have."""

    cpus: int = 2
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    gpus: int = 0
    memory: int | None = None
    """Bytes; None: what this machine has."""
    env_vars: Mapping[str, str] = field(default_factory=dict)


def tpu_node(slice_name: str, worker: int, *, tpu_type: str, topology: str, chips: int = 4) -> Node:
    """A machine of a TPU slice, as Ray describes one that it finds."""
    generation = tpu_type.partition("-")[0].upper()
    labels = {
        "ray.io/tpu-slice-name": slice_name,
        "ray.io/tpu-worker-id": str(worker),
        "ray.io/tpu-pod-type": tpu_type,
        "ray.io/tpu-topology": topology,
        "ray.io/accelerator-type": f"TPU-{generation}",
    }
    resources = {"TPU": chips, slice_name: 1, f"accelerator_type:TPU-{generation}": 1}
    if worker == 0:
        resources[f"TPU-{tpu_type}-head"] = 1
    return Node(resources=resources, labels=labels, env_vars={"TPU_NAME": slice_name})


class RayCluster:
    """A cluster, as the tests see it."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def add(self, node: Node) -> int:
        """Adds a machine; the id of its raylet, which its jobs know as ``RAY_RAYLET_PID``."""
        return self.ask(add=asdict(node))

    def lose(self, raylet: int) -> None:
        """Takes a machine away, with everything that runs on it."""
        self.ask(lose=raylet)

    def ask(self, **command: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps(command)}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@contextlib.contextmanager
def ray_cluster(nodes: Sequence[Node]) -> Iterator[RayCluster]:
    """A cluster of several nodes, all on this machine; ``RAY_ADDRESS`` leads to it.

    This process may connect to it, and is disconnected at the end.
    """
    require_module("ray", "Ray")
    # Ray's sockets lie below it, whose paths have 107 characters at most: pytest's own directories are too deep.
    directory = tempfile.mkdtemp(prefix="r", dir="/tmp" if Path("/tmp").is_dir() else None)
    environment = {**os.environ, **_SETTINGS, "RAY_TMPDIR": directory}
    # Ray forks, which a process with threads of JAX, say, must not do.
    process = subprocess.Popen(
        [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    cluster = RayCluster(process)
    with process, changed_environment({**_SETTINGS, "RAY_TMPDIR": directory}):
        try:
            for node in nodes:
                cluster.add(node)
            os.environ["RAY_ADDRESS"] = cluster.ask(address=True)
            yield cluster
        finally:
            import ray

            ray.shutdown()
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)
            shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def changed_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Sets variables, and ``RAY_ADDRESS`` back, for a fixture that outlives a test."""
    before = {name: os.environ.get(name) for name in (*variables, "RAY_ADDRESS")}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def serve() -> None:
    """Starts and ends nodes as it is told, until nobody tells any more."""
    answers = os.fdopen(os.dup(1), "w")
    # What Ray prints is no answer.
    os.dup2(2, 1)
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    node_by_raylet: dict[int, Any] = {}
    try:
        for line in sys.stdin:
            match json.loads(line):
                case {"add": node}:
                    added = _add(cluster, Node(**node))
                    answer: Any = added.all_processes["raylet"][0].process.pid
                    node_by_raylet[answer] = added
                case {"lose": raylet}:
                    answer = cluster.remove_node(node_by_raylet[raylet], allow_graceful=False)
                case _:
                    answer = cluster.address
            answers.write(f"{json.dumps(answer)}\n")
            answers.flush()
    finally:
        cluster.shutdown()


def _add(cluster: Any, node: Node) -> Any:
    return cluster.add_node(
        num_cpus=node.cpus,
        num_gpus=node.gpus,
        memory=node.memory,
        resources=dict(node.resources),
        labels=dict(node.labels),
        env_vars=dict(node.env_vars) or None,
        object_store_memory=_OBJECT_STORE_BYTES,
        include_dashboard=False,
    )


if __name__ == "__main__":
    serve()
