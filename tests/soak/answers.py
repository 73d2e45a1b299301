"""R8: answers that are lost, late or wrong at each control write; what a run reports is what is stored.

On a cloud's server the faults hit whoever writes: launcher, keeper and job. On a local disk, which loses no answers,
they stand for those of one of the network, and hit what this process writes.
"""

import contextlib
import functools
import itertools
import random
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from marin_trace import deferred, executor_main, output, step
from marin_trace.errors import RunFailedError, StoreUnavailableError
from marin_trace.io import atomic_write
from marin_trace.runtime.attempt import draft_claim
from marin_trace.runtime.driver import driver_for
from marin_trace.runtime.keeper import dismiss_keeper
from marin_trace.runtime.log_records import AttemptLog, CancelRecord
from marin_trace.runtime.maintenance import CheckKind, check_output
from marin_trace.runtime.protocol import ClaimPolicy, claim_epoch, request_cancel, seal
from marin_trace.runtime.report import OutcomeKind, RunReport, StepOutcome
from marin_trace.runtime.status import read_statuses
from marin_trace.storage import control_store
from marin_trace.storage.control_store import control_store_for
from marin_trace.storage.local_store import LocalControlStore
from marin_trace.storage.store_probe import check_store
from tests.soak.places import Place, Store
from tests.soak.series import Outcome, Terms, in_each_store
from tests.storage.faults import Call, Fault, lost_answer, no_answer, status_after, status_before

TRIALS = {Store.LOCAL: 200, Store.S3: 60, Store.GCS: 60}
LEASE_S = 3.0
BEATING_S = LEASE_S / 4
"""A body that takes so long sees a heartbeat."""
JOBS_EVERY = 10
"""One trial of so many has a step in a process of its own."""

FAULTS: dict[str, Fault] = {
    "lost answer": lost_answer,
    "no answer": no_answer,
    "503 after applying": status_after(503),
    "503": status_before(503),
    "429": status_before(429),
    "409": status_before(409),
}
WRITES = (".claim", ".start", ".hb", ".manifest", ".end", ".executor_status", ".executor_info", ".artifact.json")
REQUESTS = (".claim", ".cancel", ".end")
"""What whoever asks from outside for the end of an attempt writes."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One fault at one control write, some times in a row."""

    fault: str
    write: str
    times: int


def plan_of(seed: int, trial: int) -> tuple[Hit, ...]:
    """What happens in a trial: first each fault at each write, then some of them together."""
    singles = list(itertools.product(FAULTS, WRITES))
    if trial < len(singles):
        fault, write = singles[trial]
        return (Hit(fault, write, 1),)
    dice = random.Random(f"answers {seed} {trial}")
    return tuple(
        Hit(dice.choice(list(FAULTS)), dice.choice(WRITES), dice.randint(1, 2)) for _ in range(dice.randint(2, 5))
    )


def write_word(path: str, seconds: float) -> str:
    time.sleep(seconds)
    with atomic_write(f"{path}/word.txt", "w") as stream:
        stream.write("word")
    return "word"


@step(name="word")
def word(seconds: float) -> Any:
    return deferred(write_word)(output(), seconds)


@step(name="job", env_vars={"SOAK": "1"})
def job(seconds: float) -> Any:
    return deferred(write_word)(output(), seconds)


@dataclass(slots=True)
class FaultyDisk:
    """A local store that fails as a server does: some of its writes, before or after they are applied."""

    pending: list[Hit]
    store: LocalControlStore = field(default_factory=LocalControlStore)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def put_if_absent(self, path: str, content: bytes, *, durable: bool = False) -> bool:
        return self._write(path, lambda: self.store.put_if_absent(path, content, durable=durable))

    def put(self, path: str, content: bytes) -> None:
        self._write(path, lambda: self.store.put(path, content))

    def _write(self, path: str, act: Callable[[], Any]) -> Any:
        hit = next((hit for hit in self.pending if path.endswith(hit.write)), None)
        if hit is None:
            return act()
        self.pending.remove(hit)
        if hit.fault in ("lost answer", "503 after applying"):
            act()
        raise StoreUnavailableError(f"cannot write {path}: {hit.fault}")


@contextlib.contextmanager
def faults_at(place: Place, hits: Sequence[Hit]) -> Generator[Callable[[], int], None, None]:
    """The faults, while the block runs; yields what tells how many were not met."""
    each = [hit for hit in hits for _ in range(hit.times)]
    if place.cloud is None:
        disk = FaultyDisk(list(each))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(control_store, "_local_store", lambda protocol: disk)
            yield lambda: len(disk.pending)
        return
    faults = place.cloud.faults
    for hit in each:
        faults.hit(FAULTS[hit.fault], where=functools.partial(is_write_of, hit.write))
    try:
        yield lambda: len(faults.pending)
    finally:
        faults.clear()


