"""Mutants of the protocol, each with one rule left out or bent: the tests of the tests. Each patches the programs."""

from typing import Any

import pytest

from marin_trace.runtime import heartbeat, job_protocol, protocol
from marin_trace.runtime.log_records import EndKind
from marin_trace.runtime.operations import AwaitDeath, EngineWord, Now, Put, PutIfAbsent, Report
from tests.runtime.simulator import T, World

Patch = pytest.MonkeyPatch


def no_read_back(patch: Patch) -> None:
    original = protocol.end_attempt

    def end_attempt(log: Any, end: Any, **options: Any) -> Any:
        standing = yield from original(log, end, **options)
        created = yield PutIfAbsent(log.end(end.epoch), b"")
        assert not created
        return protocol.EndRecord(end.epoch, EndKind.FENCED, "other", "now") if standing is not end else standing

    patch.setattr(protocol, "end_attempt", end_attempt)


def overwrite_at_commit(patch: Patch) -> None:
    original = protocol.create

    def create(path: str, content: bytes, **options: Any) -> Any:
        if b'"kind":"SUCCESS"' not in content:
            return (yield from original(path, content, **options))
        yield Put(path, content)
        return None

    patch.setattr(protocol, "create", create)


def seal_skipped(patch: Patch) -> None:
    original = protocol.claim_epoch

    def claim_epoch(log: Any, draft: Any, policy: Any, seen: Any = None) -> Any:
        outcome = yield from original(log, draft, policy, seen)
        is_old = isinstance(outcome, protocol.Held) and outcome.seen.since < (yield Now()) - T / 2
        if not is_old:
            return outcome
        claim = protocol.replace(draft, epoch=outcome.claim.epoch + 1)
        return (yield from protocol.claim_next(log, claim)) or outcome

    patch.setattr(protocol, "claim_epoch", claim_epoch)


def impatient_observer(patch: Patch) -> None:
    original = protocol.observe

    def observe(log: Any, claim: Any, observer: Any, seen: Any, **options: Any) -> Any:
        short = protocol.replace(claim, lease_s=claim.lease_s / 10)
        return (yield from original(log, short, observer, seen, **options))

    patch.setattr(protocol, "observe", observe)


def sighting_without_epoch(patch: Patch) -> None:
    def shows(self: Any, claim: Any, start: Any, heartbeat: Any) -> bool:
        return (self.nonce, self.start, self.heartbeat) == (claim.nonce, start, heartbeat)

    patch.setattr(protocol.Sighting, "shows", shows)


def no_heartbeat(patch: Patch) -> None:
    def beat(kept: Any, seq: int, last: float) -> Any:
        now = yield Now()
        yield Report(kept.attempt, now)
        return heartbeat.BeatResult.RENEWED, now

    patch.setattr(heartbeat, "beat", beat)


def save_after_fencing(patch: Patch) -> None:
    def require_lease(log: Any, end: Any) -> Any:
        yield Now()
        return 1.0

    patch.setattr(protocol, "require_lease", require_lease)


def release_before_death(patch: Patch) -> None:
    original = heartbeat.stop_owner

    def stop(kept: Any, last: float, why: str) -> Any:
        release = protocol.EndRecord(kept.claim.epoch, EndKind.RELEASED, kept.attempt, "now")
        yield from protocol.end_attempt(kept.log, release)
        return (yield from original(kept, last, why))

    patch.setattr(heartbeat, "stop_owner", stop)


def own_end_is_taken_for_somebody_elses(patch: Patch) -> None:
    original = heartbeat._look

    def look(kept: Any, sent_at: float) -> Any:
        result, sent_at = yield from original(kept, sent_at)
        return heartbeat.BeatResult.ENDED if result is heartbeat.BeatResult.DECIDED else result, sent_at

    patch.setattr(heartbeat, "_look", look)


def no_release_after_death(patch: Patch) -> None:
    def release(kept: Any) -> Any:
        # The keeper stays, and renews for a dead owner.
        seq = 1_000
        while True:
            yield AwaitDeath()
            yield protocol.Pause(T / 8, T / 8)
            seq += 1
            yield Put(kept.log.heartbeat(kept.claim.epoch), str(seq).encode())

    patch.setattr(heartbeat, "_release", release)


def forcing_voids_every_success(patch: Patch) -> None:
    def verdict_of(state: Any, policy: Any) -> Any:
        is_hit = state.is_finished and policy.rerun_of is None
        return protocol.AlreadyDone(state.epoch) if is_hit else None

    patch.setattr(protocol, "verdict_of", verdict_of)


def dead_launcher_means_dead_children(patch: Patch) -> None:
    original = World._is_gone

    def is_gone(self: World, observer: Any, owner: Any) -> bool:
        process = self.processes.get(owner.process_nonce)
        paused = process is not None and process.paused_until > self.now
        return paused or original(self, observer, owner)

    patch.setattr(World, "_is_gone", is_gone)


def start_not_exclusive(patch: Patch) -> None:
    original = job_protocol.create

    def create(path: str, content: bytes, **options: Any) -> Any:
        yield from original(path, content, **options)

    patch.setattr(job_protocol, "create", create)


def engine_ends_a_started_epoch(patch: Patch) -> None:
    original = protocol.observe

    def observe(log: Any, claim: Any, observer: Any, seen: Any, **options: Any) -> Any:
        found = yield from original(log, claim, observer, seen, **options)
        # Engines say that a preempted job is gone while its zombie lives on.
        word = EngineWord.GONE if found.start is not None else EngineWord.ALIVE
        return protocol.replace(found, is_gone=found.is_gone or word is EngineWord.GONE)

    patch.setattr(protocol, "observe", observe)
    patch.setattr(job_protocol, "observe", observe)


LAUNCHER_MUTANTS = [
    no_read_back,
    overwrite_at_commit,
    seal_skipped,
    impatient_observer,
    sighting_without_epoch,
    no_heartbeat,
    save_after_fencing,
    release_before_death,
    own_end_is_taken_for_somebody_elses,
    no_release_after_death,
    forcing_voids_every_success,
    dead_launcher_means_dead_children,
]
JOB_MUTANTS = [start_not_exclusive, engine_ends_a_started_epoch]
