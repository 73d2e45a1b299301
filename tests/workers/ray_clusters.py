"""Ray clusters for tests: small, gone with their test session, and with nothing left in the home directory."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.workers.engines import require_module

_OBJECT_STORE_BYTES = 80 * 2**20
_SETTINGS = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    # Of the message that only tells how Ray treats jobs without accelerators.
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
    env_vars: Mapping[str, str] = field(default_factory=dict)


def tpu_node(slice_name: str, worker: int, *, tpu_type: str, topology: str, chips: int = 4) -> Node:
    """A machine of a TPU slice, as Ray describes one that it finds."""
    generation = tpu_type.partition("-")[0]
    labels = {
        "ray.io/tpu-slice-name": slice_name,
        "ray.io/tpu-worker-id": str(worker),
        "ray.io/tpu-pod-type": tpu_type,
        "ray.io/tpu-topology": topology,
        "ray.io/accelerator-type": f"TPU-{generation.upper()}",
    }
    resources = {"TPU": chips, slice_name: 1, f"accelerator_type:TPU-{generation.upper()}": 1}
    if worker == 0:
        resources[f"TPU-{tpu_type}-head"] = 1
    return Node(resources=resources, labels=labels, env_vars={"TPU_NAME": slice_name})


@contextlib.contextmanager
def ray_cluster(nodes: Sequence[Node]) -> Iterator[Any]:
    """A cluster of several nodes, all on this machine, to which this process is connected.

    Yields:
        Ray's `Cluster`, its worker nodes being in ``worker_nodes``.
    """
    require_module("ray", "Ray")
    before = {name: os.environ.get(name) for name in (*_SETTINGS, "RAY_ADDRESS", "RAY_TMPDIR")}
    os.environ.update(_SETTINGS)
    # Ray's sockets lie below it, whose paths have 107 characters at most: pytest's own directories are too deep.
    directory = os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="r", dir="/tmp" if Path("/tmp").is_dir() else None)
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        for node in nodes:
            cluster.add_node(
                num_cpus=node.cpus,
                num_gpus=node.gpus,
                resources=dict(node.resources),
                labels=dict(node.labels),
                object_store_memory=_OBJECT_STORE_BYTES,
                include_dashboard=False,
                env_vars=dict(node.env_vars) or None,
            )
        os.environ["RAY_ADDRESS"] = cluster.address
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        shutil.rmtree(directory, ignore_errors=True)
