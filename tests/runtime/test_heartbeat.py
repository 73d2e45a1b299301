"""Laws of the lease keeper's program, driven by hand."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from marin_trace.errors import StorageError
from marin_trace.runtime.heartbeat import BeatResult, Kept, KeptClaim, beat, keep
from marin_trace.runtime.log_records import CancelRecord, ClaimRecord, EndKind, EndRecord, JobIdentity, StartRecord
from marin_trace.runtime.operations import (
    AwaitDeath,
    AwaitOwner,
    GetMany,
    HandOver,
    KillOwner,
    OwnerState,
    Put,
    Report,
    TellLost,
)
from tests.runtime.test_protocol import LOG, FakeStore

CLAIM = ClaimRecord(1, "a", "host", 1, "process", 120.0, "now")
KEPT = KeptClaim("/out", CLAIM, "a", 0.0)
STARTED = StartRecord("a", "j", "host", 1, "process").to_bytes()


def kept_for(cluster: str) -> KeptClaim:
    """A launcher's claim for a job."""
    return KeptClaim("/out", replace(CLAIM, job=JobIdentity("job", cluster, "digest")), "a", 0.0, awaits_start=True)


class FakeOwner(FakeStore):
    """A store, and an owner whose states follow each other as they are waited for."""

    def __init__(self, *states: OwnerState, kills: bool = True) -> None:
        super().__init__()
        self.files[LOG.claim(1)] = CLAIM.to_bytes()
        self.states = list(states)
        self.told: list[Any] = []
        self.during: Callable[[], None] = lambda: None

        def tell(operation: Any) -> Any:
            self.told.append(operation)
            return kills if isinstance(operation, KillOwner) else "was killed"

        self.answers = {
            AwaitOwner: self.await_owner,
            **dict.fromkeys((Report, TellLost, HandOver, KillOwner, AwaitDeath), tell),
        }

    def await_owner(self, operation: AwaitOwner) -> OwnerState:
        self.now += operation.seconds
        self.during()
        return self.states.pop(0) if self.states else OwnerState.FORGOTTEN

    def kinds_told(self) -> list[type[Any]]:
        return [type(operation) for operation in self.told]

    def end(self) -> EndRecord:
        return EndRecord.from_bytes(self.files[LOG.end(1)], "end")


def test_a_running_owner_is_renewed_until_it_forgets() -> None:
    owner = FakeOwner(OwnerState.RUNS, OwnerState.RUNS)
    assert owner.run(keep(KEPT)) is Kept.FORGOTTEN
    assert owner.told == [Report("a", 15.0), Report("a", 30.0)]
    assert LOG.end(1) not in owner.files


def test_a_dead_owners_claim_is_released_after_what_it_started_is_dead() -> None:
    owner = FakeOwner(OwnerState.DEAD)
    assert owner.run(keep(KEPT)) is Kept.RELEASED
    assert owner.kinds_told() == [AwaitDeath]
    assert owner.end().kind is EndKind.RELEASED
    assert owner.end().error.message == "the process that ran it was killed"


def test_a_dead_owners_cancelled_claim_has_failed() -> None:
    owner = FakeOwner(OwnerState.DEAD)
    owner.files[LOG.cancel(1)] = CancelRecord("me", "enough").to_bytes()
    assert owner.run(keep(KEPT)) is Kept.RELEASED
    assert (owner.end().kind, owner.end().error.message) == (EndKind.FAILED, "cancelled by me: enough")


def test_a_dead_launchers_claim_for_a_job_is_left_alone() -> None:
    owner = FakeOwner(OwnerState.DEAD)
    assert owner.run(keep(KeptClaim("/out", CLAIM, "a", 0.0, awaits_start=True))) is Kept.LEFT
    assert LOG.end(1) not in owner.files


@pytest.mark.parametrize("ended", [None, EndKind.SUCCESS, EndKind.FAILED])
def test_a_job_that_has_begun_renews_its_claim_itself(ended: EndKind | None) -> None:
    owner = FakeOwner(OwnerState.RUNS)
    owner.files[LOG.start(1)] = STARTED
    if ended is not None:
        owner.files[LOG.end(1)] = EndRecord(1, ended, "j", "now").to_bytes()
    assert owner.run(keep(kept_for("sim"))) is Kept.HANDED_OVER
    assert owner.kinds_told() == [Report, HandOver]


def test_a_local_job_that_has_begun_dies_with_its_launcher_and_is_released_by_its_own_keeper() -> None:
    owner = FakeOwner(OwnerState.RUNS, OwnerState.STOPPED, OwnerState.RUNS, OwnerState.DEAD)
    owner.files[LOG.start(1)] = STARTED
    assert owner.run(keep(kept_for("local"))) is Kept.LEFT
    assert owner.kinds_told() == [Report, HandOver, AwaitDeath]
    assert LOG.end(1) not in owner.files
    assert owner.run(keep(kept_for("local"))) is Kept.FORGOTTEN


