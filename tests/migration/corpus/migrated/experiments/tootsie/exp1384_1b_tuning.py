"""Which learning rate and schedule for the 1B? A grid, one graph."""

import dataclasses
import itertools
import logging

from experiments.datasets.mixtures import dclm_mixture
from experiments.defaults import default_train
from experiments.llama import llama_1_4b, llama_1_4b_train_config
from marin_trace import executor_main, step

logger = logging.getLogger(__name__)

LEARNING_RATES = [1e-4, 3e-4, 1e-3]
SCHEDULES = ["cosine", "linear"]


def run_name(lr: float, schedule: str) -> str:
    return f"tootsie-1b-{schedule}-lr{lr:g}"


@step(name="tootsie/exp1384_1b_tuning/all")
def run_exp1384_1b_tuning():
    """A grid over learning rates and schedules."""
    grid = []
    for lr, schedule in itertools.product(LEARNING_RATES, SCHEDULES):
        train_config = dataclasses.replace(llama_1_4b_train_config, learning_rate=lr, lr_schedule=schedule)
        if schedule == "linear" and lr > 5e-4:
            logger.info(f"{run_name(lr, schedule)} is known to diverge")
            continue
        grid.append(
            default_train(
                name=run_name(lr, schedule),
                tokenized=dclm_mixture(),
                model_config=llama_1_4b,
                train_config=train_config,
                eval_harness_tasks=[],
            )
        )


if __name__ == "__main__":
    executor_main(steps=[run_exp1384_1b_tuning()], description="A grid over learning rates and schedules.")
