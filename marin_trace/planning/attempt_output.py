"""What attempts print, read while they run.

On a disk of this machine a log grows line by line; in an object store it appears when the attempt has ended. Which of
the two it is does not matter here: a log is read on from where the last look ended, until its attempt is decided.
"""

import os
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Final, final

from marin_trace.planning.attempts import LogFile, log_files
from marin_trace.runtime.log_records import AttemptLog
from marin_trace.runtime.status import StatusKind, StepStatus, read_status
from marin_trace.storage.control_store import is_object_store, patient_store_for
from marin_trace.storage.files import is_local, local_path

__all__ = ["Followed", "LogText", "follow", "read_log"]

_LOCAL_PERIOD_S: Final = 0.3
_REMOTE_PERIOD_S: Final = 5.0
_LOOKS_FOR_RETRY: Final = 10
"""After an attempt that is to be tried again: its launcher claims the next at once, or never does."""


@final
@dataclass(frozen=True, slots=True)
class LogText:
    """A piece of what a process of an attempt printed."""

    epoch: int
    rank: int
    is_gang: bool
    """Whether other processes of the attempt have printed something too."""
    text: str


Followed = Generator[LogText, None, StepStatus]
"""Pieces as they come; returns the status at which the step's attempt was decided, or its owner found dead."""


def read_log(file: LogFile, *, since: int = 0) -> bytes:
    """What a log holds after its first bytes; nothing where it is gone."""
    if not is_local(file.path):
        return (patient_store_for(file.path).get(file.path) or b"")[since:]
    try:
        with open(local_path(file.path), "rb") as stream:
            stream.seek(since, os.SEEK_SET)
            return stream.read()
    except FileNotFoundError:
        return b""


def follow(output_path: str, epoch: int, *, is_pinned: bool, sleep: Callable[[float], object] = time.sleep) -> Followed:
    """What an attempt has printed and prints until it is decided. Blocks between looks.

    Args:
        output_path: Of the step.
        epoch: The attempt to begin with.
        is_pinned: Only this one; else one that is to be tried again is followed into the next.
        sleep: Waits between two looks.

    Yields:
        Pieces, of the processes of a gang in whole lines.

    Raises:
        StorageError: The store cannot be read.
    """
    log = AttemptLog(output_path)
    period_s = _REMOTE_PERIOD_S if is_object_store(output_path) else _LOCAL_PERIOD_S
    reader = _AttemptReader(epoch)
    looks_left = _LOOKS_FOR_RETRY
    while True:
        status = read_status(output_path)
        names = patient_store_for(output_path).list(log.directory)
        is_over = status.epoch > reader.epoch or status.kind is not StatusKind.RUNNING
        yield from reader.news(log_files(names, log).get(reader.epoch, ()), is_over=is_over)
        may_go_on = not is_pinned and is_over
        if may_go_on and status.epoch > reader.epoch:
            reader, looks_left = _AttemptReader(reader.epoch + 1), _LOOKS_FOR_RETRY
            continue
        is_retried = status.kind is StatusKind.RELEASED and status.error is not None
        if is_over and not (may_go_on and is_retried and looks_left):
            return status
        looks_left -= is_over
        sleep(period_s)


@final
@dataclass(slots=True)
class _AttemptReader:
    """How far the logs of one attempt were read."""

    epoch: int
    read: dict[int, int] = field(default_factory=dict[int, int])
    """Bytes, by rank, that were given out."""

    def news(self, files: Sequence[LogFile], *, is_over: bool) -> Generator[LogText, None, None]:
        is_gang = len(files) > 1
        for file in files:
            since = self.read.get(file.rank, 0)
            content = read_log(file, since=since)
            if not is_over:
                content = _whole(content, lines=is_gang)
            if content:
                self.read[file.rank] = since + len(content)
                yield LogText(file.epoch, file.rank, is_gang, content.decode(errors="replace"))


def _whole(content: bytes, *, lines: bool) -> bytes:
    """What may be shown of text whose rest is still to come: whole lines, or at least whole characters."""
    if lines:
        return content[: content.rfind(b"\n") + 1]
    start = max(len(content) - 3, 0)
    for index in range(len(content) - 1, start - 1, -1):
        if content[index] >= 0xC0:  # the first byte of a character of several
            length = 2 + (content[index] >= 0xE0) + (content[index] >= 0xF0)
            return content if index + length <= len(content) else content[:index]
        if content[index] < 0x80:  # a character of its own
            break
    return content
