"""What the runner invokes, and how an attempt tells it what it did.

An executable is a callable of the output path that can also be started on a pool. It returns or raises; what it made
is in storage. `Cached`, `LockedCallable` and `RemoteCallable` are executables, and compose.
"""

from collections.abc import Generator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, final

from marin_trace.runtime.log_records import JobIdentity

__all__ = ["AttemptObserver", "Executable", "JobTicket", "attempt_observer", "observing"]


class Executable(Protocol):
    """A step, ready to run."""

    @property
    def runs_elsewhere(self) -> bool:
        """Whether its work takes nothing of this machine: it then counts against another bound."""
        ...

    def start(self, output_path: str, pool: Executor) -> Future[Any]:
        """Starts it without waiting for anybody.

        Args:
            output_path: Where it writes.
            pool: What runs local work; no thread of it is held by waiting.

        Returns:
            Its outcome. `StepHeldElsewhere` means: another launcher runs it, start again later.
        """
        ...

    def __call__(self, output_path: str) -> Any:
        """Runs it to its end; waits while another launcher holds it."""
        ...


@final
@dataclass(frozen=True, slots=True)
class JobTicket:
    """What a launcher that claimed for a job gives the job along."""

    job: JobIdentity
    """As the claim names it."""
    retries: int = 0
    """Further attempts that the job may make by itself after a failed one."""


@final
@dataclass(slots=True)
class AttemptObserver:
    """Learns what the attempts made in its context did. Written by one thread at a time."""

    epoch: int | None = None
    """The last epoch that was claimed; None: nothing ran, the output was there."""


attempt_observer: ContextVar[AttemptObserver | None] = ContextVar("marin_trace_attempt_observer", default=None)
"""Who wants to know of attempts made in this context."""


@contextmanager
def observing(observer: AttemptObserver) -> Generator[None, None, None]:
    """Lets an observer learn of the attempts made in the block."""
    token = attempt_observer.set(observer)
    try:
        yield
    finally:
        attempt_observer.reset(token)
