"""`LocalClient`: a process of this machine for each job.

The call travels by cloudpickle over a pipe; the process leads a group of its own, which is killed as a whole; what it
writes goes to a file, whose tail is shown when it fails. The process carries its launcher's mark in its environment,
and the launcher's lease keeper kills it when the launcher has died, however that happened.
"""

import contextlib
import functools
import itertools
import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, final

from marin_trace.errors import JobFailedError, ResourcesUnavailableError, explain
from marin_trace.workers.client import JobRequest, JobStatus
from marin_trace.workers.gang import GangSeat
from marin_trace.workers.local_main import LOG_POINTER, TIMEOUT_SIGNAL
from marin_trace.workers.machine import Machine, this_machine
from marin_trace.workers.overlay import overlay_for
from marin_trace.workers.payload import pickled_call
from marin_trace.workers.resources import ResourceConfig

__all__ = ["LocalClient", "LocalGang", "LocalHandle"]

logger = logging.getLogger(__name__)

_LOG_TAIL_BYTES: Final = 16_000
_NOTICE_S: Final = 1.0
"""How long it may take until a process that has died is noticed, on a busy machine."""
_TERM_GRACE_S: Final = 5.0
"""Between SIGTERM, on which a step releases its claim, and SIGKILL."""


@final
class LocalClient:
    """Runs jobs as processes of this machine. Thread-safe."""

    def __init__(self, *, machine: Machine | None = None, term_grace_s: float = _TERM_GRACE_S) -> None:
        """Makes a client.

        Args:
            machine: What jobs can be given; default: what is found.
            term_grace_s: Seconds that a terminated job has to release its claim.
        """
        self._machine = machine
        self._term_grace_s = term_grace_s
        self._jobs: weakref.WeakValueDictionary[str, LocalHandle | LocalGang] = weakref.WeakValueDictionary()

    @property
    def name(self) -> str:
        """``local``."""
        return "local"

    @property
    def is_local(self) -> bool:
        """Its jobs are this machine's."""
        return True

    def submit(self, request: JobRequest) -> "LocalHandle | LocalGang":
        """Starts a process, or one for each replica.

        Raises:
            ResourcesUnavailableError: The job asks for what this machine does not have.
            UnpicklableError: It captures what cannot be sent to another process.
            WorkerError: Its packages cannot be provided.
        """
        self.check_placeable(request.name, request.resources)
        payload = pickled_call(request.entrypoint, request.name)
        overlay = overlay_for(request.pip_dependency_groups)
        size = request.resources.replicas
        if size == 1:
            handle: LocalHandle | LocalGang = self._start(request, payload, overlay)
        else:
            # One host: they reach each other on its loopback address.
            attempt = os.urandom(8).hex()
            seats = [GangSeat(rank, size, attempt, "127.0.0.1", _NOTICE_S) for rank in range(size)]
            handle = LocalGang(request.name, [self._start(_seated(request, seat), payload, overlay) for seat in seats])
        self._jobs[request.name] = handle
        return handle

    def check_placeable(self, name: str, resources: ResourceConfig) -> None:
        """Refuses what this machine does not have.

        Raises:
            ResourcesUnavailableError: It names what is missing and the flag to give.
        """
        check_available(name, resources, self._machine or this_machine())

    def _start(self, request: JobRequest, payload: bytes, overlay: str | None) -> "LocalHandle":
        directory = Path(tempfile.mkdtemp(prefix="marin-trace-job-"))
        try:
            process = _spawn(request, payload, directory, overlay)
        except BaseException:
            shutil.rmtree(directory)
            raise
        logger.info(f"{request.name} runs as process {process.pid}, its output is {directory / 'log'}")
        return LocalHandle(request, process, directory, self._term_grace_s)

    def find(self, name: str) -> "LocalHandle | LocalGang | None":
        """See `JobClient.find`: knows the jobs that it submitted itself."""
        handle = self._jobs.get(name)
        return None if handle is None or handle.status().is_over else handle


