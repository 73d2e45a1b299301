"""A sweep as a function, so that other experiments can call it too."""

from collections.abc import Sequence

from experiments.datasets.common import starcoder_tokenized
from experiments.llama import llama_75m
from marin.evaluation.evaluation import ComparisonConfig
from marin.evaluation.evaluation import compare_evaluations as _compare_evaluations
from marin_trace import StepRef, deferred, executor_main, output, versioned
from marin_trace import step as marin_step
from marin.training.training import SimpleTrainConfig, TrainLmConfig
from marin.training.training import run_train_lm as _run_train_lm

run_train_lm = deferred(_run_train_lm)
compare_evaluations = deferred(_compare_evaluations)


def make_sweep_steps(prefix: str, data: StepRef, learning_rates: Sequence[float]) -> list[StepRef]:
    """A training for each learning rate."""
    steps = []

    @marin_step(name=f"checkpoints/{prefix}-lr-{{lr:.0e}}")
    def run_train_lm_step(lr) -> StepRef:
        config = TrainLmConfig(
            data=data,
            model=versioned(llama_75m),
            train=SimpleTrainConfig(train_batch_size=256, num_train_steps=1_000, learning_rate=versioned(lr)),
            output_path=output(),
        )
        return run_train_lm(config)

    for lr in learning_rates:
        step = run_train_lm_step(lr)
        steps.append(step)
    return steps


@marin_step(name="{prefix}/comparison", description="Compare the runs of {prefix}")
def compare(prefix: str, runs: Sequence[StepRef]) -> StepRef:
    """Puts runs side by side."""
    return compare_evaluations(ComparisonConfig(
        evaluations={run.name: run / "eval" for run in runs},
        output_path=output() / "comparison.json",
    ))


@marin_step(name="sweeps/vary_lr/all")
def run_vary_lr():
    """Vary the learning rate."""
    sweep = make_sweep_steps("vary-lr", starcoder_tokenized(), [1e-4, 1e-3, 1e-2])
    compare("vary-lr", sweep)


if __name__ == "__main__":
    executor_main(steps=[run_vary_lr()], description="Vary the learning rate")
