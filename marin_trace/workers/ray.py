"""`RayClient`: jobs on a Ray cluster, each a detached actor that outlives its launcher and is found by its name.

What an actor does is in `marin_trace.workers.ray_job` and `ray_gang`; what is asked of the cluster, in `ray_places`.
Ray is imported when the first job is submitted or looked for. Values of environment variables travel inside the
actor's arguments, not in Ray's runtime environment, which its dashboard shows.
"""

import importlib
import importlib.util
import logging
import os
import signal
import socket
import sys
import sysconfig
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final, final

from marin_trace.errors import JobFailedError, ResourcesUnavailableError, WorkerError, explain
from marin_trace.workers.client import JobRequest, JobStatus
from marin_trace.workers.overlay import project_directory, requirements_of
from marin_trace.workers.payload import pickled_call
from marin_trace.workers.ray_gang import GangActor, GangShape
from marin_trace.workers.ray_job import JobActor, JobCall, JobOutcome, error_of
from marin_trace.workers.ray_places import RayNode, RayShare, check_fits, ray_nodes, ray_share, slice_topology
from marin_trace.workers.resources import ResourceConfig

__all__ = ["RayClient", "RayHandle"]

logger = logging.getLogger(__name__)

_NAMESPACE: Final = "marin_trace"
"""Of the actors' names: jobs of all launchers find each other in it."""
_RESTARTS: Final = 10
"""How often Ray starts a job again whose worker it has lost; losses by a preemption that was announced come on top."""
_PART_BYTES: Final = 90_000
"""Ray keeps arguments up to 100 kB with the actor. Larger ones stay with the launcher, which may die."""
_KEPT_BYTES: Final = 8_000_000
"""Of all such arguments of one actor together, below Ray's 10 MB."""
_TERM_GRACE_S: Final = 5.0
"""Between SIGTERM, on which a step releases its claim, and SIGKILL."""
_ANSWER_S: Final = 10.0
"""For how long an actor is waited for that should answer at once, on a machine that may be gone."""
_FIND_S: Final = 2.0
"""A job that is pending answers nothing, and lives."""
_LISTENERS: Final = 1000
"""How many calls an actor answers side by side: each launcher that waits for it has three."""
_SHOWN_LINES: Final = 10
"""Of what Ray says."""
_SHIPPED_WITHOUT: Final = ["/.git", "/.venv", "/marin-outputs", "__pycache__"]
"""Of the project's directory; what .gitignore names stays here as well."""


