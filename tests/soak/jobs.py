"""R11 on real processes: launcher, job process or a keeper dies between claim, submit, start and commit.

One body at a time, whoever dies, and always success in the end. A job that was killed may count as a failed attempt of
its launcher, which then ends with 1; a later one goes on.
"""

import contextlib
import functools
import os
import posixpath
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from marin_trace.runtime.keeper_process import KEEPER_VARIABLE
from marin_trace.runtime.process_tree import carriers_of
from tests.soak.checks import Data, problems_of_site
from tests.soak.kills import Run, Slot, Trial, reference
from tests.soak.places import LOCAL_TEMPO, Store, Tempo
from tests.soak.series import Outcome, Terms, in_each_store, run_trials
from tests.soak.site import Launcher, Site

FULL_KILLS = {Store.LOCAL: 40, Store.S3: 6, Store.GCS: 6}
"""Processes that are killed in a full soak."""
PATIENCE_S = 1.5
"""For how long an instant is waited for, and then for a process to be hit; then the fault comes all the same."""


class Target(StrEnum):
    """What is killed."""

    LAUNCHER = "launchers"
    JOB = "jobs"
    KEEPER = "keepers"
    LAUNCHER_AND_KEEPERS = "launchers with all keepers"


class Instant(StrEnum):
    """After what, the next time that it happens."""

    CLAIM = "claim"
    PROCESS = "submit"
    START = "start"
    BODY = "body begins"
    BODY_ENDS = "body ends"
    END = "commit"


@dataclass(frozen=True, slots=True)
class Fault:
    """One kill."""

    after: Instant
    delay_s: float
    target: Target
    choice: float
    """Which of several, as a part of them all."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A trial, as its seed gives it."""

    lease_s: float
    pace: float
    slots: tuple[int, ...]
    leads_group: bool
    restart_s: float
    faults: tuple[Fault, ...]


def plan_of(seed: int, trial: int, tempo: Tempo = LOCAL_TEMPO) -> Plan:
    """What happens in a trial."""
    dice = random.Random(f"jobs {seed} {trial}")
    # Every tenth trial is one without faults.
    faults = tuple(
        Fault(
            dice.choice(list(Instant)),
            dice.choice([0.0, dice.uniform(0, 0.4)]),
            dice.choice(list(Target)),
            dice.random(),
        )
        for _ in range(dice.randint(1, 3) if trial % 10 else 0)
    )
    return Plan(
        lease_s=dice.choice(tempo.leases_s),
        pace=dice.choice([0.02, 0.05]),
        slots=tuple(dice.randrange(2) for _ in range(dice.randint(1, 2))),
        leads_group=True,
        restart_s=dice.uniform(0.0, 0.3),
        faults=faults,
    )


class JobRun(Run):
    """A trial in progress: each fault waits for its instant, and begins to when the one before it has happened."""

    extra_flags = ("--jobs",)
    leases_to_success = 3.0

    def __init__(self, site: Site, plan: Plan, tempo: Tempo = LOCAL_TEMPO) -> None:
        super().__init__(site, plan, tempo)
        self.killed: Counter[Target] = Counter()
        self.armed_at, self.seen_before = self.began, Counter[Instant]()
        self.due: float | None = None

    def strike(self, now: float) -> None:
        if not self.pending:
            return
        fault = self.pending[0]
        seen = happened(self.site)
        if self.due is None and (seen[fault.after] > self.seen_before[fault.after] or now > self.armed_at + PATIENCE_S):
            self.due = now + fault.delay_s
        if self.due is None or now < self.due:
            return
        if self.kill(fault) or now > self.due + PATIENCE_S:
            self.pending.pop(0)
            self.armed_at, self.seen_before, self.due = now, seen, None

    def kill(self, fault: Fault) -> bool:
        """False if there is nothing to be killed."""
        pids = pids_of(
            fault.target, self.site, [slot for slot in self.slots if slot.launcher is not None], fault.choice
        )
        if not pids:
            return False
        self.last_fault = time.monotonic()
        self.killed[fault.target] += 1
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return True

    def judge(self, launcher: Launcher) -> None:
        """Ends of jobs and keepers are its launcher's to tell; its own death is seen in its code."""
        is_killed = launcher.code == -signal.SIGKILL and self.killed.total() > 0
        if launcher.code not in (0, 1) and not is_killed:
            self.trial.problems.append(f"{launcher.log.name} ended with {launcher.code}")
        if launcher.code == 1 and not self.killed.total():
            self.trial.problems.append(f"{launcher.log.name} failed, and nothing was killed")


