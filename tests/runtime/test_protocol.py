"""The protocol's rules, on a store made of a dict: programs are driven by hand, so that faults can be placed."""

from collections.abc import Callable
from typing import Any

import pytest

from marin_trace.errors import ControlFileError, LeaseLostError
from marin_trace.runtime.log_records import AttemptLog, ClaimRecord, EndKind, EndRecord, StepFailure
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
    FailedBefore,
    Held,
    claim_epoch,
    commit,
    end_attempt,
    read_state,
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
            answer = self.answer(operation) if error is None else None

    def answer(self, operation: Any) -> Any:  # noqa: PLR0912
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
    store.files = {LOG.claim(1): draft("z").to_bytes(), LOG.status_token: b"SUCCESS"}
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
