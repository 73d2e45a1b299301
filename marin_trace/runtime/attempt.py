"""One attempt at one output: claiming an epoch, and ending it in the order that the protocol demands."""

import logging
import os
import socket
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, assert_never, final

from marin_trace.errors import (
    MarinTraceError,
    PreviousTaskFailedError,
    RunError,
    StepAlreadyDone,
    StepHeldElsewhere,
    StorageError,
    WorkerError,
    explain,
)
from marin_trace.runtime.clock import boottime
from marin_trace.runtime.driver import Driver
from marin_trace.runtime.liveness import leave_claim_open, process_nonce
from marin_trace.runtime.log_records import (
    AttemptLog,
    ClaimRecord,
    EndKind,
    EndRecord,
    FailurePhase,
    JobIdentity,
    StepFailure,
)
from marin_trace.runtime.operations import Act, FinishingAct, Program
from marin_trace.runtime.options import AttemptOptions
from marin_trace.runtime.protocol import (
    HEARTBEAT_FRACTION,
    AlreadyDone,
    Claimed,
    ClaimOutcome,
    ClaimPolicy,
    EngineSilent,
    FailedBefore,
    Held,
    Sighting,
    check_not_ended,
    commit,
    end_attempt,
    finish,
    patience_after_failure,
    release,
    require_lease,
)
from marin_trace.safe_text import redact_text
from marin_trace.storage.control_store import patient_store_for
from marin_trace.storage.files import delete_files, list_files

__all__ = [
    "Attempt",
    "ClaimMemory",
    "attempt_of",
    "check_inputs_unchanged",
    "draft_claim",
    "empty_output",
    "failure_of",
    "last_epoch_of",
    "previous_failure",
    "traceback_of",
    "utc_now",
]

logger = logging.getLogger(__name__)

_TRACEBACK_CHARACTERS: Final = 8_000
"""What is kept of a traceback: enough for some 80 frames, little enough for a control file."""
_MESSAGE_CHARACTERS: Final = 100_000
"""What is kept of a message: some hold the whole of what they complain of."""