def is_write_of(name: str, call: Call) -> bool:
    """Whether a request writes a control file of this kind: S3's path names it, or the first part of Google's body."""
    is_named = call.path.partition("?")[0].endswith(name) or f'{name}"'.encode() in call.content[:600]
    return call.is_write and is_named


def run(steps: Sequence[Any], prefix: str) -> RunReport:
    flags = ["--prefix", prefix, "--lease_seconds", str(LEASE_S)]
    try:
        return executor_main(steps, argv=flags)
    except RunFailedError as error:
        return cast("RunReport", error.report)


def problems_of_outcome(outcome: StepOutcome) -> list[str]:
    """What is reported is what is stored."""
    status = read_statuses([outcome.output_path])[outcome.output_path]
    is_success = outcome.kind is OutcomeKind.SUCCEEDED
    if is_success and (not status.is_finished or status.epoch != outcome.epoch):
        return [f"SUCCESS of attempt {outcome.epoch} is reported, {status.kind} of {status.epoch} is stored"]
    if not is_success and status.is_finished:
        return [f"{outcome.kind} is reported ({outcome.error!r}), SUCCESS is stored"]
    if is_success and check_output(outcome.output_path).kind is not CheckKind.OK:
        return ["what is stored does not verify"]
    return []


def problems_of_request(place: Place, path: str, hits: Sequence[Hit]) -> list[str]:
    """Whoever asks for an attempt's end, and whoever seals it, is told what stands."""
    log, draft, driver = AttemptLog(path), draft_claim(lease_s=LEASE_S), driver_for(path)
    with faults_at(place, hits):
        driver = driver_for(path)
        driver.run(claim_epoch(log, draft, ClaimPolicy()))
        told = driver.run(request_cancel(log, 1, CancelRecord("soak", "to see")))
        sealed = driver.run(seal(log, 1, draft))
    store = control_store_for(path)
    problems = [] if store.get(log.cancel(1)) == told.to_bytes() else ["another request stands than was told"]
    if sealed is None or store.get(log.end(1)) != sealed.to_bytes():
        problems.append("another end stands than was told")
    return problems


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of it."""

    problems: tuple[str, ...]
    met: int
    """Faults that hit a write."""
    failed: int
    """Steps that did not succeed, and were reported so."""


def run_trial(terms: Terms, number: int) -> Trial:
    """One trial."""
    hits, prefix = plan_of(terms.seed, number), terms.place.path_of(terms.directory / f"trial-{number}")
    needs_beat = any(hit.write in (".hb", ".start") for hit in hits)
    seconds = BEATING_S if needs_beat and terms.place.cloud is not None else 0.0
    has_job = terms.place.cloud is not None and (number % JOBS_EVERY == 0 or any(hit.write == ".start" for hit in hits))
    steps = [word(seconds), *([job(seconds)] if has_job else [])]
    with faults_at(terms.place, hits) as left:
        report = run(steps, prefix)
        met = sum(hit.times for hit in hits) - left()
    problems = [problem for outcome in report.outcomes for problem in problems_of_outcome(outcome)]
    of_request = [Hit(hit.fault, REQUESTS[number % len(REQUESTS)], hit.times) for hit in hits]
    problems += problems_of_request(terms.place, f"{prefix}/asked", of_request)
    failed = sum(outcome.kind is not OutcomeKind.SUCCEEDED for outcome in report.outcomes)
    return Trial(tuple(f"trial {number}, {hits}: {problem}" for problem in problems), met, failed)


def faults_at_writes(terms: Terms) -> Outcome:
    """R8. One trial at a time: the faults are the server's."""
    # Before there are faults.
    check_store(terms.place.path_of(terms.directory / "probe"))
    full = terms.count(TRIALS[terms.place.store])
    numbers = range(full) if terms.only_trial is None else [terms.only_trial]
    trials: list[Trial] = []
    try:
        for number in numbers:
            if trials and terms.is_over:
                break
            trials.append(run_trial(terms, number))
    finally:
        dismiss_keeper()
    return Outcome(
        f"{sum(trial.met for trial in trials)} faults of {len(FAULTS)} kinds in {len(trials)} runs, "
        f"as many at a request for an attempt's end",
        tuple(problem for trial in trials for problem in trial.problems),
        f"{sum(trial.failed for trial in trials)} steps failed, and were reported so",
    )


SERIES = in_each_store(
    "R8", "faults at each control write", faults_at_writes, {Store.LOCAL: 15, Store.S3: 60, Store.GCS: 50}
)