@final
class LocalHandle:
    """A process that was started. Thread-safe."""

    def __init__(
        self, request: JobRequest, process: "subprocess.Popen[bytes]", directory: Path, term_grace_s: float
    ) -> None:
        self._request = request
        self._process = process
        self._directory = directory
        self._term_grace_s = term_grace_s
        self._deadline = None if request.timeout is None else time.monotonic() + request.timeout
        self._lock = threading.Lock()
        self._was_stopped = False
        self._timed_out = False

    @property
    def job_id(self) -> str:
        """See `JobHandle.job_id`."""
        return self._request.name

    @property
    def log_path(self) -> str:
        """The file that holds what the process wrote."""
        return str(self._directory / "log")

    def status(self) -> JobStatus:
        """See `JobHandle.status`."""
        code = self._process.poll()
        if code is None:
            return JobStatus.RUNNING
        if self._was_stopped:
            return JobStatus.STOPPED
        return JobStatus.SUCCEEDED if code == 0 else JobStatus.FAILED

    def wait(self, timeout: float | None = None) -> JobStatus:
        """See `JobHandle.wait`; a job that is out of time is terminated."""
        limit = min((_remaining(self._deadline), float("inf") if timeout is None else timeout))
        try:
            self._process.wait(None if limit == float("inf") else limit)
        except subprocess.TimeoutExpired:
            if _remaining(self._deadline) <= 0:
                self._timed_out = True
                self._end(TIMEOUT_SIGNAL)
        return self.status()

    def when_over(self, callback: Callable[[], None]) -> None:
        """See `JobHandle.when_over`."""

        def watch() -> None:
            self._process.wait()
            callback()

        threading.Thread(target=watch, name=f"marin-trace-waits-for-{self._process.pid}", daemon=True).start()

    def logs(self) -> str:
        """See `JobHandle.logs`: the last 16 kB, of its attempt's log where the job has begun one."""
        attempt_log = self._attempt_log()
        if attempt_log is not None and (tail := _tail_of(attempt_log)):
            return tail
        return _tail_of(self.log_path)

    def _attempt_log(self) -> str | None:
        pointer = self._directory / LOG_POINTER
        path = pointer.read_text(encoding="utf-8") if pointer.exists() else ""
        return path if os.path.isfile(path) else None

    def terminate(self) -> None:
        """See `JobHandle.terminate`: SIGTERM to the group, and SIGKILL to what is left after the grace."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        with self._lock:
            if self._process.poll() is None:
                self._was_stopped = True
                _signal_group(self._process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(self._term_grace_s)
            # The leader may be gone and its children not.
            _signal_group(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def exception(self) -> BaseException | None:
        """What the call raised, with the traceback of the process as a note; None if the job did not fail."""
        status = self.status()
        if status is JobStatus.SUCCEEDED or not status.is_over:
            return None
        raised = self.pickled_exception()
        if raised is None:
            return self.failure()
        # Written by our own child, for us: what it raised keeps its type.
        error: BaseException = pickle.loads(raised)  # noqa: S301
        return error

    def pickled_exception(self) -> bytes | None:
        """What the call of a job that failed raised; None where its process did not leave that, or was out of time."""
        outcome = self._directory / "outcome"
        return outcome.read_bytes() if not self._timed_out and outcome.exists() else None

    def failure(self) -> JobFailedError:
        """How a job that has failed ended, as its process shows it."""
        if self._timed_out:
            return self._failure(f"{self._request.name} took longer than its timeout of {self._request.timeout:g} s")
        code = self._process.returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
        if code == -signal.SIGKILL and not self._was_stopped:
            how += " (where nobody did that, the machine was out of memory)"
        return self._failure(f"the process of {self._request.name} {how}")

    def _failure(self, summary: str) -> JobFailedError:
        tail = self.logs().splitlines()[-20:]
        return JobFailedError(explain(summary, facts=[f"log: {self._attempt_log() or self.log_path}", *tail]))

    def forget(self) -> None:
        """Removes its log and whatever else it left in the temporary directory."""
        shutil.rmtree(self._directory, ignore_errors=True)


@final
class LocalGang:
    """The processes of a gang, as one job: when one of them fails, the others are terminated. Thread-safe."""

    def __init__(self, name: str, members: Sequence[LocalHandle]) -> None:
        self._name = name
        self._members = members
        self._first_failed: LocalHandle | None = None
        self._lock = threading.Lock()
        for member in members:
            member.when_over(functools.partial(self._look_at, member))

    @property
    def job_id(self) -> str:
        """See `JobHandle.job_id`."""
        return self._name

    def _look_at(self, ended: LocalHandle) -> None:
        with self._lock:
            if ended.status() is not JobStatus.FAILED or self._first_failed is not None:
                return
            self._first_failed = ended
        self._terminate_members()

    def status(self) -> JobStatus:
        """See `JobHandle.status`: over when all have ended."""
        statuses = [member.status() for member in self._members]
        if not all(status.is_over for status in statuses):
            return JobStatus.RUNNING
        if JobStatus.FAILED in statuses:
            return JobStatus.FAILED
        return JobStatus.STOPPED if JobStatus.STOPPED in statuses else JobStatus.SUCCEEDED

    def wait(self, timeout: float | None = None) -> JobStatus:
        """See `JobHandle.wait`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for member in self._members:
            member.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return self.status()

    def when_over(self, callback: Callable[[], None]) -> None:
        """See `JobHandle.when_over`."""
        left = itertools.count(1)

        def hear() -> None:
            if next(left) == len(self._members):
                callback()

        for member in self._members:
            member.when_over(hear)

    def logs(self) -> str:
        """See `JobHandle.logs`: of the process that failed first, else of the first one."""
        return (self._first_failed or self._members[0]).logs()

    def terminate(self) -> None:
        """See `JobHandle.terminate`."""
        self._terminate_members()

    def _terminate_members(self) -> None:
        # Side by side: each has its grace.
        threads = [threading.Thread(target=member.terminate) for member in self._members]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def exception(self) -> BaseException | None:
        """See `JobHandle.exception`: of the process that failed first."""
        if self._first_failed is not None:
            return self._first_failed.exception()
        errors = (member.exception() for member in self._members)
        return next((error for error in errors if error is not None), None)

    def forget(self) -> None:
        """See `JobHandle.forget`."""
        for member in self._members:
            member.forget()


