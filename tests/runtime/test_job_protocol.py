"""Laws of jobs: one attempt of the job runs the body, or nobody does."""

from dataclasses import replace
from typing import Any

import pytest

from marin_trace.errors import ControlFileError, StorageError, StoreUnavailableError
from marin_trace.runtime.job_protocol import JobView, Left, end_unstarted, enter_job, submit_job, watch_job
from marin_trace.runtime.log_records import (
    CancelRecord,
    ClaimRecord,
    EndKind,
    EndRecord,
    JobIdentity,
    StartRecord,
    StepFailure,
)
from marin_trace.runtime.operations import (
    EngineWord,
    Get,
    GetMany,
    LeaseView,
    List,
    Put,
    PutIfAbsent,
    Submit,
    Terminate,
)
from marin_trace.runtime.protocol import (
    AlreadyDone,
    Claimed,
    ClaimPolicy,
    Held,
    claim_epoch,
    end_attempt,
    observe,
    request_cancel,
    seal,
)
from tests.runtime.test_protocol import LOG, FakeStore

JOB, OTHER = JobIdentity("job", "sim", "digest"), JobIdentity("other", "sim", "digest")
FAILURE = StepFailure("JobDied", "gone")


def draft(nonce: str, job: JobIdentity = JOB) -> ClaimRecord:
    return ClaimRecord(0, nonce, "host", 1, f"process-{nonce}", 120.0, "now", job=job)


class Cluster(FakeStore):
    """A store and an engine whose words can be set."""

    def __init__(self) -> None:
        super().__init__()
        self.submitted: list[ClaimRecord] = []
        self.answers = {
            Submit: lambda operation: self.submitted.append(operation.claim),
            Terminate: lambda operation: self.words.get(operation.job.name, EngineWord.GONE),
        }

    def claim(self, nonce: str = "launcher", job: JobIdentity = JOB) -> ClaimRecord:
        outcome = self.run(claim_epoch(LOG, draft(nonce, job), ClaimPolicy()))
        assert isinstance(outcome, Claimed)
        return outcome.claim

    def enter(self, nonce: str, seen: Any = None) -> Any:
        return self.run(enter_job(LOG, draft(nonce), ClaimPolicy(), seen))

    def watch(self, claim: ClaimRecord, seen: Any = None) -> JobView:
        return self.run(watch_job(LOG, claim, seen)).view

    def end_as(self, epoch: int, kind: EndKind) -> None:
        self.run(end_attempt(LOG, EndRecord(epoch, kind, "x", "now")))

    def end(self, epoch: int) -> EndRecord:
        return EndRecord.from_bytes(self.files[LOG.end(epoch)], "end")


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_one_attempt_of_the_job_has_the_body(cluster: Cluster) -> None:
    claim = cluster.claim()
    entry = cluster.enter("j1")
    assert entry == Claimed(claim, 0.0, "j1")
    assert isinstance(cluster.enter("j2"), Held)


def test_a_restarted_attempt_takes_over_by_the_rule_for_everybody(cluster: Cluster) -> None:
    cluster.claim()
    cluster.enter("j1")
    held = cluster.enter("j2")
    cluster.now = 120.0
    entry = cluster.enter("j2", held.seen)
    assert (entry.claim.epoch, entry.claim.job, entry.attempt) == (2, JOB, "j2")
    assert cluster.end(1).kind is EndKind.FENCED


def test_a_dead_attempt_of_this_machine_is_followed_at_once(cluster: Cluster) -> None:
    cluster.claim()
    cluster.enter("j1")
    cluster.dead.add("process-launcher")
    assert isinstance(cluster.enter("j2"), Held)
    cluster.dead.add("process-j1")
    assert cluster.enter("j2").claim.epoch == 2


def test_a_job_that_is_not_named_leaves(cluster: Cluster) -> None:
    cluster.claim("launcher", OTHER)
    assert isinstance(cluster.enter("j"), Left)
    cluster.end_as(1, EndKind.RELEASED)
    assert isinstance(cluster.enter("j"), Left)


@pytest.mark.parametrize("kind", [EndKind.RELEASED, EndKind.FENCED])
def test_a_job_goes_on_after_its_own_released_epoch(cluster: Cluster, kind: EndKind) -> None:
    cluster.claim()
    cluster.enter("j1")
    cluster.end_as(1, kind)
    assert cluster.enter("j2").claim.epoch == 2


def test_a_job_does_not_go_on_after_a_failure_a_cancel_or_a_seal(cluster: Cluster) -> None:
    claim = cluster.claim()
    cluster.run(end_unstarted(LOG, claim, EndKind.RELEASED, FAILURE))
    assert isinstance(cluster.enter("j"), Left)
    second = cluster.claim("again")
    cluster.enter("j1")
    cluster.end_as(second.epoch, EndKind.RELEASED)
    cluster.files[LOG.cancel(2)] = CancelRecord("me", "enough").to_bytes()
    assert isinstance(cluster.enter("j2"), Left)
    assert isinstance(Cluster().enter("j"), Left)


