"""A watcher and its training run at the same time, whatever becomes of the training."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.lib.evaluate.config import ModelEvaluation
from experiments.lib.evaluate.watch import TrainingStalledError, WatchConfig, WatchedTraining, watch
from marin_trace import StepRef, deferred, executor_main, output, step

STEPS = (1, 2, 3)

measured = {number: threading.Event() for number in STEPS}
"""Set once the checkpoint of a step is measured: steps without resources run in threads of this process."""


@pytest.fixture(autouse=True)
def nothing_measured() -> Iterator[None]:
    yield
    for event in measured.values():
        event.clear()


def train(output_path: str, fails_after: int) -> None:
    """Makes a checkpoint only when the one before has been measured."""
    for number in STEPS:
        Path(output_path, "checkpoints", str(number)).mkdir(parents=True)
        assert measured[number].wait(30), f"step {number} was not measured while the training ran"
        if number == fails_after:
            raise OSError("out of memory")


def watch_it(config: WatchConfig) -> WatchedTraining:
    def evaluate(number: int) -> ModelEvaluation:
        measured[number].set()
        return ModelEvaluation(number, 1, 10, 5, bits_per_byte=3.0 - number / 2, perplexity=2.0)

    def saved_steps() -> list[int]:
        return sorted(int(path.name) for path in Path(config.model_path, "checkpoints").glob("*"))

    pauses = threading.Event()
    return watch(config, saved_steps=saved_steps, evaluate=evaluate, sleep=lambda _: (pauses.wait(0.01), None)[1])


@step(name="train")
def trained(fails_after: int) -> StepRef:
    return deferred(train)(output(), fails_after)


@step(name="watch")
def watched(model: StepRef, patience_s: float) -> StepRef:
    return deferred(watch_it)(
        WatchConfig(
            model_path=model.nonblocking(),
            last_step=STEPS[-1],
            heldout_path="",
            output_path=output(),
            patience_s=patience_s,
        )
    )


def test_checkpoints_are_measured_while_the_training_runs() -> None:
    ref = watched(trained(fails_after=0), patience_s=30.0)
    run = executor_main(steps=[ref], argv=[])
    assert [one.step for one in run.artifact(ref).evaluations] == list(STEPS)
    assert run.artifact(ref).best_step == 3


def test_a_training_that_fails_is_noticed_and_both_errors_are_told() -> None:
    with pytest.raises(ExceptionGroup, match="2 of 2 steps failed") as caught:
        executor_main(steps=[watched(trained(fails_after=2), patience_s=0.5)], argv=[])
    kinds = {type(error): str(error) for error in caught.value.exceptions}
    assert kinds[OSError] == "out of memory"
    assert "no checkpoint after that of step 2" in kinds[TrainingStalledError]
