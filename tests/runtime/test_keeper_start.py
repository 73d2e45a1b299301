"""Laws of when a lease keeper begins and ends."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from marin_trace.runtime import keeper
from marin_trace.runtime.keeper import dismiss_keeper, prepare_keeper, ready_keeper
from marin_trace.runtime.keeper_process import KEEPER_VARIABLE
from marin_trace.runtime.liveness import process_nonce
from marin_trace.runtime.options import RunOptions
from marin_trace.runtime.process_tree import carriers_of
from marin_trace.runtime.report import OutcomeKind
from marin_trace.runtime.step_runner import StepRunner
from tests.storage.clouds import gcs_cloud

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="keepers are found by /proc")


def keepers() -> set[int]:
    return carriers_of(f"{KEEPER_VARIABLE}={process_nonce()}")


def prepared(output_path: str) -> int:
    """Prepares a keeper; gives its process."""
    prepare_keeper(output_path)
    while not (found := keepers()):  # for a moment after its start a process shows no environment
        continue
    (pid,) = found
    return pid


@pytest.fixture(autouse=True)
def without_keeper() -> Iterator[None]:
    dismiss_keeper()
    yield
    dismiss_keeper()
    assert keepers() == set()


def test_the_keeper_that_was_prepared_is_the_one_that_answers(prefix: str) -> None:
    pid = prepared(prefix)
    ready_keeper(prefix)
    assert keepers() == {pid}


def test_a_prepared_keeper_that_was_killed_is_replaced(prefix: str) -> None:
    pid = prepared(prefix)
    os.kill(pid, signal.SIGKILL)
    ready_keeper(prefix)
    assert len(keepers() - {pid}) == 1


def test_a_keeper_that_cannot_be_replaced_at_once_is_replaced_later(
    prefix: str, make_step, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawned, failures = keeper._spawned, iter([OSError("no memory")])

    def spawned_the_second_time() -> object:
        for failure in failures:
            raise failure
        return spawned()

    def body(path: str) -> None:
        monkeypatch.setattr(keeper, "_spawned", spawned_the_second_time)
        (killed,) = keepers()
        os.kill(killed, signal.SIGKILL)
        while not keepers() - {killed}:
            time.sleep(0.01)

    report = StepRunner(options=RunOptions(lease_seconds=30.0)).run([make_step("step", body)])
    assert report.count(OutcomeKind.SUCCEEDED) == 1


def test_a_keeper_that_dies_before_it_has_reached_a_store_is_replaced(prefix: str) -> None:
    with gcs_cloud() as cloud, ThreadPoolExecutor(1) as pool:
        ready_keeper(prefix)
        (first,) = keepers()
        os.kill(first, signal.SIGSTOP)
        waiting = pool.submit(ready_keeper, f"{cloud.bucket}/output")
        while not keeper._the_watch()._stores:
            time.sleep(0.001)
        os.kill(first, signal.SIGKILL)
        waiting.result()
        assert len(keepers() - {first}) == 1


def test_a_prepared_keeper_that_nobody_needed_ends(prefix: str) -> None:
    prepared(prefix)
    dismiss_keeper()
    assert keepers() == set()


def test_outputs_in_memory_have_none() -> None:
    prepare_keeper("memory://bucket/output")
    ready_keeper("memory://bucket/output")
    assert keepers() == set()


def test_a_run_has_one_and_a_run_of_hits_none(make_step, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[int]] = []
    step = make_step("step", lambda path: seen.append(keepers()))
    StepRunner().run([step])
    assert [len(found) for found in seen] == [1]

    def refuse() -> None:
        raise AssertionError("a run of hits needs no keeper")

    monkeypatch.setattr("marin_trace.runtime.keeper._spawned", refuse)
    assert StepRunner().run([step]).count(OutcomeKind.HIT) == 1
