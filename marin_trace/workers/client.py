"""The job client: one narrow protocol between a step and whatever runs processes for it."""

import os
import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol, final

from marin_trace.workers.resources import ResourceConfig

__all__ = [
    "JobClient",
    "JobHandle",
    "JobRequest",
    "JobStatus",
    "current_client",
    "job_name",
    "set_current_client",
    "use_client",
]


_UNSAFE: Final = re.compile(r"[^a-z0-9_.-]+")
_NAME_CHARACTERS: Final = 45
"""Of the text: what is appended keeps a name within the sixty or so that engines allow."""


class JobStatus(StrEnum):
    """The engine's word on a job. It says when to look at the output, never what became of it."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    """Terminated on request."""

    @property
    def is_over(self) -> bool:
        """Whether the job has ended."""
        return self in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED)


@final
@dataclass(frozen=True, slots=True)
class JobRequest:
    """A call to run in a process of its own."""

    name: str
    """Unique, see `job_name`."""
    entrypoint: Callable[[], Any]
    """What to call; must be picklable by cloudpickle, and returns nothing that anybody reads."""
    resources: ResourceConfig = field(default_factory=ResourceConfig)
    env_vars: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    """Added to the environment; values are never recorded."""
    pip_dependency_groups: tuple[str, ...] = ()
    """Extras or dependency groups of the project, or requirements, that the process can import."""
    timeout: float | None = None
    """Seconds, after which the job is terminated."""


class JobHandle(Protocol):
    """A job that was submitted. Thread-safe."""

    @property
    def job_id(self) -> str:
        """The name under which it was submitted."""
        ...

    def status(self) -> JobStatus:
        """The engine's word; does not wait."""
        ...

    def wait(self, timeout: float | None = None) -> JobStatus:
        """Blocks until the job has ended, or for so many seconds; returns its status then."""
        ...

    def when_over(self, callback: Callable[[], None]) -> None:
        """Calls back once the job has ended, on any thread, where the engine tells of it: a hint to look at once.

        An engine that only answers questions never calls.
        """
        ...

    def logs(self) -> str:
        """The tail of what it wrote."""
        ...

    def terminate(self) -> None:
        """Ends it with all its processes; returns when they are gone. Nothing happens to a job that has ended."""
        ...

    def exception(self) -> BaseException | None:
        """What its call raised, where the engine can tell; None if the job has not failed."""
        ...

    def forget(self) -> None:
        """Drops what was kept of a job that has ended and that nobody will ask about again."""
        ...


class JobClient(Protocol):
    """Something that runs jobs."""

    @property
    def name(self) -> str:
        """As ``--cluster`` names it."""
        ...

    @property
    def is_local(self) -> bool:
        """Whether its jobs take this machine's resources, and stop with the launcher."""
        ...

    def submit(self, request: JobRequest) -> JobHandle:
        """Starts a job.

        Raises:
            WorkerError: It cannot be started here.
        """
        ...

    def find(self, name: str) -> JobHandle | None:
        """The job of this name that is pending or runs, whoever submitted it; None: it has ended or never was.

        Raises:
            WorkerError: The engine does not answer.
        """
        ...


def job_name(text: str) -> str:
    """A name for a job, as every engine takes it, and unique: the text's safe characters and eight random ones.

    Args:
        text: What people know it by: a step's name, or a function's.
    """
    safe = _UNSAFE.sub("-", text.lower()).strip("-._")[:_NAME_CHARACTERS].rstrip("-._") or "job"
    # Engines take a name of digits alone for a number.
    return f"{safe if safe[0].isalpha() else f'job-{safe}'}-{os.urandom(4).hex()}"


_current_client: ContextVar[JobClient | None] = ContextVar("marin_trace_client", default=None)


def current_client() -> JobClient | None:
    """The client that was chosen in this context; None: none was."""
    return _current_client.get()


def set_current_client(client: JobClient | None) -> None:
    """Chooses the client for what this context runs from here on; None takes the choice back."""
    _current_client.set(client)


@contextmanager
def use_client(client: JobClient | None) -> Generator[None, None, None]:
    """Chooses the client within the block."""
    token = _current_client.set(client)
    try:
        yield
    finally:
        _current_client.reset(token)
