"""A chat model of 8B, with steps that only some runs have."""

import os

from experiments.datasets.mixtures import nemotron_mixture
from experiments.defaults import default_dpo, default_eval, default_train
from experiments.llama import llama_8b
from experiments.posttrain.preference_datasets import ultrafeedback
from marin_trace import StepRef, executor_main, step
from marin.training.training import SimpleTrainConfig

WITH_DPO = os.environ.get("NANOCHAT_DPO", "1") == "1"


def build_steps(with_dpo: bool) -> list[StepRef]:
    """The model, its evaluation, and preferences on top where they are wanted."""
    base = default_train(
        "nanochat-v2-8b",
        nemotron_mixture(),
        llama_8b,
        SimpleTrainConfig(train_batch_size=2048, num_train_steps=30_000, learning_rate=1e-3),
    )
    steps = [base, default_eval(base)]
    if with_dpo:
        tuned = default_dpo("nanochat-v2-8b-dpo", ultrafeedback(), base / "hf")
        steps += [tuned, default_eval(tuned, max_instances=500)]
    return steps


@step(name="exp1858_nanochat_v2_8b/all")
def run_exp1858_nanochat_v2_8b():
    """nanochat v2, 8B."""
    build_steps(WITH_DPO)


if __name__ == "__main__":
    executor_main(steps=[run_exp1858_nanochat_v2_8b()], description="nanochat v2, 8B")
