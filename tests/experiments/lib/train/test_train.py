"""One process, one device: what a training does, refuses and leaves."""

import dataclasses
import logging
import math
from pathlib import Path

import numpy as np
import pytest

from experiments.lib.mixture import MixtureConfig
from experiments.lib.token_store import write_token_store
from experiments.lib.train import loop
from experiments.lib.train.config import (
    CheckpointPolicy,
    Layout,
    OptimizerConfig,
    TrainingDivergedError,
    TrainRecipe,
)
from experiments.lib.train.metrics import read_metrics
from experiments.lib.train.train import train_model
from marin_trace.errors import LeaseLostError
from tests.training_runs import LOGGED_STEPS, RECIPE, VOCAB_SIZE, curve, train_config

UNIFORM = math.log(VOCAB_SIZE)


def test_a_training_learns_and_logs_each_step_once(trained: Path) -> None:
    lines = read_metrics(str(trained / "model" / "metrics.jsonl"))
    assert [line.step for line in lines] == LOGGED_STEPS
    assert lines[0].loss == pytest.approx(UNIFORM, abs=0.1)
    assert lines[-1].loss < UNIFORM - 0.5
    assert [line.step for line in lines if line.validation_loss is not None] == [4, 8, 12]
    assert all(line.tokens_per_second is None or line.tokens_per_second > 0 for line in lines)
    assert lines[0].tokens_per_second is None  # It was compiled.


def test_the_step_is_compiled_once(corpus: Path, caplog: pytest.LogCaptureFixture) -> None:
    import jax

    # JAX is kept to warnings by the training itself, so its own logger is listened to.
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        train_model(train_config(corpus))
    compiled = [record.getMessage() for record in caplog.records if "Compiling" in record.getMessage()]
    assert len([message for message in compiled if "train_step" in message]) == 1


def test_the_result_tells_what_was_trained(trained: Path) -> None:
    model = train_model(train_config(trained))
    assert (model.steps, model.tokens, model.vocab_size) == (12, 12 * 8 * 16, VOCAB_SIZE)
    assert model.best_validation_loss == min(line[4] for line in curve(trained / "model") if line[4] > 0)


def test_the_last_checkpoints_and_the_best_are_kept(corpus: Path) -> None:
    # Held out is noise: whatever is learnt makes it worse, so the first checkpoint is the best.
    noise = np.random.default_rng(0).integers(1, VOCAB_SIZE, size=(12, 40))
    write_token_store(str(corpus / "validation"), noise.tolist(), vocab_size=32, end_of_document=0, num_bytes=480)
    model = train_model(train_config(corpus, checkpoints=CheckpointPolicy(every_steps=4, keep_last=1)))
    assert sorted(path.name for path in (corpus / "model" / "checkpoints").iterdir()) == ["12", "4"]
    assert (model.best_step, model.final_validation_loss > model.best_validation_loss) == (4, True)


@pytest.mark.parametrize(
    "layout",
    [
        pytest.param(Layout(gradient_accumulation=2), id="gradient accumulation"),
        pytest.param(Layout(recompute_layers=True), id="recomputation", marks=pytest.mark.slow),
    ],
)
def test_a_layout_changes_nothing_but_rounding(layout: Layout, corpus: Path, trained: Path) -> None:
    train_model(train_config(corpus, layout=layout))
    # Sums of other order, over 12 updates of a rate of 1e-2.
    np.testing.assert_allclose(curve(corpus / "model"), curve(trained / "model"), rtol=1e-4)


def test_bfloat16_learns_as_float32_does(corpus: Path, trained: Path) -> None:
    train_model(train_config(corpus, compute_dtype="bfloat16"))
    losses = [line[1] for line in curve(corpus / "model")]
    # Eight bits of mantissa.
    np.testing.assert_allclose(losses, [line[1] for line in curve(trained / "model")], rtol=2e-2)


def test_another_seed_is_another_training(corpus: Path, trained: Path) -> None:
    train_model(train_config(corpus, seed=1))
    assert curve(corpus / "model")[0][1] != curve(trained / "model")[0][1]


def test_a_loss_that_is_no_number_names_step_checkpoint_and_remedy(corpus: Path) -> None:
    optimizer = OptimizerConfig(learning_rate=1e30, warmup_steps=6, clip_norm=1e30)
    config = train_config(corpus, optimizer=optimizer, checkpoints=CheckpointPolicy(every_steps=1))
    with pytest.raises(TrainingDivergedError, match=r"diverged by step 2: loss \S+, gradient norm nan") as failure:
        train_model(config)
    assert "learning_rate=3e+29" in str(failure.value)
    assert "checkpoint" in str(failure.value)


def test_a_lost_lease_stops_the_training(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[None] = []

    def lose_lease() -> None:
        calls.append(None)
        if len(calls) == 6:
            raise LeaseLostError("owned by somebody else")

    monkeypatch.setattr(loop, "check_lease", lose_lease)
    with pytest.raises(LeaseLostError, match="owned by somebody else"):
        train_model(train_config(corpus))
    assert [line[0] for line in curve(corpus / "model")] == [1, 3, 4]


class TestRefusals:
    def test_too_small_a_corpus(self, corpus: Path) -> None:
        with pytest.raises(ValueError, match=r"too small a corpus: \S+/train holds [\d,]+ tokens, and one sequence"):
            train_model(train_config(corpus, sequence_length=100_000))

    def test_stores_of_two_tokenizers(self, corpus: Path) -> None:
        write_token_store(str(corpus / "other"), [[1] * 50], vocab_size=99, end_of_document=0, num_bytes=50)
        mixture = MixtureConfig({"other": str(corpus / "other")}, {"other": 1.0})
        config = dataclasses.replace(train_config(corpus), mixture=mixture)
        with pytest.raises(ValueError, match=r"other and the validation were not tokenised with the same tokenizer"):
            train_model(config)

    def test_a_batch_that_cannot_be_divided(self, corpus: Path) -> None:
        with pytest.raises(ValueError, match="a batch of 8 sequences cannot be divided over 3 parts and 1 devices"):
            train_model(train_config(corpus, layout=Layout(gradient_accumulation=3)))

    def test_more_devices_than_there_are(self, corpus: Path) -> None:
        with pytest.raises(ValueError, match=r"layout.fsdp=2 does not divide the 1 devices"):
            train_model(train_config(corpus, layout=Layout(fsdp=2)))

    def test_counts_below_one(self) -> None:
        with pytest.raises(ValueError, match=r"at least 1 of each, not steps=0, checkpoints.every_steps=0"):
            TrainRecipe(steps=0, checkpoints=CheckpointPolicy(every_steps=0))

    def test_an_unknown_type(self) -> None:
        with pytest.raises(ValueError, match="compute_dtype is 'bfloat16' or 'float32', not 'float16'"):
            dataclasses.replace(RECIPE, compute_dtype="float16")


def test_nothing_is_written_before_all_is_checked(corpus: Path) -> None:
    with pytest.raises(ValueError, match="too small a corpus"):
        train_model(train_config(corpus, sequence_length=100_000))
    assert not (corpus / "model").exists()
