"""The process of a local job: reads a call from its standard input, makes it, and leaves what it raised in a file."""

import io
import logging
import os
import pickle
import signal
import sys
import traceback
from types import FrameType
from typing import Final

from marin_trace.io import own_process_log, running_body
from marin_trace.workers.outcome import OutOfTime, packed_error, raisable

__all__ = ["LOG_POINTER", "TIMEOUT_SIGNAL", "main"]

logger = logging.getLogger(__name__)

LOG_POINTER: Final = "attempt-log"
"""File beside the job's log that names the log of the attempt, where its output went from then on."""


TIMEOUT_SIGNAL: Final = signal.SIGALRM
"""Ends a job that is out of time; what it has started and does not know of this is ended as well."""


def main() -> int:
    """Runs the job; the exit code is 0 unless the call raised."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(TIMEOUT_SIGNAL, _end_late)
    outcome_path = sys.argv[1]
    # Whole lines reach the log even if the process is killed.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    own_process_log.set(os.path.join(os.path.dirname(outcome_path), LOG_POINTER))
    try:
        # The pipe comes from our own parent.
        entrypoint = pickle.loads(sys.stdin.buffer.read())  # noqa: S301
        running_body.set(True)
        entrypoint()
    except BaseException as error:  # noqa: BLE001 - whatever it is, the launcher is told
        traceback.print_exc()
        _leave(raisable(error), outcome_path)
        return 1
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    # As Ctrl-C does: the step unwinds and releases its claim.
    raise KeyboardInterrupt(f"signal {number}")


def _end_late(number: int, frame: FrameType | None) -> None:
    raise OutOfTime("it took longer than its timeout")


def _leave(error: Exception, path: str) -> None:
    content = packed_error(error)
    if content is None:
        return
    temporary = f"{path}.tmp"
    with open(temporary, "wb") as stream:
        stream.write(content)
    os.replace(temporary, path)


if __name__ == "__main__":
    sys.exit(main())
