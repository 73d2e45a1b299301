"""The clusters that the training tutorials run on in tests, and how machines of them vanish."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from marin_trace.runtime.log_records import AttemptLog, ClaimRecord, EndRecord, StartRecord
from marin_trace.runtime.process_tree import carriers_of
from marin_trace.workers.gang import ATTEMPT_VARIABLE, RANK_VARIABLE
from tests.experiments.tutorials.test_training_tutorials import SCRIPTS, TINY, environment
from tests.training_runs import curve
from tests.workers.engines import parent_of, wait_until
from tests.workers.iris_site import MACHINE_TYPE, SLICE_TYPE, IrisCluster
from tests.workers.ray_clusters import Node, ray_cluster, tpu_node

LEASE_S = 10.0
"""Long enough for a machine that compiles trainings. What vanishes with its lease keeper is waited for so long."""


@dataclass(frozen=True)
class Training:
    """The step of a tutorial that trains, as it stands below a prefix."""

    prefix: Path

    @property
    def output(self) -> Path:
        (output,) = self.prefix.glob("checkpoints/*")
        return output

    @property
    def claims(self) -> list[ClaimRecord]:
        return claims_of(self.output)

    @property
    def job(self) -> str:
        """The one job that all attempts were made by."""
        (name,) = {claim.job.name for claim in self.claims if claim.job is not None}
        return name

    @property
    def pid(self) -> int:
        """Of the process that runs the newest attempt, of a gang the first one."""
        path = AttemptLog(str(self.output)).start(len(self.claims))
        return StartRecord.from_bytes(Path(path).read_bytes(), path).pid

    def has_logged(self, step: int) -> bool:
        """Whether the first attempt has gone past a step."""
        logs = [path.read_text() for path in self.prefix.glob("checkpoints/*/.executor/000001.log")]
        return any(int(done) >= step for log in logs for done in re.findall(r"step (\d+)/", log))

    def end_of(self, epoch: int) -> EndRecord | None:
        path = Path(AttemptLog(str(self.output)).end(epoch))
        return EndRecord.from_bytes(path.read_bytes(), str(path)) if path.exists() else None

    def resumed_after(self, epoch: int) -> list[int]:
        """The checkpoint that an attempt went on from; none, if it began from the start."""
        log = Path(self.output, f".executor/{epoch:06d}.log").read_text()
        return [int(step) for step in re.findall(r"going on after step (\d+)\n", log)]

    @property
    def curve(self) -> list[tuple[float, ...]]:
        return curve(self.output)


@dataclass(frozen=True)
class TutorialCluster:
    """A cluster, and the tutorial that a user of it would run."""

    script: str
    flags: tuple[str, ...]
    """That choose the cluster, and one machine to train on."""
    gang_flags: tuple[str, ...]
    """That choose the cluster, and two machines to train on."""
    machine_of: Callable[[str], str]
    """The machine on which a job runs, or ran last."""
    machines: Callable[[], set[str]]
    """Those for steps: the launcher's is none of them."""
    lose_machine: Callable[[Training], None]
    """Takes away the machine of a training."""
    lose_member: Callable[[Training], None]
    """Takes away the second process of a training by a gang."""


def claims_of(output: Path) -> list[ClaimRecord]:
    """Of all attempts at an output, the oldest first."""
    paths = sorted(Path(AttemptLog(str(output)).directory).glob("*.claim"))
    return [ClaimRecord.from_bytes(path.read_bytes(), str(path)) for path in paths]


def claims_by_step(prefix: Path) -> dict[str, list[ClaimRecord]]:
    """The attempts at every step below a prefix, by the step's name without its hash."""
    outputs = [path.parent for path in prefix.rglob(".executor")]
    return {str(output.relative_to(prefix)).rpartition("-")[0]: claims_of(output) for output in outputs}


