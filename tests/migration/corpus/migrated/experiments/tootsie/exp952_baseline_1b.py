"""The 1B baseline: does half the weight decay help?"""

from experiments.datasets.mixtures import dclm_mixture
from experiments.defaults import default_train
from experiments.llama import llama_1_4b, llama_1_4b_train_config
from marin_trace import StepRef, executor_main, step, versioned

import dataclasses


def build_run(weight_decay: float) -> StepRef:
    """A run with one weight decay."""
    return default_train(
        name=f"tootsie-1b-wd-{weight_decay}",
        tokenized=dclm_mixture(),
        model_config=llama_1_4b,
        train_config=dataclasses.replace(llama_1_4b_train_config, weight_decay=versioned(weight_decay)),
    )


@step(name="tootsie/exp952_baseline_1b/all")
def run_exp952_baseline_1b():
    """1B with two weight decays."""
    build_run(0.1)
    build_run(0.05)


if __name__ == "__main__":
    executor_main(steps=[run_exp952_baseline_1b()], description="1B with two weight decays")
