"""The records of the attempt log, and where each lies.

The log of an output is a set of small write-once files in ``<output>/.executor/``, numbered by epoch: ``000001.claim``
opens an epoch, ``000001.end`` closes it. A record's ``write_id`` is unique to its writer and kind: who finds a file
that it meant to create compares it, and so tells its own write, whose answer was lost, from somebody else's.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, final

from marin_trace.runtime.record_fields import (
    check_epoch,
    check_write_id,
    dumped,
    mapping,
    number_of_seconds,
    optional_count,
    optional_text,
    reading,
    shown,
    shown_lines,
    text,
    whole_number,
)
from marin_trace.storage.bounded import parsed_json

__all__ = [
    "LOCAL_CLUSTER",
    "AttemptLog",
    "CancelRecord",
    "ClaimRecord",
    "EndKind",
    "EndRecord",
    "FailurePhase",
    "HeartbeatRecord",
    "JobIdentity",
    "StartRecord",
    "StepFailure",
    "status_word",
]

_LOG_DIRECTORY = ".executor"
_STATUS_TOKEN = ".executor_status"  # noqa: S105 - a file name
_FOREIGN_LOCK = ".executor_status.lock"
_DECISIVE_FILE = re.compile(r"(?P<epoch>[0-9]{6}|[1-9][0-9]{6,8})\.(?P<kind>claim|end)")
"""As `AttemptLog.claim` and `AttemptLog.end` name them: nothing else opens or closes an epoch."""

LOCAL_CLUSTER: Final = "local"
"""Where jobs are processes of the launcher's own machine."""


class EndKind(StrEnum):
    """How an epoch ended. Stored."""

    SUCCESS = "SUCCESS"
    """The body ended, and what it returned was saved, by the owner of the claim."""
    FAILED = "FAILED"
    """The attempt failed, and nobody should repeat it without being told to."""
    RELEASED = "RELEASED"
    """Given up without a verdict: interrupted, or about to be retried."""
    FENCED = "FENCED"
    """Sealed by somebody else, because its owner is gone."""


class FailurePhase(StrEnum):
    """What an attempt was doing when it failed. Stored."""

    BODY = "body"
    SAVE = "save"
    COMMIT = "commit"
    JOB = "job"
    """The process or job that ran it went away without a word."""
    CANCEL = "cancel"
    """Somebody asked for its end."""


@final
@dataclass(frozen=True, slots=True)
class StepFailure:
    """Why an attempt failed, as far as text can say it."""

    type: str
    """Qualified name of the exception's class."""
    message: str
    """Its message."""
    phase: FailurePhase = FailurePhase.BODY
    traceback: str = ""
    """The tail of its traceback."""

    def to_json(self) -> dict[str, str]:
        """As it stands in a record."""
        return {
            "type": self.type,
            "message": self.message,
            "phase": self.phase.value,
            "traceback": self.traceback,
        }

    @classmethod
    def from_json(cls, value: object) -> "StepFailure | None":
        """Reads it, where there is one.

        Raises:
            KeyError, TypeError, ValueError: It is none.
        """
        if value is None:
            return None
        record = mapping(value)
        return cls(
            type=shown(record, "type"),
            message=shown_lines(record, "message"),
            phase=FailurePhase(text(record, "phase")),
            traceback=shown_lines(record, "traceback"),
        )

    @property
    def last_line(self) -> str:
        """``Type: last line of the message``, for a status line."""
        message = self.message.strip().splitlines()
        return f"{self.type.rpartition('.')[2]}: {message[-1]}" if message else self.type

    @property
    def headline(self) -> str:
        """``Type: first line of the message``; ours are complete with their first line alone."""
        message = self.message.strip().splitlines()
        return f"{self.type.rpartition('.')[2]}: {message[0]}" if message else self.type


