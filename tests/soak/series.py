"""What a series is: many trials of one law, under terms that say how many and for how long."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TypeVar

from tests.soak.places import LOCAL, Place, Store

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Terms:
    """How a series is run."""

    seed: int
    directory: Path
    """Empty, of this series alone; trials that break the law leave their files here."""
    share: float = 1.0
    """Of the full number of trials."""
    workers: int = 2
    """How many trials run at a time."""
    deadline: float = float("inf")
    """In `time.monotonic` seconds; no trial begins after it."""
    only_trial: int | None = None
    """The one trial to run, for a closer look."""
    place: Place = LOCAL
    """The store that the series is run on."""

    def count(self, full: int) -> int:
        """The share of a full number."""
        return max(1, round(full * self.share))

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self.deadline


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a series found."""

    trials: str
    """How many of what."""
    violations: tuple[str, ...] = ()
    """Each with what repeats it."""
    remarks: str = ""
    """Figures that no law bounds, or that show how near its bound was."""


@dataclass(frozen=True, slots=True)
class Series:
    """A series of trials of one law."""

    id: str
    what: str
    run: Callable[[Terms], Outcome]
    weight: float
    """Its part of the time, relative to the others': about the seconds that it takes on two cores."""
    store: Store = Store.NONE
    """What it is run on."""


def in_each_store(
    id: str, what: str, run: Callable[[Terms], Outcome], weights: Mapping[Store, float]
) -> tuple[Series, ...]:
    """The same law on several stores, a row of the table for each."""
    return tuple(Series(id, what, run, weight, store) for store, weight in weights.items())


def run_trials(terms: Terms, trial: Callable[[int], T], is_enough: Callable[[Sequence[T]], bool]) -> list[T]:
    """Runs trials 0, 1, 2, … until there are enough, or the time is up, and one at least; in the order they ended."""
    if terms.only_trial is not None:
        return [trial(terms.only_trial)]
    done: list[T] = []
    numbers = count()
    running: set[Future[T]] = set()
    with ThreadPoolExecutor(terms.workers) as pool:
        while not done or not (is_enough(done) or terms.is_over):
            running |= {pool.submit(trial, next(numbers)) for _ in range(terms.workers - len(running))}
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            done += [future.result() for future in ended]
        done += [future.result() for future in running]
    return done
