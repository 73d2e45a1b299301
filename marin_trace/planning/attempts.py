"""The attempts at one output, as its log tells them, and what they printed.

Reads: one listing, and one batch of claims and ends. A control file that is damaged is told with its attempt and hides
no other.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from marin_trace.errors import ControlFileError
from marin_trace.planning.standing import error_line
from marin_trace.runtime.log_records import AttemptLog, ClaimRecord, EndKind, EndRecord
from marin_trace.storage.control_store import patient_store_for

__all__ = ["AttemptTold", "LogFile", "attempt_json", "log_files", "read_attempts"]

_NEWEST: Final = 20
_LOG_NAME: Final = re.compile(r"(?P<epoch>[0-9]{6,})\.log(?:-(?P<rank>[0-9]+))?")


@final
@dataclass(frozen=True, slots=True)
class LogFile:
    """What one process of an attempt printed and logged."""

    epoch: int
    rank: int
    """In its gang; 0 where there is none."""
    path: str


@final
@dataclass(frozen=True, slots=True)
class AttemptTold:
    """One attempt."""

    epoch: int
    claim: ClaimRecord | None
    end: EndRecord | None
    logs: tuple[LogFile, ...] = ()
    problem: str | None = None
    """What cannot be read of it, in a line."""

    @property
    def outcome(self) -> str:
        """In a word: ``success``, ``failed``, ``released``, ``fenced``, or ``open``."""
        return "open" if self.end is None else self.end.kind.value.lower()

    @property
    def detail(self) -> str:
        """What it ended of, in a line."""
        if self.problem is not None:
            return self.problem
        if self.end is None or self.end.error is None:
            return ""
        will_retry = self.end.kind is EndKind.RELEASED
        return f"{error_line(self.end.error)}{' (to be tried again)' if will_retry else ''}"


def log_files(names: Sequence[str], log: AttemptLog) -> dict[int, tuple[LogFile, ...]]:
    """What a listing of an attempt log's directory shows of logs, by epoch; ranks in order."""
    found: defaultdict[int, list[LogFile]] = defaultdict(list)
    for name in names:
        matched = _LOG_NAME.fullmatch(name)
        if matched is not None:
            epoch = int(matched["epoch"])
            found[epoch].append(LogFile(epoch, int(matched["rank"] or 0), f"{log.directory}/{name}"))
    return {epoch: tuple(sorted(files, key=lambda file: file.rank)) for epoch, files in sorted(found.items())}


def read_attempts(output_path: str, *, newest: int = _NEWEST) -> list[AttemptTold]:
    """The newest attempts at an output, the newest last; none where there is no log.

    Raises:
        StorageError: The store cannot be read.
    """
    log = AttemptLog(output_path)
    store = patient_store_for(output_path)
    names = store.list(log.directory)
    last, _ = AttemptLog.last_epoch(names)
    epochs = range(max(1, last - newest + 1), last + 1)
    logs = log_files(names, log)
    claims = store.get_many([log.claim(epoch) for epoch in epochs])
    ends = store.get_many([log.end(epoch) for epoch in epochs])
    return [
        _told(log, epoch, claim, end, logs.get(epoch, ()))
        for epoch, claim, end in zip(epochs, claims, ends, strict=True)
    ]


def _told(
    log: AttemptLog, epoch: int, claim: bytes | None, end: bytes | None, logs: tuple[LogFile, ...]
) -> AttemptTold:
    try:
        return AttemptTold(
            epoch,
            None if claim is None else ClaimRecord.from_bytes(claim, log.claim(epoch)),
            None if end is None else EndRecord.from_bytes(end, log.end(epoch)),
            logs,
        )
    except ControlFileError as error:
        return AttemptTold(epoch, None, None, logs, str(error).partition("\n")[0])


def attempt_json(attempt: AttemptTold) -> dict[str, Any]:
    """As a JSON object."""
    claim, end = attempt.claim, attempt.end
    error = end.error if end is not None else None
    return {
        "attempt": attempt.epoch,
        "outcome": None if attempt.problem else attempt.outcome,
        "claimed_at": claim and claim.claimed_at,
        "ended_at": end and end.ended_at,
        "host": claim and claim.host,
        "pid": claim and claim.pid,
        "job": claim and claim.job and claim.job.name,
        "run_id": claim and claim.run_id,
        "error": error and {"type": error.type, "phase": error.phase.value, "message": error.message},
        "logs": [file.path for file in attempt.logs],
        "problem": attempt.problem,
    }
