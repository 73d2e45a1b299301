"""The 1B baseline: does half the weight decay help?"""

from experiments.datasets.mixtures import dclm_mixture
from experiments.defaults import default_train
from experiments.llama import llama_1_4b, llama_1_4b_train_config
from marin.execution import executor_main, versioned
from marin.execution.executor import ExecutorStep

import dataclasses


def build_run(weight_decay: float) -> ExecutorStep:
    """A run with one weight decay."""
    return default_train(
        name=f"tootsie-1b-wd-{weight_decay}",
        tokenized=dclm_mixture,
        model_config=llama_1_4b,
        train_config=dataclasses.replace(llama_1_4b_train_config, weight_decay=versioned(weight_decay)),
    )


baseline = build_run(0.1)
half = build_run(0.05)

RUN_STEPS: list[ExecutorStep] = [
    baseline,
    half,
]

if __name__ == "__main__":
    executor_main(steps=RUN_STEPS, description="1B with two weight decays")
