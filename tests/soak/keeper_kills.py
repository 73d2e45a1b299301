"""R4, second series: keepers are killed too, so that nobody stops a launcher that has lost its steps.

What it then still writes cannot be prevented. Its commit is refused, and every file that it touched after the other's
commit is named by `verify`.
"""

import contextlib
import functools
import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from marin_trace.runtime.log_records import EndKind
from marin_trace.runtime.process_tree import await_death
from tests.soak.checks import (
    Data,
    late_writes,
    named_by_verify,
    output_at,
    problems_of_control_state,
    problems_of_site,
)
from tests.soak.kills import reference
from tests.soak.places import LOCAL_TEMPO, Store, Tempo
from tests.soak.series import Outcome, Terms, in_each_store, run_trials
from tests.soak.site import Launcher, Site, await_exit, busy, until

FULL_EACH = {Store.LOCAL: 10, Store.S3: 2, Store.GCS: 2}
"""Trials of each kind in a full soak."""
LIMIT_S = 60.0
LOST = ("LeaseLostError", "lost its lease", "lease keeper")
"""One of these says why a launcher gave up."""


class Kind(StrEnum):
    """What happens to launcher and keeper."""

    BOTH = "launcher and keeper killed"
    KEEPER = "keeper killed"
    ZOMBIE = "launcher stopped without its keeper, and woken"
    SILENT = "keeper stopped"


@dataclass(frozen=True, slots=True)
class Plan:
    """A trial, as its seed gives it."""

    kind: Kind
    lease_s: float
    pace: float
    body: int
    """The fault comes after so many bodies have begun."""
    delay_s: float
    """And after this."""
    machine: int
    """Of the launcher that takes over; the first one's is 0."""


def plan_of(seed: int, trial: int, tempo: Tempo = LOCAL_TEMPO) -> Plan:
    """What happens in a trial."""
    dice = random.Random(f"keepers {seed} {trial}")
    return Plan(
        kind=list(Kind)[trial % len(Kind)],
        lease_s=dice.choice(tempo.leases_s[:3]),
        pace=dice.choice([0.03, 0.06]),
        body=dice.randint(1, 8),
        delay_s=dice.uniform(0.0, 0.4),
        machine=dice.randrange(2),
    )


@dataclass(slots=True)
class Trial:
    """What became of it."""

    kind: Kind
    was_hit: bool = False
    late_writes: int = 0
    lost_leases: int = 0
    """Launchers whose next keeper came too late."""
    refused: int = 0
    """Epochs that a woken launcher held, and could not commit."""
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Scene:
    """A trial in progress, at the instant of its fault."""

    site: Site
    plan: Plan
    victim: Launcher
    expected: Data

    def takes_over(self) -> list[str]:
        """Another launcher brings everything to success."""
        other = launched(self.site, self.plan, self.plan.machine)
        code = await_exit(other, LIMIT_S * busy())
        return [] if code == 0 else [f"the launcher that took over ended with {code}: {other.log.name}"]


def launched(site: Site, plan: Plan, machine: int) -> Launcher:
    return site.launch("--lease_seconds", plan.lease_s, "--pace", plan.pace, machine=machine)


def awaited_keepers(victim: Launcher) -> set[int]:
    """A launcher's keepers; none if it ends before it has one."""
    for _ in until(LIMIT_S * busy()):
        keepers = victim.keepers()
        if keepers or not victim.lives:
            return keepers
    return set()


