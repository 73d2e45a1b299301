"""The two pools that bodies run on: daemon threads, and the caller's own thread.

`concurrent.futures.ThreadPoolExecutor` is not used, because the interpreter joins its threads at exit: a body that
ignores an interrupt would keep the process alive.
"""

import contextvars
import ctypes
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Any, TypeVar, final

from marin_trace.io import running_body

__all__ = ["BodyPool", "InlinePool", "ThreadPool"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


class BodyPool(Executor):
    """An executor whose calls run in a copy of the submitter's context, marked as running a body."""

    def interrupt(self) -> None:
        """Raises KeyboardInterrupt in every call that runs now, as soon as it executes Python code."""
        raise NotImplementedError

    def owns(self, future: Future[Any]) -> bool:
        """Whether a future is of a call that was submitted here."""
        return isinstance(future, _Call)


@final
class _Call(Future[T]):
    """The outcome of a call on one of these pools."""


@final
class InlinePool(BodyPool):
    """Runs each call at once in the caller's thread, so that ``breakpoint()``, profilers and Ctrl-C work in a body."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Runs the call and returns its outcome. KeyboardInterrupt goes through to the caller."""
        future: Future[T] = _Call()
        try:
            future.set_result(contextvars.copy_context().run(_as_body, fn, *args, **kwargs))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the future's outcome
            future.set_exception(error)
        return future

    def interrupt(self) -> None:
        """Nothing runs beside the caller."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - Executor's
        """Nothing to end."""


@final
class _OfThread(threading.local):
    """What a pool's thread does between two calls."""

    is_telling: bool = False
    """It tells an outcome: what is submitted meanwhile, in this thread, it may run next."""
    next: Callable[[], None] | None = None


@final
class ThreadPool(BodyPool):
    """Daemon threads, made as they are needed, that end when the pool is shut down.

    A call that is submitted by a done-callback of another runs next in the same thread: to hand it to another thread
    takes longer (165 µs were measured) than many a step.
    """

    def __init__(self, max_threads: int) -> None:
        self._max_threads = max_threads
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._threads: list[threading.Thread] = []
        self._busy: set[int] = set()
        self._here = _OfThread()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Queues the call; a thread is made for it if none is idle and the bound allows."""
        future: Future[T] = _Call()
        context = contextvars.copy_context()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                self._rest()
                return
            # Idle before the outcome is known, or the submitter's next call would be given a new thread.
            try:
                result = context.run(_as_body, fn, *args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is the future's outcome
                self._rest()
                self._tell(future.set_exception, error)
            else:
                self._rest()
                self._tell(future.set_result, result)

        with self._lock:
            # Only while nobody else has counted on this thread, which is idle already.
            if self._here.is_telling and self._here.next is None and self._idle > 0:
                self._here.next = call
                self._idle -= 1
                return future
            self._calls.put(call)
            if self._idle > 0:
                self._idle -= 1
            elif len(self._threads) < self._max_threads:
                self._start_thread()
        return future

    def interrupt(self) -> None:
        """See `BodyPool`. A call that blocks in C is reached when it returns to Python."""
        with self._lock:
            for identifier in self._busy:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(identifier), ctypes.py_object(KeyboardInterrupt)
                )

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - Executor's
        """Ends the threads once they are idle.

        Args:
            wait: Block until they have ended.
            cancel_futures: Not supported: the runner queues nothing that it does not want.
        """
        with self._lock:
            threads = list(self._threads)
        for _ in threads:
            self._calls.put(None)
        if wait:
            for thread in threads:
                thread.join()

    def _start_thread(self) -> None:
        name = f"marin-trace-body-{len(self._threads)}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        identifier = threading.get_ident()
        try:
            while (call := self._next_call()) is not None:
                with self._lock:
                    self._busy.add(identifier)
                call()
                del call  # what the future holds must not live on in an idle thread
        except KeyboardInterrupt:  # meant for a body that had just ended: the run is over
            logger.debug(f"{threading.current_thread().name} was interrupted between two bodies")

    def _next_call(self) -> Callable[[], None] | None:
        call, self._here.next = self._here.next, None
        return self._calls.get() if call is None else call

    def _tell(self, settle: Callable[[T], None], outcome: T) -> None:
        self._here.is_telling = True
        try:
            settle(outcome)
        finally:
            self._here.is_telling = False

    def _rest(self) -> None:
        with self._lock:
            self._busy.discard(threading.get_ident())
            self._idle += 1


def _as_body(fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    running_body.set(True)
    return fn(*args, **kwargs)