def happened(site: Site) -> Counter[Instant]:
    """How often each instant has been, for the outputs of jobs."""
    logs = Counter(posixpath.splitext(path)[1] for path in site.control_files("soak/job"))
    events = Counter(row["event"] for row in site.noted() if "/job/" in row["output"])
    return Counter(
        {
            Instant.CLAIM: logs[".claim"],
            Instant.PROCESS: len(list(site.temporary.glob("marin-trace-job-*"))),
            Instant.START: logs[".start"],
            Instant.BODY: events["begins"],
            Instant.BODY_ENDS: events["ends"],
            Instant.END: logs[".end"],
        }
    )


def pids_of(target: Target, site: Site, slots: Sequence[Slot], choice: float) -> list[int]:
    """What a fault hits: one process of the kind, where there is one that lives."""
    launchers = sorted(slot.launcher.pid for slot in slots if slot.launcher is not None and slot.launcher.lives)
    keepers = sorted(carriers_of(f"{KEEPER_VARIABLE}=") & site.carriers())
    match target:
        case Target.LAUNCHER:
            return one_of(launchers, choice)
        case Target.JOB:
            return one_of(sorted(site.jobs() - set(keepers)), choice)
        case Target.KEEPER:
            return one_of(keepers, choice)
        case Target.LAUNCHER_AND_KEEPERS:
            return [*one_of(launchers, choice), *keepers] if launchers else []


def one_of(pids: Sequence[int], choice: float) -> list[int]:
    return [pids[int(choice * len(pids))]] if pids else []


def bodies_of(site: Site) -> Counter[str]:
    """How often the body of each output was begun."""
    return Counter(row["output"] for row in site.noted() if row["event"] == "begins")


def run_trial(terms: Terms, expected: Data, number: int) -> tuple[Trial, Counter[Target]]:
    """One trial; its directory stays if it breaks a law."""
    plan, tempo = plan_of(terms.seed, number, terms.place.tempo), terms.place.tempo
    with terms.place.site(terms.directory / f"trial-{number}") as site:
        run = JobRun(site, plan, tempo)
        trial = run.run()
        if not trial.problems:
            trial.problems += site.await_end_of_all(limit_s=plan.lease_s + tempo.work_s)
            trial.problems += problems_of_site(site, expected, may_fail=run.killed.total() > 0)
        if not run.killed.total():
            trial.problems += [f"{output} was run {n} times" for output, n in bodies_of(site).items() if n != 1]
    trial.attempts = len(site.launchers)
    trial.problems = [f"trial {number}, {plan}: {problem}" for problem in trial.problems]
    if not trial.problems:
        site.forget()
    return trial, run.killed


def kills_around_jobs(terms: Terms) -> Outcome:
    """R11."""

    def is_enough(results: Sequence[tuple[Trial, Counter[Target]]]) -> bool:
        return sum(killed.total() for _, killed in results) >= terms.count(FULL_KILLS[terms.place.store])

    expected = reference(terms.directory / "reference", "--jobs")
    results = run_trials(terms, functools.partial(run_trial, terms, expected), is_enough)
    killed = sum((killed for _, killed in results), Counter[Target]())
    slowest = max((trial for trial, _ in results), key=lambda trial: trial.end_s - 3 * trial.lease_s)
    return Outcome(
        f"{', '.join(f'{killed[target]} {target}' for target in Target)} killed in {len(results)} trials",
        tuple(problem for trial, _ in results for problem in trial.problems),
        f"success at most {slowest.end_s:.1f} s after the last fault (lease {slowest.lease_s:g} s)",
    )


SERIES = in_each_store(
    "R11",
    "launcher, job or keeper killed around a job's start",
    kills_around_jobs,
    {Store.LOCAL: 65, Store.S3: 60, Store.GCS: 50},
)
