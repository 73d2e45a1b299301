"""The 8B baseline: DCLM, then a phase on better data, then an anneal.

Each phase goes on from the last checkpoint of the one before.
"""

import dataclasses

from experiments.datasets.mixtures import DCLM_MIXTURE_WEIGHTS, dclm_components, dclm_mixture
from experiments.datasets.common import tokenized
from experiments.defaults import default_anneal, default_train
from experiments.llama import llama_8b
from marin_trace import StepRef, executor_main, step
from marin.processing.tokenize.data_configs import lm_mixture_data_config
from marin.training.training import SimpleTrainConfig, TpuSlice

PHASE_1_END = 660_000
"""Steps."""

## Phase 1: DCLM.

tootsie_8b_train = SimpleTrainConfig(
    resources=TpuSlice("v5litepod-256", slice_count=2),
    train_batch_size=1024,
    num_train_steps=1_000_000,
    learning_rate=1e-3,
    weight_decay=0.05,
    lr_schedule="linear",
)


@step(name="tootsie/exp859_baseline_8b/llama_8b_tootsie")
def llama_8b_tootsie() -> StepRef:
    return default_train(
        name="llama-8b-tootsie-0.001-19ad63",
        tokenized=dclm_mixture(),
        model_config=llama_8b,
        train_config=tootsie_8b_train,
        tags=["llama", "8b", "wsd-s", "exp600"],
        override_output_path="checkpoints/llama-8b-tootsie-0.001-19ad63",
    )


@step(name="tootsie/exp859_baseline_8b/phase_1_checkpoint")
def phase_1_checkpoint() -> StepRef:
    return llama_8b_tootsie() / f"checkpoints/step-{PHASE_1_END}"


## Phase 2: SlimPajama as well.

def phase_2_mixture():
    return lm_mixture_data_config(
        components={**dclm_components(), "slimpajama": tokenized["slimpajama"]()},
        weights={name: weight * 0.7 for name, weight in DCLM_MIXTURE_WEIGHTS.items()} | {"slimpajama": 1.2},
    )


@step(name="tootsie/exp859_baseline_8b/llama_8b_tootsie_phase2")
def llama_8b_tootsie_phase2() -> StepRef:
    return default_train(
        name="llama-8b-tootsie-phase2",
        tokenized=phase_2_mixture(),
        model_config=llama_8b,
        train_config=dataclasses.replace(
            tootsie_8b_train,
            train_batch_size=3072,
            initialize_from_checkpoint_path=phase_1_checkpoint(),
        ),
        tags=["llama", "8b", "ema", "exp600"],
    )


## Phase 3: the anneal.

@step(name="tootsie/exp859_baseline_8b/llama_8b_tootsie_anneal")
def llama_8b_tootsie_anneal() -> StepRef:
    return default_anneal(
        "llama-8b-tootsie-anneal",
        llama_8b_tootsie_phase2().cd("checkpoints/step-819924"),
        phase_2_mixture(),
        llama_8b,
    )


@step(name="tootsie/exp859_baseline_8b/all")
def run_exp859_baseline_8b():
    """Train the 8B baseline in three phases."""
    llama_8b_tootsie()
    llama_8b_tootsie_phase2()
    llama_8b_tootsie_anneal()


if __name__ == "__main__":
    executor_main(
        steps=[run_exp859_baseline_8b()],
        description="Train the 8B baseline in three phases.",
    )
