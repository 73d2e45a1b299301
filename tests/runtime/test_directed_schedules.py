"""Schedules for what random ones rarely meet, each with the mutant of the protocol that it kills (R3)."""

import inspect
import sys
from collections.abc import Callable, Generator
from types import ModuleType
from typing import Any

import pytest

from marin_trace.runtime import heartbeat, job_protocol, protocol
from marin_trace.runtime.heartbeat import KeptClaim
from marin_trace.runtime.job_protocol import enter_job
from marin_trace.runtime.log_records import ClaimRecord, EndKind, EndRecord, JobIdentity
from marin_trace.runtime.operations import Now, Put, Report, Submit, Terminate
from marin_trace.runtime.protocol import Claimed, ClaimPolicy, Sighting
from tests.runtime.mutants import sighting_without_epoch
from tests.runtime.test_protocol import LOG, FakeStore

JOB = JobIdentity("job", "sim", "digest")


def mutant_of(module: ModuleType, old: str, new: str) -> ModuleType:
    """The module with one place of its source changed."""
    source = inspect.getsource(module)
    assert source.count(old) == 1, f"{source.count(old)} places match"
    mutant = ModuleType(f"{module.__name__}_mutant")
    sys.modules[mutant.__name__] = mutant
    exec(compile(source.replace(old, new), f"<mutant of {module.__name__}>", "exec"), mutant.__dict__)
    return mutant


def claim(nonce: str = "a", *, epoch: int = 1, job: JobIdentity | None = None) -> ClaimRecord:
    return ClaimRecord(epoch, nonce, "host", 1, f"process-{nonce}", 120.0, "now", job=job)


def answers_of(program: Generator[Any, Any, Any], times: list[float]) -> tuple[list[Any], Any]:
    """Runs a beat by hand: every look at the clock gives the next time."""
    operations: list[Any] = []
    answer: Any = None
    while True:
        try:
            operation = program.send(answer)
        except StopIteration as stop:
            return operations, stop.value
        operations.append(operation)
        answer = times.pop(0) if isinstance(operation, Now) else [None] * 3


KEPT = KeptClaim("/out", claim(), "a", 0.0)


def lease_counts_from_sending(module: ModuleType) -> None:
    operations, (result, last) = answers_of(module.beat(KEPT, 1, 0.0), [10.0, 10.0, 50.0])
    assert [operation for operation in operations if isinstance(operation, Report)] == [Report("a", 10.0)]
    assert (str(result), last) == ("renewed", 10.0)


def a_late_answer_renews_nothing(module: ModuleType) -> None:
    operations, (result, last) = answers_of(module.beat(KEPT, 1, 0.0), [80.0, 80.0, 84.1])
    assert [operation for operation in operations if isinstance(operation, Report)] == []
    assert (str(result), last) == ("expired", 0.0)


def a_retry_does_not_count(module: ModuleType) -> None:
    program = module.beat(KEPT, 1, 0.0)
    assert isinstance(next(program), Now)
    assert isinstance(program.send(10.0), Now)
    assert isinstance(program.send(10.0), Put)
    program.throw(OSError("lost"))
    program.send(None)  # said
    assert isinstance(program.send(None), Now)  # paused
    assert isinstance(program.send(40.0), Put)
    assert isinstance(program.send(None), Now)
    assert program.send(41.0) == Report("a", 10.0)


def nothing_is_sent_after_the_lease(module: ModuleType) -> None:
    operations, (result, _) = answers_of(module.beat(KEPT, 1, 0.0), [84.1, 84.1, 84.1])
    assert [operation for operation in operations if isinstance(operation, Put)] == []
    assert str(result) == "expired"


def no_two_requests_write_the_same(module: ModuleType) -> None:
    """A request that is applied late, or another keeper's, brings back nothing that an observer has seen."""
    written: list[bytes] = []
    for started_at in (0.0, 40.0):  # a keeper, and the one that replaces it
        program = module.beat(KEPT, 1, started_at)
        next(program)
        program.send(started_at + 10.0)
        for tried_at in (started_at + 10.0, started_at + 20.0):
            put = program.send(tried_at)
            assert isinstance(put, Put)
            written.append(put.content)
            program.throw(OSError("lost"))
            program.send(None)  # said
            program.send(None)  # paused
    assert len(set(written)) == 4


BEATS = [
    (no_two_requests_write_the_same, "tried_at=now", "tried_at=0.0"),
    (lease_counts_from_sending, "yield Report(kept.attempt, sent_at)", "yield Report(kept.attempt, acknowledged)"),
    (a_late_answer_renews_nothing, "if acknowledged >= limit:", "if acknowledged < 0:"),
    (
        a_retry_does_not_count,
        "        now: float = yield Now()\n        if now >= limit:",
        "        now = sent_at = yield Now()\n        if now >= limit:",
    ),
    (nothing_is_sent_after_the_lease, "        if now >= limit:", "        if now < 0:"),
]


@pytest.mark.parametrize(("law", "old", "new"), BEATS)
def test_the_owners_lease(law: Callable[[ModuleType], None], old: str, new: str) -> None:
    law(heartbeat)
    mutant = mutant_of(heartbeat, old, new)
    with pytest.raises(AssertionError):
        law(mutant)


