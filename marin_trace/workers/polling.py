"""`JobPoller`: one thread that asks an engine about all its jobs, in batches and less and less often.

For engines that are only asked and never tell. What it learns it hands to each job; who waits for a job waits for
that, and asks nobody. An engine that does not answer is said, now and then for as long as that lasts, and asked again:
its jobs keep the status that they had. The thread lives as long as there is a job to ask about.
"""

import logging
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, final

from marin_trace.workers.client import JobStatus

__all__ = ["JobPoller", "PolledJob"]

logger = logging.getLogger(__name__)

FIRST_PAUSE_S: Final = 0.05
"""Between the first two questions about a job, and after its status has changed."""
LONGEST_PAUSE_S: Final = 10.0
_GROWTH: Final = 1.5
"""A job of a few seconds is then noticed at most half its length late."""
_REMINDER_S: Final = 600.0
"""Between two warnings of an engine that does not answer."""


class PolledJob(Protocol):
    """A job that learns its status."""

    def learn(self, status: JobStatus) -> bool:
        """Takes a status note of. Called on the poller's thread.

        Returns:
            Whether the job is over: it is not asked about again.
        """
        ...


@final
@dataclass(slots=True)
class _Watched:
    job: "weakref.ref[PolledJob]"
    """A job that nobody holds any more is not asked about."""
    due: float
    pause: float = FIRST_PAUSE_S
    status: JobStatus | None = None


@final
class JobPoller:
    """Asks about jobs. Thread-safe."""

    def __init__(self, name: str, look: Callable[[Sequence[str]], Mapping[str, JobStatus]]) -> None:
        """Makes a poller, without a thread yet.

        Args:
            name: Of the engine, for messages.
            look: The statuses of the jobs of these ids; may block for long, and may raise what the engine raises.
        """
        self._name = name
        self._look = look
        self._watched: dict[str, _Watched] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._silent_since: float | None = None
        self._said_at = 0.0

    def watch(self, job_id: str, job: PolledJob) -> None:
        """Asks about a job from now on, until it is over."""
        with self._changed:
            self._watched[job_id] = _Watched(weakref.ref(job), time.monotonic())
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"marin-trace-asks-{self._name}", daemon=True)
                self._thread.start()
            self._changed.notify()

    def hurry(self, job_id: str) -> None:
        """Asks about a job at once: something has been done to it."""
        with self._changed:
            watched = self._watched.get(job_id)
            if watched is not None:
                watched.due, watched.pause = time.monotonic(), FIRST_PAUSE_S
                self._changed.notify()

    def _run(self) -> None:
        while (due := self._await_due()) is not None:
            try:
                statuses = self._look(due)
            except Exception as error:  # noqa: BLE001 - each engine has errors of its own; none may end the questions
                self._postpone(due, error)
            else:
                self._note_answer()
                self._tell(due, statuses)

    def _await_due(self) -> list[str] | None:
        """The ids of jobs to ask about, once one is due; None, and no thread, when there are none left."""
        with self._changed:
            while True:
                for job_id in [job_id for job_id, watched in self._watched.items() if watched.job() is None]:
                    del self._watched[job_id]
                if not self._watched:
                    self._thread = None
                    return None
                now = time.monotonic()
                earliest = min(watched.due for watched in self._watched.values())
                if earliest <= now:
                    # Those that are due soon come along: one question for many.
                    return [id_ for id_, watched in self._watched.items() if watched.due <= now + watched.pause / 2]
                self._changed.wait(min(earliest - now, LONGEST_PAUSE_S))

    def _note_answer(self) -> None:
        if self._silent_since is not None:
            logger.info(f"{self._name} tells about jobs again, after {time.monotonic() - self._silent_since:.0f} s")
        self._silent_since = None

    def _note_silence(self, jobs: int, error: Exception) -> None:
        now = time.monotonic()
        if self._silent_since is None:
            self._silent_since = now
            logger.warning(f"{self._name} does not tell about {jobs} jobs, and is asked again: {error}")
        elif now - self._said_at >= _REMINDER_S:
            lasts = f"{now - self._silent_since:.0f} s"
            logger.warning(f"{self._name} has not told about {jobs} jobs for {lasts}, whatever became of them: {error}")
        else:
            return
        self._said_at = now

    def _postpone(self, due: list[str], error: Exception) -> None:
        self._note_silence(len(due), error)
        with self._changed:
            for job_id in due:
                watched = self._watched.get(job_id)
                if watched is not None:
                    watched.pause = min(_GROWTH * watched.pause, LONGEST_PAUSE_S)
                    watched.due = time.monotonic() + watched.pause

    def _tell(self, due: list[str], statuses: Mapping[str, JobStatus]) -> None:
        for job_id in due:
            with self._changed:
                watched = self._watched.get(job_id)
            job = watched.job() if watched is not None else None
            if watched is None or job is None or job_id not in statuses:
                continue
            is_over = self._taught(job, job_id, statuses[job_id])
            with self._changed:
                if is_over and self._watched.get(job_id) is watched:
                    del self._watched[job_id]
                    continue
                is_same = statuses[job_id] is watched.status
                watched.status = statuses[job_id]
                watched.pause = min(_GROWTH * watched.pause, LONGEST_PAUSE_S) if is_same else FIRST_PAUSE_S
                watched.due = time.monotonic() + watched.pause

    def _taught(self, job: PolledJob, job_id: str, status: JobStatus) -> bool:
        try:
            return job.learn(status)
        except Exception:  # whoever was called back: the other jobs are told nevertheless
            logger.exception(f"{self._name}: what followed from job {job_id} being {status} failed")
            return status.is_over
