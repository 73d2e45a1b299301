"""R11 on a real Iris cluster: launchers, jobs and machines vanish; one body at a time, one job, and always success."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.workers.engines import PATIENCE_S
from tests.workers.iris_site import ROOT, IrisCluster

pytestmark = pytest.mark.xdist_group("fray")

LEASE_S = 2.0


@dataclass
class Site:
    """A prefix, and the launchers that work in it."""

    cluster: IrisCluster
    directory: Path
    jobs_before: set[str]
    launchers: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def launch(self, *flags: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "tests/workers/fray_pipeline.py", "--directory", str(self.directory)]
        command += ["--prefix", str(self.directory / "prefix"), "--cluster", f"fray://{self.cluster.address}"]
        command += ["--lease_seconds", str(LEASE_S), *flags]
        with self.log(len(self.launchers)).open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(self.directory)},
            )
        self.launchers.append(process)
        return process

    def log(self, number: int) -> Path:
        return self.directory / f"launcher-{number}.log"

    def said(self) -> str:
        return "\n".join(self.log(number).read_text() for number in range(len(self.launchers)))

    def go(self) -> None:
        (self.directory / "go").touch()

    def journal(self) -> list[str]:
        path = self.directory / "journal"
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []

    def pid_of_body(self) -> int:
        return int((self.directory / "journal").read_text().splitlines()[-1].split()[1])

    def has_control_file(self, kind: str) -> bool:
        return any(self.directory.glob(f"prefix/waits-*/.executor/*.{kind}"))

    def jobs(self) -> list[str]:
        return sorted(set(self.cluster.job_names()) - self.jobs_before)

    def await_success(self, launcher: "subprocess.Popen[bytes]") -> None:
        assert launcher.wait(PATIENCE_S) == 0, self.said()
        assert self.journal()[-1] == "ends"


def wait_until(is_so: Callable[[], object], site: Site) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, site.said()
        assert any(launcher.poll() is None for launcher in site.launchers), site.said()
        time.sleep(0.01)


@pytest.fixture
def site(iris: IrisCluster, tmp_path: Path) -> Iterator[Site]:
    found = Site(iris, tmp_path, set(iris.job_names()))
    yield found
    found.go()
    for launcher in found.launchers:
        launcher.kill()
        launcher.wait()


INSTANTS: dict[str, Callable[[Site], object]] = {
    "claim": lambda site: site.has_control_file("claim"),
    "submit": lambda site: site.jobs(),
    "start": lambda site: site.has_control_file("start"),
    "body": lambda site: site.journal(),
}


SLOW = [pytest.param(instant, marks=pytest.mark.slow) for instant in ("submit", "body")]


@pytest.mark.parametrize("instant", ["claim", "start", *SLOW])
def test_a_killed_launcher_is_followed_by_one_that_adopts_its_job(site: Site, instant: str) -> None:
    first = site.launch()
    wait_until(lambda: INSTANTS[instant](site), site)
    first.kill()
    first.wait()
    second = site.launch()
    wait_until(site.journal, site)
    site.go()
    site.await_success(second)
    assert site.journal() == ["begins", "ends"]
    assert len(site.jobs()) == 1


@pytest.mark.slow
def test_a_launcher_killed_after_the_commit_is_followed_by_a_hit(site: Site) -> None:
    site.go()
    first = site.launch()
    wait_until(lambda: site.has_control_file("end"), site)
    first.kill()
    first.wait()
    site.await_success(site.launch())
    assert site.journal() == ["begins", "ends"]
    assert len(site.jobs()) == 1


@pytest.mark.slow
def test_two_launchers_share_one_job(site: Site) -> None:
    launchers = [site.launch(), site.launch()]
    wait_until(site.journal, site)
    site.go()
    for launcher in launchers:
        site.await_success(launcher)
    assert site.journal() == ["begins", "ends"]
    assert len(site.jobs()) == 1


def test_a_job_whose_process_is_killed_is_followed_by_another_where_there_are_retries(site: Site) -> None:
    launcher = site.launch("--retries", "1")
    wait_until(site.journal, site)
    os.kill(site.pid_of_body(), signal.SIGKILL)
    wait_until(lambda: len(site.journal()) > 1, site)
    site.go()
    site.await_success(launcher)
    assert site.journal() == ["begins", "begins", "ends"]
    assert len(site.jobs()) == 2


def test_a_preempted_job_goes_on_by_itself_and_that_is_said(site: Site) -> None:
    launcher = site.launch()
    wait_until(site.journal, site)
    (job,) = site.jobs()
    site.cluster.preempt(job)
    wait_until(lambda: len(site.journal()) > 1, site)
    # The launcher asks after preemptions every ten seconds.
    wait_until(lambda: f"{job} was preempted" in site.said(), site)
    site.go()
    site.await_success(launcher)
    assert site.journal() == ["begins", "begins", "ends"]
    assert site.jobs() == [job]


def test_the_first_ctrl_c_leaves_the_job_and_names_it(site: Site) -> None:
    first = site.launch()
    wait_until(site.journal, site)
    first.send_signal(signal.SIGINT)
    wait_until(lambda: "is left running on fray" in site.said(), site)
    assert first.wait(PATIENCE_S) == 130
    (job,) = site.jobs()
    assert job in site.said()
    site.go()
    site.await_success(site.launch())
    assert site.journal() == ["begins", "ends"]
    assert site.jobs() == [job]
