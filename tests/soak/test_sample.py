"""A few trials of the soak in every test run: real processes on the real command line."""

import re
import signal
from pathlib import Path

import pytest

from tests.soak import fuzz, keeper_kills, kills, races
from tests.soak.__main__ import main
from tests.soak.checks import Data
from tests.soak.keeper_kills import Kind
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
    assert main(["--only", "R5", "--seed", "11", "--minutes", "0.01"]) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert table[0] == "| id | what | trials | violations | seed | seconds |"
    assert re.match(r"\| R5 \| one creates a file \| 16 at once, [1-9]\d* rounds", table[2])