@final
@dataclass(frozen=True, slots=True)
class JobIdentity:
    """The job that a claim was made for."""

    name: str
    """Unique to the claim."""
    cluster: str
    digest: str
    """Of fingerprint and function sources; never of pickled bytes, which differ between processes."""

    @property
    def is_below_launcher(self) -> bool:
        """Whether it is a process below its launcher, which carries the launcher's nonce and dies with it."""
        return self.cluster == LOCAL_CLUSTER


@final
@dataclass(frozen=True, slots=True)
class ClaimRecord:
    """``NNNNNN.claim``: somebody owns the epoch."""

    epoch: int
    nonce: str
    """Unique to the attempt."""
    host: str
    pid: int
    process_nonce: str
    """Names the owner's liveness file on its machine, see `marin_trace.runtime.liveness`."""
    lease_s: float
    """The owner's lease, which observers wait for."""
    claimed_at: str
    """UTC, ISO 8601; for people only."""
    run_id: str | None = None
    rerun_of: int | None = None
    """The committed epoch that this one was forced over."""
    job: JobIdentity | None = None

    @property
    def write_id(self) -> str:
        """Unique to the writer and to this kind of file."""
        return f"{self.nonce}:claim"

    def to_bytes(self) -> bytes:
        """The file's content."""
        return dumped(
            {
                "epoch": self.epoch,
                "write_id": self.write_id,
                "nonce": self.nonce,
                "host": self.host,
                "pid": self.pid,
                "process_nonce": self.process_nonce,
                "lease_s": self.lease_s,
                "claimed_at": self.claimed_at,
                "run_id": self.run_id,
                "rerun_of": self.rerun_of,
                "job": self.job and {"name": self.job.name, "cluster": self.job.cluster, "digest": self.job.digest},
            }
        )

    @classmethod
    def from_bytes(cls, content: bytes, path: str) -> "ClaimRecord":
        """Reads the file.

        Raises:
            ControlFileError: It is no claim.
        """
        with reading(content, path) as record:
            job = record["job"]
            claim = cls(
                epoch=check_epoch(whole_number(record, "epoch"), path),
                nonce=text(record, "nonce"),
                host=shown(record, "host"),
                pid=whole_number(record, "pid"),
                process_nonce=text(record, "process_nonce"),
                lease_s=number_of_seconds(record, "lease_s"),
                claimed_at=shown(record, "claimed_at"),
                run_id=optional_text(record, "run_id"),
                rerun_of=optional_count(record, "rerun_of"),
                job=None if job is None else _job(mapping(job)),
            )
            check_write_id(record, claim.write_id)
            return claim


@final
@dataclass(frozen=True, slots=True)
class StartRecord:
    """``NNNNNN.start``: the one attempt of a job that runs the body of its epoch, or a seal: nobody does."""

    nonce: str
    """Of the claim; of a seal, the sealer's."""
    attempt: str
    """Unique to the attempt of the job; empty: a seal."""
    host: str
    pid: int
    process_nonce: str
    """Names the liveness file of the job's process."""
    gang: str | None = None
    """Of a gang, whose first process this is: its `GangSeat.attempt`, or empty where that is unknown."""

    @property
    def is_seal(self) -> bool:
        """Whether nobody may run the body of this epoch."""
        return not self.attempt

    @property
    def write_id(self) -> str:
        """Unique to the writer and to this kind of file."""
        return f"{self.attempt or self.nonce}:{'start' if self.attempt else 'seal'}"

    def to_bytes(self) -> bytes:
        """The file's content."""
        return dumped(
            {
                "write_id": self.write_id,
                "nonce": self.nonce,
                "attempt": self.attempt,
                "host": self.host,
                "pid": self.pid,
                "process_nonce": self.process_nonce,
                **({} if self.gang is None else {"gang": self.gang}),
            }
        )

    @classmethod
    def from_bytes(cls, content: bytes, path: str) -> "StartRecord":
        """Reads the file.

        Raises:
            ControlFileError: It is no start.
        """
        with reading(content, path) as record:
            start = cls(
                nonce=text(record, "nonce"),
                attempt=text(record, "attempt"),
                host=shown(record, "host"),
                pid=whole_number(record, "pid"),
                process_nonce=text(record, "process_nonce"),
                gang=optional_text(record, "gang") if "gang" in record else None,
            )
            check_write_id(record, start.write_id)
            return start