@dataclass(frozen=True)
class Launcher:
    """A launcher of a tutorial, in a process of its own."""

    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def await_success(self) -> None:
        assert self.process.wait(300) == 0, self.said

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Waits for what comes about while this launcher runs."""

        def look() -> bool:
            assert self.process.poll() is None, self.said
            return is_so()

        wait_until(look)


def launched(script: str, *flags: object, prefix: Path) -> Launcher:
    """Starts a tutorial with the smallest of models."""
    number = len(list(prefix.parent.glob(f"{prefix.name}-*.log")))
    log = prefix.parent / f"{prefix.name}-{number}.log"
    command = [sys.executable, str(SCRIPTS / f"{script}.py"), *TINY, *map(str, flags)]
    command += ["--prefix", str(prefix), "--lease_seconds", str(LEASE_S)]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, cwd=prefix.parent, env=environment()
        )
    return Launcher(process, log)


# Ray.


@contextmanager
def ray_tutorials() -> Iterator[TutorialCluster]:
    """A head without processors, and two machines: each has a GPU, together they are a TPU slice."""
    with ray_cluster([Node(cpus=0)]) as cluster:
        worker_by_raylet = {cluster.add(_ray_machine(worker)): worker for worker in (0, 1)}
        _connect_to_ray()

        def lose_machine(training: Training) -> None:
            raylet = int(_variables_of(training.pid)["RAY_RAYLET_PID"])
            cluster.lose(raylet)
            # As whoever owns a cluster would: another one comes in its place.
            worker = worker_by_raylet.pop(raylet)
            worker_by_raylet[cluster.add(_ray_machine(worker))] = worker

        yield TutorialCluster(
            "train_tiny_model_gpu",
            ("--cluster", "ray", "--gpu", "H100"),
            ("--cluster", "ray", "--tpu", SLICE_TYPE),
            machine_of=_ray_node_of,
            machines=_ray_machines,
            lose_machine=lose_machine,
            lose_member=lambda training: os.kill(parent_of(_member_of(training, rank=1)), signal.SIGKILL),
        )


def _ray_machine(worker: int) -> Node:
    slice_part = tpu_node("slice-a", worker, tpu_type=SLICE_TYPE, topology="2x2x2")
    return Node(
        cpus=4,
        gpus=1,
        memory=16 * 10**9,
        resources={**slice_part.resources, "accelerator_type:H100": 1},
        labels=slice_part.labels,
        env_vars=slice_part.env_vars,
    )


def _connect_to_ray() -> None:
    import ray

    ray.init("auto", namespace="tests", log_to_driver=False, logging_level="ERROR")


def _ray_machines() -> set[str]:
    import ray

    return {node["NodeID"] for node in ray.nodes() if node["Alive"] and "GPU" in node["Resources"]}


def _ray_node_of(job: str) -> str:
    from ray._private.state import actors  # in public Ray tells this through its dashboard alone

    (node,) = {actor["Address"]["NodeID"] for actor in actors().values() if actor["Name"] == job}
    return node


def _member_of(training: Training, *, rank: int) -> int:
    """The process of a gang that has this rank: it began together with the first one."""
    attempt = _variables_of(training.pid)[ATTEMPT_VARIABLE]
    carriers = carriers_of(f"{ATTEMPT_VARIABLE}={attempt}", sparing="MARIN_TRACE_KEEPER=")
    (pid,) = (pid for pid in carriers if _variables_of(pid)[RANK_VARIABLE] == str(rank) and _is_job(pid))
    return pid


def _is_job(pid: int) -> bool:
    return b"marin_trace.workers.local_main" in Path(f"/proc/{pid}/cmdline").read_bytes()


def _variables_of(pid: int) -> dict[str, str]:
    texts = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


# Iris.


def iris_tutorials(cluster: IrisCluster) -> TutorialCluster:
    """A controller with machines of processors, and slices that are made when they are asked for."""
    address = ("--cluster", f"fray://{cluster.address}", "--measure_on", MACHINE_TYPE)
    return TutorialCluster(
        "train_tiny_model_tpu",
        (*address, "--tpu", MACHINE_TYPE),
        (*address, "--tpu", SLICE_TYPE),
        machine_of=lambda job: cluster.machines_of(job)[0],
        machines=cluster.machines,
        lose_machine=lambda training: cluster.lose(cluster.machines_of(training.job)[0]),
        lose_member=lambda training: cluster.preempt(training.job, ranks=(1,)),
    )