@final
class RayClient:
    """Runs jobs on a Ray cluster. Thread-safe."""

    def __init__(
        self, address: str | None = None, *, working_dir: str | None = None, term_grace_s: float = _TERM_GRACE_S
    ) -> None:
        """Makes a client; connects when it is first used. A connection that this process has already is used.

        Args:
            address: ``ray://host:port`` of a cluster elsewhere; default: the cluster that this machine is part of.
            working_dir: A directory that is sent to the workers and is each job's working directory; default: that of
                the project for a cluster elsewhere, none for one that this machine is part of.
            term_grace_s: Seconds that a terminated job has to release its claim.

        Raises:
            WorkerError: Ray is not installed.
        """
        if importlib.util.find_spec("ray") is None:
            raise WorkerError(
                explain("--cluster ray needs Ray, which is not installed", hint="pip install 'marin-trace[ray]'")
            )
        self._address = address
        self._working_dir = working_dir
        self._term_grace_s = term_grace_s
        self._lock = threading.Lock()
        self._actor_classes: dict[tuple[str, type[Any]], Any] = {}
        self._janitor = ThreadPoolExecutor(1, thread_name_prefix="marin-trace-ray")

    @property
    def name(self) -> str:
        """``ray``."""
        return "ray"

    @property
    def is_local(self) -> bool:
        """Its jobs are the cluster's, and go on without their launcher."""
        return False

    def submit(self, request: JobRequest) -> "RayHandle":
        """See `JobClient.submit`; returns as soon as Ray knows the job.

        Raises:
            ResourcesUnavailableError: No machine of the cluster could ever run it, and the cluster does not grow.
            UnpicklableError: It captures what cannot be sent to another process.
            WorkerError: The cluster does not answer, or has a job of this name.
        """
        payload = pickled_call(request.entrypoint, request.name)
        requirements = requirements_of(request.pip_dependency_groups, project_directory())
        ray = self._connected()
        nodes = ray_nodes(ray.nodes())
        _check_fits(ray, request.name, request.resources, nodes)
        call = JobCall(
            name=request.name,
            env_vars=dict(request.env_vars),
            requirements=tuple(requirements),
            timeout=request.timeout,
            term_grace_s=self._term_grace_s,
            paths=_own_paths(),
            directory=os.getcwd(),
        )
        try:
            actor = self._submitted(ray, request.resources, nodes, call, _parts(payload, request.name))
        except (ValueError, OSError, ray.exceptions.RayError) as error:
            is_taken = isinstance(error, ValueError) and "already taken" in str(error)
            why = "the cluster has a job of this name" if is_taken else _first_line(error)
            raise WorkerError(explain(f"{request.name} cannot be submitted to Ray: {why}")) from error
        logger.info(f"{request.name} is submitted to Ray: {request.resources or 'cpu=1'}")
        return self._handle(request.name, actor)

    def _submitted(
        self, ray: Any, resources: ResourceConfig, nodes: Sequence[RayNode], call: JobCall, payload: Sequence[bytes]
    ) -> Any:
        """The actor of a job, which Ray will place."""
        share = ray_share(resources, nodes)
        options: dict[str, Any] = {
            "name": call.name,
            "namespace": _NAMESPACE,
            "lifetime": "detached",
            "max_restarts": _RESTARTS,
            "max_task_retries": -1,
            "max_concurrency": _LISTENERS,
        }
        if resources.processes == 1:
            job_actor = self._actor_class(ray, JobActor)
            return job_actor.options(**options, **share.as_options()).remote(call, *payload)
        shape = _gang_shape(resources, share, nodes)
        gang_actor = self._actor_class(ray, GangActor)
        return gang_actor.options(**options, num_cpus=0).remote(call, *payload, shape=shape)

    def _actor_class(self, ray: Any, cls: type[Any]) -> Any:
        """Ray's form of a class, made once for each connection: Ray sends it to the cluster, which takes 20 ms."""
        key = (ray.get_runtime_context().get_job_id(), cls)
        made = self._actor_classes.get(key)
        if made is None:
            made = self._actor_classes[key] = ray.remote(cls)
        return made

    def find(self, name: str) -> "RayHandle | None":
        """See `JobClient.find`."""
        ray = self._connected()
        try:
            actor = ray.get_actor(name, namespace=_NAMESPACE)
        except ValueError:
            return None
        except (OSError, ray.exceptions.RayError) as error:
            raise WorkerError(explain(f"Ray does not answer about job {name}: {_first_line(error)}")) from error
        handle = self._handle(name, actor)
        try:
            is_over = ray.get(actor.is_over.remote(), timeout=_FIND_S)
        except ray.exceptions.GetTimeoutError:
            return handle
        except ray.exceptions.RayError:  # it went away while it was asked
            return None
        if is_over:
            return None
        handle.note_beginning()
        return handle

    def _handle(self, name: str, actor: Any) -> "RayHandle":
        return RayHandle(name, actor, self._janitor, stop_s=self._term_grace_s + _ANSWER_S)

    def check_placeable(self, name: str, resources: ResourceConfig) -> None:
        """Refuses what no machine of the cluster could ever give; a cluster that grows by itself may yet.

        Args:
            name: Of the step or job, for the message.
            resources: That it asks for.

        Raises:
            ResourcesUnavailableError: It names what the cluster has.
            WorkerError: The cluster does not answer.
        """
        ray = self._connected()
        _check_fits(ray, name, resources, ray_nodes(ray.nodes()))

    def _connected(self) -> Any:
        """Ray, connected to the cluster.

        Raises:
            WorkerError: No cluster answers.
        """
        # Ray would put another function in the place of `print`, for this whole process.
        os.environ.setdefault("RAY_TQDM_PATCH_PRINT", "0")
        ray: Any = importlib.import_module("ray")
        with self._lock:
            if not ray.is_initialized():
                self._connect(ray)
        return ray

    def _connect(self, ray: Any) -> None:
        is_elsewhere = (self._address or "").startswith("ray://")
        working_dir = self._working_dir or (str(project_directory() or os.getcwd()) if is_elsewhere else None)
        shipped = {"runtime_env": {"working_dir": working_dir, "excludes": _SHIPPED_WITHOUT}} if working_dir else {}
        try:
            _check_listening(self._address or os.environ.get("RAY_ADDRESS") or "")
            with _own_signals():
                ray.init(
                    self._address or "auto",
                    namespace=_NAMESPACE,
                    log_to_driver=False,
                    logging_level=logging.WARNING,
                    **shipped,
                )
            self._actor_classes.clear()  # another cluster may number its connections alike
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            where = self._address or os.environ.get("RAY_ADDRESS") or "on this machine"
            raise WorkerError(
                explain(
                    f"no Ray cluster answers {where}: {_first_line(error)}",
                    facts=str(error).splitlines()[1:_SHOWN_LINES],
                    hint="ray start --head, or --cluster ray://HOST:10001 for a cluster elsewhere",
                )
            ) from error


