"""The protocol's rules, on a store made of a dict: programs are driven by hand, so that faults can be placed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from marin_trace.errors import (
    ControlFileError,
    LeaseLostError,
    StorageError,
    StoreRefusedError,
    StoreUnavailableError,
)
from marin_trace.runtime.log_records import (
    AttemptLog,
    CancelRecord,
    ClaimRecord,
    EndKind,
    EndRecord,
    JobIdentity,
    StepFailure,
)
from marin_trace.runtime.operations import (
    Act,
    AskEngine,
    EngineWord,
    FinishingAct,
    Get,
    GetMany,
    LeaseView,
    List,
    Now,
    Pause,
    ProbeOwner,
    Program,
    Put,
    PutIfAbsent,
    ReadLease,
    ReadyKeeper,
    Say,
)
from marin_trace.runtime.protocol import (
    AlreadyDone,
    Claimed,
    ClaimPolicy,
    EngineSilent,
    FailedBefore,
    Held,
    check_not_ended,
    claim_epoch,
    commit,
    end_attempt,
    finish,
    patience_after_failure,
    read_state,
    release,
    request_cancel,
    seal,
)

LOG = AttemptLog("/out")


class FakeStore:
    """Answers operations; `loses_answer` applies a create and says that it did not."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.dead: set[str] = set()
        self.operations: list[Any] = []
        self.said: list[str] = []
        self.acts: list[FinishingAct] = []
        self.words: dict[str, EngineWord] = {}
        self.now = 0.0
        self.lease = LeaseView(120.0, 0.0)
        self.loses_answer = False
        self.errors: list[Exception] = []
        self.answers: dict[type[Any], Callable[[Any], Any]] = {}
        self.before_each: Callable[[Any], None] = lambda operation: None

    def run(self, program: Program[Any]) -> Any:
        answer, error = None, None
        while True:
            try:
                operation = program.send(answer) if error is None else program.throw(error)
            except StopIteration as stop:
                return stop.value
            self.before_each(operation)
            self.operations.append(operation)
            is_request = isinstance(operation, PutIfAbsent | Put | Get | GetMany | List)
            error = self.errors.pop(0) if is_request and self.errors else None
            try:
                answer = self.answer(operation) if error is None else None
            except OSError as raised:
                error = raised

    def answer(self, operation: Any) -> Any:  # noqa: PLR0912
        if type(operation) in self.answers:
            return self.answers[type(operation)](operation)
        match operation:
            case List(directory):
                return sorted(path.rpartition("/")[2] for path in self.files if path.startswith(f"{directory}/"))
            case Get(path):
                return self.files.get(path)
            case Put(path, content):
                self.files[path] = content
                return None
            case PutIfAbsent(path, content):
                is_new = path not in self.files
                self.files.setdefault(path, content)
                return is_new and not self.loses_answer
            case GetMany(paths):
                return [self.files.get(path) for path in paths]
            case ProbeOwner(claim):
                return claim.process_nonce in self.dead
            case Now():
                return self.now
            case Pause(_, high):
                self.now += high
                return None
            case Say(message):
                self.said.append(message)
                return None
            case ReadyKeeper():
                return None
            case ReadLease():
                return self.lease
            case Act(what):
                self.acts.append(what)
                return "digest"
            case AskEngine(job):
                return self.words.get(job.name, EngineWord.GONE)
        raise AssertionError(f"no answer to {operation}")


def draft(nonce: str, *, rerun_of: int | None = None) -> ClaimRecord:
    return ClaimRecord(0, nonce, "host", 7, f"process-{nonce}", 120.0, "2026-01-01T00:00:00", rerun_of=rerun_of)


def end(epoch: int, nonce: str, kind: EndKind = EndKind.SUCCESS, error: StepFailure | None = None) -> EndRecord:
    return EndRecord(epoch, kind, nonce, "2026-01-01T00:00:00", {"fingerprint": "f"}, error=error)


def claim(store: FakeStore, nonce: str, policy: ClaimPolicy | None = None) -> Any:
    policy = policy or ClaimPolicy()
    return store.run(claim_epoch(LOG, draft(nonce, rerun_of=policy.rerun_of), policy))


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


def test_a_new_output_is_claimed_as_epoch_one(store: FakeStore) -> None:
    outcome = claim(store, "a")
    assert isinstance(outcome, Claimed)
    assert ClaimRecord.from_bytes(store.files[LOG.claim(1)], "claim") == outcome.claim