def test_a_finished_output_is_a_hit_for_a_job(cluster: Cluster) -> None:
    cluster.claim()
    cluster.end_as(1, EndKind.SUCCESS)
    assert cluster.enter("j") == AlreadyDone(1)


def test_a_sealed_job_leaves_and_anybody_ends_the_epoch(cluster: Cluster) -> None:
    cluster.claim()
    cluster.files[LOG.start(1)] = StartRecord("b", "", "host", 1, "process").to_bytes()
    assert isinstance(cluster.enter("j"), Left)
    assert cluster.claim("next").epoch == 2


def test_a_job_whose_epoch_ends_while_it_begins_leaves(cluster: Cluster) -> None:
    cluster.claim()

    def end_meanwhile(operation: Any) -> None:
        if LOG.start(1) in cluster.files and LOG.end(1) not in cluster.files:
            cluster.files[LOG.end(1)] = EndRecord(1, EndKind.FENCED, "b", "now").to_bytes()

    cluster.before_each = end_meanwhile
    assert isinstance(cluster.enter("j"), Left)


def test_a_job_that_took_longer_than_the_lease_to_begin_leaves(cluster: Cluster) -> None:
    cluster.claim()

    def delay(operation: Any) -> None:
        cluster.now += 100 if operation == Get(LOG.end(1)) else 0

    cluster.before_each = delay
    assert isinstance(cluster.enter("j"), Left)


@pytest.mark.parametrize("path", [LOG.claim(2), LOG.start(2)])
def test_a_job_that_loses_its_next_epoch_looks_again(cluster: Cluster, path: str) -> None:
    cluster.claim()
    cluster.enter("j1")
    cluster.end_as(1, EndKind.RELEASED)

    def be_faster(operation: Any) -> None:
        if isinstance(operation, PutIfAbsent) and operation.path == path:
            rival = replace(draft("rival"), epoch=2)
            start = StartRecord("rival", "rival", "host", 1, "process")
            cluster.files.setdefault(path, rival.to_bytes() if path.endswith("claim") else start.to_bytes())

    cluster.before_each = be_faster
    entry = cluster.enter("j2")
    assert isinstance(entry, Claimed if path.endswith("claim") else Held)


def test_a_living_job_keeps_its_claim_without_its_launcher(cluster: Cluster) -> None:
    claim = cluster.claim()
    cluster.words["job"] = EngineWord.ALIVE
    seen = cluster.run(observe(LOG, claim, draft("b"), None))
    beat = cluster.files[LOG.heartbeat(1)]
    cluster.now = 130.0
    seen = cluster.run(observe(LOG, claim, draft("b"), seen))
    assert cluster.files[LOG.heartbeat(1)] != beat
    assert not seen.is_gone
    cluster.enter("j")
    assert not cluster.run(observe(LOG, claim, draft("b"), None)).is_gone


def test_an_adopter_that_cannot_renew_a_claim_tries_again_at_its_next_look(cluster: Cluster) -> None:
    claim = cluster.claim()
    cluster.words["job"] = EngineWord.ALIVE

    def fail(operation: Any) -> None:
        if isinstance(operation, Put):
            cluster.errors.append(StoreUnavailableError("away"))

    cluster.before_each = fail
    seen = cluster.run(observe(LOG, claim, draft("b"), None))
    assert (seen.is_gone, seen.beats) == (False, 1)
    assert "the claim of job job was not renewed: away" in cluster.said[0]
    cluster.before_each = lambda operation: None
    cluster.run(observe(LOG, claim, draft("b"), seen))
    assert LOG.heartbeat(1) in cluster.files


def test_a_job_that_began_before_it_could_be_sealed_keeps_the_epoch(cluster: Cluster) -> None:
    claim = cluster.claim()
    seen = cluster.run(observe(LOG, claim, draft("b"), None))
    cluster.enter("j")
    assert cluster.run(seal(LOG, 1, draft("b"), seen=seen)) is None
    assert cluster.run(end_unstarted(LOG, claim, EndKind.FAILED, FAILURE)) is None
    assert LOG.end(1) not in cluster.files


def test_a_job_is_submitted_while_the_claim_is_held(cluster: Cluster) -> None:
    claim = cluster.claim()
    assert cluster.run(submit_job(LOG, claim))
    assert cluster.submitted == [claim]


@pytest.mark.parametrize("lease", [LeaseView(120, -100.0), LeaseView(120, 0.0, "ended")])
def test_a_launcher_without_its_lease_submits_nothing(cluster: Cluster, lease: LeaseView) -> None:
    claim = cluster.claim()
    cluster.lease = lease
    assert not cluster.run(submit_job(LOG, claim))
    assert (cluster.submitted, cluster.end(1).kind) == ([], EndKind.RELEASED)


def test_nothing_is_submitted_for_an_epoch_that_has_ended(cluster: Cluster) -> None:
    claim = cluster.claim()
    cluster.end_as(1, EndKind.FENCED)
    assert not cluster.run(submit_job(LOG, claim))
    assert cluster.submitted == []


