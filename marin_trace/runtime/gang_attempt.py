"""A gang's attempt for real: what its first process does beside its own work, and all that another one does."""

import contextlib
import logging
import random
import socket
import time
from collections.abc import Callable, Generator, Iterable
from typing import Any, Final, final

from marin_trace.errors import JobFailedError, LeaseLostError, StorageError, explain
from marin_trace.io import GangMember, gang_membership, lease_check, running_body
from marin_trace.runtime.attempt import Attempt, failure_of
from marin_trace.runtime.capture import captured
from marin_trace.runtime.clock import boottime
from marin_trace.runtime.driver import Driver, driver_for
from marin_trace.runtime.executable import JobTicket
from marin_trace.runtime.gang import (
    Joined,
    Waiting,
    announce_ready,
    join_gang,
    leave_done,
    look_at_others,
    read_end,
)
from marin_trace.runtime.gang_records import DoneRecord, ReadyRecord
from marin_trace.runtime.job_protocol import Left
from marin_trace.runtime.keeper import HeldLease, forget_claim, hold_claim, ready_keeper
from marin_trace.runtime.log_records import AttemptLog, EndKind, FailurePhase
from marin_trace.runtime.protocol import LEASE_FRACTION, Claimed
from marin_trace.workers.gang import GangSeat

__all__ = ["GangLead", "run_member"]

logger = logging.getLogger(__name__)

_FIRST_LOOK_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 2.0
"""Between two looks of processes that wait for each other: nobody else works meanwhile."""


@final
class GangLead:
    """What the first process of a gang does for the others. Used by the attempt's thread."""

    def __init__(self, attempt: Attempt, seat: GangSeat) -> None:
        self._attempt = attempt
        self._seat = seat

    @contextlib.contextmanager
    def leading(self) -> Generator[None, None, None]:
        """Lets the others begin; the block is the body, and ends when theirs have ended too.

        Raises:
            JobFailedError: Another process's body has failed.
        """
        attempt = self._attempt
        ready = ReadyRecord(attempt.claimed.attempt, _free_address(self._seat.host))
        attempt.driver.run(announce_ready(attempt.log, attempt.claim, ready))
        token = gang_membership.set(GangMember(0, self._seat.size, ready.coordinator))
        try:
            yield
        except LeaseLostError:
            raise
        except BaseException as error:
            # An engine that ends a gang because of another process, or a collective that broke, is no cause.
            patience_s = 2 * self._seat.notice_s if isinstance(error, Exception) else 0.0
            try:
                self._await_others(patience_s, because=error)
            except StorageError as second:
                logger.warning(f"{attempt.log.output_path}: nothing is known of the gang's other processes: {second}")
            raise
        finally:
            gang_membership.reset(token)
        self._await_others(float("inf"))

    def _await_others(self, patience_s: float, because: BaseException | None = None) -> None:
        """Waits until the others have ended, and raises what one of them failed of.

        Where this process has failed, a lost one may be the cause: then the engine ends this one meanwhile, and begins
        the gang again. So it waits for those that have left nothing, until they had time to tell what they failed of.
        """
        attempt = self._attempt
        until = boottime() + patience_s
        for pause in _pauses(attempt.claim.lease_s):
            others = attempt.driver.run(look_at_others(attempt.log, attempt.claim, self._seat.size))
            is_settled = others.left == 0 or boottime() >= until
            if others.failure is not None and (is_settled or because is None):
                why = explain(f"a process of its gang failed: {others.failure.headline}")
                raise JobFailedError(why) from because
            if is_settled:
                return
            time.sleep(random.uniform(pause / 2, pause))


