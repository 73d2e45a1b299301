"""Laws of gangs: one process owns the epoch, the others run the body beside it, and stop when it has lost its lease."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from marin_trace.errors import JobFailedError, RunFailedError
from marin_trace.io import gang_member
from marin_trace.runtime.gang import Joined, Others, Waiting, guard, join_gang, leave_done, look_at_others
from marin_trace.runtime.gang_records import DoneRecord, ReadyRecord
from marin_trace.runtime.heartbeat import Kept, KeptClaim
from marin_trace.runtime.job_protocol import Left, enter_job
from marin_trace.runtime.log_records import (
    AttemptLog,
    EndKind,
    EndRecord,
    FailurePhase,
    StartRecord,
    StepFailure,
)
from marin_trace.runtime.operations import AwaitDeath, KillOwner, OwnerState, Report, TellLost
from marin_trace.runtime.protocol import ClaimPolicy
from marin_trace.runtime.remote import remote
from marin_trace.runtime.report import OutcomeKind
from marin_trace.runtime.status import StatusKind, read_status
from marin_trace.runtime.step_runner import StepRunner
from marin_trace.workers.gang import GangSeat
from marin_trace.workers.resources import ResourceConfig
from tests.runtime.test_heartbeat import CLAIM, FakeOwner
from tests.runtime.test_job_protocol import JOB, OTHER, Cluster, draft
from tests.runtime.test_protocol import LOG
from tests.workers.engines import wait_until

READY = ReadyRecord("leader", "host:1")
MEMBER = KeptClaim("/out", CLAIM, "leader/1", 0.0, is_member=True)


@pytest.fixture
def cluster() -> Cluster:
    """A claim for the job, which nobody has begun."""
    cluster = Cluster()
    cluster.claim()
    return cluster


def join(cluster: Cluster, gang: str | None = "g1", seen: Waiting | None = None) -> Any:
    return cluster.run(join_gang(LOG, JOB, gang, 120.0, seen))


def lead(cluster: Cluster, attempt: str = "leader", gang: str = "g1") -> None:
    cluster.run(enter_job(LOG, draft(attempt), ClaimPolicy(), gang=gang))


def test_a_member_waits_for_its_first_process_and_for_what_it_prepares(cluster: Cluster) -> None:
    assert join(cluster) == Waiting()
    lead(cluster)
    assert isinstance(join(cluster), Waiting)
    cluster.files[LOG.ready(1)] = READY.to_bytes()
    joined = join(cluster)
    assert isinstance(joined, Joined)
    assert (joined.claim.epoch, joined.start.attempt, joined.ready) == (1, "leader", READY)


def test_a_stale_start_of_an_earlier_gang_does_not_count(cluster: Cluster) -> None:
    lead(cluster, gang="g0")
    cluster.files[LOG.ready(1)] = READY.to_bytes()
    assert isinstance(join(cluster, "g1"), Waiting)
    assert isinstance(join(cluster, "g0"), Joined)


def test_where_gangs_have_no_names_a_first_process_that_beats_is_awaited(cluster: Cluster) -> None:
    lead(cluster, gang="")
    cluster.files[LOG.ready(1)] = READY.to_bytes()
    seen = join(cluster, None)
    assert isinstance(seen, Waiting)
    assert join(cluster, None, seen) == seen
    cluster.files[LOG.heartbeat(1)] = b"beat"
    assert isinstance(join(cluster, None, seen), Joined)


def test_where_gangs_have_no_names_one_that_begins_while_it_is_waited_for_is_joined(cluster: Cluster) -> None:
    seen = join(cluster, None)
    lead(cluster, gang="")
    cluster.files[LOG.ready(1)] = READY.to_bytes()
    assert isinstance(join(cluster, None, seen), Joined)


@pytest.mark.parametrize("kind", [EndKind.SUCCESS, EndKind.FAILED])
def test_a_member_of_a_decided_epoch_leaves(cluster: Cluster, kind: EndKind) -> None:
    lead(cluster)
    cluster.end_as(1, kind)
    assert join(cluster) == Left("attempt 1 has ended")


def test_a_member_waits_for_the_epoch_that_its_first_process_may_still_claim(cluster: Cluster) -> None:
    lead(cluster, gang="g0")
    cluster.end_as(1, EndKind.RELEASED)
    assert isinstance(join(cluster), Waiting)
    lead(cluster, "next")
    cluster.files[LOG.ready(2)] = replace(READY, attempt="next").to_bytes()
    assert join(cluster).claim.epoch == 2


def test_a_member_leaves_what_was_closed_or_is_another_jobs(cluster: Cluster) -> None:
    cluster.files[LOG.start(1)] = StartRecord("x", "", "host", 1, "process").to_bytes()
    assert join(cluster) == Left("attempt 1 was closed before the job began")
    assert cluster.run(join_gang(LOG, OTHER, "g1", 120.0, None)) == Left("attempt 1 is not this job's")


def test_an_unbegun_claim_that_was_given_up_is_nobodys_to_wait_for(cluster: Cluster) -> None:
    cluster.end_as(1, EndKind.RELEASED)
    assert join(cluster) == Left("attempt 1 has ended")


def test_the_first_process_counts_who_is_left_and_hears_of_a_failure(cluster: Cluster) -> None:
    def others() -> Any:
        return cluster.run(look_at_others(LOG, CLAIM, 3))

    assert others() == Others(2, None)
    cluster.run(leave_done(LOG, CLAIM, DoneRecord("leader", 2)))
    assert others() == Others(1, None)
    failure = StepFailure("LookupError", "told to", FailurePhase.BODY, "traceback")
    cluster.run(leave_done(LOG, CLAIM, DoneRecord("leader", 1, failure)))
    assert others() == Others(0, failure)


def test_the_owner_of_a_gang_is_never_dead_at_a_glance() -> None:
    from marin_trace.runtime.liveness import owner_is_gone, process_nonce

    alone = StartRecord("n", "ended", "host", 1, process_nonce())
    assert owner_is_gone(alone)
    assert not owner_is_gone(replace(alone, gang="g1"))


class Member(FakeOwner):
    """The process of a gang that is not its first, whose first one beats for a while."""

    def __init__(self, *states: OwnerState, beats: int = 0) -> None:
        super().__init__(*states)
        self.left = beats
        self.during = self.beat

    def beat(self) -> None:
        if self.left:
            self.left -= 1
            self.files[LOG.heartbeat(1)] = str(self.left).encode()


def test_a_member_whose_first_process_beats_runs_on() -> None:
    member = Member(*[OwnerState.RUNS] * 20, beats=20)
    assert member.run(guard(MEMBER)) is Kept.FORGOTTEN
    assert member.kinds_told() == [Report] * 20
    # Each is dated back to the look before it.
    assert member.told[-1].sent_at == pytest.approx(19 * 15.0)


def test_a_member_is_stopped_before_anybody_may_fence_its_first_process() -> None:
    member = Member(*[OwnerState.RUNS] * 40, beats=4)
    assert member.run(guard(MEMBER)) is Kept.LEFT
    assert member.kinds_told()[-3:] == [TellLost, KillOwner, AwaitDeath]
    assert "stood still" in member.told[-2].why
    # The last beat was written between the looks at 45 s and 60 s.
    assert member.now < 45.0 + 120.0
    assert LOG.end(1) not in member.files


def test_a_member_of_a_fenced_epoch_is_killed_at_once() -> None:
    member = Member(*[OwnerState.RUNS] * 9, beats=9)
    member.files[LOG.end(1)] = EndRecord(1, EndKind.FENCED, "x", "now").to_bytes()
    assert member.run(guard(MEMBER)) is Kept.LEFT
    assert member.now == pytest.approx(15.0)
    assert "FENCED" in member.told[-2].why


def test_a_member_of_a_committed_epoch_is_left_alone() -> None:
    member = Member(*[OwnerState.RUNS] * 9, beats=9)
    member.files[LOG.end(1)] = EndRecord(1, EndKind.SUCCESS, "x", "now").to_bytes()
    assert member.run(guard(MEMBER)) is Kept.FORGOTTEN
    assert member.told == []


def test_a_dead_members_epoch_is_its_first_processs_to_end() -> None:
    member = Member(OwnerState.DEAD)
    assert member.run(guard(MEMBER)) is Kept.LEFT
    assert member.kinds_told() == [AwaitDeath]
    assert LOG.end(1) not in member.files


def test_a_seat_travels_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    from marin_trace.workers.gang import gang_seat

    assert gang_seat() is None
    for seat in (GangSeat(1, 4, "g1", "10.0.0.1"), GangSeat(0, 2)):
        for name, value in seat.to_environment().items():
            monkeypatch.setenv(name, value)
        assert gang_seat() == seat
        for name in seat.to_environment():
            monkeypatch.delenv(name)


# Real processes.


def write_part(path: str) -> int:
    member = gang_member()
    assert member is not None
    Path(path, f"part-{member.rank}").write_text(f"{member.rank} of {member.size} at {member.coordinator}")
    print(f"process {member.rank} speaks")
    time.sleep(0.2 * member.rank)
    return member.rank


def break_down(path: str, how: str) -> str:
    """Fails or dies the first time in process 1."""
    member = gang_member()
    assert member is not None
    first_time = not Path(f"{path}-tried").exists()
    while member.rank != 1 and not Path(f"{path}-tried").exists():
        time.sleep(0.01)
    if first_time and member.rank == 1:
        Path(f"{path}-tried").touch()
        if how == "raise":
            raise LookupError("told to")
        os.kill(os.getpid(), signal.SIGKILL)
    if first_time and how == "break":
        raise ConnectionResetError("by process 1")
    if first_time:
        time.sleep(60)
    return "survived"


def raise_in_one(path: str) -> str:
    return break_down(path, "raise")


def kill_one(path: str) -> str:
    return break_down(path, "kill")


def kill_one_and_notice(path: str) -> str:
    return break_down(path, "break")


def as_gang(executable: Any) -> Any:
    return remote(executable, name="gang", resources=ResourceConfig(cpu=1, replicas=2))


def as_three(executable: Any) -> Any:
    return remote(executable, name="gang", resources=ResourceConfig(cpu=1, replicas=3))


def break_one_and_kill_another(path: str, *, is_first_busy: bool) -> str:
    """The first time process 2 dies, which breaks process 1, while process 0 notices nothing."""
    member = gang_member()
    assert member is not None
    broken, tried = Path(f"{path}-broken"), Path(f"{path}-tried")
    if tried.exists():
        return "survived"
    match member.rank:
        case 0:
            wait_until(broken.exists)
            time.sleep(60 if is_first_busy else 0)
        case 1:
            broken.touch()
            raise ConnectionResetError("by process 2")
        case _:
            wait_until(broken.exists)
            time.sleep(0.3)  # process 1 would have told of its failure by now, if it told at once
            tried.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return "too early"


def kill_one_of_three(path: str) -> str:
    return break_one_and_kill_another(path, is_first_busy=True)


def kill_one_when_the_first_has_ended(path: str) -> str:
    return break_one_and_kill_another(path, is_first_busy=False)


def test_every_process_runs_the_body_and_the_first_one_commits(make_step) -> None:
    step = make_step("a", write_part, wrap=as_gang)
    report = StepRunner().run([step])
    assert (report.outcomes[0].epoch, report.artifact(step)) == (1, 0)
    parts = [Path(step.output_path, f"part-{rank}").read_text().split() for rank in range(2)]
    assert [part[:3] for part in parts] == [["0", "of", "2"], ["1", "of", "2"]]
    assert parts[0][4] == parts[1][4]
    log = AttemptLog(step.output_path)
    assert [Path(f"{log.directory}/000001.log{end}").read_text().split()[1] for end in ("", "-1")] == ["0", "1"]
    assert "part-1" in Path(log.directory, "000001.manifest").read_text()
    assert StepRunner().run([step]).outcomes[0].kind is OutcomeKind.HIT


def test_what_one_process_raises_is_the_steps_failure(make_step) -> None:
    step = make_step("a", raise_in_one, wrap=as_gang)
    with pytest.raises(RunFailedError) as caught:
        StepRunner().run([step])
    assert isinstance(caught.value.exceptions[0], LookupError)
    status = read_status(step.output_path)
    assert status.kind is StatusKind.FAILED
    assert status.error.message == "a process of its gang failed: LookupError: told to"


@pytest.mark.parametrize("body", [raise_in_one, kill_one, kill_one_and_notice])
def test_a_gang_that_lost_one_begins_again_as_a_whole(make_step, body: Any) -> None:
    step = make_step("a", body, wrap=as_gang, retries=1)
    report = StepRunner().run([step])
    assert (report.outcomes[0].epoch, report.artifact(step)) == (2, "survived")
    assert read_status(step.output_path).kind is StatusKind.SUCCESS


@pytest.mark.parametrize("body", [kill_one_of_three, kill_one_when_the_first_has_ended])
def test_what_a_killed_process_breaks_in_a_second_is_no_verdict_for_the_first(make_step, body: Any) -> None:
    step = make_step("a", body, wrap=as_three)
    with pytest.raises(RunFailedError):
        StepRunner().run([step])
    assert read_status(step.output_path).kind is StatusKind.RELEASED
    assert StepRunner().run([step]).artifact(step) == "survived"


def test_what_breaks_because_of_a_killed_process_is_no_verdict(make_step) -> None:
    step = make_step("a", kill_one_and_notice, wrap=as_gang)
    with pytest.raises(RunFailedError):
        StepRunner().run([step])
    assert read_status(step.output_path).kind is StatusKind.RELEASED
    assert StepRunner().run([step]).artifact(step) == "survived"


def fail_alone(path: str) -> None:
    member = gang_member()
    assert member is not None
    if member.rank == 0:
        raise LookupError("told to")
    time.sleep(60)


def test_what_only_the_first_process_fails_of_is_a_verdict(make_step) -> None:
    step = make_step("a", fail_alone, wrap=as_gang)
    with pytest.raises(RunFailedError) as caught:
        StepRunner().run([step])
    assert isinstance(caught.value.exceptions[0], LookupError)
    assert read_status(step.output_path).kind is StatusKind.FAILED


def test_a_killed_process_without_retries_is_the_runs_failure(make_step) -> None:
    step = make_step("a", kill_one, wrap=as_gang)
    with pytest.raises(RunFailedError) as caught:
        StepRunner().run([step])
    (error,) = caught.value.exceptions
    assert isinstance(error, JobFailedError)
    assert "was killed by SIGKILL" in str(error)
    assert StepRunner().run([step]).artifact(step) == "survived"
