"""R1 to R3: the protocol's own programs in the simulator, over more schedules than each `make test` runs."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import cache, partial

import pytest

from tests.runtime.mutants import JOB_MUTANTS, LAUNCHER_MUTANTS
from tests.runtime.schedules import Placement, Tally, first_problem, pairs, planned_world, random_worlds, tally_of
from tests.soak.series import Outcome, Series, Terms

SEEDS_EACH = 1_000_000
"""Seeds of schedules that one seed of a soak may use: two soaks share none."""
CHUNK = 1_000

Chunk = Callable[[], Tally]


def merged(tallies: Sequence[Tally]) -> Tally:
    """The sum."""
    return Tally(
        sum(tally.schedules for tally in tallies),
        tuple(problem for tally in tallies for problem in tally.problems),
        sum(tally.late_writes for tally in tallies),
    )


def run_chunks(terms: Terms, chunks: Iterator[Chunk]) -> Tally:
    """Runs chunks of schedules in processes of their own, until there are no more or the time is up."""
    tallies: list[Tally] = []
    running: set[Future[Tally]] = set()
    with ProcessPoolExecutor(terms.workers) as pool:
        while True:
            while len(running) < terms.workers and not terms.is_over and (chunk := next(chunks, None)) is not None:
                running.add(pool.submit(chunk))
            if not running:
                return merged(tallies)
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            tallies += [future.result() for future in ended]


def random_chunk(start: int, size: int, with_jobs: bool) -> Tally:
    return tally_of(random_worlds(range(start, start + size), with_jobs=with_jobs))


def random_chunks(terms: Terms, full: int, *, with_jobs: bool) -> Iterator[Chunk]:
    start = (terms.seed + 1) * SEEDS_EACH
    for offset in range(0, terms.count(full), CHUNK):
        size = min(CHUNK, terms.count(full) - offset)
        yield partial(random_chunk, start + offset, size, with_jobs)


def random_schedules(terms: Terms) -> Outcome:
    """R1."""
    half = replace(terms, deadline=(time.monotonic() + terms.deadline) / 2)
    launchers = run_chunks(half, random_chunks(terms, 50_000, with_jobs=False))
    jobs = run_chunks(terms, random_chunks(terms, 12_000, with_jobs=True))
    return Outcome(
        f"{launchers.schedules:,} schedules of launchers, {jobs.schedules:,} of jobs",
        launchers.problems + jobs.problems,
        f"late writes of data: {launchers.late_writes} and {jobs.late_writes}",
    )


@dataclass(frozen=True, slots=True)
class Case:
    """A schedule in which pairs of faults are placed."""

    with_jobs: bool
    machines: int


LAUNCHER_CASES = (Case(with_jobs=False, machines=1), Case(with_jobs=False, machines=2))
JOB_CASES = (Case(with_jobs=True, machines=1), Case(with_jobs=True, machines=2))


@cache
def pairs_of(case: Case) -> list[tuple[Placement, Placement]]:
    return list(pairs(with_jobs=case.with_jobs, machines=case.machines))


def planned_chunk(case: Case, numbers: Sequence[int]) -> Tally:
    plans = pairs_of(case)
    return tally_of(
        planned_world(dict(plans[number]), with_jobs=case.with_jobs, machines=case.machines) for number in numbers
    )


def planned_chunks(cases: Sequence[Case], seed: int) -> Iterator[Chunk]:
    """All pairs, in an order that the seed gives: the first of them are a sample."""
    order = [(case, number) for case in cases for number in range(len(pairs_of(case)))]
    random.Random(seed).shuffle(order)
    for start in range(0, len(order), 2 * CHUNK):
        part = order[start : start + 2 * CHUNK]
        for case in cases:
            yield partial(planned_chunk, case, [number for of_case, number in part if of_case == case])


def pairs_of_faults(terms: Terms) -> Outcome:
    """R2: all pairs of faults of launchers, then of jobs as many as the time allows."""
    launchers = run_chunks(terms, planned_chunks(LAUNCHER_CASES, terms.seed))
    jobs = run_chunks(terms, planned_chunks(JOB_CASES, terms.seed))
    of_launchers, of_jobs = (sum(len(pairs_of(case)) for case in cases) for cases in (LAUNCHER_CASES, JOB_CASES))
    return Outcome(
        f"{launchers.schedules:,} of {of_launchers:,} pairs of launchers, "
        f"{jobs.schedules:,} of {of_jobs:,} of jobs ({jobs.schedules / of_jobs:.0%})",
        launchers.problems + jobs.problems,
        f"late writes of data: {launchers.late_writes} and {jobs.late_writes}",
    )


def is_killed(mutate: Callable[[pytest.MonkeyPatch], None], seeds: range, with_jobs: bool) -> bool:
    """Whether the schedules of these seeds tell a mutant from the protocol."""
    with pytest.MonkeyPatch.context() as patch:
        mutate(patch)
        return first_problem(random_worlds(seeds, with_jobs=with_jobs)) is not None


def mutants(terms: Terms) -> Outcome:
    """R3, by schedules of other seeds than those of `make test`, in which ten more are killed by directed ones."""
    start = (terms.seed + 1) * SEEDS_EACH
    cases = [(mutate, range(start, start + 60_000), False) for mutate in LAUNCHER_MUTANTS]
    cases += [(mutate, range(start, start + 4_000), True) for mutate in JOB_MUTANTS]
    with ProcessPoolExecutor(terms.workers) as pool:
        killed = list(pool.map(is_killed, *zip(*cases, strict=True)))
    alive = [mutate.__name__ for (mutate, _, _), dead in zip(cases, killed, strict=True) if not dead]
    return Outcome(f"{sum(killed)} of {len(cases)} mutants killed", tuple(f"the mutant {name} lives" for name in alive))


SERIES = (
    Series("R1", "random schedules of the simulator", random_schedules, weight=70),
    Series("R3", "mutants of the protocol are killed", mutants, weight=40),
)
PAIRS = Series("R2", "pairs of faults in the simulator", pairs_of_faults, weight=40)
