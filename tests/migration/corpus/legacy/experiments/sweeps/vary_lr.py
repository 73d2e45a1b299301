"""A sweep as a function, so that other experiments can call it too."""

from collections.abc import Sequence

from experiments.datasets.common import starcoder_tokenized
from experiments.llama import llama_75m
from marin.evaluation.evaluation import ComparisonConfig, compare_evaluations
from marin.execution.executor import ExecutorStep, executor_main, this_output_path, versioned
from marin.training.training import SimpleTrainConfig, TrainLmConfig, run_train_lm


def make_sweep_steps(prefix: str, data: ExecutorStep, learning_rates: Sequence[float]) -> list[ExecutorStep]:
    """A training for each learning rate."""
    steps = []
    for lr in learning_rates:
        config = TrainLmConfig(
            data=data,
            model=versioned(llama_75m),
            train=SimpleTrainConfig(train_batch_size=256, num_train_steps=1_000, learning_rate=versioned(lr)),
            output_path=this_output_path(),
        )
        step = ExecutorStep(name=f"checkpoints/{prefix}-lr-{lr:.0e}", fn=run_train_lm, config=config)
        steps.append(step)
    return steps


def compare(prefix: str, runs: Sequence[ExecutorStep]) -> ExecutorStep:
    """Puts runs side by side."""
    return ExecutorStep(
        name=f"{prefix}/comparison",
        fn=compare_evaluations,
        config=ComparisonConfig(
            evaluations={run.name: run / "eval" for run in runs},
            output_path=this_output_path("comparison.json"),
        ),
        description=f"Compare the runs of {prefix}",
    )


sweep = make_sweep_steps("vary-lr", starcoder_tokenized, [1e-4, 1e-3, 1e-2])
comparison = compare("vary-lr", sweep)

if __name__ == "__main__":
    executor_main(steps=sweep + [comparison], description="Vary the learning rate")
