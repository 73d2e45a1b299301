"""The tutorial hello_corpus in a cloud: several launchers at once, deaths among them, and a run that was copied."""

import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec
import pytest

from marin_trace.runtime.log_records import EndKind
from marin_trace.runtime.maintenance import find_outputs
from tests.soak.checks import output_at
from tests.soak.places import Store, served
from tests.soak.site import Launcher, Site, await_exit, busy, until, verify
from tests.storage.clouds import Cloud

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found by what /proc says of them"),
]

LIMIT_S = 30.0
STEPS = ("documents", "corpus", "statistics", "reports")
ONCE = {step: [EndKind.SUCCESS] for step in STEPS}


@dataclass
class Scene:
    """A cloud, and launchers of the tutorial in it."""

    cloud: Cloud
    site: Site

    def launch(self, *, machine: int = 0, source: str = "stdlib/json", **environment: str) -> Launcher:
        flags = ("--lease_seconds", 3, "--source", source)
        return self.site.launch(*flags, machine=machine, environment=environment)

    def await_beats(self, attempts: int) -> None:
        """Waits until so many attempts have sent a heartbeat."""
        for _ in until(LIMIT_S * busy()):
            if sum(name.endswith(".hb") for name in list(self.cloud.written_ns)) >= attempts:
                return
        raise AssertionError("nobody builds anything")


@pytest.fixture(params=[Store.S3, Store.GCS])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    with served(request.param) as place:
        assert place.cloud is not None
        with place.site(tmp_path / "site") as site:
            site.script = "experiments/tutorials/hello_corpus.py"
            yield Scene(place.cloud, site)
            assert site.await_end_of_all(20) == []


def code_of(launcher: Launcher) -> int | None:
    return await_exit(launcher, LIMIT_S * busy())


def ends(site: Site) -> dict[str, list[EndKind]]:
    """How each attempt at each output has ended, by the name of the step."""
    site.fetch()
    outputs = [output_at(path) for path in find_outputs(str(site.prefix))]
    assert all(output.claims.keys() == output.ends.keys() for output in outputs)
    return {
        Path(output.path).relative_to(site.prefix).parts[0]: [output.ends[epoch].kind for epoch in sorted(output.ends)]
        for output in outputs
    }


def changes_named_by_verify(site: Site) -> set[str]:
    """In what way files differ from their manifests; every output is sound."""
    code, rows = verify(site)
    assert (code, {row["result"] for row in rows}) == (0, {"ok"})
    return {file["change"] for row in rows for file in row["files"]}


def test_three_launchers_at_once_run_each_step_once(scene: Scene) -> None:
    launchers = [scene.launch(machine=machine) for machine in range(3)]
    assert [code_of(launcher) for launcher in launchers] == [0] * 3, launchers[0].text()
    assert ends(scene.site) == ONCE
    assert changes_named_by_verify(scene.site) == set()


def test_a_third_launcher_goes_on_where_one_was_killed_and_one_stopped(scene: Scene) -> None:
    # All of it: the first step takes long enough to be hit in.
    killed = scene.launch(source="stdlib")
    scene.await_beats(1)
    assert killed.send(signal.SIGKILL)
    assert code_of(killed) == -signal.SIGKILL
    stopped = scene.launch(machine=1, source="stdlib")
    scene.await_beats(2)
    assert stopped.send(signal.SIGSTOP)
    third = scene.launch(machine=2, source="stdlib")
    assert code_of(third) == 0, third.text()
    # By its keeper, before its lease was over.
    assert code_of(stopped) == -signal.SIGKILL
    found = ends(scene.site)
    assert set(found) == set(STEPS)
    assert all(kinds[-1] is EndKind.SUCCESS and kinds.count(EndKind.SUCCESS) == 1 for kinds in found.values())
    assert sum(kinds.count(EndKind.RELEASED) for kinds in found.values()) == 2
    assert changes_named_by_verify(scene.site) == set()


def test_a_finished_run_that_was_copied_is_found_by_another_machine(scene: Scene, tmp_path: Path) -> None:
    first = scene.launch()
    assert code_of(first) == 0, first.text()
    source, copy = scene.site.place, f"{scene.cloud.bucket}/copied"
    filesystem, key = fsspec.core.url_to_fs(source)
    for name in filesystem.find(key):
        filesystem.copy(name, copy.partition("://")[2] + name[len(key) :])
    home = tmp_path / "home"
    home.mkdir()
    scene.site.url = copy  # pyright: ignore[reportAttributeAccessIssue] - a site in a cloud
    second = scene.launch(machine=1, HOME=str(home), USER="somebody-else")
    assert code_of(second) == 0, second.text()
    assert re.search(r"\b4 found finished", second.text()), second.text()
    # A copy is another write of the same bytes.
    assert changes_named_by_verify(scene.site) == {"rewritten"}
    assert ends(scene.site) == ONCE
