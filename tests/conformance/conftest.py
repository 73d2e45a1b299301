"""A base path in each kind of store, with the servers that stand for the clouds; and each engine that runs jobs."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from marin_trace.workers.fray import FrayClient
from marin_trace.workers.local import LocalClient
from marin_trace.workers.ray import RayClient
from tests.storage.clouds import Cloud, gcs_cloud, s3_cloud
from tests.workers.engines import ENGINE_PROPERTY, ENGINES, Engine, parent_of
from tests.workers.iris_site import IrisCluster
from tests.workers.ray_clusters import Node, ray_cluster


@pytest.fixture(scope="module")
def gcs() -> Iterator[Cloud]:
    with gcs_cloud() as cloud:
        yield cloud


@pytest.fixture(scope="module")
def s3() -> Iterator[Cloud]:
    with s3_cloud() as cloud:
        yield cloud


@pytest.fixture(params=["gcs", "s3"])
def cloud(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    """One of the clouds, without faults left over."""
    found: Cloud = request.getfixturevalue(request.param)
    found.faults.clear()
    yield found
    found.faults.clear()


@pytest.fixture(params=["local", "memory", "gcs", "s3"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A base path of this test, in one of the stores."""
    if request.param == "local":
        return str(tmp_path)
    if request.param == "memory":
        return f"memory:/{tmp_path}"
    found: Cloud = request.getfixturevalue(request.param)
    found.faults.clear()
    return f"{found.bucket}{tmp_path}"


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in ENGINES])
def engine(request: pytest.FixtureRequest) -> Engine:
    """One of the engines; skips where it cannot run here. All tests of one share a process, and so its cluster."""
    request.node.user_properties.append((ENGINE_PROPERTY, request.param))
    found: Engine = request.getfixturevalue(f"{request.param}_engine")
    return found


@pytest.fixture(scope="session")
def local_engine() -> Engine:
    """Processes of this machine."""
    return Engine("local", LocalClient(term_grace_s=5), restarts_lost_workers=False)


@pytest.fixture(scope="module")
def ray_engine() -> Iterator[Engine]:
    """A Ray cluster of one node."""
    with ray_cluster([Node(cpus=4)]):
        yield Engine("ray", RayClient(), lose_worker=kill_parent)


@pytest.fixture(scope="session")
def fray_engine(iris: IrisCluster, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """An Iris cluster of this machine."""
    client = FrayClient(iris.address, outcomes=str(tmp_path_factory.mktemp("outcomes")))
    return Engine("fray", client, lose_worker=lambda pid: iris.preempt(job_of(pid)))


def job_of(pid: int) -> str:
    """The name of the Iris job whose process this is."""
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    (task,) = (text.decode() for text in variables if text.startswith(b"IRIS_TASK_ID="))
    return task.split("/")[-2]


def kill_parent(pid: int) -> None:
    """Kills the process that started another: the actor that runs a job's process."""
    os.kill(parent_of(pid), signal.SIGKILL)