@final
@dataclass(frozen=True, slots=True)
class Attempt:
    """A claim that this process holds."""

    driver: Driver
    """Answers `ReadLease` for it, and what `finish` asks to be done."""
    log: AttemptLog
    claimed: Claimed

    @property
    def claim(self) -> ClaimRecord:
        """The claim."""
        return self.claimed.claim

    @property
    def epoch(self) -> int:
        """The epoch that it owns."""
        return self.claimed.claim.epoch

    def lease_check(self) -> Callable[[], None]:
        """What `marin_trace.io.check_lease` calls in this body: a look at the lease, and at the log now and then."""
        period = self.claim.lease_s * HEARTBEAT_FRACTION
        end, due = self._end(EndKind.SUCCESS), boottime() + period

        def check() -> None:
            nonlocal due
            self.driver.run(require_lease(self.log, end))
            if boottime() < due:
                return
            due = boottime() + period
            self.driver.run(check_not_ended(self.log, self.epoch))

        return check

    def commit(self, *, record: Mapping[str, Any], inputs: Mapping[str, int]) -> None:
        """Ends the epoch as SUCCESS. Everything that belongs to the output has been written.

        Raises:
            LeaseLostError: Somebody else has ended the epoch.
        """
        self.driver.run(commit(self.log, self._end(EndKind.SUCCESS, record=record, inputs=inputs)))

    def finish(
        self,
        acts: Mapping[FinishingAct, Callable[[], Any]],
        *,
        record: Mapping[str, Any],
        inputs: Mapping[str, int],
    ) -> None:
        """What follows the body's return, in the protocol's order, and the commit at its end.

        Args:
            acts: What to do for each act; the manifest's returns its digest.
            record: Stored in the end.
            inputs: The epoch of each input when the body began, by output path.

        Raises:
            LeaseLostError: The lease is lost, or somebody else has ended the epoch: nothing is committed.
            Exception: What an act raises.
        """
        driver = self.driver.answering({Act: lambda operation: acts[operation.what]()})
        driver.run(finish(self.log, self._end(EndKind.SUCCESS, record=record, inputs=inputs)))

    def end_as_failed(self, failure: StepFailure, *, retried: bool, record: Mapping[str, Any]) -> bool:
        """Ends the epoch as FAILED, or as RELEASED with its error if the attempt will be retried.

        Returns:
            Whether it may be retried: somebody may have asked for its end.
        """
        if not retried:
            failed = self._end(EndKind.FAILED, record=record, error=failure)
            self._end_somehow(end_attempt(self.log, failed, patience_s=self._patience_s()))
            return False
        released = self._end(EndKind.RELEASED, record=record, error=failure)
        standing = self._end_somehow(release(self.log, released, patience_s=self._patience_s()))
        return standing is not None and standing.kind is EndKind.RELEASED

    def release(self, failure: StepFailure | None = None) -> bool:
        """Ends the epoch as RELEASED: no verdict on the step. As FAILED where somebody asked for its end.

        Returns:
            Whether it has ended: a store that does not answer leaves it open.
        """
        released = self._end(EndKind.RELEASED, error=failure)
        return self._end_somehow(release(self.log, released, patience_s=self._patience_s())) is not None

    def _end(
        self,
        kind: EndKind,
        *,
        record: Mapping[str, Any] | None = None,
        inputs: Mapping[str, int] | None = None,
        error: StepFailure | None = None,
    ) -> EndRecord:
        return EndRecord(self.epoch, kind, self.claimed.attempt, utc_now(), record or {}, inputs or {}, error=error)

    def _patience_s(self) -> float:
        return self.driver.run(patience_after_failure(self.claimed.attempt))

    def _end_somehow(self, program: Program[EndRecord]) -> EndRecord | None:
        # The step's own exception is on its way to the user: a store that fails as well must not replace it.
        try:
            return self.driver.run(program)
        except StorageError as error:
            leave_claim_open()
            logger.error(f"{self.log.output_path}: attempt {self.epoch} could not be ended: {error}")  # noqa: TRY400
            return None


@final
@dataclass(frozen=True, slots=True)
class ClaimMemory:
    """What a claimant remembers of outputs that others hold, by output path. For one thread an output at a time."""

    seen: dict[str, Sighting] = field(default_factory=dict[str, Sighting])
    """What the last look saw."""
    waited_for: dict[str, int] = field(default_factory=dict[str, int])
    """The epoch that was first seen held by another."""

    def policy(self, output_path: str, options: AttemptOptions) -> ClaimPolicy:
        """What may be done about an output."""
        return ClaimPolicy(
            force_run_failed=options.force_run_failed,
            rerun_of=options.rerun_of,
            waited_for=self.waited_for.get(output_path),
        )

    def remember(self, output_path: str, held: Held) -> None:
        """Keeps what a look at a held output has seen."""
        self.seen[output_path] = held.seen
        self.waited_for.setdefault(output_path, held.claim.epoch)


def draft_claim(
    *, lease_s: float, run_id: str | None = None, rerun_of: int | None = None, job: JobIdentity | None = None
) -> ClaimRecord:
    """A claim by this process with a nonce of its own; its epoch is filled in by `claim_epoch`."""
    return ClaimRecord(
        epoch=0,
        nonce=os.urandom(12).hex(),
        host=_host(),
        pid=os.getpid(),
        process_nonce=process_nonce(),
        lease_s=lease_s,
        claimed_at=utc_now(),
        run_id=run_id,
        rerun_of=rerun_of,
        job=job,
    )


def attempt_of(driver: Driver, log: AttemptLog, outcome: ClaimOutcome) -> Attempt:
    """The attempt that a successful claim is.

    Raises:
        StepAlreadyDone: The output is finished.
        PreviousTaskFailedError: It failed before, and may not be run again.
        StepHeldElsewhere: A live attempt holds it.
    """
    if isinstance(outcome, Claimed):
        return Attempt(driver, log, outcome)
    raise _refusal(log.output_path, outcome)


