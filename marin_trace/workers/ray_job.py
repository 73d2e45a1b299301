"""What runs inside a Ray cluster: an actor for each job, which holds the job's resources and its process.

The call runs in a process of its own below the actor (the very one that `marin_trace.workers.local` starts), so that
whatever the call does to its process (a segfault, ``sys.exit``, a thread that will not stop) is its own failure, told
by an actor that lives. Only where Ray loses the actor itself, with its machine or its worker process, does Ray start
the actor again, and so the call.

An actor is detached: it outlives the launcher that made it, is found by its name, and goes away by itself when its
process has ended and somebody has heard of that, or nobody wanted to for a while. Nothing here needs Ray to be
imported; methods are called by Ray, and those that are coroutines never block.
"""

import asyncio
import contextlib
import ctypes
import logging
import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, final

from marin_trace.errors import JobFailedError, WorkerError, explain
from marin_trace.workers.client import JobRequest, JobStatus
from marin_trace.workers.gang import GangSeat
from marin_trace.workers.local import LocalClient, LocalHandle
from marin_trace.workers.overlay import overlay_of

__all__ = ["HEARD_S", "UNHEARD_S", "JobActor", "JobCall", "JobOutcome", "MemberPlace", "error_of"]

logger = logging.getLogger(__name__)

HEARD_S: Final = 5.0
"""How long an actor stays after somebody has heard how its job ended; as a rule that launcher ends it before."""
UNHEARD_S: Final = 20.0
"""How long it stays when nobody asks. The step's own record in storage is kept anyway."""
_LARGEST_ERROR: Final = 64_000
"""Of a pickled exception. Ray sends up to 100 kB in the answer itself, which needs nobody to keep it."""
_PR_SET_PDEATHSIG: Final = 1
"""Of Linux's ``prctl``: the signal that a process gets when its parent has died."""


@final
@dataclass(frozen=True, slots=True)
class JobCall:
    """What an actor is to run. The pickled call travels beside it, in parts."""

    name: str
    """Of the job."""
    env_vars: Mapping[str, str]
    """In the call's process, nowhere else."""
    requirements: tuple[str, ...]
    """That pip installs for the process."""
    timeout: float | None
    """Seconds from the process's beginning."""
    term_grace_s: float
    """Seconds that a terminated process has to release its claim."""
    paths: tuple[str, ...]
    """Where the launcher finds modules; those that exist on the worker follow the worker's own."""
    directory: str
    """The launcher's working directory; used where it exists on the worker and the cluster was given no other."""

    def __repr__(self) -> str:
        return f"JobCall({self.name!r}, …)"


@final
@dataclass(frozen=True, slots=True)
class JobOutcome:
    """How a job ended."""

    status: JobStatus
    raised: bytes | None = None
    """What its call raised, pickled."""
    failure: str | None = None
    """How it failed, where that is not told by what was raised."""
    tail: str = ""
    """The end of what it wrote."""


@final
@dataclass(frozen=True, slots=True)
class MemberPlace:
    """Where one process of a gang would run."""

    host: str
    """The address by which Ray reaches its machine."""
    tpu_worker: int | None
    """Which machine of its TPU slice it is, where Ray tells."""