def test_a_live_claim_holds(store: FakeStore) -> None:
    claim(store, "a")
    outcome = claim(store, "b")
    assert isinstance(outcome, Held)
    assert outcome.claim.nonce == "a"
    assert LOG.end(1) not in store.files


def test_a_dead_claim_is_sealed_before_the_next_epoch(store: FakeStore) -> None:
    claim(store, "a")
    store.dead.add("process-a")
    outcome = claim(store, "b")
    assert isinstance(outcome, Claimed)
    assert outcome.claim.epoch == 2
    assert EndRecord.from_bytes(store.files[LOG.end(1)], "end").kind is EndKind.FENCED


def test_a_fenced_owner_cannot_commit(store: FakeStore) -> None:
    claim(store, "a")
    store.dead.add("process-a")
    claim(store, "b")
    with pytest.raises(LeaseLostError, match="attempt 1 of /out was ended as FENCED by somebody else"):
        store.run(commit(LOG, end(1, "a")))
    assert LOG.status_token not in store.files


def test_an_owner_that_commits_first_is_not_fenced(store: FakeStore) -> None:
    claim(store, "a")
    store.dead.add("process-a")

    def commit_meanwhile(operation: Any) -> None:
        if isinstance(operation, PutIfAbsent) and operation.path == LOG.end(1):
            store.files.setdefault(LOG.end(1), end(1, "a").to_bytes())

    store.before_each = commit_meanwhile
    assert claim(store, "b") == AlreadyDone(1)


def test_a_create_whose_answer_was_lost_is_recognised(store: FakeStore) -> None:
    store.loses_answer = True
    outcome = claim(store, "a")
    assert isinstance(outcome, Claimed)
    store.run(commit(LOG, end(1, "a")))
    assert store.files[LOG.status_token] == b"SUCCESS"


def test_who_loses_the_race_for_an_epoch_is_held(store: FakeStore) -> None:
    def claim_meanwhile(operation: Any) -> None:
        if isinstance(operation, PutIfAbsent):
            store.before_each = lambda operation: None
            store.files[LOG.claim(1)] = draft("b").to_bytes().replace(b'"epoch":0', b'"epoch":1')

    store.before_each = claim_meanwhile
    outcome = claim(store, "a")
    assert isinstance(outcome, Held)
    assert outcome.claim.nonce == "b"


def test_a_claim_that_was_sealed_before_it_was_acknowledged_runs_nothing(store: FakeStore) -> None:
    def seal_meanwhile(operation: Any) -> None:
        if operation == Get(LOG.end(1)):
            store.files.setdefault(LOG.end(1), end(1, "observer", EndKind.FENCED).to_bytes())

    store.before_each = seal_meanwhile
    outcome = claim(store, "a")
    assert isinstance(outcome, Claimed)
    assert outcome.claim.epoch == 2


def test_success_is_a_hit_and_forcing_names_its_epoch(store: FakeStore) -> None:
    claim(store, "a")
    store.run(commit(LOG, end(1, "a")))
    assert claim(store, "b") == AlreadyDone(1)
    outcome = claim(store, "b", ClaimPolicy(rerun_of=1))
    assert isinstance(outcome, Claimed)
    store.run(commit(LOG, end(2, "b")))
    assert claim(store, "c", ClaimPolicy(rerun_of=1)) == AlreadyDone(2)


def test_a_forced_claim_is_durable_and_says_so(store: FakeStore) -> None:
    claim(store, "a")
    store.run(commit(LOG, end(1, "a")))
    claim(store, "b", ClaimPolicy(rerun_of=1))
    assert [put.durable for put in store.operations if isinstance(put, PutIfAbsent)] == [False, True, True]
    assert store.files[LOG.status_token] == b"RUNNING"


def test_a_failure_is_repeated_only_by_force_and_never_by_who_waited_for_it(store: FakeStore) -> None:
    failure = StepFailure("ValueError", "bad")
    claim(store, "a")
    store.run(end_attempt(LOG, end(1, "a", EndKind.FAILED, failure)))
    assert claim(store, "b", ClaimPolicy(force_run_failed=False)) == FailedBefore(1, failure, while_waiting=False)
    assert claim(store, "b", ClaimPolicy(waited_for=1)) == FailedBefore(1, failure, while_waiting=True)
    assert isinstance(claim(store, "b", ClaimPolicy(waited_for=2)), Claimed)


