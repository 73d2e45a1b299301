"""R11 on Ray: a launcher or a job's worker dies at some instant, and the step still runs once at a time, to success.

Real launchers on the real command line, each started again after its death.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from glob import glob
from pathlib import Path

import pytest

from marin_trace.runtime.log_records import AttemptLog, ClaimRecord
from marin_trace.runtime.status import read_status
from tests.workers.engines import is_alive, lines_of, parent_of, wait_until
from tests.workers.ray_clusters import Node, ray_cluster

pytestmark = pytest.mark.xdist_group("ray")

LEASE_S = 4.0
"""Long enough for a machine that does other things too."""


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with ray_cluster([Node(cpus=2)]):
        yield


class Site:
    """One prefix with one step, and whoever works on it."""

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        self.journal = prefix / "journal"

    def launch(self) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "tests.workers.ray_experiment", str(self.prefix), str(LEASE_S)]
        log = (self.prefix / "launchers.log").open("a")
        with log:
            return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True)

    def has(self, pattern: str) -> bool:
        return bool(glob(f"{self.prefix}/work-*/.executor/{pattern}"))

    def says(self, text: str) -> bool:
        return text in (self.prefix / "launchers.log").read_text()

    def let_go(self) -> None:
        (self.prefix / "go").touch()

    def finish(self, launcher: "subprocess.Popen[str]") -> None:
        assert launcher.wait(120) == 0, (self.prefix / "launchers.log").read_text()
        (output,) = glob(f"{self.prefix}/work-*")
        assert read_status(output).is_finished
        assert (Path(output) / "data").read_text() == lines_of(self.journal)[-1].split()[1]

    def claims(self) -> list[ClaimRecord]:
        (output,) = glob(f"{self.prefix}/work-*")
        paths = sorted(glob(f"{AttemptLog(output).directory}/*.claim"))
        return [ClaimRecord.from_bytes(Path(path).read_bytes(), path) for path in paths]

    def jobs(self) -> set[str]:
        return {claim.job.name for claim in self.claims() if claim.job is not None}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


INSTANTS = {
    "claim": lambda site: site.has("000001.claim"),
    "submit": lambda site: site.says("is submitted to Ray"),
    "start": lambda site: site.has("000001.start"),
    "body": lambda site: bool(lines_of(site.journal)),
    "manifest": lambda site: site.has("000001.manifest"),
    "end": lambda site: site.has("000001.end"),
}


@pytest.mark.parametrize(
    "instant",
    [pytest.param(name, marks=[] if name in {"submit", "body"} else [pytest.mark.slow]) for name in INSTANTS],
)
def test_a_killed_launcher_is_followed_by_one_that_adopts_the_job(site: Site, instant: str) -> None:
    first = site.launch()
    if instant in {"manifest", "end"}:
        site.let_go()
    wait_until(lambda: INSTANTS[instant](site))
    first.kill()
    first.wait()
    second = site.launch()
    if instant not in {"claim", "manifest", "end"}:
        wait_until(lambda: bool(lines_of(site.journal)))
        assert second.poll() is None
    site.let_go()
    site.finish(second)
    assert [line.split()[0] for line in lines_of(site.journal)] == ["begins", "ends"]
    # Between claim and submission the first launcher's own claim expires, and the second one submits a job of its own.
    assert len(site.jobs()) == 1 or instant == "claim"


@pytest.mark.slow
def test_launchers_that_are_killed_one_after_the_other_share_one_job(site: Site) -> None:
    for looks in range(3):
        launcher = site.launch()
        wait_until(lambda: bool(lines_of(site.journal)))
        wait_until(lambda looks=looks: (site.prefix / "launchers.log").read_text().count("starts") > looks)
        launcher.kill()
        launcher.wait()
    site.let_go()
    site.finish(site.launch())
    assert [line.split()[0] for line in lines_of(site.journal)] == ["begins", "ends"]
    assert (len(site.jobs()), len(site.claims())) == (1, 1)


def test_a_killed_worker_is_replaced_by_ray_and_the_job_goes_on_in_a_new_epoch(site: Site) -> None:
    launcher = site.launch()
    wait_until(lambda: bool(lines_of(site.journal)))
    pid = int(lines_of(site.journal)[0].split()[1])
    os.kill(parent_of(pid), signal.SIGKILL)
    wait_until(lambda: len(lines_of(site.journal)) == 2)
    assert not is_alive(pid)
    site.let_go()
    site.finish(launcher)
    assert [line.split()[0] for line in lines_of(site.journal)] == ["begins", "begins", "ends"]
    assert (len(site.jobs()), len(site.claims())) == (1, 2)


def test_a_job_that_is_killed_fails_its_launcher_and_the_next_one_goes_on(site: Site) -> None:
    launcher = site.launch()
    wait_until(lambda: bool(lines_of(site.journal)))
    os.kill(int(lines_of(site.journal)[0].split()[1]), signal.SIGKILL)
    assert launcher.wait(120) == 1
    assert site.says("SIGKILL")
    site.let_go()
    site.finish(site.launch())
    assert len(site.jobs()) == 2
