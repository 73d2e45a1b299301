"""The protocol under faults: random schedules (R1), every placement of faults (R2), and mutants that must die (R3)."""

import random
from collections.abc import Callable, Iterator

import pytest

from tests.runtime.mutants import JOB_MUTANTS, LAUNCHER_MUTANTS, Patch
from tests.runtime.schedules import first_problem, pairs, placements, planned_world, random_worlds, tally_of
from tests.runtime.simulator import World


def problems_of(worlds: Iterator[World]) -> tuple[str, ...]:
    """Runs them all. Late writes of data, which no protocol can prevent on such a store, are counted and printed."""
    tally = tally_of(worlds)
    print(f"{tally.schedules} schedules, {len(tally.problems)} violations, {tally.late_writes} late writes of data")
    return tally.problems


@pytest.mark.parametrize("part", range(4))
def test_random_schedules_of_launchers_break_nothing(part: int) -> None:
    assert problems_of(random_worlds(range(part * 2_500, (part + 1) * 2_500))) == ()


@pytest.mark.parametrize("part", range(2))
def test_random_schedules_of_jobs_break_nothing(part: int) -> None:
    seeds = range(part * 1_000, (part + 1) * 1_000)
    assert problems_of(random_worlds(seeds, with_jobs=True)) == ()


CASES = [
    pytest.param(with_jobs, machines, id=f"{'jobs' if with_jobs else 'launchers'}-on-{machines}")
    for with_jobs in (False, True)
    for machines in (1, 2)
]


@pytest.mark.parametrize(("with_jobs", "machines"), CASES)
def test_every_single_fault_breaks_nothing(with_jobs: bool, machines: int) -> None:
    plans = placements(with_jobs=with_jobs, machines=machines)
    worlds = (planned_world(dict([plan]), with_jobs=with_jobs, machines=machines) for plan in plans)
    assert problems_of(worlds) == ()


@pytest.mark.parametrize(("with_jobs", "machines"), CASES)
def test_a_sample_of_pairs_of_faults_breaks_nothing(with_jobs: bool, machines: int) -> None:
    plans = list(pairs(with_jobs=with_jobs, machines=machines))
    sample = random.Random(4).sample(plans, 500)
    worlds = (planned_world(dict(plan), with_jobs=with_jobs, machines=machines) for plan in sample)
    assert problems_of(worlds) == ()


def test_without_faults_each_step_is_built_once() -> None:
    for seed in range(300):
        world = World(seed, workers=4, machines=3).run()
        assert (world.problems, world.bodies) == ([], 1)


def test_without_faults_each_job_is_submitted_once() -> None:
    for seed in range(300):
        world = World(seed, workers=3, machines=3, with_jobs=True).run()
        assert (world.problems, world.bodies, world.submissions) == ([], 1, 1)


def test_a_rest_of_nothing_but_rounding_is_waited_for_no_longer() -> None:
    """A stopped owner's keeper once waited for 10⁻¹⁷ s in this schedule, again and again: its clock did not move."""
    assert problems_of(random_worlds(range(8_010_492, 8_010_493), with_jobs=True)) == ()


@pytest.mark.parametrize("mutate", LAUNCHER_MUTANTS)
def test_a_mutant_is_killed_by_random_schedules(mutate: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutate(monkeypatch)
    assert first_problem(random_worlds(range(10_000))) is not None


@pytest.mark.parametrize("mutate", JOB_MUTANTS)
def test_a_mutant_of_jobs_is_killed_by_random_schedules(mutate: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutate(monkeypatch)
    assert first_problem(random_worlds(range(2_000), with_jobs=True)) is not None