@final
class RayHandle:
    """A job that was submitted to Ray, by this launcher or another. Thread-safe."""

    def __init__(self, name: str, actor: Any, janitor: ThreadPoolExecutor, *, stop_s: float) -> None:
        """Begins to listen for the job's end.

        Args:
            name: The job's.
            actor: Ray's handle of it.
            janitor: Ends the actor once it has told its outcome. Ray's own threads, which bring that, must not wait.
            stop_s: Seconds within which a job that runs has ended after it was asked to.
        """
        self._name = name
        self._actor = actor
        self._janitor = janitor
        self._stop_s = stop_s
        self._ray: Any = importlib.import_module("ray")
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._has_begun = self._was_stopped = False
        self._ending: JobOutcome | BaseException | None = None
        self._callbacks: list[Callable[[], None]] = []
        self._was_lost = False
        self._listening: dict[str, Any] = {}
        self._listen(actor.outcome, self._note_end)
        self._listen(actor.begun, self._note_answer)

    @property
    def job_id(self) -> str:
        """See `JobHandle.job_id`."""
        return self._name

    def status(self) -> JobStatus:
        """See `JobHandle.status`: what Ray has told; asks nobody."""
        if not self._is_over.is_set():
            return JobStatus.RUNNING if self._has_begun else JobStatus.PENDING
        match self._ending:
            case JobOutcome():
                return self._ending.status
            case _:
                is_killed = self._was_stopped or "ray.kill" in str(self._ending)
                return JobStatus.STOPPED if is_killed else JobStatus.FAILED

    def note_beginning(self) -> None:
        """Somebody has heard from the job: it runs."""
        self._has_begun = True

    def wait(self, timeout: float | None = None) -> JobStatus:
        """See `JobHandle.wait`."""
        self._is_over.wait(timeout)
        return self.status()

    def when_over(self, callback: Callable[[], None]) -> None:
        """Calls back once, on any thread, when the job has ended; at once if it has. The callback must not block."""
        with self._lock:
            if not self._is_over.is_set():
                self._callbacks.append(callback)
                return
        callback()

    def logs(self) -> str:
        """See `JobHandle.logs`: the last 16 kB; of a gang, of rank 0 while it runs, of the rank that failed after."""
        if not self._is_over.is_set() and self._has_begun:
            with suppress(self._ray.exceptions.RayError):  # its machine may be gone: then nobody can tell
                tail: str = self._ray.get(self._actor.logs.remote(), timeout=_ANSWER_S)
                return tail
        return self._ending.tail if isinstance(self._ending, JobOutcome) else ""

    def terminate(self) -> None:
        """See `JobHandle.terminate`: SIGTERM to the process's group, SIGKILL after the grace; then the actor's end."""
        if self._is_over.is_set():
            return
        self._was_stopped = True
        if self._has_begun:
            with suppress(self._ray.exceptions.RayError):  # a machine that is gone has ended it
                self._ray.get(self._actor.stop.remote(), timeout=self._stop_s)
                self._is_over.wait(_ANSWER_S)
        if not self._is_over.is_set():
            self._ray.kill(self._actor, no_restart=True)
            self._is_over.wait(_ANSWER_S)

    def exception(self) -> BaseException | None:
        """See `JobHandle.exception`."""
        status = self.status()
        if status is JobStatus.SUCCEEDED or not status.is_over:
            return None
        if isinstance(self._ending, JobOutcome):
            return error_of(self._ending, self._name)
        return JobFailedError(
            explain(f"Ray has lost {self._name}", facts=str(self._ending).splitlines()[:_SHOWN_LINES])
        )

    def forget(self) -> None:
        """See `JobHandle.forget`: nothing is left of a job whose end was heard."""

    def _listen(self, method: Any, hear: "Callable[[Future[Any]], None]") -> None:
        reference = method.remote()
        self._listening[hear.__name__] = reference
        reference.future().add_done_callback(hear)

    # What Ray tells, on threads of its own, which must not wait.

    def _note_answer(self, answer: "Future[None]") -> None:
        if answer.exception() is not None:
            return
        self.note_beginning()
        if self._was_lost:
            logger.warning(f"{self._name} is begun again: Ray had lost its machine or its worker")
        # Not asked again of the actor's next process: the call ends with the one that it was asked of.
        self._hand_over(partial(self._listen, self._actor.lost.options(max_task_retries=0), self._note_loss))

    def _note_loss(self, answer: "Future[None]") -> None:
        """The actor's process is gone: for good, or to be placed once more."""
        if not self._is_over.is_set():
            self._has_begun, self._was_lost = False, True
            self._hand_over(partial(self._listen, self._actor.begun, self._note_answer))

    def _hand_over(self, act: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the interpreter ends, and the actor goes by itself
            self._janitor.submit(act)

    def _note_end(self, answer: "Future[JobOutcome]") -> None:
        error = answer.exception()
        self._ending = answer.result() if error is None else error
        with self._lock:
            self._is_over.set()
            callbacks, self._callbacks = self._callbacks, []
        # Its resources are free for the next one as soon as it is gone.
        self._hand_over(partial(self._ray.kill, self._actor, no_restart=True))
        for callback in callbacks:
            callback()


def _own_paths() -> tuple[str, ...]:
    """Where this process finds modules that are not Python's own or installed: those the workers have themselves."""
    installed = tuple(sysconfig.get_paths()[kind] for kind in ("stdlib", "platstdlib", "purelib", "platlib"))
    return tuple(path or os.getcwd() for path in sys.path if not path.startswith(installed))


def _check_fits(ray: Any, name: str, resources: ResourceConfig, nodes: Sequence[RayNode]) -> None:
    try:
        check_fits(name, resources, nodes)
    except ResourcesUnavailableError as error:
        if not _grows(ray):
            raise
        logger.warning(f"{name} waits for the cluster's autoscaler: {_first_line(error)}")
    if resources.disk is not None:
        logger.warning(f"{name} asks for disk={resources.disk}, of which Ray knows nothing: it is not looked at")


def _parts(payload: bytes, name: str) -> list[bytes]:
    """A pickled call, cut up so that Ray keeps it with the actor, where it is not too large for that."""
    if len(payload) > _KEPT_BYTES:
        logger.warning(f"{name} captures {len(payload) / 10**6:.0f} MB: until it begins, it needs this launcher alive")
        return [payload]
    return [payload[start : start + _PART_BYTES] for start in range(0, len(payload), _PART_BYTES)]


def _gang_shape(resources: ResourceConfig, share: RayShare, nodes: Sequence[RayNode]) -> GangShape:
    bundle = share.as_bundle()
    machines = sum(all(node.resources.get(name, 0) >= amount for name, amount in bundle.items()) for node in nodes)
    device, tpu = resources.device, resources.tpu_slice
    topology = slice_topology(device.type, nodes) if device is not None and tpu is not None else None
    return GangShape(
        size=resources.processes,
        bundle=bundle,
        labels=share.labels,
        strategy="STRICT_SPREAD" if machines >= resources.processes else "PACK",
        tpu=(topology, tpu.generation, resources.slices * resources.replicas) if tpu and topology else None,
    )


def _check_listening(address: str) -> None:
    """Looks whether anybody is there, where the address says a port: Ray itself tries for minutes.

    Raises:
        OSError: Nobody is.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_ANSWER_S).close()


@contextmanager
def _own_signals() -> Generator[None, None, None]:
    """Keeps this process's answer to SIGTERM: Ray sets its own when it connects on the main thread."""
    is_main = threading.current_thread() is threading.main_thread()
    answer = signal.getsignal(signal.SIGTERM) if is_main else None
    try:
        yield
    finally:
        if answer is not None:
            signal.signal(signal.SIGTERM, answer)


def _grows(ray: Any) -> bool:
    """Whether machines are added on demand: the cluster has an autoscaler that was told of node types."""
    with suppress(AttributeError, NotImplementedError, ray.exceptions.RayError):  # no public way to ask
        config = ray._private.state.state.get_cluster_config()
        return config is not None and len(config.node_group_configs) > 0
    return False


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
