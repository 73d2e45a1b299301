"""A few threads take turns at many talks that mostly wait, so that what waits holds no thread.

A talk is a generator that yields how many seconds it has nothing to do, and does in between what takes moments: a look
at a store, a question to an engine. Hundreds of jobs in flight are hundreds of talks on sixteen threads.
"""

import heapq
import itertools
import logging
import os
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, final

from marin_trace.runtime.clock import boottime

__all__ = ["Talk", "Turns", "shared_turns"]

logger = logging.getLogger(__name__)

_THREADS: Final = 16
"""As many requests of waiting talks are under way at a time."""


@final
class Talk:
    """A talk that was begun. It settles itself; whoever began it may rouse it."""

    def __init__(self, turns: "Turns", steps: Generator[float, None, Any], settle: Callable[[Any], None]) -> None:
        self._turns = turns
        self.steps = steps
        self.settle = settle
        self.due: float | None = None
        """When it goes on, by this process's clock; None: it is at work, about to be, or over."""
        self.is_roused = False

    def rouse(self) -> None:
        """Has it go on at once, or once more without a rest if it is at work. Any thread; nothing once it is over."""
        self._turns.rouse(self)


@final
class Turns:
    """Gives talks their turns. Thread-safe."""

    def __init__(self, max_threads: int = _THREADS) -> None:
        # The interpreter joins these threads at exit: a turn is moments long.
        self._pool = ThreadPoolExecutor(max_threads, thread_name_prefix="marin-trace-turns")
        self._changed = threading.Condition()
        self._resting: list[tuple[float, int, Talk]] = []
        self._sequence = itertools.count()
        self._clock: threading.Thread | None = None

    def begin(self, steps: Generator[float, None, Any], settle: Callable[[Any], None]) -> Talk:
        """Begins a talk; returns at once.

        Args:
            steps: Yields seconds to rest, returns when it is over. One turn at a time, each on any thread.
            settle: Called once when it is over: with what it raised, else with None.
        """
        talk = Talk(self, steps, settle)
        self._call(talk)
        return talk

    def rouse(self, talk: Talk) -> None:
        """See `Talk.rouse`."""
        with self._changed:
            if talk.due is None:
                talk.is_roused = True
            else:
                self._call(talk)

    def _call(self, talk: Talk) -> None:
        talk.due = None
        try:
            self._pool.submit(self._take_turn, talk)
        except RuntimeError:
            # The interpreter exits: who still waited for this talk is told nothing more either.
            logger.debug("a talk was left at exit")

    def _take_turn(self, talk: Talk) -> None:
        try:
            seconds = next(talk.steps)
        except StopIteration:
            talk.settle(None)
        except BaseException as error:  # noqa: BLE001 - a thread's exception would be lost; the settlement carries it
            talk.settle(error)
        else:
            self._rest(talk, seconds)

    def _rest(self, talk: Talk, seconds: float) -> None:
        with self._changed:
            if talk.is_roused or seconds <= 0:
                talk.is_roused = False
                self._call(talk)
                return
            talk.due = boottime() + seconds
            heapq.heappush(self._resting, (talk.due, next(self._sequence), talk))
            if self._clock is None:
                self._clock = threading.Thread(target=self._watch_time, name="marin-trace-turns-clock", daemon=True)
                self._clock.start()
            elif self._resting[0][2] is talk:
                self._changed.notify()

    def _watch_time(self) -> None:
        with self._changed:
            while True:
                now = boottime()
                while self._resting and self._resting[0][0] <= now:
                    due, _, talk = heapq.heappop(self._resting)
                    # One that was roused is at work, or rests again until another time.
                    if talk.due == due:
                        self._call(talk)
                self._changed.wait(self._resting[0][0] - now if self._resting else None)


_shared: Turns | None = None
_making = threading.Lock()


def shared_turns() -> Turns:
    """This process's."""
    global _shared  # noqa: PLW0603 - threads are the process's, like its file descriptors
    with _making:
        if _shared is None:
            _shared = Turns()
        return _shared


def _forget_after_fork() -> None:
    global _shared, _making  # noqa: PLW0603 - a forked child has none of its parent's threads
    _shared = None
    _making = threading.Lock()


os.register_at_fork(after_in_child=_forget_after_fork)
