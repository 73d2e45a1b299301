"""Mixtures of tokenized data sets."""

from experiments.datasets.nemotron import NEMOTRON_WEIGHTS, tokenize_nemotron_steps
from marin_trace import StepRef, step
from experiments.datasets.common import starcoder_tokenized, tokenized
from experiments.defaults import default_validation_sets
from marin.processing.tokenize.data_configs import lm_mixture_data_config, with_validation

DCLM_MIXTURE_WEIGHTS = {
    "fineweb": 3.8,
    "starcoderdata": 0.25,
}


@step(name="datasets/mixtures/dclm_components")
def dclm_components() -> dict[str, StepRef]:
    return {
        "fineweb": tokenized["fineweb"](),
        "starcoderdata": starcoder_tokenized(),
    }


def dclm_mixture():
    return lm_mixture_data_config(components=dclm_components(), weights=DCLM_MIXTURE_WEIGHTS)


# What the paper of DCLM watches on.
def dclm_mixture_with_validation():
    return with_validation(dclm_mixture(), default_validation_sets())


def nemotron_mixture():
    return lm_mixture_data_config(
        components={**tokenize_nemotron_steps(), "starcoderdata": starcoder_tokenized()},
        weights={
            **{f"nemotron_cc/{split}": weight for split, weight in NEMOTRON_WEIGHTS.items()},
            "starcoderdata": 0.25,
        },
        shuffle=10_000,
    )
