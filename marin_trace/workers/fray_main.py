"""The process of a job on an Iris cluster: what marin-fray calls there, around the call that the launcher sent.

It tells the process its place in its gang, in variables of our own; makes the call; and, whatever that raises, leaves
it where the launcher looks. marin-fray's jobs return nothing, and Iris tells the last line of an error at most.
"""

import logging
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final, final

from marin_trace.errors import JobFailedError, WorkerError, explain
from marin_trace.io import running_body
from marin_trace.storage.files import delete_file, write_bytes
from marin_trace.workers.gang import GangSeat
from marin_trace.workers.local_main import TIMEOUT_SIGNAL
from marin_trace.workers.outcome import OutOfTime, packed_error, raisable, sealed

__all__ = ["JobPayload", "Place", "outcome_path", "run_job"]

logger = logging.getLogger(__name__)

_SECRETS_VARIABLE: Final = "RIGGING_SECRETS_DIR"
"""Where Iris says that it has put a job's secrets, one file for each."""
_GRACE_S: Final = 5.0
"""Between asking a call that is out of time to end, on which a step releases its claim, and ending its process."""


@final
@dataclass(frozen=True, slots=True)
class JobPayload:
    """What the launcher sends along with a job."""

    name: str
    call: bytes
    """What to call, pickled: read only when everything else is in place, so that its failure is told like any other."""
    secrets: tuple[str, ...] = ()
    """Environment variables whose values came as files."""
    outcomes: str | None = None
    """Where to leave what the call raises; None: the launcher does with what Iris tells."""
    key: bytes = field(default=b"", repr=False)
    """What is left is sealed with it."""
    timeout: float | None = None
    """Seconds that one attempt may take."""


@final
@dataclass(frozen=True, slots=True)
class Place:
    """Which process of which attempt this one is."""

    rank: int
    size: int
    attempt: int

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Place":
        """As Iris says in ``IRIS_TASK_ID`` (``/user/job/RANK:ATTEMPT``) and ``IRIS_NUM_TASKS``.

        Raises:
            WorkerError: This is no process of an Iris job.
        """
        task, _, attempt = environ.get("IRIS_TASK_ID", "").rpartition("/")[2].partition(":")
        if not task.isdigit():
            raise WorkerError(explain(f"IRIS_TASK_ID={environ.get('IRIS_TASK_ID')!r} names no task of an Iris job"))
        return cls(int(task), int(environ.get("IRIS_NUM_TASKS", "1")), int(attempt or 0))


def outcome_path(outcomes: str, name: str, rank: int) -> str:
    """Where a process of a job leaves what its call raised."""
    return f"{outcomes}/{name}/{rank}"


def run_job(payload: JobPayload) -> None:
    """Makes the call of a job. Raises what it raises; whatever does not end a process as failed is made to."""
    # Iris's main script has no guard: a process that the call spawns would run it, and so the whole job, once more.
    vars(sys.modules["__main__"]).pop("__file__", None)
    deadline = _Deadline(payload)
    try:
        signal.signal(signal.SIGTERM, _interrupt)
        signal.signal(TIMEOUT_SIGNAL, deadline.interrupt)
        place = Place.of(os.environ)
        _forget_earlier_outcome(payload, place)
        deadline.begin()
        _set_environment(payload, place)
        call = pickle.loads(payload.call)  # noqa: S301 - it comes from our own launcher
        running_body.set(True)
        call()
    except BaseException as error:
        told = deadline.failure if deadline.is_past else raisable(error)
        _leave(told, payload)
        if isinstance(error, Exception):
            raise
        # sys.exit(0) would count as success.
        traceback.print_exc()
        sys.exit(1)
    finally:
        deadline.end()


def _interrupt(number: int, frame: FrameType | None) -> None:
    # As Ctrl-C does: the step unwinds and releases its claim.
    raise KeyboardInterrupt(f"signal {number}")


def _leave(error: Exception, payload: JobPayload) -> None:
    content = packed_error(error)
    if payload.outcomes is None or content is None:
        return
    try:
        write_bytes(
            outcome_path(payload.outcomes, payload.name, Place.of(os.environ).rank), sealed(content, payload.key)
        )
    except (OSError, WorkerError) as second:
        logger.warning(f"the launcher will not see the {type(error).__name__} itself: {second}")


def _forget_earlier_outcome(payload: JobPayload, place: Place) -> None:
    """An attempt that was preempted may have left one."""
    if place.attempt > 0 and payload.outcomes is not None:
        logger.warning(f"{payload.name} is begun again, attempt {place.attempt + 1}: its machine was taken away")
        delete_file(outcome_path(payload.outcomes, payload.name, place.rank))


@final
class _Deadline:
    """Ends a call that takes too long: Iris itself looks at its timeouts too rarely."""

    def __init__(self, payload: JobPayload) -> None:
        self._payload = payload
        self._is_over = threading.Event()
        self.is_past = False

    @property
    def failure(self) -> JobFailedError:
        """What the launcher is told then."""
        return JobFailedError(
            explain(f"{self._payload.name} took longer than its timeout of {self._payload.timeout:g} s")
        )

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Ends the call, in the main thread."""
        raise OutOfTime(f"it took longer than its timeout of {self._payload.timeout:g} s")

    def begin(self) -> None:
        """The clock runs from here."""
        if self._payload.timeout is not None:
            threading.Thread(target=self._watch, name="marin-trace-timeout", daemon=True).start()

    def end(self) -> None:
        """The call has ended."""
        self._is_over.set()

    def _watch(self) -> None:
        if self._is_over.wait(self._payload.timeout):
            return
        self.is_past = True
        os.kill(os.getpid(), TIMEOUT_SIGNAL)
        if not self._is_over.wait(_GRACE_S):
            _leave(self.failure, self._payload)
            os._exit(1)


# The environment of the call.


def _set_environment(payload: JobPayload, place: Place) -> None:
    directory = Path(os.environ.get(_SECRETS_VARIABLE, "/run/rigging/secrets"))
    for name in payload.secrets:
        os.environ[name] = (directory / name).read_text(encoding="utf-8")
    # Where rank 0 can be reached the processes tell each other through the step's log.
    seat = GangSeat(place.rank, place.size, f"{payload.name}:{place.attempt}", os.environ.get("IRIS_ADVERTISE_HOST"))
    os.environ.update(seat.to_environment() if place.size > 1 else {})