def last_epoch_of(output_path: str) -> int:
    """The highest epoch of an output; 0 where it has no log. One request."""
    log = AttemptLog(output_path)
    return AttemptLog.last_epoch(patient_store_for(output_path).list(log.directory))[0]


def check_inputs_unchanged(output_path: str, inputs: Mapping[str, int]) -> None:
    """Looks whether an input was built again, or is being built again, while a body read it. One request for each.

    Args:
        output_path: Of the step that read them.
        inputs: The epoch of each when the body began, by output path.

    Raises:
        RunError: It names the input.
    """
    for path, epoch in inputs.items():
        # Epochs have no gaps: a later one exists if and only if the next one does.
        if patient_store_for(path).get(AttemptLog(path).claim(epoch + 1)) is not None:
            raise RunError(
                explain(
                    f"{path} was built again while {output_path} read it",
                    facts={"attempt that was read": epoch, "attempt now": last_epoch_of(path)},
                    hint="run again: what was made from the old input is not committed",
                )
            )


def empty_output(output_path: str) -> None:
    """Deletes the data of an output, by exact keys, and leaves its log. The caller holds the claim."""
    log = AttemptLog(output_path)
    kept = (f"{log.directory}/", log.status_token)
    delete_files([file.path for file in list_files(output_path) if not file.path.startswith(kept)])


def _refusal(output_path: str, outcome: AlreadyDone | Held | FailedBefore | EngineSilent) -> MarinTraceError:
    match outcome:
        case AlreadyDone():
            return StepAlreadyDone(explain(f"{output_path} is finished already (attempt {outcome.epoch})"))
        case Held():
            claim = outcome.claim
            owner = f"{claim.host}, pid {claim.pid}, since {claim.claimed_at}{_age_of(claim.claimed_at)}"
            return StepHeldElsewhere(
                explain(f"{output_path} is being built by another attempt", facts={"owner": owner})
            )
        case FailedBefore():
            return previous_failure(output_path, outcome)
        case EngineSilent():
            return WorkerError(
                explain(f"{outcome.job.cluster} does not answer: {output_path} was not claimed for a job")
            )
        case _:
            assert_never(outcome)


def _age_of(moment: str) -> str:
    """How long ago something was, in words, by a clock that need not be the one that told its time."""
    try:
        began = datetime.fromisoformat(moment)
    except ValueError:  # it is for people alone: whoever wrote it may have written anything
        return ""
    seconds = max(0, round((datetime.now(UTC) - began).total_seconds()))
    if seconds < 120:
        return f" ({seconds} s ago)"
    return f" ({seconds // 60} min ago)" if seconds < 7200 else f" ({seconds // 3600} h ago)"


def previous_failure(output_path: str, outcome: FailedBefore) -> PreviousTaskFailedError:
    """The error of a claimant that may not run a failed step again."""
    why = outcome.failure.headline if outcome.failure else "no error was recorded"
    if outcome.while_waiting:
        summary = f"{output_path} failed in another launcher while this one waited for it: {why}"
        hint = "run again to try once more"
    else:
        summary = f"{output_path} failed before (attempt {outcome.epoch}): {why}"
        hint = "--force_run_failed true runs it again"
    return PreviousTaskFailedError(explain(summary, hint=hint))


def failure_of(error: BaseException, phase: FailurePhase) -> StepFailure:
    """An exception as the log keeps it."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    # Redacted before it is cut: half a URL hides its credentials from whoever looks for them.
    message = redact_text(_message_of(error))[:_MESSAGE_CHARACTERS]
    return StepFailure(name, message, phase, traceback_of(error)[-_TRACEBACK_CHARACTERS:])


def traceback_of(error: BaseException) -> str:
    """The traceback of an exception as it is kept: without the credentials of URLs and what has a secret name."""
    return redact_text("".join(traceback.format_exception(error)))


def utc_now() -> str:
    """The time for people to read; nothing is decided by it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _message_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as inner:  # noqa: BLE001 - an exception whose str() fails must still be recorded
        return f"(its message raised {type(inner).__name__})"


@cache
def _host() -> str:
    return socket.gethostname()
