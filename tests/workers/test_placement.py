"""Laws of placement: what can never run is refused before anything runs, with the flag to give."""

from pathlib import Path

import pytest

from marin_trace import ResourceConfig, deferred, executor_main, output, step
from marin_trace.errors import ResourcesUnavailableError
from marin_trace.workers.client import use_client
from marin_trace.workers.clusters import client_named
from marin_trace.workers.local import LocalClient
from marin_trace.workers.machine import Machine
from marin_trace.workers.placement import check_placeable, place_of

SMALL = LocalClient(machine=Machine(cores=2, ram_bytes=8 * 10**9, gpus=0, tpus=0))
TPU = ResourceConfig.with_tpu("v5p-8")


def write(path: str) -> None:
    Path(path, "ran").touch()


@step(name="light")
def light():
    return deferred(write)(output())


@step(name="heavy", resources=TPU)
def heavy(ref: object):
    return deferred(write)(output() / f"{ref.name}")  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("flags", [[], ["--dry_run"]], ids=["run", "dry-run"])
def test_a_step_that_cannot_run_is_refused_before_any_other_has_run(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with use_client(SMALL), pytest.raises(ResourcesUnavailableError, match=r"^heavy asks for tpu=v5p-8") as caught:
        executor_main(steps=[heavy(light())], argv=["--prefix", str(tmp_path), *flags])
    assert "hint: --cluster ray or --cluster fray" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert ("heavy" in capsys.readouterr().out) is bool(flags)


def test_a_finished_step_needs_no_place(tmp_path: Path) -> None:
    class Anywhere:
        """A client that could run anything, were it asked to."""

        name, is_local = "anywhere", False

        def submit(self, request: object) -> None:
            raise AssertionError("nothing is left to submit")

        def find(self, name: str) -> None:
            return None

    @step(name="both", resources=ResourceConfig.with_cpu(1))
    def both():
        return deferred(write)(output())

    executor_main(steps=[both()], argv=["--prefix", str(tmp_path)])
    needing = both.with_options(resources=TPU)
    with use_client(SMALL):
        assert executor_main(steps=[needing()], argv=["--prefix", str(tmp_path)]).outcomes[0].epoch is None
    with use_client(Anywhere()):
        executor_main(steps=[needing()], argv=["--prefix", str(tmp_path)])


def test_all_that_cannot_run_is_told_at_once() -> None:
    asked = [("a", TPU), ("b", ResourceConfig.with_cpu(1)), ("c", ResourceConfig.with_cpu(1, ram="64g"))]
    with pytest.raises(ResourcesUnavailableError, match=r"^2 steps cannot run on local\n") as caught:
        check_placeable(asked, SMALL)
    assert "a asks for tpu=v5p-8, and this machine has no TPU" in str(caught.value)
    assert "c asks for 64g of memory, and this machine has 8 GB" in str(caught.value)
    check_placeable(asked[1:2], SMALL)


def test_a_place_is_told_in_a_few_words() -> None:
    assert place_of(None, SMALL) == "launcher"
    assert place_of(ResourceConfig.with_cpu(8), None) == "local"
    assert place_of(ResourceConfig.with_tpu("v5p-32"), SMALL) == "local, 4 processes"


@pytest.mark.parametrize(("cluster", "hint"), [("nowhere", "--cluster local"), ("host:10001", "ray://host:10001")])
def test_a_cluster_that_is_none_is_refused_with_those_there_are(cluster: str, hint: str) -> None:
    with pytest.raises(ResourcesUnavailableError, match=f"there is no cluster '{cluster}'") as caught:
        client_named(cluster)
    assert "clusters: local, ray, ray://HOST:PORT" in str(caught.value)
    assert hint in str(caught.value)
