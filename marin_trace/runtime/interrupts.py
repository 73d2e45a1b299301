"""Signals that end a run as Ctrl-C does: SIGINT, SIGTERM and SIGHUP raise in the main thread.

From then on a store that is silent is waited for no longer than two seconds: this process is to end.

A signal that was ignored when the run began stays ignored (``nohup``, a background job of a shell script). Only a
program's own main thread can do this; elsewhere, and in notebooks, nothing is changed.
"""

import signal
import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, Final, final

from marin_trace.storage.control_store import hurried_stores

__all__ = ["Interrupted", "exit_code_of", "interrupting_signals", "is_ending"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_is_ending = threading.Event()
"""Set from the first signal to the end of the block."""
_EXIT_BASE: Final = 128
"""Shells report a process that a signal ended as this and the signal's number."""


@final
class Interrupted(KeyboardInterrupt):
    """A signal that asks for the end. A KeyboardInterrupt, so that bodies and libraries unwind as they do for one."""

    signal_number: int = signal.SIGINT


@contextmanager
def interrupting_signals() -> Generator[None, None, None]:
    """In the block, the signals raise `Interrupted` in the main thread; afterwards they do what they did."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[signal.Signals, Any] = {}
    with ExitStack() as ending:

        def interrupt(number: int, frame: FrameType | None) -> None:
            # Here, and not where it is caught: on the way there, threads that read from a silent store are joined.
            if not _is_ending.is_set():
                _is_ending.set()
                ending.callback(_is_ending.clear)
                ending.enter_context(hurried_stores())
            error = Interrupted(signal.Signals(number).name)
            error.signal_number = number
            raise error

        for number in _SIGNALS:
            # None: installed by C code, which could not be put back.
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, interrupt)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def is_ending() -> bool:
    """Whether a signal has asked this process to end: it will, and what it holds is left to its keeper."""
    return _is_ending.is_set()


def exit_code_of(error: KeyboardInterrupt) -> int:
    """130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP: as shells report it."""
    number = error.signal_number if isinstance(error, Interrupted) else signal.SIGINT
    return _EXIT_BASE + number
