"""The protocol under faults: random schedules (R1), every placement of faults (R2), and mutants that must die (R3)."""

import random
from collections.abc import Callable, Iterator
from itertools import combinations, islice
from typing import Any

import pytest

from marin_trace.runtime import heartbeat, job_protocol, protocol
from marin_trace.runtime.log_records import LOCAL_CLUSTER, EndKind
from marin_trace.runtime.operations import AwaitDeath, EngineWord, Now, Put, PutIfAbsent, Report
from tests.runtime.simulator import Fault, T, World

Patch = pytest.MonkeyPatch


def random_world(seed: int, *, with_jobs: bool = False) -> World:
    """A schedule of this seed: two to four workers on one to three machines whose clocks differ by up to two hours."""
    dice = random.Random(seed * 7 + 1)
    return World(
        seed,
        workers=dice.randint(2, 4),
        machines=dice.randint(1, 3),
        fault_rate=dice.choice([0, 0.01, 0.03, 0.1]),
        checks_lease=dice.random() < 0.5,
        fails=dice.choice([0, 0, 0, 0.3]),
        forced=dice.random() < 0.2 and not with_jobs,
        with_jobs=with_jobs,
        cluster=dice.choice(["sim", LOCAL_CLUSTER]),
        preempts=0.4 if with_jobs else 0.0,
        unreachable=(1 * T, 3 * T) if with_jobs and dice.random() < 0.2 else (0.0, 0.0),
        body_s=dice.choice([0.1, 0.5, 1.5]) * T,
    )


def problems_of(worlds: Iterator[World]) -> list[str]:
    """Runs them all. Late writes of data, which no protocol can prevent on such a store, are counted and printed."""
    schedules, late_writes, problems = 0, 0, list[str]()
    for world in worlds:
        problems += [f"seed {world.seed}, plan {world.plan}: {problem}" for problem in world.run().problems]
        schedules, late_writes = schedules + 1, late_writes + world.data_violations
    print(f"{schedules} schedules, {len(problems)} violations of control state, {late_writes} late writes of data")
    return problems


def random_worlds(seeds: range, *, with_jobs: bool = False) -> Iterator[World]:
    return (random_world(seed, with_jobs=with_jobs) for seed in seeds)


@pytest.mark.parametrize("part", range(4))
def test_random_schedules_of_launchers_break_nothing(part: int) -> None:
    assert problems_of(random_worlds(range(part * 2_500, (part + 1) * 2_500))) == []


@pytest.mark.parametrize("part", range(2))
def test_random_schedules_of_jobs_break_nothing(part: int) -> None:
    seeds = range(part * 1_000, (part + 1) * 1_000)
    assert problems_of(random_worlds(seeds, with_jobs=True)) == []


@pytest.mark.soak
@pytest.mark.parametrize("with_jobs", [False, True])
@pytest.mark.parametrize("part", range(10))
def test_many_random_schedules_break_nothing(with_jobs: bool, part: int) -> None:
    seeds = range(100_000 + part * 5_000, 100_000 + (part + 1) * 5_000)
    assert problems_of(random_worlds(seeds, with_jobs=with_jobs)) == []


def planned_world(plan: dict[int, Fault], *, with_jobs: bool, machines: int) -> World:
    return World(1, plan=plan, jitter=False, with_jobs=with_jobs, machines=machines, body_s=0.4 * T)


def placements(*, with_jobs: bool, machines: int) -> list[tuple[int, Fault]]:
    """Every fault at every request of the schedule without faults."""
    quiet = planned_world({}, with_jobs=with_jobs, machines=machines).run()
    assert quiet.problems == []
    return [(number, fault) for number in range(quiet.requests) for fault in Fault]


CASES = [
    pytest.param(with_jobs, machines, id=f"{'jobs' if with_jobs else 'launchers'}-on-{machines}")
    for with_jobs in (False, True)
    for machines in (1, 2)
]


@pytest.mark.parametrize(("with_jobs", "machines"), CASES)
def test_every_single_fault_breaks_nothing(with_jobs: bool, machines: int) -> None:
    plans = placements(with_jobs=with_jobs, machines=machines)
    worlds = (planned_world(dict([plan]), with_jobs=with_jobs, machines=machines) for plan in plans)
    assert problems_of(worlds) == []


def pairs(*, with_jobs: bool, machines: int) -> Iterator[dict[int, Fault]]:
    singles = placements(with_jobs=with_jobs, machines=machines)
    return (dict(pair) for pair in combinations(singles, 2) if pair[0][0] != pair[1][0])


@pytest.mark.parametrize(("with_jobs", "machines"), CASES)
def test_a_sample_of_pairs_of_faults_breaks_nothing(with_jobs: bool, machines: int) -> None:
    plans = list(pairs(with_jobs=with_jobs, machines=machines))
    sample = random.Random(4).sample(plans, 500)
    worlds = (planned_world(plan, with_jobs=with_jobs, machines=machines) for plan in sample)
    assert problems_of(worlds) == []


@pytest.mark.soak
@pytest.mark.parametrize("machines", [1, 2])
def test_every_pair_of_faults_of_launchers_breaks_nothing(machines: int) -> None:
    plans = pairs(with_jobs=False, machines=machines)
    assert problems_of(planned_world(plan, with_jobs=False, machines=machines) for plan in plans) == []


@pytest.mark.soak
@pytest.mark.parametrize("machines", [1, 2])
def test_one_in_six_pairs_of_faults_of_jobs_breaks_nothing(machines: int) -> None:
    # All of them, 317,196 for each number of machines, take half an hour.
    plans = islice(pairs(with_jobs=True, machines=machines), machines, None, 6)
    assert problems_of(planned_world(plan, with_jobs=True, machines=machines) for plan in plans) == []


def test_without_faults_each_step_is_built_once() -> None:
    for seed in range(300):
        world = World(seed, workers=4, machines=3).run()
        assert (world.problems, world.bodies) == ([], 1)


def test_without_faults_each_job_is_submitted_once() -> None:
    for seed in range(300):
        world = World(seed, workers=3, machines=3, with_jobs=True).run()
        assert (world.problems, world.bodies, world.submissions) == ([], 1, 1)


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
    original = heartbeat._stop

    def stop(kept: Any, last: float, why: str) -> Any:
        release = protocol.EndRecord(kept.claim.epoch, EndKind.RELEASED, kept.attempt, "now")
        yield from protocol.end_attempt(kept.log, release)
        return (yield from original(kept, last, why))

    patch.setattr(heartbeat, "_stop", stop)


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


LOCAL_MUTANTS = [
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


def first_problem(worlds: Iterator[World]) -> str | None:
    for world in worlds:
        try:
            problems = world.run().problems
        except Exception as error:
            return repr(error)
        if problems:
            return problems[0]
    return None


@pytest.mark.parametrize("mutate", LOCAL_MUTANTS)
def test_a_mutant_is_killed_by_random_schedules(mutate: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutate(monkeypatch)
    assert first_problem(random_worlds(range(10_000))) is not None


@pytest.mark.parametrize("mutate", JOB_MUTANTS)
def test_a_mutant_of_jobs_is_killed_by_random_schedules(mutate: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutate(monkeypatch)
    assert first_problem(random_worlds(range(2_000), with_jobs=True)) is not None
