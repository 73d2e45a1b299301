"""What an attempt prints and logs, kept beside its output as ``.executor/NNNNNN.log``; it is shown as before as well.

For a step in a thread of the launcher this is Python-level: ``sys.stdout``, ``sys.stderr`` and the root logger are
routed by context for as long as a run lasts (`routed_output`), so that steps side by side do not mix. What a body's
own threads print is kept where they were given its context; what C code or child processes write is not. For a step
in a process of its own everything is kept: the process's file descriptors point to the log while the attempt lasts.

The file is made with the first word: a step that says nothing costs nothing. A log that cannot be written is said
once and fails no step.
"""

import contextlib
import errno
import io
import logging
import os
import stat
import sys
import tempfile
import threading
import traceback
from collections.abc import Generator, Iterable
from contextvars import ContextVar
from typing import IO, Any, Final, cast, final

from marin_trace.errors import StorageError
from marin_trace.io import own_process_log
from marin_trace.runtime.log_records import AttemptLog
from marin_trace.safe_text import redact_text
from marin_trace.storage.control_store import patient_store_for
from marin_trace.storage.files import is_local, local_path
from marin_trace.storage.patient_store import PATIENCE_S

__all__ = ["attempt_log_path", "captured", "existing_log", "routed_output"]

logger = logging.getLogger(__name__)

_LIMIT_CHARACTERS: Final = 100_000_000
"""Of one attempt in a thread; what comes after is shown and not kept."""
_LOOK_PATIENCE_S: Final = 2.0
"""The runner waits meanwhile."""
_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def attempt_log_path(log: AttemptLog, epoch: int, *, rank: int = 0) -> str:
    """Where the output of an attempt is kept: of a gang's processes but the first in files of their own."""
    return f"{log.directory}/{epoch:06d}.log" + (f"-{rank}" if rank else "")


def existing_log(output_path: str, epoch: int | None) -> str | None:
    """The log of an attempt, if it has said anything."""
    if epoch is None:
        return None
    path = attempt_log_path(AttemptLog(output_path), epoch)
    if is_local(path):
        return path if os.path.isfile(local_path(path)) else None
    directory, _, name = path.rpartition("/")
    try:
        names = patient_store_for(path, patience_s=_LOOK_PATIENCE_S).list(directory)
    except StorageError as error:
        # The step's own error is on its way: where more is written down is little beside it.
        logger.warning(f"whether there is a log {path} is not known: {error}")
        return None
    return path if name in names else None


@contextlib.contextmanager
def captured(
    log: AttemptLog, epoch: int, *, rank: int = 0, patience_s: float = PATIENCE_S
) -> Generator[None, None, None]:
    """Keeps what is printed and logged in the block, and the traceback of what it raises.

    Args:
        log: Of the output; the caller holds the claim.
        epoch: Of the caller's attempt.
        rank: Of the caller in its gang.
        patience_s: For how long a store that is away is asked to keep it.
    """
    path = attempt_log_path(log, epoch, rank=rank)
    pointer = own_process_log.get()
    if pointer is not None:
        with _redirected(local_path(path), pointer) if is_local(path) else _uploaded(path, pointer, patience_s):
            yield
        return
    sink = _FileSink(local_path(path)) if is_local(path) else _StoreSink(path, patience_s)
    token = _sink.set(sink)
    try:
        yield
    except Exception:
        sink.write(redact_text(traceback.format_exc()))
        raise
    finally:
        _sink.reset(token)
        sink.close()


@contextlib.contextmanager
def routed_output() -> Generator[None, None, None]:
    """Lets `captured` blocks in any thread receive what is printed and logged in the meantime. May be nested."""
    with _routing_lock:
        _routings.append(_Routing() if not _routings else None)
    try:
        yield
    finally:
        with _routing_lock:
            # The first routing is undone by whoever leaves last: runs may overlap in any order.
            routing = _routings.pop() if len(_routings) > 1 else _routings.pop(0)
            if routing is not None:
                routing.undo()