def _seated(request: JobRequest, seat: GangSeat) -> JobRequest:
    return replace(request, name=f"{request.name}-{seat.rank}", env_vars={**request.env_vars, **seat.to_environment()})


def check_available(name: str, resources: ResourceConfig, machine: Machine) -> None:
    """Refuses what the machine does not have.

    Raises:
        ResourcesUnavailableError: It names what is missing and the flag to give.
    """
    device = resources.device
    if device is not None:
        present = machine.gpus if device.kind == "gpu" else machine.tpus
        if present < device.count:
            raise ResourcesUnavailableError(
                explain(
                    f"{name} asks for {device}, and this machine has {present or 'no'} {device.kind.upper()}",
                    hint="--cluster ray or --cluster fray runs it where there is one",
                )
            )
    ram = resources.ram_bytes
    if ram is not None and machine.ram_bytes is not None and ram > machine.ram_bytes:
        raise ResourcesUnavailableError(
            explain(
                f"{name} asks for {resources.ram} of memory, and this machine has {machine.ram_bytes / 10**9:.0f} GB",
                hint="--cluster ray or --cluster fray runs it where there is more",
            )
        )


def _tail_of(path: str) -> str:
    with open(path, "rb") as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - _LOG_TAIL_BYTES))
        return stream.read().decode(errors="replace")


def _spawn(request: JobRequest, payload: bytes, directory: Path, overlay: str | None) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "marin_trace.workers.local_main", str(directory / "outcome")]
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(request.env_vars, overlay),
            process_group=0,
        )
    assert process.stdin is not None
    # A process that dies before it has read its call is reported by its exit code.
    with contextlib.suppress(BrokenPipeError), process.stdin:
        process.stdin.write(payload)
    return process


def _environment(env_vars: Mapping[str, str], overlay: str | None) -> dict[str, str]:
    # The child sees the modules that this process can import, in the same order.
    paths = [*([overlay] if overlay else []), *(path or os.getcwd() for path in sys.path)]
    environment: dict[str, str] = {**os.environ, **env_vars}
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment


def _remaining(deadline: float | None) -> float:
    return float("inf") if deadline is None else max(0.0, deadline - time.monotonic())


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