@pytest.mark.parametrize("kind", [EndKind.RELEASED, EndKind.FENCED])
def test_a_released_or_fenced_epoch_is_nobodys_failure(store: FakeStore, kind: EndKind) -> None:
    claim(store, "a")
    store.run(end_attempt(LOG, end(1, "a", kind)))
    assert isinstance(claim(store, "b", ClaimPolicy(force_run_failed=False)), Claimed)
    assert LOG.status_token not in store.files


def test_the_first_end_stands(store: FakeStore) -> None:
    claim(store, "a")
    store.run(commit(LOG, end(1, "a")))
    standing = store.run(end_attempt(LOG, end(1, "a-later", EndKind.FAILED)))
    assert standing.kind is EndKind.SUCCESS
    assert store.files[LOG.status_token] == b"SUCCESS"


@pytest.mark.parametrize(
    ("token", "outcome"), [(b"SUCCESS", AlreadyDone(0)), (b"RUNNING", None), (b"DEP_FAILED", None)]
)
def test_a_token_counts_only_where_there_is_no_log(store: FakeStore, token: bytes, outcome: object) -> None:
    store.files[LOG.status_token] = token
    found = claim(store, "a")
    assert found == outcome or (outcome is None and isinstance(found, Claimed))
    store.files = {LOG.claim(1): replace(draft("z"), epoch=1).to_bytes(), LOG.status_token: b"SUCCESS"}
    assert isinstance(claim(store, "a"), Held)


def test_the_state_takes_one_list_and_one_get(store: FakeStore) -> None:
    claim(store, "a")
    store.run(commit(LOG, end(1, "a")))
    store.operations.clear()
    assert store.run(read_state(LOG)).end.record == {"fingerprint": "f"}
    assert store.operations == [List("/out/.executor"), Get(LOG.end(1))]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"epoch": "x"}', b"\xff"])
def test_a_corrupt_control_file_is_named(store: FakeStore, content: bytes) -> None:
    store.files[LOG.end(1)] = content
    with pytest.raises(ControlFileError, match=r"control file /out/\.executor/000001\.end is truncated or corrupt"):
        claim(store, "a")
    store.files = {LOG.claim(1): content}
    with pytest.raises(ControlFileError, match=r"000001\.claim"):
        claim(store, "a")


def unavailable(times: int) -> list[Exception]:
    return [StoreUnavailableError("503") for _ in range(times)]


def test_a_store_that_does_not_answer_is_asked_again_with_growing_pauses(store: FakeStore) -> None:
    store.errors = unavailable(5)
    assert isinstance(claim(store, "a"), Claimed)
    pauses = [operation.high_s for operation in store.operations if isinstance(operation, Pause)]
    assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0]


def test_a_store_that_never_answers_is_given_up(store: FakeStore) -> None:
    store.errors = unavailable(1_000)
    with pytest.raises(StoreUnavailableError, match="503"):
        claim(store, "a")
    assert 120 <= store.now <= 140


def test_a_silent_owner_is_taken_over_after_its_lease_and_not_before(store: FakeStore) -> None:
    claim(store, "a")
    held = claim(store, "b")
    store.now = 119.0
    held = store.run(claim_epoch(LOG, draft("b"), ClaimPolicy(), held.seen))
    assert isinstance(held, Held)
    store.now = 120.0
    assert isinstance(store.run(claim_epoch(LOG, draft("b"), ClaimPolicy(), held.seen)), Claimed)


def test_a_heartbeat_starts_the_observers_patience_again(store: FakeStore) -> None:
    claim(store, "a")
    held = claim(store, "b")
    store.now, store.files[LOG.heartbeat(1)] = 119.0, b"1"
    held = store.run(claim_epoch(LOG, draft("b"), ClaimPolicy(), held.seen))
    store.now = 238.0
    assert isinstance(store.run(claim_epoch(LOG, draft("b"), ClaimPolicy(), held.seen)), Held)


def test_a_claim_that_took_longer_than_its_lease_is_given_up(store: FakeStore) -> None:
    store.before_each = lambda operation: setattr(store, "now", store.now + 30)
    with pytest.raises(LeaseLostError, match=r"claiming /out took .* s, its lease is 120 s"):
        claim(store, "a")
    assert EndRecord.from_bytes(store.files[LOG.end(1)], "end").kind is EndKind.FENCED


