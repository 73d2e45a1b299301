"""R4 with a prefix in a cloud: a server on this machine stands for it, and outlives everything that is killed."""

import contextlib
import functools
import json
import random
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from marin_trace.storage.files import list_files, read_bytes
from tests.soak.checks import (
    Data,
    data_of,
    is_fresh,
    output_at,
    problems_of_bodies,
    problems_of_control_state,
    problems_of_data,
)
from tests.soak.kills import LIMIT_S, Fault, Plan, Run, Trial
from tests.soak.series import Outcome, Series, Terms, run_trials
from tests.soak.site import Site, await_exit, busy, verify
from tests.storage.clouds import Cloud, gcs_cloud, s3_cloud

FULL = 40
"""How many SIGKILL reach a living launcher, for each cloud."""


@dataclass(slots=True, eq=False)
class CloudSite(Site):
    """A site whose prefix is a URL; what lies there is fetched for the checks."""

    url: str = ""

    @property
    def place(self) -> str:
        return self.url

    def fetch(self) -> None:
        """Copies what lies in the cloud to the site's directory, as if it had been written there."""
        for file in list_files(self.url):
            target = Path(str(self.prefix) + file.path.removeprefix(self.url))
            target.parent.mkdir(parents=True, exist_ok=True)
            content = read_bytes(file.path)
            target.write_bytes(content.replace(self.url.encode(), str(self.prefix).encode()))
        if self.journal.exists():
            self.journal.write_text(self.journal.read_text().replace(self.url, str(self.prefix)))


class CloudRun(Run):
    """A trial with longer leases: requests take long, and a launcher begins by importing what the cloud takes."""

    work_s = 25.0


def plan_of(seed: int, trial: int) -> Plan:
    """What happens in a trial: kills, some of them while others go on."""
    dice = random.Random(f"cloud kills {seed} {trial}")
    slots = tuple(dice.randrange(2) for _ in range(dice.randint(1, 2)))
    faults: list[Fault] = []
    at_s = 0.5
    for _ in range(dice.randint(3, 6)):
        at_s += dice.uniform(0.3, 3.0)
        number = dice.choices([signal.SIGKILL, signal.SIGTERM], [9, 1])[0]
        faults.append(Fault(at_s, dice.randrange(len(slots)), number))
    return Plan(dice.choice([3.0, 5.0]), 0.04, slots, dice.random() < 0.5, tuple(faults), dice.uniform(0.0, 0.3))


def problems_of(site: CloudSite, expected: Data) -> list[str]:
    """What `checks.problems_of_site` asks for; the manifests are compared in the cloud itself."""
    code, rows = verify(site.url)
    problems = [f"verify says: {json.dumps(row)}" for row in rows if row["result"] != "ok" or row["files"]]
    problems += [f"verify ends with {code}"] if code != 0 else []
    site.fetch()
    problems += problems_of_bodies(site.noted()) + problems_of_control_state(site, expected)
    if problems:
        return problems
    found = data_of(site.prefix)
    for name in expected:
        output = output_at(str(site.prefix / name))
        problems += problems_of_data(output, found[name], expected[name], is_fresh(name))
    return problems


def reference(directory: Path, url: str) -> Data:
    """What one undisturbed run leaves."""
    with CloudSite(directory, url=url) as site:
        launcher = site.launch("--pace", 0)
        assert await_exit(launcher, LIMIT_S * busy()) == 0, launcher.text()
    site.fetch()
    expected = data_of(site.prefix)
    site.forget()
    return expected


def run_trial(terms: Terms, cloud: Cloud, expected: Data, number: int) -> Trial:
    """One trial; its directory stays if it breaks a law."""
    plan = plan_of(terms.seed, number)
    with CloudSite(terms.directory / f"trial-{number}", url=f"{cloud.bucket}/trial-{number}") as site:
        trial = CloudRun(site, plan).run()
        if not trial.problems:
            trial.problems += site.await_end_of_all(limit_s=10)
            trial.problems += problems_of(site, expected)
    trial.attempts = len(site.launchers)
    trial.problems = [f"trial {number}, {plan}: {problem}" for problem in trial.problems]
    if not trial.problems:
        site.forget()
    return trial


def kills_in(serve: Callable[[], contextlib.AbstractContextManager[Cloud]], terms: Terms) -> Outcome:
    """R4 in one cloud."""

    def kills(trials: Sequence[Trial]) -> int:
        return sum((trial.delivered for trial in trials), Counter[signal.Signals]())[signal.SIGKILL]

    with serve() as cloud:
        expected = reference(terms.directory / "reference", f"{cloud.bucket}/reference")
        trial = functools.partial(run_trial, terms, cloud, expected)
        trials = run_trials(terms, trial, lambda done: kills(done) >= terms.count(FULL))
    slowest = max(trials, key=lambda trial: trial.end_s)
    return Outcome(
        f"{kills(trials)} SIGKILL in {len(trials)} trials, {sum(trial.attempts for trial in trials)} launchers",
        tuple(problem for trial in trials for problem in trial.problems),
        f"success at most {slowest.end_s:.1f} s after the last fault (lease {slowest.lease_s:g} s); "
        f"{sum(trial.lost_leases for trial in trials)} launchers lost a lease without a signal",
    )


SERIES = (
    Series("R4-gcs", "launchers are killed, prefix in gs://", functools.partial(kills_in, gcs_cloud), weight=15),
    Series("R4-s3", "launchers are killed, prefix in s3://", functools.partial(kills_in, s3_cloud), weight=15),
)
