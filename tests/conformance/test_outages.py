"""Launchers on the real command line whose store is away, throttles, refuses or is cut off in the middle of a run."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from marin_trace.runtime.log_records import EndKind
from tests.conformance.proxy import proxy_to
from tests.conformance.waiting_experiment import SIGNS_VARIABLE
from tests.soak.checks import Output, output_at
from tests.soak.places import Place, Store, served
from tests.soak.site import ROOT, Launcher, Site, await_exit, busy, until
from tests.storage.clouds import Cloud, gcs_environment, s3_environment
from tests.storage.faults import Call, no_answer, status_before

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found by what /proc says of them")

LIMIT_S = 60.0
INTERRUPT_LIMIT_S = 20.0
BOTH = [Store.GCS, Store.S3]


@dataclass
class Scene:
    """A store, and launchers of the experiment on it."""

    cloud: Cloud
    site: Site
    signs: Path

    def launch(self, lease_s: float, *, machine: int = 0, environment: dict[str, str] | None = None) -> Launcher:
        signs = {SIGNS_VARIABLE: str(self.signs)}
        return self.site.launch("--lease_seconds", lease_s, machine=machine, environment=signs | (environment or {}))

    def await_sign(self, sign: str, launcher: Launcher) -> None:
        self.await_that(lambda: (self.signs / f"{sign}-{launcher.pid}").exists(), launcher)

    def await_that(self, is_so: Callable[[], bool], launcher: Launcher) -> None:
        for _ in until(LIMIT_S * busy()):
            if is_so():
                return
            assert launcher.lives, launcher.text()
        raise AssertionError(launcher.text())

    def let_end(self) -> None:
        (self.signs / "may-end").touch()

    def code_of(self, launcher: Launcher) -> int | None:
        return await_exit(launcher, LIMIT_S * busy())

    def outputs(self) -> dict[str, Output]:
        """By the name of the step."""
        self.site.fetch()
        return {path.name.partition("-")[0]: output_at(str(path)) for path in self.site.prefix.glob("*-*")}

    def last_beat(self) -> int:
        return max((at for name, at in list(self.cloud.written_ns.items()) if name.endswith(".hb")), default=0)


@pytest.fixture
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    with served(request.param) as place:
        assert place.cloud is not None
        signs = tmp_path / "signs"
        signs.mkdir()
        with Place(place.store, place.cloud).site(tmp_path / "site") as site:
            site.script = "tests/conformance/waiting_experiment.py"
            yield Scene(place.cloud, site, signs)
            assert site.await_end_of_all(10) == []


def kinds(output: Output) -> list[EndKind]:
    return [output.ends[epoch].kind for epoch in sorted(output.ends)]


def on(short: Store, *further: float) -> list[object]:
    """The case on one store with each test run, and on the other one in the slow tests."""
    other = next(store for store in BOTH if store is not short)
    return [pytest.param(short, *further, id=short), pytest.param(other, *further, id=other, marks=pytest.mark.slow)]


def is_of_control(call: Call) -> bool:
    """Not of the data that the body itself writes, which its library would fail to write."""
    return any(name in call.path or name.encode() in call.content[:600] for name in (".executor", ".artifact"))


@contextlib.contextmanager
def silence(cloud: Cloud) -> Generator[list[Call], None, None]:
    """The store takes requests, which are noted, and does not answer."""
    is_over, unanswered = threading.Event(), list[Call]()

    def wait(call: Call, answer: object) -> None:
        unanswered.append(call)
        is_over.wait()

    with cloud.faults.throughout(wait):
        try:
            yield unanswered
        finally:
            is_over.set()


def wait_for(seconds: float) -> None:
    for _ in until(seconds):
        pass


A_MINUTE = [pytest.param(store, 120.0, 60.0, id=f"{store}-a-minute", marks=pytest.mark.slow) for store in BOTH]


@pytest.mark.parametrize(("scene", "lease_s", "away_s"), [*on(Store.GCS, 6.0, 2.5), *A_MINUTE], indirect=["scene"])
def test_a_store_that_comes_back_within_the_lease_costs_nothing(scene: Scene, lease_s: float, away_s: float) -> None:
    launcher = scene.launch(lease_s)
    scene.await_sign("began", launcher)
    with scene.cloud.faults.throughout(no_answer):
        wait_for(away_s)
    before = scene.last_beat()
    scene.await_that(lambda: scene.last_beat() > before, launcher)
    scene.let_end()
    assert scene.code_of(launcher) == 0, launcher.text()
    assert "heartbeat of attempt 1 failed" in launcher.text()
    assert {name: kinds(output) for name, output in scene.outputs().items()} == {
        "first": [EndKind.SUCCESS],
        "second": [EndKind.SUCCESS],
    }


@pytest.mark.parametrize("scene", on(Store.S3), indirect=True)
def test_a_store_that_is_away_for_longer_than_the_lease_stops_the_step(scene: Scene) -> None:
    launcher = scene.launch(2.0)
    scene.await_sign("began", launcher)
    with scene.cloud.faults.throughout(no_answer):
        scene.await_that(lambda: "LeaseLostError" in launcher.text(), launcher)
        wait_for(2.0)
    # Not killed: nothing of the step runs any more, and the launcher tells what happened.
    assert scene.code_of(launcher) == 1, launcher.text()
    assert "1 of 2 steps failed, 1 skipped because of it" in launcher.text()
    assert not (scene.signs / f"ended-{launcher.pid}").exists()
    scene.let_end()
    assert scene.code_of(scene.launch(2.0)) == 0
    outputs = scene.outputs()
    assert kinds(outputs["first"])[-1] is EndKind.SUCCESS
    assert kinds(outputs["first"]).count(EndKind.SUCCESS) == 1
    assert kinds(outputs["second"]) == [EndKind.SUCCESS]


TEN_SECONDS = [pytest.param(store, 120.0, 10.0, id=f"{store}-ten-s", marks=pytest.mark.slow) for store in BOTH]


@pytest.mark.parametrize(("scene", "lease_s", "seconds"), [*on(Store.S3, 6.0, 2.0), *TEN_SECONDS], indirect=["scene"])
def test_throttling_delays_a_commit_and_no_more(scene: Scene, lease_s: float, seconds: float) -> None:
    launcher = scene.launch(lease_s)
    scene.await_sign("began", launcher)
    with scene.cloud.faults.throughout(status_before(429), where=is_of_control):
        scene.let_end()
        scene.await_sign("ended", launcher)
        wait_for(seconds)
        assert launcher.lives, launcher.text()
    assert scene.code_of(launcher) == 0, launcher.text()
    assert [kinds(output) for output in scene.outputs().values()] == [[EndKind.SUCCESS]] * 2


@pytest.mark.parametrize("scene", on(Store.GCS), indirect=True)
def test_expired_credentials_are_named_and_keep_no_lease(scene: Scene) -> None:
    launcher = scene.launch(2.0)
    scene.await_sign("began", launcher)
    with scene.cloud.faults.throughout(status_before(401), where=is_of_control):
        scene.let_end()
        assert scene.code_of(launcher) == 1, launcher.text()
        text = launcher.text()
        assert "cannot save yet, its lease holds" in text
        assert "HTTP status 401" in text
        assert "LeaseLostError: attempt 1 of" in text
        assert scene.site.await_end_of_all(10) == []
        # Planning is another matter: nobody waits for the lease.
        again = scene.launch(120.0)
        assert scene.code_of(again) == 1
        assert "HTTP status 401" in again.text()
    left = scene.outputs()
    assert (list(left["first"].claims), kinds(left["first"])) == ([1], [])
    assert "second" not in left
    assert scene.code_of(scene.launch(2.0)) == 0
    assert kinds(scene.outputs()["first"]) == [EndKind.FENCED, EndKind.SUCCESS]


@pytest.mark.parametrize("scene", on(Store.GCS), indirect=True)
def test_a_launcher_that_is_cut_off_is_replaced_and_cannot_commit(scene: Scene) -> None:
    environment_of = gcs_environment if scene.site.place.startswith("gs:") else s3_environment
    with proxy_to(scene.cloud.url) as way:
        cut_off = scene.launch(2.5, environment=environment_of(way.url))
        scene.await_sign("began", cut_off)
        way.cut()
        # From another machine nobody can see whether it lives.
        other = scene.launch(2.5, machine=1)
        scene.await_sign("began", other)
        assert "LeaseLostError" not in other.text()
        scene.let_end()
        assert scene.code_of(other) == 0, other.text()
        way.mend()
        # Killed, if its body waits for an answer: with leases of minutes there is time for it to be told.
        assert scene.code_of(cut_off) in (1, -signal.SIGKILL), cut_off.text()
    assert "has lost its lease: no heartbeat was acknowledged" in cut_off.text()
    assert not (scene.signs / f"ended-{cut_off.pid}").exists()
    outputs = scene.outputs()
    assert kinds(outputs["first"]) == [EndKind.FENCED, EndKind.SUCCESS]
    assert kinds(outputs["second"]) == [EndKind.SUCCESS]


@pytest.mark.parametrize("scene", on(Store.S3), indirect=True)
def test_an_interrupt_does_not_wait_for_a_silent_store(scene: Scene) -> None:
    launcher = scene.launch(20.0)
    scene.await_sign("began", launcher)
    with silence(scene.cloud) as unanswered:
        scene.await_that(lambda: len(unanswered) > 0, launcher)
        launcher.send(signal.SIGINT)
        # A request waits for 15 s, and is sent again for a minute.
        assert await_exit(launcher, INTERRUPT_LIMIT_S * busy()) == 130, launcher.text()
        planning = scene.launch(20.0)
        # Its keeper lists nothing.
        scene.await_that(lambda: any("prefix=" in call.path for call in unanswered), planning)
        planning.send(signal.SIGINT)
        assert await_exit(planning, INTERRUPT_LIMIT_S * busy()) == 130, planning.text()
    # What the launcher could not release, its keeper does.
    assert scene.site.await_end_of_all(20) == []
    assert kinds(scene.outputs()["first"]) == [EndKind.RELEASED]


def has_namespaces() -> bool:
    """Whether this user may have a network namespace, and change its links."""
    if not shutil.which("unshare") or not shutil.which("ip"):
        return False
    tried = subprocess.run(["unshare", "-rn", "ip", "link", "set", "lo", "up"], capture_output=True, check=False)
    return tried.returncode == 0


@pytest.mark.parametrize("store", on(Store.GCS))
def test_a_launcher_that_the_kernel_cuts_off_is_replaced_and_cannot_commit(store: Store, tmp_path: Path) -> None:
    if not has_namespaces():
        pytest.skip("this machine allows no network namespace: unshare -rn, and ip in it")
    done = subprocess.run(
        ["unshare", "-rn", sys.executable, "-m", "tests.conformance.partition", store.value, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("first") in (1, -signal.SIGKILL)
    assert found.pop("attempts") in ([kind, "SUCCESS"] for kind in ("RELEASED", "FENCED"))
    assert found == {"says": True, "first ended its body": False, "second": 0}