def test_nothing_is_claimed_for_a_job_whose_engine_is_silent(store: FakeStore) -> None:
    job = JobIdentity("job", "sim", "digest")
    store.words["job"] = EngineWord.UNKNOWN
    outcome = store.run(claim_epoch(LOG, replace(draft("a"), job=job), ClaimPolicy()))
    assert outcome == EngineSilent(job)
    assert store.files == {}


def test_a_vanished_control_file_is_named(store: FakeStore) -> None:
    claim(store, "a")

    def vanish(operation: Any) -> None:
        if isinstance(operation, Get | GetMany):
            store.files.pop(LOG.claim(1), None)

    store.before_each = vanish
    with pytest.raises(ControlFileError, match=r"000001\.claim vanished"):
        store.run(read_state(LOG))
    with pytest.raises(ControlFileError, match=r"000001\.claim vanished"):
        store.run(seal(LOG, 1, draft("b")))
    store.answers[PutIfAbsent] = lambda operation: False
    with pytest.raises(ControlFileError, match="was there and vanished"):
        store.run(claim_epoch(AttemptLog("/other"), draft("b"), ClaimPolicy()))


def test_an_epoch_with_a_request_to_cancel_is_ended_as_failed(store: FakeStore) -> None:
    claim(store, "a")
    request = CancelRecord("me", "wrong data")
    assert store.run(request_cancel(LOG, 1, request)) == request
    assert store.run(request_cancel(LOG, 1, CancelRecord("you", "late"))) == request
    standing = store.run(seal(LOG, 1, draft("b")))
    assert (standing.kind, standing.error.message) == (EndKind.FAILED, "cancelled by me: wrong data")


@pytest.mark.parametrize("kind", [EndKind.RELEASED, EndKind.FENCED])
def test_a_released_epoch_with_a_request_to_cancel_counts_as_failed(store: FakeStore, kind: EndKind) -> None:
    claim(store, "a")
    store.run(end_attempt(LOG, end(1, "a", kind)))
    store.run(request_cancel(LOG, 1, CancelRecord("me", "wrong data")))
    assert isinstance(claim(store, "b", ClaimPolicy(waited_for=1)), FailedBefore)


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_an_owner_that_gives_up_releases_or_has_been_cancelled(store: FakeStore, is_cancelled: bool) -> None:
    claim(store, "a")
    if is_cancelled:
        store.run(request_cancel(LOG, 1, CancelRecord("me", "wrong data")))
    standing = store.run(release(LOG, end(1, "a", EndKind.RELEASED)))
    assert standing.kind is (EndKind.FAILED if is_cancelled else EndKind.RELEASED)


def test_what_follows_a_body_has_one_order(store: FakeStore) -> None:
    claim(store, "a")
    committed = store.run(finish(LOG, end(1, "a")))
    assert store.acts == [FinishingAct.SAVE, FinishingAct.LOOK_AT_INPUTS, FinishingAct.WRITE_MANIFEST]
    assert committed.manifest == "digest"
    assert EndRecord.from_bytes(store.files[LOG.end(1)], "end") == committed


@pytest.mark.parametrize("lease", [LeaseView(120, -84.0), LeaseView(120, 0.0, "somebody else has ended it")])
def test_without_its_lease_an_owner_saves_nothing(store: FakeStore, lease: LeaseView) -> None:
    claim(store, "a")
    store.lease = lease
    with pytest.raises(LeaseLostError, match="attempt 1 of /out has lost its lease"):
        store.run(finish(LOG, end(1, "a")))
    assert (store.acts, LOG.end(1) in store.files) == ([], False)


@pytest.mark.parametrize("act", list(FinishingAct))
def test_a_finished_body_outlasts_a_refusal_and_a_silence(store: FakeStore, act: FinishingAct) -> None:
    claim(store, "a")
    errors = [StoreRefusedError("401"), StoreUnavailableError("503")]

    def do(operation: Act) -> None:
        store.acts.append(operation.what)
        if operation.what is act and errors:
            raise errors.pop(0)

    store.answers[Act] = do
    store.run(finish(LOG, end(1, "a")))
    assert store.acts.count(act) == 3
    assert f"attempt 1 cannot {act} yet, its lease holds 84 s: 401" in store.said[0]
    assert EndRecord.from_bytes(store.files[LOG.end(1)], "end").kind is EndKind.SUCCESS


