"""What is known of outputs before a run: one batch for a whole graph, at most two requests for a finished step."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, final

from marin_trace.runtime.liveness import owner_is_gone
from marin_trace.runtime.log_records import AttemptLog, ClaimRecord, EndKind, EndRecord, StartRecord, StepFailure
from marin_trace.runtime.protocol import LogState, decisive_file, owner_of, state_of
from marin_trace.storage.control_store import is_object_store, patient_store_for

__all__ = [
    "ADOPTED_EPOCH",
    "ADOPTED_FROM",
    "StatusKind",
    "StepOwner",
    "StepStatus",
    "adopted_outputs",
    "read_start",
    "read_status",
    "read_statuses",
]

ADOPTED_FROM: Final = "adopted_from"
"""In the record of an end: the output path whose data is read instead; see `marin_trace.runtime.adoption`."""
ADOPTED_EPOCH: Final = "adopted_epoch"
"""In the record of an end: the epoch of that output when it was adopted."""


class StatusKind(StrEnum):
    """The state of an output."""

    MISSING = "MISSING"
    """Never built, as far as anybody recorded."""
    SUCCESS = "SUCCESS"
    """Committed."""
    LEGACY_SUCCESS = "LEGACY_SUCCESS"
    """Finished by an older system: its status token says so, and there is no log."""
    FAILED = "FAILED"
    """The last attempt failed."""
    RUNNING = "RUNNING"
    """An attempt is open, and its owner is not known to be dead."""
    ABANDONED = "ABANDONED"
    """An attempt is open, and its owner, on this machine, is dead: it is taken over at once."""
    RELEASED = "RELEASED"
    """The last attempt was given up without a verdict (interrupted, or about to be retried)."""
    FENCED = "FENCED"
    """The last attempt's owner was gone; it was sealed, and nobody has gone on yet."""


@final
@dataclass(frozen=True, slots=True)
class StepOwner:
    """Who runs a step."""

    host: str
    pid: int
    since: str
    """UTC, ISO 8601, by the owner's clock."""
    job: str | None = None
    """The name of the job that runs it, on a cluster or in a process of its own; None: the launcher itself does."""

    def __str__(self) -> str:
        return f"{self.host} (pid {self.pid}) since {self.since}"


@final
@dataclass(frozen=True, slots=True)
class StepStatus:
    """What the store says of one output."""

    kind: StatusKind = StatusKind.MISSING
    epoch: int = 0
    """The highest epoch; 0 where there is no log."""
    error: StepFailure | None = None
    """Of a FAILED attempt, and of a RELEASED one that was to be retried."""
    owner: StepOwner | None = None
    """Of an open attempt."""
    record: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the step's owner stored in the end of the epoch (fingerprint, digests)."""
    inputs: Mapping[str, int] = field(default_factory=dict[str, int])
    """The epoch of each input when this one was built, by output path."""
    ended_at: str | None = None
    """UTC, ISO 8601, by the owner's clock."""
    foreign_run: bool = False
    """An older system's RUNNING token or lock file lies there. Not honoured: worth a warning."""

    @property
    def is_finished(self) -> bool:
        """Whether the output may be read."""
        return self.kind in (StatusKind.SUCCESS, StatusKind.LEGACY_SUCCESS)

    @property
    def fingerprint(self) -> str | None:
        """The recipe that the output was built by, where it was recorded."""
        return self.record.get("fingerprint")

    @property
    def adopted_from(self) -> str | None:
        """The output whose data is this one's, where the step did not build it: adopted; its own path: in place."""
        source = self.record.get(ADOPTED_FROM)
        return source if isinstance(source, str) and source else None

    @property
    def adopted_epoch(self) -> int:
        """The epoch that the adopted output had then; 0 where it kept no log."""
        epoch = self.record.get(ADOPTED_EPOCH)
        return epoch if isinstance(epoch, int) else 0


def adopted_outputs(statuses: Mapping[str, StepStatus]) -> dict[str, str]:
    """The finished outputs whose data lies elsewhere, with where: what is read in their place."""
    return {
        path: status.adopted_from
        for path, status in statuses.items()
        if status.is_finished and status.adopted_from and status.adopted_from != path
    }


def read_statuses(output_paths: Iterable[str], *, concurrency: int = 256) -> dict[str, StepStatus]:
    """Reads the status of many outputs in one batch.

    Args:
        output_paths: Full paths, in any order; duplicates are read once.
        concurrency: Requests in flight, where a request takes long; local disks are read by the calling thread.

    Returns:
        The status of each path, in the order given.

    Raises:
        StorageError: A log cannot be read.
        ControlFileError: A control file is corrupt.

    Example:
        >>> read_statuses(["/tmp/no/such/output"])["/tmp/no/such/output"].kind.value
        'MISSING'
    """
    paths = list(dict.fromkeys(output_paths))
    if not any(map(is_object_store, paths)) or concurrency <= 1:
        return {path: read_status(path) for path in paths}
    with ThreadPoolExecutor(min(concurrency, len(paths)), thread_name_prefix="marin-trace-status") as pool:
        return dict(zip(paths, pool.map(read_status, paths), strict=True))


def read_status(output_path: str) -> StepStatus:
    """Reads the status of one output: two requests; more where it was built again or an older system may be at work."""
    store, log = patient_store_for(output_path), AttemptLog(output_path)
    if not is_object_store(output_path):
        # Where looking for a file costs a tenth of listing a directory: most outputs have one epoch, which has ended.
        # Epochs have no gaps, and their claims and ends are never deleted.
        content = store.get(log.end(1))
        if content is not None and store.get(log.claim(2)) is None:
            return _status_of_end(EndRecord.from_bytes(content, log.end(1)))
    names = store.list(log.directory)
    return _status_of(state_of(log, names, store.get(decisive_file(log, names))), log)


def _status_of(state: LogState, log: AttemptLog) -> StepStatus:
    if state.claim is not None:
        return _open_status(state.claim, log)
    if state.end is None:
        return _status_without_log(state, log)
    return _status_of_end(state.end)


def _status_of_end(end: EndRecord) -> StepStatus:
    return StepStatus(
        kind=StatusKind(end.kind.value),
        epoch=end.epoch,
        error=end.error,
        record=end.record,
        inputs=end.inputs,
        ended_at=end.ended_at,
    )


def _open_status(claim: ClaimRecord, log: AttemptLog) -> StepStatus:
    start = None if claim.job is None else read_start(log, claim.epoch)
    owner = owner_of(claim, start)
    process = owner or claim
    is_sealed = start is not None and start.is_seal
    is_gone = is_sealed or (owner is not None and owner_is_gone(owner))
    return StepStatus(
        kind=StatusKind.ABANDONED if is_gone else StatusKind.RUNNING,
        epoch=claim.epoch,
        owner=StepOwner(process.host, process.pid, claim.claimed_at, claim.job and claim.job.name),
    )


def read_start(log: AttemptLog, epoch: int) -> StartRecord | None:
    """The start of a job's epoch, or its seal; None: the job has not begun. One request."""
    path = log.start(epoch)
    content = patient_store_for(path).get(path)
    return None if content is None else StartRecord.from_bytes(content, path)


def _status_without_log(state: LogState, log: AttemptLog) -> StepStatus:
    match state.token:
        case EndKind.SUCCESS.value:
            return StepStatus(StatusKind.LEGACY_SUCCESS)
        case EndKind.FAILED.value:
            return StepStatus(StatusKind.FAILED)
        case "RUNNING":
            return StepStatus(foreign_run=True)
        case _:
            return StepStatus(foreign_run=patient_store_for(log.foreign_lock).get(log.foreign_lock) is not None)
