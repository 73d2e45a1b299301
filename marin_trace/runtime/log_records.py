"""The records of the attempt log, and where each lies.

The log of an output is a set of small write-once files in ``<output>/.executor/``, numbered by epoch: ``000001.claim``
opens an epoch, ``000001.end`` closes it. A record's ``write_id`` is unique to its writer and kind: who finds a file
that it meant to create compares it, and so tells its own write, whose answer was lost, from somebody else's.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, cast, final

from marin_trace.errors import ControlFileError, explain

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

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_LOG_DIRECTORY = ".executor"
_STATUS_TOKEN = ".executor_status"  # noqa: S105 - a file name
_FOREIGN_LOCK = ".executor_status.lock"

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
        return _dump(
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
        try:
            record = _mapping(json.loads(content))
            job = record["job"]
            return cls(
                epoch=int(record["epoch"]),
                nonce=str(record["nonce"]),
                host=str(record["host"]),
                pid=int(record["pid"]),
                process_nonce=str(record["process_nonce"]),
                lease_s=float(record["lease_s"]),
                claimed_at=str(record["claimed_at"]),
                run_id=record["run_id"],
                rerun_of=record["rerun_of"],
                job=job and JobIdentity(str(job["name"]), str(job["cluster"]), str(job["digest"])),
            )
        except _CORRUPT as error:
            raise _corrupt(content, path, error) from error


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
        return _dump(
            {
                "write_id": self.write_id,
                "nonce": self.nonce,
                "attempt": self.attempt,
                "host": self.host,
                "pid": self.pid,
                "process_nonce": self.process_nonce,
            }
        )

    @classmethod
    def from_bytes(cls, content: bytes, path: str) -> "StartRecord":
        """Reads the file.

        Raises:
            ControlFileError: It is no start.
        """
        try:
            record = _mapping(json.loads(content))
            return cls(
                nonce=str(record["nonce"]),
                attempt=str(record["attempt"]),
                host=str(record["host"]),
                pid=int(record["pid"]),
                process_nonce=str(record["process_nonce"]),
            )
        except _CORRUPT as error:
            raise _corrupt(content, path, error) from error


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
        return _dump({"nonce": self.nonce, "seq": self.seq, "by": self.by, "tried_at": self.tried_at})


@final
@dataclass(frozen=True, slots=True)
class CancelRecord:
    """``NNNNNN.cancel``: a request to the owner."""

    by: str
    """Who asks, for people: user, host and process."""
    why: str

    def to_bytes(self) -> bytes:
        """The file's content."""
        return _dump({"by": self.by, "why": self.why})

    @classmethod
    def from_bytes(cls, content: bytes, path: str) -> "CancelRecord":
        """Reads the file.

        Raises:
            ControlFileError: It is no request.
        """
        try:
            record = _mapping(json.loads(content))
            return cls(by=str(record["by"]), why=str(record["why"]))
        except _CORRUPT as error:
            raise _corrupt(content, path, error) from error


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
        error = self.error
        return _dump(
            {
                "epoch": self.epoch,
                "kind": self.kind.value,
                "write_id": self.write_id,
                "nonce": self.nonce,
                "ended_at": self.ended_at,
                "record": dict(self.record),
                "inputs": dict(self.inputs),
                "manifest": self.manifest,
                "error": error
                and {
                    "type": error.type,
                    "message": error.message,
                    "phase": error.phase.value,
                    "traceback": error.traceback,
                },
            }
        )

    @classmethod
    def from_bytes(cls, content: bytes, path: str) -> "EndRecord":
        """Reads the file.

        Raises:
            ControlFileError: It is no end.
        """
        try:
            record = _mapping(json.loads(content))
            error = record["error"]
            return cls(
                epoch=int(record["epoch"]),
                kind=EndKind(record["kind"]),
                nonce=str(record["nonce"]),
                ended_at=str(record["ended_at"]),
                record=_mapping(record["record"]),
                inputs={path: int(epoch) for path, epoch in _mapping(record["inputs"]).items()},
                manifest=record["manifest"],
                error=error and _failure(error),
            )
        except _CORRUPT as error:
            raise _corrupt(content, path, error) from error


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

    @staticmethod
    def has_cancel(names: Sequence[str], epoch: int) -> bool:
        """Whether a listing shows a request to cancel an epoch."""
        return f"{epoch:06d}.cancel" in names

    @staticmethod
    def last_epoch(names: Sequence[str]) -> tuple[int, bool]:
        """The highest epoch that a listing shows, and whether it has an end; (0, False) where there is no log.

        Args:
            names: Sorted: the decisive one is among the last, since numbers have six digits and an end comes after its
                claim.
        """
        for name in reversed(names):
            if name.endswith((".end", ".claim")):
                number, _, kind = name.partition(".")
                if number.isdecimal() and kind in ("end", "claim"):
                    return int(number), kind == "end"
        return 0, False


def status_word(content: bytes) -> str:
    """What a status token says: a bare word, or the last of the events that a still older system wrote as JSON lines.

    Returns:
        The word; the text as it is where it is neither.
    """
    text = content.decode(errors="replace").strip()
    last = text.rpartition("\n")[2]
    if not last.startswith("{"):
        return text
    try:
        event = _mapping(json.loads(last))
    except (ValueError, TypeError, RecursionError):  # somebody else's file: what it means is not known
        return text
    return str(event.get("status", text))


def _dump(record: dict[str, Any]) -> bytes:
    return _ENCODER.encode(record).encode()


_CORRUPT: Final = (KeyError, TypeError, ValueError, AttributeError)
"""What parsing a file raises that is not what it should be."""


def _corrupt(content: bytes, path: str, error: Exception) -> ControlFileError:
    return ControlFileError(
        explain(
            f"control file {path} is truncated or corrupt",
            facts={"size": f"{len(content)} bytes", "problem": f"{type(error).__name__}: {error}"},
            hint="restore it from a backup, or move the whole output away: the step is then built again",
        )
    )


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, found {type(value).__name__}")
    return cast("dict[str, Any]", value)


def _failure(record: dict[str, Any]) -> StepFailure:
    return StepFailure(
        type=str(record["type"]),
        message=str(record["message"]),
        phase=FailurePhase(record["phase"]),
        traceback=str(record["traceback"]),
    )
