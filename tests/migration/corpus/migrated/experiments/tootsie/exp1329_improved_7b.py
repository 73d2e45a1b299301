"""An improved 7B: variants that are derived from one configuration."""

import dataclasses

from experiments.datasets.mixtures import dclm_mixture
from experiments.llama import llama_8b
from marin_trace import StepRef, deferred, executor_main, output, step, versioned
from marin.training.training import SimpleTrainConfig, TrainLmConfig
from marin.training.training import run_train_lm as _run_train_lm

run_train_lm = deferred(_run_train_lm)


def baseline_config():
    return TrainLmConfig(
        data=dclm_mixture(),
        model=versioned(llama_8b),
        train=SimpleTrainConfig(train_batch_size=1024, num_train_steps=50_000, learning_rate=1e-3),
        output_path=output(),
        tags=["improved"],
    )


@step(name="checkpoints/improved-7b-baseline", description="The baseline of the improved 7B.")
def baseline() -> StepRef:
    return run_train_lm(baseline_config())


@step(name="checkpoints/improved-7b-zloss")
def z_loss() -> StepRef:
    return run_train_lm(dataclasses.replace(baseline_config(), tags=["improved", "z-loss"]))


@step(name="checkpoints/improved-7b-longer")
def longer() -> StepRef:
    return run_train_lm(dataclasses.replace(
        baseline_config(),
        # Twice as long, from where the baseline has ended.
        train=dataclasses.replace(
            baseline_config().train,
            num_train_steps=100_000,
            initialize_from_checkpoint_path=baseline() / "checkpoints",
        ),
    ))


@step(name="tootsie/exp1329_improved_7b/all")
def run_exp1329_improved_7b():
    """Entry step of tootsie/exp1329_improved_7b."""
    baseline()
    z_loss()
    longer()


if __name__ == "__main__":
    executor_main(steps=[run_exp1329_improved_7b()])
