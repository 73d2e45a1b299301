"""R5, R6: without faults. One of sixteen creates a file, and of eight launchers one runs each step."""

import random
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from functools import partial

from tests.soak.checks import Data, problems_of_site
from tests.soak.kills import LIMIT_S, reference
from tests.soak.places import Store
from tests.soak.series import Outcome, Terms, in_each_store, run_trials
from tests.soak.site import ROOT, Site, await_exit, busy, run_records
from tests.storage.racer import winners_among_processes, winners_among_threads

PROCESSES, ROUNDS = 16, 300
LAUNCHERS = 8
RUNS = {Store.LOCAL: 8, Store.S3: 2, Store.GCS: 2}
LARGEST_SKEW_S = 3600.0
SKEWED_PATH = f"{ROOT / 'tests' / 'soak' / 'skewed_clock'}:{ROOT}"


def races_for_one_file(terms: Terms) -> Outcome:
    """R5. Which of them wins is nobody's choice: there is no seed in it."""
    rounds, place = terms.count(ROUNDS), terms.place
    winners = {place.store.value: winners_among_processes(place.path_of(terms.directory), PROCESSES, rounds)}
    if place.store is Store.LOCAL:
        winners["memory"] = winners_among_threads(f"memory:/{terms.directory}", PROCESSES, rounds)
    wrong = [
        f"{store}, round {number}: {count} winners"
        for store, counts in winners.items()
        for number, count in enumerate(counts)
        if count != 1
    ]
    short = [f"{store}: {len(counts)} rounds" for store, counts in winners.items() if len(counts) != rounds]
    beside = ", as many of 16 threads in memory" if "memory" in winners else ""
    return Outcome(f"{PROCESSES} processes, {rounds} rounds{beside}", (*wrong, *short))


def skews_of(seed: int, trial: int) -> list[float]:
    """The error of each launcher's wall clock in seconds; the first two are as far apart as can be."""
    dice = random.Random(f"skews {seed} {trial}")
    return [
        -LARGEST_SKEW_S,
        LARGEST_SKEW_S,
        *(dice.uniform(-LARGEST_SKEW_S, LARGEST_SKEW_S) for _ in range(LAUNCHERS - 2)),
    ]


def problems_of_clocks(site: Site) -> list[str]:
    """That the clocks were apart is checked as well: the first two launchers' by nearly two hours."""
    began = [datetime.fromisoformat(record["started_at"]) for record in run_records(site.prefix)]
    spread_s = (max(began) - min(began)).total_seconds() if began else 0.0
    return [] if spread_s > 1.9 * LARGEST_SKEW_S else [f"the launchers' clocks were {spread_s:.0f} s apart"]


def run_together(terms: Terms, expected: Data, number: int) -> list[str]:
    """Eight launchers at once; what broke."""
    problems: list[str] = []
    with terms.place.site(terms.directory / f"trial-{number}") as site:
        launchers = [
            site.launch(
                # A long lease: without faults nobody may lose one because the machine is busy.
                *("--lease_seconds", 30, "--pace", 0.01),
                machine=machine % 3,
                environment={"SOAK_SKEW_S": str(skew_s), "PYTHONPATH": SKEWED_PATH},
            )
            for machine, skew_s in enumerate(skews_of(terms.seed, number))
        ]
        codes = [await_exit(launcher, LIMIT_S * busy()) for launcher in launchers]
        if codes != [0] * LAUNCHERS:
            problems.append(f"the launchers ended with {codes}")
        bodies = Counter(row["output"] for row in site.noted() if row["event"] == "begins")
        problems += [f"{output} was run {bodies[output]} times" for output in bodies if bodies[output] != 1]
        problems += site.await_end_of_all(limit_s=10)
        problems += problems_of_site(site, expected) + problems_of_clocks(site)
    if not problems:
        site.forget()
    return [f"trial {number}: {problem}" for problem in problems]


def launchers_with_skewed_clocks(terms: Terms) -> Outcome:
    """R6."""
    expected = reference(terms.directory / "reference")

    def is_enough(trials: Sequence[list[str]]) -> bool:
        return len(trials) >= terms.count(RUNS[terms.place.store])

    trials = run_trials(terms, partial(run_together, terms, expected), is_enough)
    return Outcome(
        f"{len(trials)} runs of {LAUNCHERS} launchers, {len(trials) * len(expected)} steps, each run once",
        tuple(problem for trial in trials for problem in trial),
    )


SERIES = (
    *in_each_store("R5", "one creates a file", races_for_one_file, {Store.LOCAL: 3, Store.S3: 50, Store.GCS: 40}),
    *in_each_store(
        "R6",
        "launchers at once, wall clocks ± 1 h",
        launchers_with_skewed_clocks,
        {Store.LOCAL: 35, Store.S3: 60, Store.GCS: 50},
    ),
)
