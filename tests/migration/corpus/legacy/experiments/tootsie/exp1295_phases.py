# ruff: noqa: E501
"""
A 32B in phases.

Each phase goes on from a checkpoint of the one before.
"""

import dataclasses

from experiments.datasets.mixtures import dclm_mixture, nemotron_mixture
from experiments.defaults import default_train
from experiments.llama import llama_32b
from marin.execution.executor import executor_main, output_path_of, versioned
from marin.training.training import SimpleTrainConfig, TpuSlice

## 32b phase 1: warm up

llama_32b_train_config = SimpleTrainConfig(
    resources=TpuSlice("v4-2048", slice_count=1),
    train_batch_size=versioned(8192),
    num_train_steps=versioned(80_000),
    learning_rate=7e-4,
)

llama_32b_tootsie_phase1 = default_train(
    name="llama-32b-tootsie-2",
    tokenized=dclm_mixture,
    model_config=llama_32b,
    train_config=llama_32b_train_config,
    tags=["llama", "32b", "ema", "exp859", "tootsie"],
    eval_harness_tasks=[],
).with_output_path("checkpoints/llama-32b-tootsie-2")

## phase 2: warmstart
warmstart_checkpoint = llama_32b_tootsie_phase1.cd("checkpoints/step-80000").nonblocking()

llama_32b_warmstart_train = dataclasses.replace(
    llama_32b_train_config,
    # 200k more steps
    num_train_steps=280_000,
    initialize_from_checkpoint_path=warmstart_checkpoint,
    lr_schedule="linear",
)

llama_32b_tootsie_phase2 = default_train(
    name="marin-32b-muon-4",
    tokenized=nemotron_mixture,
    model_config=llama_32b,
    train_config=llama_32b_warmstart_train,
    tags=[*["llama", "32b"], "warmstart"],
)

## phase 3: cooldown
COOLDOWN_STARTS = (160_000, 200_000)
cooldowns = []
for start in COOLDOWN_STARTS:
    cooldown_config = dataclasses.replace(
        llama_32b_warmstart_train,
        initialize_from_checkpoint_path=output_path_of(llama_32b_tootsie_phase2, f"checkpoints/step-{start}"),
        num_train_steps=start + 10_000,
    )
    cooldowns.append(
        default_train(f"marin-32b-cooldown-{start // 1000}k", nemotron_mixture, llama_32b, cooldown_config)
    )

if __name__ == "__main__":
    executor_main(
        steps=[
            # warm up
            llama_32b_tootsie_phase1,
            llama_32b_tootsie_phase2,  # the long one
            *cooldowns,
        ],
        description="Train 32B with some tricks",
    )
