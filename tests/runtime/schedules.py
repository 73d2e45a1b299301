"""Which schedules of the simulator are run: random ones, and plans that place one or two faults at each request."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations

from marin_trace.runtime.log_records import LOCAL_CLUSTER
from tests.runtime.simulator import Fault, T, World

Placement = tuple[int, Fault]
"""A fault at the n-th request."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of some schedules."""

    schedules: int
    problems: tuple[str, ...]
    """Violations of control state, each with its seed and plan."""
    late_writes: int
    """Of data, which no protocol can prevent on such a store."""


def tally_of(worlds: Iterable[World]) -> Tally:
    """Runs them all."""
    schedules, late_writes, problems = 0, 0, list[str]()
    for world in worlds:
        problems += [f"seed {world.seed}, plan {world.plan}: {problem}" for problem in world.run().problems]
        schedules, late_writes = schedules + 1, late_writes + world.data_violations
    return Tally(schedules, tuple(problems), late_writes)


def first_problem(worlds: Iterable[World]) -> str | None:
    """Runs them until one breaks, as those of a mutant must."""
    for world in worlds:
        try:
            problems = world.run().problems
        except Exception as error:
            return repr(error)
        if problems:
            return problems[0]
    return None


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


def random_worlds(seeds: Iterable[int], *, with_jobs: bool = False) -> Iterator[World]:
    return (random_world(seed, with_jobs=with_jobs) for seed in seeds)


def planned_world(plan: dict[int, Fault], *, with_jobs: bool, machines: int) -> World:
    return World(1, plan=plan, jitter=False, with_jobs=with_jobs, machines=machines, body_s=0.4 * T)


def placements(*, with_jobs: bool, machines: int) -> list[Placement]:
    """Every fault at every request of the schedule without faults."""
    quiet = planned_world({}, with_jobs=with_jobs, machines=machines).run()
    assert quiet.problems == []
    return [(number, fault) for number in range(quiet.requests) for fault in Fault]


def pairs(*, with_jobs: bool, machines: int) -> Iterator[tuple[Placement, Placement]]:
    """Every two faults at two requests."""
    singles = placements(with_jobs=with_jobs, machines=machines)
    return ((first, second) for first, second in combinations(singles, 2) if first[0] != second[0])