@final
@dataclass(frozen=True, slots=True)
class HeartbeatRecord:
    """``NNNNNN.hb``: overwritten by whoever holds the claim. Only its changing matters, never what it says."""

    nonce: str
    """Of the claim."""
    seq: int
    by: str
    """Who beats: the attempt, or who adopted the claim of a job."""
    tried_at: float
    """By the sender's clock. It keeps any two requests from writing the same: one that is applied late, or that of a
    keeper which replaced another, would bring back what an observer saw long ago, and the claim would seem to have
    stood still since then."""

    def to_bytes(self) -> bytes:
        """The file's content."""
        return dumped({"nonce": self.nonce, "seq": self.seq, "by": self.by, "tried_at": self.tried_at})


@final
@dataclass(frozen=True, slots=True)
class CancelRecord:
    """``NNNNNN.cancel``: a request to the owner."""

    by: str
    """Who asks, for people: user, host and process."""
    why: str

    def to_bytes(self) -> bytes:
        """The file's content."""
        return dumped({"by": self.by, "why": self.why})

    @classmethod
    def from_bytes(cls, content: bytes, path: str) -> "CancelRecord":
        """Reads the file.

        Raises:
            ControlFileError: It is no request.
        """
        with reading(content, path) as record:
            return cls(by=shown(record, "by"), why=shown_lines(record, "why"))


@final
@dataclass(frozen=True, slots=True)
class EndRecord:
    """``NNNNNN.end``: the decision register of an epoch."""

    epoch: int
    kind: EndKind
    nonce: str
    """Of the attempt that commits or fails, or of the observer that seals."""
    ended_at: str
    """UTC, ISO 8601; for people only."""
    record: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the step's owner wants to find again (fingerprint, digests); opaque to the lock."""
    inputs: Mapping[str, int] = field(default_factory=dict[str, int])
    """The epoch of each input when the body began, by output path."""
    manifest: str | None = None
    """Digest of the manifest."""
    error: StepFailure | None = None

    @property
    def write_id(self) -> str:
        """Unique to the writer and to what it decides: an owner and its keeper may both mean to end an epoch."""
        return f"{self.nonce}:end:{self.kind}"

    def to_bytes(self) -> bytes:
        """The file's content."""
        return dumped(
            {
                "epoch": self.epoch,
                "kind": self.kind.value,
                "write_id": self.write_id,
                "nonce": self.nonce,
                "ended_at": self.ended_at,
                "record": dict(self.record),
                "inputs": dict(self.inputs),
                "manifest": self.manifest,
                "error": self.error and self.error.to_json(),
            }
        )

    @classmethod
    def from_bytes(cls, content: bytes, path: str) -> "EndRecord":
        """Reads the file.

        Raises:
            ControlFileError: It is no end.
        """
        with reading(content, path) as record:
            inputs = mapping(record["inputs"])
            end = cls(
                epoch=check_epoch(whole_number(record, "epoch"), path),
                kind=EndKind(text(record, "kind")),
                nonce=text(record, "nonce"),
                ended_at=shown(record, "ended_at"),
                record=_digests(mapping(record["record"])),
                inputs={path: whole_number(inputs, path) for path in inputs},
                manifest=optional_text(record, "manifest"),
                error=StepFailure.from_json(record["error"]),
            )
            check_write_id(record, end.write_id)
            if end.kind is EndKind.SUCCESS and end.error is not None:
                raise ValueError("it is a success with an error")
            return end