class _Sink:
    """Where the words of one attempt go. Thread-safe: a body may print from several threads."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._left = _LIMIT_CHARACTERS
        self._stream: IO[str] | None = None
        self._is_closed = False

    def write(self, text: str) -> None:
        """Appends text; after the end of the attempt nothing is kept."""
        with self._lock:
            if self._is_closed or not text:
                return
            try:
                if self._stream is None:
                    self._stream = self._open()
                self._stream.write(text[: self._left])
                self._left -= len(text)
                if self._left <= 0:
                    self._stream.write("\n[the rest is not kept: this log is full]\n")
                    self._is_closed = True
            except OSError as error:
                self._is_closed = True
                self._tell(error)

    def close(self) -> None:
        """Ends the attempt."""
        with self._lock:
            self._is_closed = True
            if self._stream is None:
                return
            try:
                self._finish(self._stream)
            except OSError as error:
                self._tell(error)

    def _open(self) -> IO[str]:
        raise NotImplementedError

    def _finish(self, stream: IO[str]) -> None:
        raise NotImplementedError

    def _tell(self, error: OSError) -> None:
        token = _sink.set(None)  # this very message must not come back here
        try:
            logger.warning(f"the log {self._name} cannot be written: {error}")
        finally:
            _sink.reset(token)


@final
class _FileSink(_Sink):
    """A file on a disk of this machine: it can be followed while the step runs."""

    def _open(self) -> IO[str]:
        descriptor = _opened_log(self._name)
        return open(descriptor, "a", buffering=1, encoding="utf-8", errors="backslashreplace")

    def _finish(self, stream: IO[str]) -> None:
        stream.close()


@final
class _StoreSink(_Sink):
    """A file in a store that cannot append: it appears when the attempt ends."""

    def __init__(self, name: str, patience_s: float) -> None:
        super().__init__(name)
        self._patience_s = patience_s

    def _open(self) -> IO[str]:
        return io.StringIO()

    def _finish(self, stream: IO[str]) -> None:
        content = cast("io.StringIO", stream).getvalue().encode("utf-8", "backslashreplace")
        try:
            patient_store_for(self._name, patience_s=self._patience_s).put(self._name, content)
        except StorageError as error:
            self._tell(error)


_sink: ContextVar[_Sink | None] = ContextVar("marin_trace_attempt_log", default=None)
"""Where this context's words are kept."""


@final
class _RoutedStream:
    """Stands for ``sys.stdout`` or ``sys.stderr``: shows as before, and keeps what an attempt writes."""

    def __init__(self, original: Any) -> None:
        self._original = original
        self._is_shown = original is not None

    def write(self, text: str) -> int:
        """Keeps and shows. Whoever reads the terminal's end may go away (a closed pipe): no step fails for that."""
        sink = _sink.get()
        if sink is None:
            return self._original.write(text) if self._original is not None else len(text)
        sink.write(text)
        if self._is_shown:
            try:
                self._original.write(text)
            except BrokenPipeError:
                self._is_shown = False
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes each."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Shows what is buffered."""
        if not self._is_shown:
            return
        try:
            self._original.flush()
        except BrokenPipeError:
            if _sink.get() is None:
                raise
            self._is_shown = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


@final
class _RoutedHandler(logging.Handler):
    """Keeps what an attempt logs; the program's own handlers show it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps it, if this context runs an attempt."""
        sink = _sink.get()
        if sink is not None:
            sink.write(f"{self.format(record)}\n")


@final
class _Routing:
    """The streams and the handler that are in place."""

    def __init__(self) -> None:
        self._stdout, self._stderr = sys.stdout, sys.stderr
        self._own_stdout: Any = _RoutedStream(self._stdout)
        self._own_stderr: Any = _RoutedStream(self._stderr)
        sys.stdout, sys.stderr = self._own_stdout, self._own_stderr
        self._handler = _RoutedHandler()
        self._handler.setFormatter(logging.Formatter(_FORMAT))
        logging.getLogger().addHandler(self._handler)

    def undo(self) -> None:
        """Puts back what was there, but for what a body has replaced since."""
        if sys.stdout is self._own_stdout:
            sys.stdout = self._stdout
        if sys.stderr is self._own_stderr:
            sys.stderr = self._stderr
        logging.getLogger().removeHandler(self._handler)


_routing_lock = threading.Lock()
_routings: list[_Routing | None] = []
"""One entry for each open `routed_output`; the streams are replaced once."""


@contextlib.contextmanager
def _uploaded(path: str, pointer: str, patience_s: float) -> Generator[None, None, None]:
    """As `_redirected`, for a store that cannot append: the file appears when the attempt ends."""
    with tempfile.NamedTemporaryFile(prefix="marin-trace-log-") as file:
        try:
            with _redirected(file.name, pointer):
                yield
        finally:
            content = file.read(_LIMIT_CHARACTERS)
            if content:
                try:
                    patient_store_for(path, patience_s=patience_s).put(path, content)
                except StorageError as error:
                    logger.warning(f"the log {path} cannot be written: {error}")


@contextlib.contextmanager
def _redirected(path: str, pointer: str) -> Generator[None, None, None]:
    """Points this process's output to a file, children's included, and leaves a note where that is."""
    with open(pointer, "w", encoding="utf-8") as note:
        note.write(path)
    _flush()
    saved = [(number, os.dup(number)) for number in (1, 2)]
    try:
        target = _opened_log(path)
        for number, _ in saved:
            os.dup2(target, number)
        os.close(target)
        try:
            yield
        except Exception:
            sys.stderr.write(redact_text(traceback.format_exc()))
            raise
        finally:
            _flush()
    finally:
        for number, original in saved:
            os.dup2(original, number)
            os.close(original)


def _opened_log(path: str) -> int:
    """A log, to be appended to: never through a link, and never a pipe that nobody reads."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", path)
    return descriptor


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a full disk, a stream that the body has closed
            stream.flush()