@final
class JobActor:
    """One process of a job. Ray makes it, once for each time that it places the job."""

    def __init__(self, call: JobCall, *payload: bytes, waits: bool = False) -> None:
        """Starts the process.

        Args:
            call: What to run.
            payload: The pickled call; in parts, since Ray keeps small arguments with the actor, and large ones with the
                launcher, which may die.
            waits: Begin when `start` says so: a member of a gang.
        """
        self._call = call
        self._payload = b"".join(payload)
        self._handle: Future[LocalHandle] = Future()
        self._outcome: Future[JobOutcome] = Future()
        self._is_heard = threading.Event()
        self._is_started = False
        self._this_actor: Any = import_module("ray").get_runtime_context().current_actor
        if not waits:
            self._start({})

    async def begun(self) -> None:
        """Answers when the process runs, or cannot be started."""
        await asyncio.wait([asyncio.wrap_future(self._handle)])

    async def lost(self) -> None:
        """Never answers: who asks hears when Ray has lost this actor, and is about to start it again."""
        await asyncio.Event().wait()

    async def is_over(self) -> bool:
        """Whether the process has ended."""
        return self._outcome.done()

    async def outcome(self) -> JobOutcome:
        """How the job ended, once it has."""
        # Shielded: a caller that gives up must not cancel what others wait for.
        outcome = await asyncio.shield(asyncio.wrap_future(self._outcome))
        self._is_heard.set()
        return outcome

    async def logs(self) -> str:
        """The tail of what the process has written."""
        return self._handle.result().logs() if self._handle.done() and not self._handle.exception() else ""

    async def stop(self) -> None:
        """Ends the process with all that it started; answers when they are gone."""
        if not self._is_started:
            return
        await self.begun()
        if not self._handle.exception():
            await asyncio.to_thread(self._handle.result().terminate)
        await asyncio.shield(asyncio.wrap_future(self._outcome))

    async def place(self) -> MemberPlace:
        """Where this member of a gang is."""
        ray = import_module("ray")
        # Releases before labels do not have it.
        labels: dict[str, str] = getattr(ray.get_runtime_context(), "get_node_labels", dict)()
        worker = labels.get("ray.io/tpu-worker-id")
        return MemberPlace(ray.util.get_node_ip_address(), int(worker) if worker and worker.isdecimal() else None)

    async def start(self, seat: GangSeat) -> None:
        """Begins the process, as a member of a gang."""
        self._start(seat.to_environment())

    def _start(self, variables: Mapping[str, str]) -> None:
        self._is_started = True
        threading.Thread(target=self._run, args=(variables,), name="job").start()

    def _run(self, variables: Mapping[str, str]) -> None:
        """Runs the process to its end. Its thread lives as long: where it dies, so does the process."""
        try:
            handle = self._launched(variables)
        except Exception as error:  # noqa: BLE001 - the launcher is told; here nobody would see it
            self._handle.set_exception(error)
            self._outcome.set_result(JobOutcome(JobStatus.FAILED, failure=f"{self._call.name} cannot start: {error}"))
        else:
            self._handle.set_result(handle)
            while not handle.wait().is_over:
                logger.debug(f"{self._call.name} runs")
            outcome = outcome_of(handle)
            handle.forget()
            self._outcome.set_result(outcome)
        if not self._is_heard.wait(UNHEARD_S):
            logger.info(f"{self._call.name}: nobody has asked how it ended")
        else:
            threading.Event().wait(HEARD_S)
        import_module("ray").kill(self._this_actor, no_restart=True)

    def _launched(self, variables: Mapping[str, str]) -> LocalHandle:
        overlay = overlay_of(self._call.requirements)
        if overlay is not None:
            sys.path.insert(0, overlay)
        sys.path += [path for path in self._call.paths if path not in sys.path and os.path.isdir(path)]
        is_shipped = bool(import_module("ray").get_runtime_context().runtime_env.get("working_dir"))
        directory = None if is_shipped else self._call.directory
        request = JobRequest(
            name=self._call.name,
            entrypoint=_OnWorker(self._payload, directory, os.getpid()),
            env_vars={**self._call.env_vars, **variables, "RAY_ADDRESS": _cluster_address()},
            timeout=self._call.timeout,
        )
        handle = LocalClient(term_grace_s=self._call.term_grace_s).submit(request)
        assert isinstance(handle, LocalHandle)
        return handle


@final
@dataclass(frozen=True, slots=True)
class _OnWorker:
    """The launcher's call, as the job's process makes it."""

    payload: bytes
    directory: str | None
    actor_pid: int

    def __call__(self) -> None:
        _die_with(self.actor_pid)
        if self.directory is not None and os.path.isdir(self.directory):
            os.chdir(self.directory)
        call = self._unpickled()
        call()

    def _unpickled(self) -> Callable[[], Any]:
        try:
            # Made by the launcher, for this process.
            call: Callable[[], Any] = pickle.loads(self.payload)  # noqa: S301
        except ModuleNotFoundError as error:
            raise WorkerError(
                explain(
                    f"{socket.gethostname()} cannot import {error.name}, which the job uses",
                    facts={"looked in": ", ".join(sys.path)},
                    hint="send your code along: RayClient(working_dir='.'), or `ray job submit --working-dir .`",
                )
            ) from error
        return call


def _die_with(parent: int) -> None:
    """Lets this process die when its parent has, however that dies."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have died before it was asked to tell.
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def outcome_of(handle: LocalHandle) -> JobOutcome:
    """How a process of this machine ended, as it is told elsewhere."""
    status, tail = handle.status(), handle.logs()
    if status is JobStatus.SUCCEEDED:
        return JobOutcome(status, tail=tail)
    raised = handle.pickled_exception()
    if raised is not None and len(raised) <= _LARGEST_ERROR:
        return JobOutcome(status, raised=raised, tail=tail)
    return JobOutcome(status, failure=str(handle.failure()), tail=tail)


def error_of(outcome: JobOutcome, name: str) -> Exception:
    """What is raised for a job that did not succeed.

    Args:
        outcome: Its end.
        name: The job's.
    """
    if outcome.failure is not None:
        return JobFailedError(outcome.failure)
    with contextlib.suppress(Exception):  # of a type that this process does not have: its text is in the tail
        # Made by our own job, for us.
        error: Any = pickle.loads(outcome.raised or b"")  # noqa: S301
        if isinstance(error, Exception):
            return error
    return JobFailedError(explain(f"{name} ended as {outcome.status}", facts=outcome.tail.splitlines()[-20:]))


def _cluster_address() -> str:
    address: str = import_module("ray").get_runtime_context().gcs_address
    return address