@final
@dataclass(frozen=True, slots=True)
class AttemptLog:
    """Where the control files of one output lie."""

    output_path: str

    @property
    def directory(self) -> str:
        """The directory of the log."""
        return f"{self.output_path}/{_LOG_DIRECTORY}"

    @property
    def status_token(self) -> str:
        """The derived token, for people and older tools; never read as truth where a log exists."""
        return f"{self.output_path}/{_STATUS_TOKEN}"

    @property
    def foreign_lock(self) -> str:
        """The lock file of older systems: never honoured, only told of."""
        return f"{self.output_path}/{_FOREIGN_LOCK}"

    def claim(self, epoch: int) -> str:
        """The file that opens an epoch."""
        return f"{self.output_path}/{_LOG_DIRECTORY}/{epoch:06d}.claim"

    def end(self, epoch: int) -> str:
        """The file that closes an epoch."""
        return f"{self.output_path}/{_LOG_DIRECTORY}/{epoch:06d}.end"

    def start(self, epoch: int) -> str:
        """The file by which one attempt of a job takes an epoch's body, or nobody does."""
        return f"{self.output_path}/{_LOG_DIRECTORY}/{epoch:06d}.start"

    def heartbeat(self, epoch: int) -> str:
        """The file that an owner overwrites as long as it lives."""
        return f"{self.output_path}/{_LOG_DIRECTORY}/{epoch:06d}.hb"

    def cancel(self, epoch: int) -> str:
        """The file that asks an owner to stop."""
        return f"{self.output_path}/{_LOG_DIRECTORY}/{epoch:06d}.cancel"

    def ready(self, epoch: int) -> str:
        """The file by which a gang's first process lets the others begin."""
        return f"{self.output_path}/{_LOG_DIRECTORY}/{epoch:06d}.ready"

    def done(self, epoch: int, rank: int) -> str:
        """The file by which another process of a gang says that its body has ended."""
        return f"{self.output_path}/{_LOG_DIRECTORY}/{epoch:06d}.done-{rank}"

    @staticmethod
    def has_cancel(names: Sequence[str], epoch: int) -> bool:
        """Whether a listing shows a request to cancel an epoch."""
        return f"{epoch:06d}.cancel" in names

    @staticmethod
    def ended_epochs(names: Sequence[str]) -> list[int]:
        """The epochs that a listing shows an end of, in order."""
        named = map(_DECISIVE_FILE.fullmatch, names)
        return sorted(int(match["epoch"]) for match in named if match is not None and match["kind"] == "end")

    @staticmethod
    def last_epoch(names: Sequence[str]) -> tuple[int, bool]:
        """The highest epoch that a listing shows, and whether it has an end; (0, False) where there is no log."""
        last, ended = 0, False
        for name in names:
            named = _DECISIVE_FILE.fullmatch(name)
            if named is None:
                continue
            epoch, kind = int(named["epoch"]), named["kind"]
            if epoch > last:
                last, ended = epoch, kind == "end"
            elif epoch == last and kind == "end":
                ended = True
        return last, ended


def status_word(content: bytes) -> str:
    """What a status token says: a bare word, or the last of the events that a still older system wrote as JSON lines.

    A line that was not written to its end, and one that is no event, say nothing: the one before counts.

    Returns:
        The word; the text as it is where it is neither.
    """
    token = content.decode("utf-8-sig", errors="replace").strip()
    for line in reversed(token.splitlines()):
        word = _word_of(line.strip())
        if word is not None:
            return word
    return token


def _word_of(line: str) -> str | None:
    """What one line of a status token says; None where that cannot be told."""
    if not line.startswith("{"):
        return line or None
    try:
        status = mapping(parsed_json(line.encode())).get("status")
    except (ValueError, TypeError):  # somebody else's file: what it means is not known
        return None
    return status if isinstance(status, str) else None


def _job(record: dict[str, Any]) -> JobIdentity:
    return JobIdentity(text(record, "name"), text(record, "cluster"), text(record, "digest"))


def _digests(record: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(record.get("fingerprint"), str | None):
        raise TypeError("the fingerprint is no text")
    return record
