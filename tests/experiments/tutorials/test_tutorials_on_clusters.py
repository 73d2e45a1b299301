"""The training tutorial on clusters of several machines: each step once, whatever dies on the way.

On Ray and on Iris, all on this machine. What a killed training comes to is compared with one that was left alone.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from marin_trace.runtime.log_records import EndKind
from tests.experiments.tutorials.clusters import (
    Launcher,
    Training,
    TutorialCluster,
    claims_by_step,
    iris_tutorials,
    launched,
    ray_tutorials,
)
from tests.experiments.tutorials.test_training_tutorials import file_named

pytestmark = pytest.mark.slow

JOBS = {"curated", "tokenizers", "tokenized", "checkpoints", "evaluations", "samples"}
"""Beginnings of the names of the steps that ask for something; the others run in the launcher."""
MINUTES = ("--train.minutes", "2")
"""480 steps: ten seconds in which something may die, and more on a busy machine."""
CHECKPOINT = 160
"""After so many steps each."""


@pytest.fixture(scope="module")
def ray() -> Iterator[TutorialCluster]:
    with ray_tutorials() as cluster:
        yield cluster


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in ("ray", "fray")]
)
def cluster(request: pytest.FixtureRequest) -> TutorialCluster:
    if request.param == "ray":
        return request.getfixturevalue("ray")
    return iris_tutorials(request.getfixturevalue("iris"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few documents."""
    corpus = tmp_path_factory.mktemp("source") / "apples"
    corpus.mkdir()
    for document in range(24):
        lines = [" ".join(f"apple{(document * 37 + line * word) % 211}" for word in range(8)) for line in range(20)]
        (corpus / f"{document}.txt").write_text("\n".join(lines) + "\n")
    return corpus


@pytest.fixture(scope="module")
def left_alone(cluster: TutorialCluster, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Launcher:
    """A run of the tutorial that nothing happened to; its prefix is ``outputs`` beside its log."""
    prefix = tmp_path_factory.mktemp("alone") / "outputs"
    launcher = launched(cluster.script, *cluster.flags, *MINUTES, "--source", source, prefix=prefix)
    launcher.await_success()
    return launcher


def training_of(launcher: Launcher) -> Training:
    return Training(launcher.log.parent / "outputs")


def begun(cluster: TutorialCluster, source: Path, tmp_path: Path) -> Launcher:
    """A run of the tutorial whose training is past its first checkpoint."""
    launcher = launched(cluster.script, *cluster.flags, *MINUTES, "--source", source, prefix=tmp_path / "outputs")
    launcher.wait_until(lambda: training_of(launcher).has_logged(CHECKPOINT + 20))
    return launcher


def test_each_step_runs_once_and_what_asks_for_machines_on_them(cluster: TutorialCluster, left_alone: Launcher) -> None:
    claims = claims_by_step(training_of(left_alone).prefix)
    assert {len(of_step) for of_step in claims.values()} == {1}
    job_by_step = {name: first.job.name for name, (first,) in claims.items() if first.job is not None}
    assert {name.partition("/")[0] for name in job_by_step} == JOBS
    machines = cluster.machines()
    assert {cluster.machine_of(job) in machines for job in job_by_step.values()} == {True}
    assert file_named("report", left_alone.said).exists()


def test_the_launcher_after_a_killed_one_adopts_the_training(
    cluster: TutorialCluster, source: Path, left_alone: Launcher, tmp_path: Path
) -> None:
    first = begun(cluster, source, tmp_path)
    training = training_of(first)
    first.kill()
    second = launched(cluster.script, *cluster.flags, *MINUTES, "--source", source, prefix=training.prefix)
    second.wait_until(lambda: f"{training.output.name}: waits: " in second.said)
    assert training.end_of(1) is None
    second.await_success()
    assert {len(of_step) for of_step in claims_by_step(training.prefix).values()} == {1}
    assert not re.search(r"checkpoints-\S+ is (?:submitted to Ray|the Iris job)", second.said)
    assert training.resumed_after(1) == []
    assert training.curve == training_of(left_alone).curve


def test_a_training_whose_machine_vanishes_goes_on_from_its_checkpoint_on_another(
    cluster: TutorialCluster, source: Path, left_alone: Launcher, tmp_path: Path
) -> None:
    launcher = begun(cluster, source, tmp_path)
    training = training_of(launcher)
    before = cluster.machine_of(training.job)
    cluster.lose_machine(training)
    launcher.await_success()
    assert cluster.machine_of(training.job) != before
    assert len(training.claims) == 2
    assert [end and end.kind for end in map(training.end_of, (1, 2))] in (
        [EndKind.RELEASED, EndKind.SUCCESS],  # its lease keeper has outlived the others
        [EndKind.FENCED, EndKind.SUCCESS],
    )
    assert training.resumed_after(2) in ([CHECKPOINT], [2 * CHECKPOINT])
    assert training.curve == training_of(left_alone).curve
    assert file_named("report", launcher.said).exists()


def test_a_gang_that_loses_a_member_begins_again_as_a_whole_from_its_checkpoint(
    cluster: TutorialCluster, source: Path, tmp_path: Path
) -> None:
    flags = (*cluster.gang_flags, "--train.minutes", "1", "--source", source, "--until", "^checkpoints/")
    launcher = launched("train_tiny_model_tpu", *flags, prefix=tmp_path / "outputs")
    training = training_of(launcher)
    # The steps of a gang take longer: half as many will do.
    launcher.wait_until(lambda: training.has_logged(CHECKPOINT // 2 + 20))
    cluster.lose_member(training)
    launcher.await_success()
    assert len(training.claims) == 2
    assert training.job
    assert training.resumed_after(2) in ([CHECKPOINT // 2], [CHECKPOINT])
    assert (training.output / ".executor/000002.log-1").exists()
    # Two processes add up in another order than one, so they are compared with two.
    whole = launched("train_tiny_model_tpu", *flags, prefix=tmp_path / "whole")
    whole.await_success()
    assert training.curve == Training(tmp_path / "whole").curve
