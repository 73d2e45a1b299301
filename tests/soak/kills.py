"""R4: launchers of one prefix are killed, stopped and terminated at random instants, and restarted until success."""

import functools
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak.checks import Data, data_of, problems_of_site, stale_tokens
from tests.soak.places import LOCAL_TEMPO, Store, Tempo
from tests.soak.series import Outcome, Terms, in_each_store, run_trials
from tests.soak.site import LOOK_S, Launcher, Site, await_exit, busy

FULL = {
    Store.LOCAL: {signal.SIGKILL: 210, signal.SIGSTOP: 80},
    Store.S3: {signal.SIGKILL: 42, signal.SIGSTOP: 10},
    Store.GCS: {signal.SIGKILL: 42, signal.SIGSTOP: 10},
}
"""How many signals of each kind reach a living launcher in a full soak."""
LIMIT_S = 90.0
"""After which a trial counts as stuck."""
LEFT_STOPPED = 2.5
"""In leases: a stopped launcher that holds nothing is no keeper's to kill; somebody lets it go on."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One signal, and what follows it."""

    at_s: float
    """After the trial's begin."""
    slot: int
    """Which launcher is hit."""
    number: signal.Signals
    wakes_after_s: float | None = None
    """Of SIGSTOP: when SIGCONT follows; None: it is left to its keeper."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A trial, as its seed gives it."""

    lease_s: float
    pace: float
    slots: tuple[int, ...]
    """Each launcher's machine."""
    leads_group: bool
    faults: tuple[Fault, ...]
    restart_s: float


def plan_of(seed: int, trial: int, tempo: Tempo = LOCAL_TEMPO) -> Plan:
    """What happens in a trial."""
    dice = random.Random(f"kills {seed} {trial}")
    lease_s = dice.choice(tempo.leases_s)
    # With a cloud, a third launcher would have this machine import libraries for longer than it works.
    slots = tuple(dice.randrange(2) for _ in range(dice.randint(1, 3 if tempo is LOCAL_TEMPO else 2)))
    faults: list[Fault] = []
    at_s = tempo.first_s
    for _ in range(dice.randint(*tempo.faults)):
        at_s += dice.uniform(*tempo.gap_s)
        number = dice.choices([signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM], [6, 3, 1])[0]
        wakes = dice.uniform(0.05, 1.5) * lease_s if number is signal.SIGSTOP and dice.random() < 0.5 else None
        faults.append(Fault(at_s, dice.randrange(len(slots)), number, wakes))
    pace = dice.choice([0.02, 0.04])
    return Plan(lease_s, pace, slots, dice.random() < 0.5, tuple(faults), dice.uniform(0.0, 0.3))


@dataclass(slots=True)
class Trial:
    """What became of it."""

    delivered: Counter[signal.Signals] = field(default_factory=Counter[signal.Signals])
    problems: list[str] = field(default_factory=list)
    lost_leases: int = 0
    """Launchers that no signal reached and that lost a lease all the same: this machine was too busy."""
    stale_tokens: int = 0
    """Finished outputs whose owner was killed between the commit and the token."""
    attempts: int = 0
    end_s: float = 0.0
    """From the last fault to the success of all launchers."""
    lease_s: float = 0.0


@dataclass(slots=True, eq=False)
class Slot:
    """One launcher of a trial, restarted until it succeeds."""

    machine: int
    launcher: Launcher | None = None
    due: float = 0.0
    is_done: bool = False
    wakes_at: float = float("inf")


