"""A training that is killed and run again is the training that was not."""

import logging
import shutil
from pathlib import Path

import pytest

from experiments.lib.train.checkpoints import DamagedCheckpointError
from experiments.lib.train.config import TrainedModel
from experiments.lib.train.train import train_model
from tests.training_runs import KILLS, LOGGED_STEPS, curve, run_killed, train_config

STATES = {"between steps": ("4", "8"), "while saving": ("4",), "after the last step": ("12",)}
"""The last checkpoint that a killed training leaves. Where there are two, the second may not be written yet."""


def checkpoints_in(root: Path) -> list[str]:
    return sorted((path.name for path in (root / "model" / "checkpoints").iterdir() if path.name.isdigit()), key=int)


def without_speed(model: TrainedModel) -> dict[str, object]:
    return {name: value for name, value in vars(model).items() if name != "tokens_per_second"}


@pytest.fixture(scope="module")
def uninterrupted(trained: Path) -> list[tuple[float, ...]]:
    return curve(trained / "model")


@pytest.mark.parametrize("kill_at", KILLS)
def test_a_killed_training_ends_with_the_same_curve(
    kill_at: str, corpus: Path, uninterrupted: list[tuple[float, ...]], trained: Path
) -> None:
    run_killed(corpus, kill_at)
    assert checkpoints_in(corpus)[-1] in STATES[kill_at]
    model = train_model(train_config(corpus))
    assert curve(corpus / "model") == uninterrupted
    assert [line[0] for line in uninterrupted] == LOGGED_STEPS
    assert without_speed(model) == without_speed(train_model(train_config(trained)))


def test_a_finished_training_is_not_trained_again(trained: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = (trained / "model" / "metrics.jsonl").stat().st_mtime_ns
    with caplog.at_level(logging.INFO):
        train_model(train_config(trained))
    assert "going on after step 12" in caplog.text
    assert "step 12/12" not in caplog.text
    assert (trained / "model" / "metrics.jsonl").stat().st_mtime_ns == before


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """A finished training that may be damaged."""
    return Path(shutil.copytree(trained, tmp_path / "copied"))


def data_files(root: Path, step: int, item: str) -> list[Path]:
    """The files of a checkpoint that hold array data, the largest last."""
    files = (root / "model" / "checkpoints" / str(step) / item / "d").iterdir()
    return sorted(files, key=lambda file: file.stat().st_size)


def test_a_checkpoint_without_a_file_gives_way_to_the_one_before(
    copied: Path, uninterrupted: list[tuple[float, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    data_files(copied, 12, "model")[-1].unlink()
    train_model(train_config(copied))
    assert curve(copied / "model") == uninterrupted
    assert "checkpoints/12 is damaged and deleted; going on from step 8" in caplog.text


def test_a_checkpoint_with_a_changed_byte_is_noticed(copied: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = data_files(copied, 12, "optimizer")[-1]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    train_model(train_config(copied))
    assert "checkpoints/12 is damaged" in caplog.text


def test_where_no_checkpoint_can_be_read_the_last_one_is_named(copied: Path) -> None:
    for step in (8, 12):
        data_files(copied, step, "model")[-1].unlink()
    with pytest.raises(DamagedCheckpointError, match=r"none of the checkpoints in \S+ can be read; 12, the last one"):
        train_model(train_config(copied))
    assert checkpoints_in(copied) == ["8", "12"]
