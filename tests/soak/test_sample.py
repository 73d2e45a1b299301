"""A few trials of the soak in every test run: real processes on the real command line."""

import re
import signal
from collections import Counter
from pathlib import Path

import pytest

from marin_trace.runtime.keeper import dismiss_keeper
from tests.soak import answers, fuzz, keeper_kills, kills, races
from tests.soak.__main__ import ALL, main
from tests.soak.checks import Data
from tests.soak.keeper_kills import Kind
from tests.soak.places import Store, served
from tests.soak.series import Terms

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found by what /proc says of them")


@pytest.mark.parametrize("number", [0, 2])
def test_killed_launchers_lose_nothing_and_leave_nothing_double(tmp_path: Path, expected: Data, number: int) -> None:
    trial = kills.run_trial(Terms(7, tmp_path), expected, number)
    assert trial.problems == []
    assert trial.delivered.total() > 0


def test_a_woken_launcher_cannot_commit_and_what_it_wrote_is_named(tmp_path: Path, expected: Data) -> None:
    trial = keeper_kills.run_trial(Terms(7, tmp_path), expected, list(Kind).index(Kind.ZOMBIE))
    assert (trial.problems, trial.was_hit) == ([], True)


def test_eight_launchers_with_skewed_clocks_run_each_step_once(tmp_path: Path, expected: Data) -> None:
    assert races.run_together(Terms(7, tmp_path), expected, 0) == []


def test_damaged_files_are_refused_or_read(tmp_path: Path) -> None:
    result = fuzz.run_in_process(Terms(7, tmp_path, share=0.01), 0)
    assert (result["violations"], result["inputs"]) == ([], 1000)
    assert sum(result["refused"].values()) > 500


def test_the_faults_of_a_trial_are_a_function_of_its_seed() -> None:
    assert kills.plan_of(3, 5) == kills.plan_of(3, 5)
    assert len({kills.plan_of(3, number) for number in range(50)}) == 50
    numbers = {fault.number for number in range(50) for fault in kills.plan_of(3, number).faults}
    assert numbers == {signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM}


def test_the_soak_prints_one_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "R5", "--store", "local", "--seed", "11", "--minutes", "0.01"]) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert table[0] == "| id | store | what | trials | violations | seed | seconds |"
    assert re.match(r"\| R5 \| local \| one creates a file \| 16 processes, [1-9]\d* rounds", table[2])


def test_every_law_of_real_processes_is_tried_on_every_store() -> None:
    stores = Counter((series.id, series.store) for series in ALL)
    assert set(stores.values()) == {1}
    for law in ("R4", "R4k", "R5", "R6", "R7", "R8", "R9", "R10", "R11"):
        assert {store for name, store in stores if name == law} == {Store.LOCAL, Store.S3, Store.GCS}


@pytest.mark.parametrize("store", [Store.GCS, pytest.param(Store.S3, marks=pytest.mark.slow)])
def test_answers_that_are_lost_at_a_write_are_told_apart(tmp_path: Path, store: Store) -> None:
    with served(store) as place:
        trials = [answers.run_trial(Terms(7, tmp_path, place=place), number) for number in (0, 4, 48)]
    dismiss_keeper()
    assert [problem for trial in trials for problem in trial.problems] == []
    assert all(trial.met > 0 for trial in trials)