def test_a_finished_body_that_is_refused_for_a_whole_lease_has_failed(store: FakeStore) -> None:
    claim(store, "a")

    def refuse(operation: Act) -> None:
        raise StoreRefusedError("403")

    def renewed(operation: Pause) -> None:
        store.now += 10.0
        store.lease = LeaseView(120.0, store.now)

    store.answers.update({Act: refuse, Pause: renewed})
    with pytest.raises(StoreRefusedError, match="403"):
        store.run(finish(LOG, end(1, "a")))
    assert store.now == 120.0


def test_what_a_finished_body_is_refused_until_its_lease_is_lost_is_not_committed(store: FakeStore) -> None:
    claim(store, "a")

    def refuse(operation: Act) -> None:
        raise StoreRefusedError("403")

    store.answers.update({Act: refuse, Pause: lambda operation: setattr(store, "now", store.now + 10.0)})
    with pytest.raises(LeaseLostError, match=r"no heartbeat was acknowledged for 90\.0 s"):
        store.run(finish(LOG, end(1, "a")))
    assert LOG.end(1) not in store.files


def test_a_failed_owner_asks_a_silent_store_while_its_lease_holds(store: FakeStore) -> None:
    store.lease, store.now = LeaseView(120.0, 0.0), 44.0
    assert store.run(patience_after_failure("a")) == 40.0
    store.now = 100.0
    assert store.run(patience_after_failure("a")) == 15.0
    store.lease = LeaseView(float("inf"), 0.0)
    assert store.run(patience_after_failure("a")) == 60.0


def test_a_commit_is_tried_as_long_as_the_lease_holds(store: FakeStore) -> None:
    claim(store, "a")
    store.errors = [StoreRefusedError("403"), *unavailable(2)]
    store.run(commit(LOG, end(1, "a")))
    assert len(store.said) == 3
    assert "not committed yet, 84 s left: 403" in store.said[0]


def test_a_commit_that_cannot_be_made_in_time_is_closed(store: FakeStore) -> None:
    claim(store, "a")
    store.errors = [*unavailable(1)]
    store.answers[Pause] = lambda operation: setattr(store, "now", 90.0)
    with pytest.raises(LeaseLostError, match=r"no heartbeat was acknowledged for 90\.0 s"):
        store.run(commit(LOG, end(1, "a")))
    assert EndRecord.from_bytes(store.files[LOG.end(1)], "end").kind is EndKind.RELEASED


def test_a_commit_whose_answer_was_lost_with_the_lease_stands(store: FakeStore) -> None:
    claim(store, "a")

    def lose_answer(operation: Any) -> None:
        if isinstance(operation, PutIfAbsent) and not store.said:
            store.files[operation.path] = operation.content
            store.errors = unavailable(1)

    store.before_each = lose_answer
    store.answers[Pause] = lambda operation: setattr(store, "now", 90.0)
    store.run(commit(LOG, end(1, "a")))
    assert EndRecord.from_bytes(store.files[LOG.end(1)], "end").kind is EndKind.SUCCESS


def test_a_token_that_cannot_be_written_hides_no_commit(store: FakeStore) -> None:
    claim(store, "a")

    def refuse(operation: Any) -> None:
        store.errors = [StorageError("full")] if isinstance(operation, Put) else []

    store.before_each = refuse
    store.run(commit(LOG, end(1, "a")))
    assert store.said == ["/out: its status token could not be written: full"]


@pytest.mark.parametrize("error", [StoreUnavailableError("503"), StoreRefusedError("401")])
def test_an_owner_that_cannot_look_goes_on(store: FakeStore, error: StorageError) -> None:
    claim(store, "a")
    store.errors = [error]
    store.run(check_not_ended(LOG, 1))
    assert "attempt 1 could not look at its log" in store.said[0]
    assert store.errors == []


def test_an_owner_may_ask_whether_its_epoch_has_ended(store: FakeStore) -> None:
    claim(store, "a")
    store.run(check_not_ended(LOG, 1))
    store.run(end_attempt(LOG, end(1, "b", EndKind.FENCED)))
    with pytest.raises(LeaseLostError, match="ended as FENCED by somebody else"):
        store.run(check_not_ended(LOG, 1))