class Run:
    """A trial in progress."""

    extra_flags: tuple[str, ...] = ()
    leases_to_success = 1.5
    """From the end of faults, without the work itself."""

    def __init__(self, site: Site, plan: Plan, tempo: Tempo = LOCAL_TEMPO) -> None:
        self.site, self.plan, self.trial = site, plan, Trial(lease_s=plan.lease_s)
        self.work_s = tempo.work_s
        self.pending = list(plan.faults)
        self.slots = [Slot(machine) for machine in plan.slots]
        self.began = self.last_fault = time.monotonic()

    def run(self) -> Trial:
        while not all(slot.is_done for slot in self.slots):
            now = time.monotonic()
            if now > self.began + LIMIT_S * busy():
                self.trial.problems.append(f"after {now - self.began:.0f} s the launchers have not ended")
                return self.trial
            self.strike(now)
            for slot in self.slots:
                self.look_at(slot, now)
            time.sleep(LOOK_S)
        self.trial.end_s = time.monotonic() - self.last_fault
        bound = self.leases_to_success * self.plan.lease_s + self.work_s * busy()
        if self.trial.end_s > bound:
            self.trial.problems.append(f"{self.trial.end_s:.1f} s from the last fault to success, more than {bound:g}")
        return self.trial

    def strike(self, now: float) -> None:
        """Does the faults that are due."""
        while self.pending and self.pending[0].at_s <= now - self.began:
            self.hit(self.pending.pop(0))

    def look_at(self, slot: Slot, now: float) -> None:
        launcher = slot.launcher
        if slot.is_done:
            return
        if launcher is None:
            if now >= slot.due:
                self.start(slot)
        elif launcher.lives:
            if now >= slot.wakes_at:
                self.wake(slot, launcher)
        else:
            slot.launcher, slot.wakes_at, slot.due = None, float("inf"), now + self.plan.restart_s
            slot.is_done = launcher.code == 0
            self.judge(launcher)

    def start(self, slot: Slot) -> None:
        flags = ("--lease_seconds", self.plan.lease_s, "--pace", self.plan.pace, *self.extra_flags)
        slot.launcher = self.site.launch(*flags, machine=slot.machine, leads_group=self.plan.leads_group)

    def wake(self, slot: Slot, launcher: Launcher) -> None:
        launcher.send(signal.SIGCONT)
        slot.wakes_at, self.last_fault = float("inf"), time.monotonic()

    def hit(self, fault: Fault) -> None:
        slot = self.slots[fault.slot]
        if slot.launcher is None or not slot.launcher.send(fault.number):
            return
        self.last_fault = time.monotonic()
        self.trial.delivered[fault.number] += 1
        if fault.number is signal.SIGSTOP:
            wakes = fault.wakes_after_s if fault.wakes_after_s is not None else LEFT_STOPPED * self.plan.lease_s
            slot.wakes_at = self.last_fault + wakes

    def judge(self, launcher: Launcher) -> None:
        """Whether a launcher may end like this."""
        if signal.SIGSTOP in launcher.received:
            # Its keeper has killed it: only now can another one have its steps.
            self.last_fault = max(self.last_fault, time.monotonic()) if launcher.code != 0 else self.last_fault
        allowed = {0} | {code for number in launcher.received for code in CODES.get(number, ())}
        if launcher.code in allowed:
            return
        if "LeaseLostError" in launcher.text() or "lease keeper" in launcher.text():
            self.trial.lost_leases += signal.SIGSTOP not in launcher.received
            return
        self.trial.problems.append(f"{launcher.log.name} ended with {launcher.code} after {launcher.received}")


CODES = {
    signal.SIGKILL: (-signal.SIGKILL,),
    # Before and after the handler that releases is there.
    signal.SIGTERM: (128 + signal.SIGTERM, -signal.SIGTERM),
    signal.SIGSTOP: (-signal.SIGKILL,),
}


def reference(directory: Path, *flags: str) -> Data:
    """What one undisturbed run leaves; on a local disk: it is the same on every store."""
    with Site(directory) as site:
        launcher = site.launch("--pace", 0, *flags)
        assert await_exit(launcher, LIMIT_S * busy()) == 0, launcher.text()
    expected = data_of(site.prefix)
    site.forget()
    return expected


def run_trial(terms: Terms, expected: Data, number: int) -> Trial:
    """One trial; its directory stays if it breaks a law."""
    plan = plan_of(terms.seed, number, terms.place.tempo)
    with terms.place.site(terms.directory / f"trial-{number}") as site:
        trial = Run(site, plan, terms.place.tempo).run()
        if not trial.problems:
            trial.problems += site.await_end_of_all(limit_s=plan.lease_s + 5)
            trial.problems += problems_of_site(site, expected)
            trial.stale_tokens = stale_tokens(site, expected)
    trial.attempts = len(site.launchers)
    trial.problems = [f"trial {number}, {plan}: {problem}" for problem in trial.problems]
    if not trial.problems:
        site.forget()
    return trial


def kills_of_launchers(terms: Terms) -> Outcome:
    """R4."""
    full = FULL[terms.place.store]

    def is_enough(trials: Sequence[Trial]) -> bool:
        delivered = sum((trial.delivered for trial in trials), Counter[signal.Signals]())
        return all(delivered[number] >= terms.count(count) for number, count in full.items())

    expected = reference(terms.directory / "reference")
    trials = run_trials(terms, functools.partial(run_trial, terms, expected), is_enough)
    delivered = sum((trial.delivered for trial in trials), Counter[signal.Signals]())
    slowest = max(trials, key=lambda trial: trial.end_s - 1.5 * trial.lease_s)
    sent = ", ".join(f"{delivered[number]} {number.name}" for number in (*full, signal.SIGTERM))
    return Outcome(
        f"{sent} in {len(trials)} trials, {sum(trial.attempts for trial in trials)} launchers",
        tuple(problem for trial in trials for problem in trial.problems),
        f"success at most {slowest.end_s:.1f} s after the last fault (lease {slowest.lease_s:g} s); "
        f"{sum(trial.lost_leases for trial in trials)} launchers lost a lease without a signal; "
        f"{sum(trial.stale_tokens for trial in trials)} outputs whose status token is stale",
    )


SERIES = in_each_store(
    "R4",
    "launchers are killed, stopped and terminated",
    kills_of_launchers,
    {Store.LOCAL: 420, Store.S3: 190, Store.GCS: 160},
)