def test_an_earlier_job_that_does_not_die_keeps_the_next_from_being_submitted(cluster: Cluster) -> None:
    cluster.claim("first", OTHER)
    cluster.end_as(1, EndKind.RELEASED)
    claim = cluster.claim()
    cluster.words["other"] = EngineWord.ALIVE
    assert not cluster.run(submit_job(LOG, claim))
    assert cluster.end(2).error.message == "job other of an earlier attempt could not be ended"
    assert cluster.now >= 120


def test_epochs_without_a_job_are_passed_over_and_missing_ones_named(cluster: Cluster) -> None:
    cluster.run(claim_epoch(LOG, replace(draft("plain"), job=None), ClaimPolicy()))
    cluster.end_as(1, EndKind.RELEASED)
    claim = cluster.claim()
    assert cluster.run(submit_job(LOG, claim))
    del cluster.files[LOG.claim(1)]
    with pytest.raises(ControlFileError, match=r"000001\.claim is missing"):
        cluster.run(submit_job(LOG, claim))


def test_a_job_that_died_before_it_began_has_failed(cluster: Cluster) -> None:
    claim = cluster.claim()
    cluster.words["job"] = EngineWord.ALIVE
    assert cluster.watch(claim) is JobView.RUNS
    cluster.words["job"] = EngineWord.GONE
    assert cluster.watch(claim) is JobView.FAILED
    assert cluster.end(1).kind is EndKind.FAILED


def test_a_job_whose_end_is_asked_for_before_it_began_has_failed(cluster: Cluster) -> None:
    claim = cluster.claim()
    cluster.words["job"] = EngineWord.ALIVE
    cluster.run(request_cancel(LOG, 1, CancelRecord("me", "enough")))
    assert cluster.watch(claim) is JobView.FAILED
    assert cluster.end(1).error.message == "cancelled by me: enough"
    assert isinstance(cluster.enter("j"), Left)


def test_a_job_that_began_before_its_end_was_asked_for_ends_by_itself(cluster: Cluster) -> None:
    claim = cluster.claim()
    cluster.run(request_cancel(LOG, 1, CancelRecord("me", "enough")))
    start = StartRecord("launcher", "j", "host", 1, "process").to_bytes()

    def begin(operation: Any) -> None:
        if isinstance(operation, PutIfAbsent):
            cluster.files.setdefault(LOG.start(1), start)

    cluster.before_each = begin
    assert cluster.watch(claim) is JobView.RUNS
    assert LOG.end(1) not in cluster.files


def test_a_request_to_end_a_job_that_vanishes_is_an_error(cluster: Cluster) -> None:
    claim = cluster.claim()
    cluster.run(request_cancel(LOG, 1, CancelRecord("me", "enough")))
    files = cluster.files
    cluster.answers[Get] = lambda operation: None if operation.path == LOG.cancel(1) else files.get(operation.path)
    with pytest.raises(ControlFileError, match=r"000001\.cancel vanished"):
        cluster.watch(claim)


def test_an_unstarted_local_job_is_gone_with_its_launcher(cluster: Cluster) -> None:
    local, elsewhere = replace(JOB, cluster="local"), JOB
    for job, is_gone in ((local, True), (elsewhere, False)):
        cluster.files.clear()
        claim = cluster.claim(job=job)
        cluster.dead.add(claim.process_nonce)
        assert cluster.run(observe(LOG, claim, draft("b"), None)).is_gone is is_gone


def test_a_job_that_died_after_it_began_is_waited_for(cluster: Cluster) -> None:
    claim = cluster.claim()
    cluster.enter("j")
    watch = cluster.run(watch_job(LOG, claim))
    assert watch.view is JobView.RUNS
    cluster.now = 120.0
    assert cluster.watch(claim, watch.seen) is JobView.GAVE_UP
    assert cluster.end(1).kind is EndKind.FENCED


def test_a_job_that_will_be_restarted_goes_on_by_itself(cluster: Cluster) -> None:
    claim = cluster.claim()
    cluster.enter("j")
    cluster.end_as(1, EndKind.RELEASED)
    cluster.words["job"] = EngineWord.ALIVE
    assert cluster.watch(claim) is JobView.RUNS
    cluster.enter("j2")
    assert cluster.watch(claim) is JobView.RUNS
    cluster.end_as(2, EndKind.SUCCESS)
    assert cluster.watch(claim) is JobView.SUCCEEDED


def test_a_launcher_sees_that_another_attempt_has_followed(cluster: Cluster) -> None:
    claim = cluster.claim()
    cluster.end_as(1, EndKind.RELEASED)
    cluster.claim("rival", OTHER)
    assert cluster.watch(claim) is JobView.SUPERSEDED
    cluster.end_as(2, EndKind.RELEASED)
    assert cluster.watch(claim) is JobView.SUPERSEDED


def test_a_log_that_vanished_is_an_error(cluster: Cluster) -> None:
    claim = cluster.claim()
    cluster.files.clear()
    with pytest.raises(StorageError, match="the log of /out vanished"):
        cluster.watch(claim)
    assert not any(isinstance(operation, GetMany) and not operation.paths for operation in cluster.operations)
    assert any(isinstance(operation, List) for operation in cluster.operations)