def kill_processes(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        await_death(pid, limit_s=LIMIT_S)


def stop_processes(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)


def both(scene: Scene, trial: Trial) -> list[str]:
    # Stopped first, so that neither sees the other die.
    victim, keepers = scene.victim, scene.victim.keepers()
    stop_processes(keepers)
    trial.was_hit = victim.send(signal.SIGKILL)
    kill_processes(keepers)
    return scene.takes_over() + problems_of_site(scene.site, scene.expected)


def keeper_alone(scene: Scene, trial: Trial) -> list[str]:
    victim = scene.victim
    trial.was_hit = victim.lives
    kill_processes(victim.keepers())
    code = await_exit(victim, LIMIT_S * busy())
    if code == 0:
        return problems_of_site(scene.site, scene.expected)
    # On a busy machine the next keeper may come too late for the lease.
    trial.lost_leases += 1
    problems = problems_of_code("the launcher whose keeper was killed", victim, code)
    return problems + scene.takes_over() + problems_of_late_writes(scene, trial)


def silent(scene: Scene, trial: Trial) -> list[str]:
    victim, keepers = scene.victim, awaited_keepers(scene.victim)
    stop_processes(keepers)
    trial.was_hit = victim.lives
    code = await_exit(victim, LIMIT_S * busy())
    kill_processes(keepers)
    problems = problems_of_code("the launcher whose keeper was stopped", victim, code)
    return problems + scene.takes_over() + problems_of_late_writes(scene, trial)


def zombie(scene: Scene, trial: Trial) -> list[str]:
    victim = scene.victim
    trial.was_hit = victim.send(signal.SIGSTOP)
    kill_processes(victim.keepers())
    problems = scene.takes_over()
    lost = epochs_lost_by(scene, victim.pid)
    victim.send(signal.SIGCONT)
    code = await_exit(victim, LIMIT_S * busy())
    trial.refused = len(lost)
    problems += problems_of_code("the woken launcher", victim, code)
    if lost and code == 0:
        problems.append(f"the woken launcher ended with 0, though it had lost {lost}")
    return problems + problems_of_late_writes(scene, trial)


def problems_of_code(who: str, launcher: Launcher, code: int | None) -> list[str]:
    """A launcher ends, and says that it lost its lease if it does not succeed."""
    if code is None:
        return [f"{who} has not ended"]
    is_clear = code == 0 or any(word in launcher.text() for word in LOST)
    return [] if is_clear else [f"{who} ended with {code} and does not say why"]


def epochs_lost_by(scene: Scene, pid: int) -> list[str]:
    """The outputs of which a process claimed an epoch that somebody else has sealed."""
    scene.site.fetch()
    outputs = [output_at(str(scene.site.prefix / name)) for name in scene.expected]
    return [
        output.path
        for output in outputs
        for epoch, claim in output.claims.items()
        if claim.pid == pid and epoch in output.ends and output.ends[epoch].kind is EndKind.FENCED
    ]


def problems_of_late_writes(scene: Scene, trial: Trial) -> list[str]:
    """Control state is right whatever was written, and what was written late is named; without it all is well."""
    site, expected = scene.site, scene.expected
    site.fetch()
    # A body that was interrupted in a write notes nothing: only what is noted must be named.
    late = late_writes(site, expected) if not (problems := problems_of_control_state(site, expected)) else set()
    trial.late_writes = len(late)
    missed = late - named_by_verify(site)
    problems += [
        f"{Path(output) / path} was written after the commit, and verify does not name it" for output, path in missed
    ]
    return problems


ACTS: dict[Kind, Callable[[Scene, Trial], list[str]]] = {
    Kind.BOTH: both,
    Kind.KEEPER: keeper_alone,
    Kind.ZOMBIE: zombie,
    Kind.SILENT: silent,
}


def run_trial(terms: Terms, expected: Data, number: int) -> Trial:
    """One trial; its directory stays if it breaks a law."""
    plan = plan_of(terms.seed, number, terms.place.tempo)
    trial = Trial(plan.kind)
    with terms.place.site(terms.directory / f"trial-{number}") as site:
        victim = launched(site, plan, 0)
        for _ in until(LIMIT_S * busy()):
            if not victim.lives or sum(row["event"] == "begins" for row in site.noted()) >= plan.body:
                break
        await_exit(victim, plan.delay_s)
        trial.problems += ACTS[plan.kind](Scene(site, plan, victim, expected), trial)
        trial.problems += site.await_end_of_all(limit_s=plan.lease_s + 5)
    trial.problems = [f"trial {number}, {plan}: {problem}" for problem in trial.problems]
    if not trial.problems:
        site.forget()
    return trial


def kills_of_keepers(terms: Terms) -> Outcome:
    """R4, second series."""

    def is_enough(trials: Sequence[Trial]) -> bool:
        hit = Counter(trial.kind for trial in trials if trial.was_hit)
        return all(hit[kind] >= terms.count(FULL_EACH[terms.place.store]) for kind in Kind)

    expected = reference(terms.directory / "reference")
    trials = run_trials(terms, functools.partial(run_trial, terms, expected), is_enough)
    hit = Counter(trial.kind for trial in trials if trial.was_hit)
    return Outcome(
        ", ".join(f"{hit[kind]} {kind}" for kind in Kind),
        tuple(problem for trial in trials for problem in trial.problems),
        f"{sum(trial.refused for trial in trials)} commits refused; "
        f"{sum(trial.lost_leases for trial in trials)} launchers whose next keeper came too late; "
        f"{sum(trial.late_writes for trial in trials)} files written after the other's commit, each named by verify",
    )


SERIES = in_each_store(
    "R4k",
    "keepers are killed and stopped too",
    kills_of_keepers,
    {Store.LOCAL: 95, Store.S3: 75, Store.GCS: 60},
)
