"""Experiment files under a command: the file runs as ``__main__``, and what it asks ``executor_main`` for is caught.

The file has ``sys.argv``, ``sys.path[0]`` and ``__main__`` as if it had been started itself, so that its functions have
the identity that they have in a run. What it prints goes to stderr: stdout is the command's. What it does beside
calling ``executor_main`` is done.
"""

import logging
import os
import sys
import threading
import traceback
import types
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from contextvars import copy_context
from importlib.machinery import SourceFileLoader

from marin_trace.cli.request import RunRequest, listening
from marin_trace.errors import ExperimentError, explain
from marin_trace.ir.location import is_own_file
from marin_trace.runtime.prefix import use_prefix

__all__ = ["requested_by"]

logger = logging.getLogger(__name__)


@contextmanager
def requested_by(file: str, argv: Sequence[str], *, replaces_script: bool) -> Generator[RunRequest, None, None]:
    """What an experiment file asks ``executor_main`` for. Runs no step.

    Within the block ``__main__`` is the file's module and the prefix is the experiment's: what looks at its functions
    and outputs belongs there. Not for two threads at a time.

    Args:
        file: A Python file.
        argv: What follows its name: the experiment's own flags and those of ``executor_main``.
        replaces_script: Whether this process is the command's own; then the directory that Python put first on
            ``sys.path`` for the command gives way to the file's, else that goes before it.

    Yields:
        The request.

    Raises:
        ExperimentError: There is no such file, it fails, or it does not call ``executor_main`` exactly once.
        SystemExit: The file ended so before it called ``executor_main``: it cannot understand its flags, or has told
            what they are.
    """
    code = _compiled(file)
    requests: list[RunRequest] = []
    with _as_script(file, argv, replaces_script=replaces_script) as module:
        _run_script(file, code, module, requests)
        request = _only_one(file, requests)
        with use_prefix(request.prefix):
            yield request


def _compiled(file: str) -> types.CodeType:
    try:
        with open(file, "rb") as stream:
            source = stream.read()
    except OSError as error:
        hint = "marin-trace COMMAND FILE.py --flags-of-the-experiment"
        raise ExperimentError(explain(f"cannot read the experiment {file}: {error.strerror}", hint=hint)) from None
    try:
        return compile(source, os.path.abspath(file), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:  # a null byte is a ValueError up to Python 3.11
        line = getattr(error, "lineno", None)
        raise ExperimentError(explain(f"{file} is no Python: {error}", at=line and f"{file}:{line}")) from None


@contextmanager
def _as_script(file: str, argv: Sequence[str], *, replaces_script: bool) -> Generator[types.ModuleType, None, None]:
    module = types.ModuleType("__main__")
    path = os.path.abspath(file)
    vars(module).update(__file__=path, __builtins__=__builtins__, __cached__=None, __spec__=None)
    module.__loader__ = SourceFileLoader("__main__", path)
    before = (sys.modules["__main__"], sys.argv, sys.path)
    first = [] if sys.flags.safe_path else [os.path.dirname(os.path.realpath(file))]
    rest = sys.path[1:] if replaces_script and not sys.flags.safe_path else sys.path
    sys.modules["__main__"], sys.argv, sys.path = module, [file, *argv], [*first, *rest]
    try:
        yield module
    finally:
        sys.modules["__main__"], sys.argv, sys.path = before


def _run_script(file: str, code: types.CodeType, module: types.ModuleType, requests: list[RunRequest]) -> None:
    is_help = "-h" in sys.argv or "--help" in sys.argv

    def run() -> None:
        # In a context of its own: what the file sets is gone with it.
        with listening(requests.append), nullcontext() if is_help else redirect_stdout(sys.stderr):
            known = set(threading.enumerate())
            try:
                exec(code, vars(module))  # noqa: S102 - it is what the user asked for
            finally:
                # As at the end of a script: what calls executor_main in a thread must be heard, and run nothing.
                for thread in set(threading.enumerate()) - known:
                    if not thread.daemon:
                        thread.join()

    try:
        copy_context().run(run)
    except SystemExit as end:
        if not requests:
            raise
        if end.code:
            logger.warning(f"{file} ended with {end.code!r} after executor_main")
    except Exception as error:
        if requests:
            # It wanted the results of a run; what it asked for is known all the same.
            logger.warning(f"{file} went on after executor_main and failed: {type(error).__name__}: {error}")
            return
        _print_from(error, code.co_filename)
        summary = f"{file} failed before it called executor_main: {type(error).__name__}"
        raise ExperimentError(explain(summary, at=_line_of(error, file, code.co_filename))) from error


def _print_from(error: Exception, file: str) -> None:
    """Prints a traceback as Python does for a script: it begins in the script."""
    shown = traceback.TracebackException.from_exception(error)
    frames = shown.stack
    first = next((index for index, frame in enumerate(frames) if frame.filename == file), 0)
    kept = [frame for frame in frames[first:] if not is_own_file(frame.filename)]
    shown.stack = traceback.StackSummary.from_list(kept)
    print("".join(shown.format()), end="", file=sys.stderr)


def _line_of(error: Exception, shown: str, file: str) -> str | None:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"{shown}:{lines[-1]}" if lines else None


def _only_one(file: str, requests: Sequence[RunRequest]) -> RunRequest:
    if len(requests) == 1:
        return requests[0]
    if not requests:
        raise ExperimentError(
            explain(
                f"{file} never called executor_main",
                hint='if __name__ == "__main__": executor_main(steps=[entry()])',
            )
        )
    raise ExperimentError(
        explain(
            f"{file} called executor_main {len(requests)} times, and a command looks at one call",
            facts=[str(request.location) for request in requests],
            hint="executor_main(steps=[first(), second()])",
        )
    )
