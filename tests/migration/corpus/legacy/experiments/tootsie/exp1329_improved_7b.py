"""An improved 7B: variants that are derived from one configuration."""

import dataclasses

from experiments.datasets.mixtures import dclm_mixture
from experiments.llama import llama_8b
from marin.execution.executor import ExecutorStep, executor_main, this_output_path, versioned
from marin.training.training import SimpleTrainConfig, TrainLmConfig, run_train_lm

baseline = ExecutorStep(
    name="checkpoints/improved-7b-baseline",
    fn=run_train_lm,
    config=TrainLmConfig(
        data=dclm_mixture,
        model=versioned(llama_8b),
        train=SimpleTrainConfig(train_batch_size=1024, num_train_steps=50_000, learning_rate=1e-3),
        output_path=this_output_path(),
        tags=["improved"],
    ),
    description="The baseline of the improved 7B.",
)

z_loss = ExecutorStep(
    name="checkpoints/improved-7b-zloss",
    fn=baseline.fn,
    config=dataclasses.replace(baseline.config, tags=["improved", "z-loss"]),
)

longer = ExecutorStep(
    name="checkpoints/improved-7b-longer",
    fn=run_train_lm,
    config=dataclasses.replace(
        baseline.config,
        # Twice as long, from where the baseline has ended.
        train=dataclasses.replace(
            baseline.config.train,
            num_train_steps=100_000,
            initialize_from_checkpoint_path=baseline / "checkpoints",
        ),
    ),
)

if __name__ == "__main__":
    executor_main(steps=[baseline, z_loss, longer])
