"""What experiments trace to changes on purpose or not at all: a refactoring leaves the printed graphs as they are."""

from pathlib import Path

import pytest

from tests.golden.graphs import DIRECTORY, GRAPHS, golden_file

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.mark.parametrize("experiment", GRAPHS)
def test_the_printed_graph_is_the_golden_one(experiment: str) -> None:
    assert f"{GRAPHS[experiment]()}\n" == golden_file(experiment).read_text(), "python -m tests.golden.graphs"


def test_every_experiment_has_a_golden_graph() -> None:
    scripts = [file for file in EXPERIMENTS.rglob("*.py") if "executor_main(" in file.read_text()]
    assert sorted(GRAPHS) == sorted(str(file.relative_to(EXPERIMENTS).with_suffix("")) for file in scripts)


def test_every_golden_graph_belongs_to_an_experiment() -> None:
    files = [str(file.relative_to(DIRECTORY).with_suffix("")) for file in DIRECTORY.rglob("*.txt")]
    assert sorted(files) == sorted(GRAPHS)
