"""Laws of when a lease keeper begins and ends."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from marin_trace.runtime.keeper import dismiss_keeper, prepare_keeper, ready_keeper
from marin_trace.runtime.keeper_process import KEEPER_VARIABLE
from marin_trace.runtime.liveness import process_nonce
from marin_trace.runtime.process_tree import carriers_of
from marin_trace.runtime.report import OutcomeKind
from marin_trace.runtime.step_runner import StepRunner

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="keepers are found by /proc")


def keepers() -> set[int]:
    return carriers_of(f"{KEEPER_VARIABLE}={process_nonce()}")


@pytest.fixture(autouse=True)
def without_keeper() -> Iterator[None]:
    dismiss_keeper()
    yield
    dismiss_keeper()
    assert keepers() == set()


def test_the_keeper_that_was_prepared_is_the_one_that_answers(prefix: str) -> None:
    prepare_keeper(prefix)
    prepared = keepers()
    ready_keeper(prefix)
    assert keepers() == prepared
    assert len(prepared) == 1


def test_a_prepared_keeper_that_nobody_needed_ends(prefix: str) -> None:
    prepare_keeper(prefix)
    assert len(keepers()) == 1
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