def observed_from_end_to_start(module: ModuleType) -> None:
    store = FakeStore()
    store.files[LOG.claim(1)] = claim().to_bytes()
    times = iter([0.0, 30.0, 149.0, 160.0, 150.0, 160.0])
    store.before_each = lambda operation: setattr(store, "now", next(times)) if isinstance(operation, Now) else None
    seen = store.run(module.observe(LOG, claim(), claim("b"), None))
    assert seen.since == 30.0
    seen = store.run(module.observe(LOG, claim(), claim("b"), seen))
    assert not seen.is_gone
    assert store.run(module.observe(LOG, claim(), claim("b"), seen)).is_gone


OBSERVERS = [
    ("claim.nonce, heartbeat, start_bytes, since=ended", "claim.nonce, heartbeat, start_bytes, since=began"),
    ("if began - seen.since >= claim.lease_s:", "if ended - seen.since >= claim.lease_s:"),
    ("if began - seen.since >= claim.lease_s:", "if began - seen.since >= 0.5 * claim.lease_s:"),
]


@pytest.mark.parametrize(("old", "new"), OBSERVERS)
def test_the_observers_patience(old: str, new: str) -> None:
    observed_from_end_to_start(protocol)
    with pytest.raises(AssertionError):
        observed_from_end_to_start(mutant_of(protocol, old, new))


def step(store: FakeStore, program: Generator[Any, Any, Any], count: int) -> tuple[Any, Any]:
    """Runs some operations of a program: what waits to be answered next, or what it returned."""
    operation = next(program)
    for _ in range(count):
        try:
            operation = program.send(store.answer(operation))
        except StopIteration as stop:
            return None, stop.value
    return operation, None


def sealing_and_starting_exclude_each_other(module: ModuleType) -> None:
    """A job begins at every instant of the sealing of its epoch: it runs its body, or the epoch is ended."""
    for instant in range(8):
        store = FakeStore()
        store.files[LOG.claim(1)] = claim(job=JOB).to_bytes()
        seen = Sighting(1, "a", None, None, 0.0, is_gone=True)
        sealing = module.seal(LOG, 1, claim("b"), seen=seen)
        pending, _ = step(store, sealing, instant)
        entry = store.run(enter_job(LOG, claim("j", job=JOB), ClaimPolicy()))
        while pending is not None:
            try:
                pending = sealing.send(store.answer(pending))
            except StopIteration:
                pending = None
        assert not (isinstance(entry, Claimed) and LOG.end(1) in store.files), f"instant {instant}"


def test_a_seal_keeps_a_late_job_out() -> None:
    sealing_and_starting_exclude_each_other(protocol)
    mutant = mutant_of(protocol, "        if not is_closed:\n            return None\n", "")
    with pytest.raises(AssertionError, match="instant"):
        sealing_and_starting_exclude_each_other(mutant)


def ends_are_looked_at_after_the_claim(module: ModuleType) -> None:
    store = FakeStore()

    def seal_meanwhile(operation: Any) -> None:
        if LOG.claim(1) in store.files and LOG.end(1) not in store.files:
            store.files[LOG.end(1)] = EndRecord(1, EndKind.FENCED, "person", "now").to_bytes()

    store.before_each = seal_meanwhile
    assert store.run(module.claim_next(LOG, claim())) is None


def test_a_claim_that_was_sealed_meanwhile_is_not_ours() -> None:
    ends_are_looked_at_after_the_claim(protocol)
    with pytest.raises(AssertionError):
        ends_are_looked_at_after_the_claim(mutant_of(protocol, "    if sealed is not None:\n        return None\n", ""))


def earlier_jobs_are_gone_before_the_next(module: ModuleType) -> None:
    store = FakeStore()
    store.files[LOG.claim(1)] = claim(job=JOB).to_bytes()
    second = claim("b", epoch=2, job=JobIdentity("next", "sim", "digest"))
    words = iter([protocol.EngineWord.ALIVE, protocol.EngineWord.GONE])
    done: list[Any] = []
    original = store.answer

    def answer(operation: Any) -> Any:
        done.append(operation)
        match operation:
            case Terminate():
                return next(words)
            case Submit():
                return None
        return original(operation)

    store.answer = answer
    assert store.run(module.submit_job(LOG, second))
    assert [type(operation) for operation in done if isinstance(operation, Terminate | Submit)] == [
        Terminate,
        Terminate,
        Submit,
    ]


def test_a_job_is_submitted_when_the_earlier_ones_are_gone() -> None:
    earlier_jobs_are_gone_before_the_next(job_protocol)
    with pytest.raises(AssertionError):
        earlier_jobs_are_gone_before_the_next(
            mutant_of(job_protocol, "if word is EngineWord.GONE:\n                break", "break")
        )


def a_later_epoch_of_the_same_owner_is_another_sight() -> None:
    """A claimant that goes on from its own claim, ended before it was acknowledged, keeps its nonce."""
    store = FakeStore()
    seen = store.run(protocol.observe(LOG, claim(), claim("b"), None))
    store.now = 120.0
    assert not store.run(protocol.observe(LOG, claim(epoch=2), claim("b"), seen)).is_gone


def test_what_was_seen_of_an_epoch_says_nothing_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    a_later_epoch_of_the_same_owner_is_another_sight()
    sighting_without_epoch(monkeypatch)
    with pytest.raises(AssertionError):
        a_later_epoch_of_the_same_owner_is_another_sight()