def test_a_local_job_that_has_not_begun_is_sealed_when_its_launcher_is_dead() -> None:
    owner = FakeOwner(OwnerState.RUNS, OwnerState.DEAD)
    assert owner.run(keep(kept_for("local"))) is Kept.RELEASED
    assert StartRecord.from_bytes(owner.files[LOG.start(1)], "start").is_seal
    assert owner.end().kind is EndKind.RELEASED


@pytest.mark.parametrize("last", [OwnerState.FORGOTTEN, OwnerState.DEAD])
def test_a_launcher_that_lost_the_claim_of_a_job_is_told_and_not_killed(last: OwnerState) -> None:
    owner = FakeOwner(*[OwnerState.STOPPED] * 20, last)
    assert owner.run(keep(kept_for("sim"))) is (Kept.FORGOTTEN if last is OwnerState.FORGOTTEN else Kept.LEFT)
    assert owner.kinds_told() == [TellLost] + ([AwaitDeath] if last is OwnerState.DEAD else [])


def test_a_stopped_owner_is_not_renewed_and_killed_before_its_lease_ends() -> None:
    owner = FakeOwner(*[OwnerState.STOPPED] * 20)
    assert owner.run(keep(KEPT)) is Kept.RELEASED
    assert owner.kinds_told() == [TellLost, KillOwner, AwaitDeath]
    assert owner.now == pytest.approx(108)
    assert LOG.heartbeat(1) not in owner.files


def test_an_owner_whose_epoch_was_ended_is_killed_at_once() -> None:
    owner = FakeOwner(OwnerState.RUNS)
    owner.files[LOG.end(1)] = EndRecord(1, EndKind.FENCED, "b", "now").to_bytes()
    assert owner.run(keep(KEPT)) is Kept.RELEASED
    assert owner.kinds_told() == [Report, TellLost, KillOwner, AwaitDeath]
    assert owner.now == 15.0
    assert owner.end().nonce == "b"


def test_an_owner_that_has_ended_its_epoch_itself_is_left_alone() -> None:
    owner = FakeOwner(OwnerState.RUNS)
    owner.files[LOG.end(1)] = EndRecord(1, EndKind.SUCCESS, "a", "now").to_bytes()
    assert owner.run(keep(KEPT)) is Kept.FORGOTTEN
    assert owner.kinds_told() == [Report]


def test_the_status_token_of_an_owner_that_died_when_it_had_committed_is_written() -> None:
    owner = FakeOwner(OwnerState.DEAD)
    owner.files[LOG.end(1)] = EndRecord(1, EndKind.SUCCESS, "a", "now").to_bytes()
    assert owner.run(keep(KEPT)) is Kept.RELEASED
    assert owner.files[LOG.status_token] == b"SUCCESS"


@pytest.mark.parametrize("last", [OwnerState.FORGOTTEN, OwnerState.DEAD])
def test_an_owner_that_stops_by_itself_is_not_killed(last: OwnerState) -> None:
    owner = FakeOwner(OwnerState.RUNS, last)
    owner.files[LOG.cancel(1)] = CancelRecord("me", "enough").to_bytes()
    assert owner.run(keep(KEPT)) is (Kept.FORGOTTEN if last is OwnerState.FORGOTTEN else Kept.RELEASED)
    assert KillOwner not in owner.kinds_told()


def test_a_notebooks_kernel_is_never_killed() -> None:
    owner = FakeOwner(*[OwnerState.RUNS] * 4, kills=False)
    owner.files[LOG.end(1)] = EndRecord(1, EndKind.FENCED, "b", "now").to_bytes()
    assert owner.run(keep(KEPT)) is Kept.FORGOTTEN
    assert owner.kinds_told() == [Report, TellLost, KillOwner]


def test_a_lease_ends_by_its_clock_and_never_by_an_error() -> None:
    owner = FakeOwner(OwnerState.RUNS)
    owner.errors = [StorageError("full")] * 1_000
    owner.states += [OwnerState.RUNS]
    owner.before_each = lambda operation: owner.errors.clear() if isinstance(operation, KillOwner) else None
    assert owner.run(keep(KEPT)) is Kept.RELEASED
    assert owner.kinds_told() == [TellLost, KillOwner, AwaitDeath]
    assert any("heartbeat of attempt 1 failed" in line for line in owner.said)
    assert owner.now == 108.0


def test_a_heartbeat_whose_look_failed_counts() -> None:
    owner = FakeOwner()
    fails = lambda operation: owner.errors.append(StorageError("away")) if isinstance(operation, GetMany) else None  # noqa: E731
    owner.before_each = fails
    assert owner.run(beat(KEPT, 1, 0.0)) == (BeatResult.RENEWED, 0.0)
    assert owner.told == [Report("a", 0.0)]
    assert owner.said == ["/out: attempt 1 could not look at its log: away"]
    assert any(isinstance(operation, Put) for operation in owner.operations)
