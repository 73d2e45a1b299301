"""A training is watched: each checkpoint is measured once, and a training that stops is noticed."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from experiments.lib.evaluate.config import EvaluateConfig, ModelEvaluation
from experiments.lib.evaluate.model import evaluate_model
from experiments.lib.evaluate.watch import (
    EVALUATIONS_FILE,
    LONGEST_PAUSE_S,
    TrainingStalledError,
    WatchConfig,
    WatchedTraining,
    watch,
    watch_checkpoints,
)


def evaluation(step: int) -> ModelEvaluation:
    return ModelEvaluation(step, documents=1, bytes=10, tokens=5, bits_per_byte=8 / step, perplexity=2.0)


class Training:
    """Checkpoints that appear, and disappear, at moments of a clock that only sleeping moves."""

    def __init__(self, appear: dict[int, float], *, deleted: dict[int, float] | None = None) -> None:
        self.appear, self.deleted = appear, deleted or {}
        self.now = 0.0
        self.pauses: list[float] = []
        self.measured: list[int] = []

    def saved_steps(self) -> Sequence[int]:
        there = [step for step, moment in self.appear.items() if moment <= self.now]
        return [step for step in there if self.deleted.get(step, self.now + 1) > self.now]

    def evaluate(self, step: int) -> ModelEvaluation:
        self.measured.append(step)
        return evaluation(step)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def watched(self, config: WatchConfig) -> WatchedTraining:
        return watch(
            config, saved_steps=self.saved_steps, evaluate=self.evaluate, sleep=self.sleep, clock=lambda: self.now
        )


@pytest.fixture
def config(tmp_path: Path) -> WatchConfig:
    return WatchConfig("/model", last_step=12, heldout_path="/heldout", output_path=str(tmp_path), patience_s=100)


def lines_in(config: WatchConfig) -> list[dict]:
    return [json.loads(line) for line in Path(config.output_path, EVALUATIONS_FILE).read_text().splitlines()]


def test_each_checkpoint_is_measured_once_until_the_last_step(config: WatchConfig) -> None:
    training = Training({4: 3.0, 8: 50.0, 12: 51.0, 16: 0.0})
    watched = training.watched(config)
    assert training.measured == [16, 4, 8, 12]
    assert watched == WatchedTraining(tuple(map(evaluation, (4, 8, 12, 16))), 16, 0.5)
    assert lines_in(config) == [asdict(evaluation(step)) for step in (4, 8, 12, 16)]


def test_pauses_double_up_to_a_bound_and_begin_anew_with_each_checkpoint(config: WatchConfig) -> None:
    training = Training({4: 40.0, 12: 46.0})
    training.watched(config)
    assert training.pauses == [0.5, 1, 2, 4, 8, LONGEST_PAUSE_S, LONGEST_PAUSE_S, 0.5]


@pytest.mark.parametrize(
    ("appear", "message"),
    [({}, "no checkpoint at all for 100 s in /model"), ({4: 60.0}, "after that of step 4 for 100")],
)
def test_a_training_that_is_silent_for_too_long_is_an_error(
    config: WatchConfig, appear: dict[int, float], message: str
) -> None:
    training = Training(appear)
    with pytest.raises(TrainingStalledError, match=message) as caught:
        training.watched(config)
    assert "was to go to step 12" in str(caught.value)
    assert "longer patience_s" in str(caught.value)


def test_a_second_attempt_goes_on_from_what_the_first_has_measured(config: WatchConfig) -> None:
    with pytest.raises(TrainingStalledError, match="step 8"):
        Training({4: 0.0, 8: 0.0}).watched(config)
    second = Training({8: 0.0, 12: 1.0})
    assert [one.step for one in second.watched(config).evaluations] == [4, 8, 12]
    assert second.measured == [12]


def test_a_checkpoint_that_is_deleted_meanwhile_is_passed_over(config: WatchConfig) -> None:
    class Deleting(Training):
        def evaluate(self, step: int) -> ModelEvaluation:
            if step == 4:
                raise FileNotFoundError("model")
            return super().evaluate(step)

    # Its files go first, its directory a while later.
    training = Deleting({4: 0.0, 12: 0.0}, deleted={4: 1.0})
    assert [one.step for one in training.watched(config).evaluations] == [12]


def test_a_checkpoint_that_stays_unreadable_is_an_error(config: WatchConfig) -> None:
    class Damaged(Training):
        def evaluate(self, step: int) -> ModelEvaluation:
            self.measured.append(step)
            raise ValueError("the checkpoint cannot be read")

    training = Damaged({4: 0.0})
    with pytest.raises(ValueError, match="cannot be read"):
        training.watched(config)
    assert training.measured == [4] * 5


def test_a_finished_training_is_measured_at_all_checkpoints_that_it_kept(trained: Path, config: WatchConfig) -> None:
    config = replace(config, model_path=str(trained / "model"), heldout_path=str(trained / "validation"))
    watched = watch_checkpoints(config)
    kept = sorted(int(path.name) for path in (trained / "model" / "checkpoints").iterdir() if path.name.isdigit())
    expected = [evaluate_model(EvaluateConfig(config.model_path, step, config.heldout_path)) for step in kept]
    assert kept[-1] == 12
    assert list(watched.evaluations) == expected
    assert watched.best_bits_per_byte == min(one.bits_per_byte for one in expected)


def test_a_training_that_never_began_is_waited_for(tmp_path: Path, config: WatchConfig) -> None:
    config = replace(config, model_path=str(tmp_path / "absent"), patience_s=0)
    with pytest.raises(TrainingStalledError, match="no checkpoint at all"):
        watch_checkpoints(config)