def run_member(
    body: Callable[[str], Any], output_path: str, ticket: JobTicket, seat: GangSeat, *, lease_seconds: float
) -> None:
    """Runs the body in a process that is not its gang's first, once that one has begun; returns after the epoch's end.

    Where there is nothing to do for the gang (the output is finished, the job came late) it returns at once.

    Args:
        body: Of the step.
        output_path: Where it writes.
        ticket: Of the job.
        seat: This process's place.
        lease_seconds: For how long the store is asked when it does not answer.

    Raises:
        LeaseLostError: The first process has lost its lease.
    """
    log = AttemptLog(output_path)
    driver = driver_for(output_path)
    joined = _joined(driver, log, ticket, seat, lease_seconds)
    if isinstance(joined, Left):
        logger.info(f"{output_path}: process {seat.rank} of the gang has nothing to do: {joined.why}")
        return
    ready_keeper(output_path)
    claim = joined.claim
    lease = hold_claim(
        output_path, Claimed(claim, joined.looked_at, f"{joined.start.attempt}/{seat.rank}"), is_member=True
    )
    try:
        failure = _run_body(body, joined, seat, lease, log)
        if failure is not None:
            # What breaks because another process is lost is no verdict: the engine notices, and ends this one too.
            _await_verdict(driver, log, joined, lease, seat.notice_s)
        if lease.lost is None and not isinstance(failure, LeaseLostError):
            error = None if failure is None else failure_of(failure, FailurePhase.BODY)
            driver.run(leave_done(log, claim, DoneRecord(joined.start.attempt, seat.rank, error)))
        # An engine may take a gang for finished, or for broken, when one of its processes leaves early.
        _await_verdict(driver, log, joined, lease, float("inf") if failure is None else seat.notice_s)
        if failure is not None:
            raise failure
    finally:
        forget_claim(lease)


def _await_verdict(driver: Driver, log: AttemptLog, joined: Joined, lease: HeldLease, patience_s: float) -> None:
    """Waits for the epoch's end. One that has failed itself waits for so long that the engine may restart the gang."""
    has_failed, until = patience_s < float("inf"), boottime() + patience_s
    for pause in _pauses(joined.claim.lease_s):
        end = driver.run(read_end(log, joined.claim))
        is_decided = end is not None and (not has_failed or end.kind is EndKind.FAILED)
        if is_decided or lease.lost is not None or boottime() >= until:
            return
        time.sleep(random.uniform(pause / 2, pause))


def _joined(driver: Driver, log: AttemptLog, ticket: JobTicket, seat: GangSeat, lease_seconds: float) -> Joined | Left:
    seen: Waiting | None = None
    for pause in _pauses(lease_seconds):
        look = driver.run(join_gang(log, ticket.job, seat.attempt, lease_seconds, seen))
        if not isinstance(look, Waiting):
            return look
        seen = look
        time.sleep(random.uniform(pause / 2, pause))
    raise AssertionError("pauses never end")


def _run_body(
    body: Callable[[str], Any], joined: Joined, seat: GangSeat, lease: HeldLease, log: AttemptLog
) -> Exception | None:
    """Runs the body as the attempt's first process does; what it raised."""

    def check() -> None:
        if lease.lost is not None or boottime() >= lease.sent_at + LEASE_FRACTION * lease.lease_s:
            why = lease.lost or "its first process was not seen alive for too long"
            raise LeaseLostError(explain(f"process {seat.rank} of the gang at {log.output_path} stops: {why}"))

    member = GangMember(seat.rank, seat.size, joined.ready.coordinator)
    with contextlib.ExitStack() as stack:
        stack.callback(gang_membership.reset, gang_membership.set(member))
        stack.callback(lease_check.reset, lease_check.set(check))
        stack.callback(running_body.reset, running_body.set(True))
        stack.enter_context(captured(log, joined.claim.epoch, rank=seat.rank))
        try:
            with lease.interruptible():
                body(log.output_path)
        except SystemExit as error:
            return JobFailedError(explain(f"process {seat.rank} of the gang called sys.exit({error.code!r})"))
        except Exception as error:  # noqa: BLE001 - told to the first process, then raised by the caller
            return error
    return None


def _pauses(lease_s: float) -> Iterable[float]:
    pause = _FIRST_LOOK_S
    while True:
        yield pause
        pause = min(2 * pause, max(_FIRST_LOOK_S, lease_s / 24), _LONGEST_PAUSE_S)


def _free_address(host: str | None) -> str:
    """Where the others can reach this process: a port that is free at this moment."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        port: int = listener.getsockname()[1]
    return f"{host or _own_address()}:{port}"


def _own_address() -> str:
    # The address from which this machine would speak to another one; nothing is sent.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # reserved for documentation, RFC 5737
        except OSError:
            logger.info("this machine has no way to others: the gang meets on the loopback address")
            return "127.0.0.1"
        address: str = probe.getsockname()[0]
        return address
