"""Bases with more code or more science: mixtures as variations of one, and a cooldown for each."""

import dataclasses

from experiments.datasets.mixtures import dclm_components
from experiments.datasets.nemotron import download_nemotron_cc_step
from experiments.defaults import default_anneal, default_tokenize, default_train
from experiments.llama import llama_1_4b, llama_1_4b_train_config
from marin_trace import executor_main, step
from marin.processing.tokenize.data_configs import lm_mixture_data_config

base_weights = {"fineweb": 1.0, "starcoderdata": 0.2, "science": 0.1}
MORE = {
    "code": {"starcoderdata": 0.6},
    "science": {"science": 0.5},
}


@step(name="tootsie/exp1246_1b_code_science_base/all")
def run_exp1246_1b_code_science_base():
    """More code, more science."""
    science = default_tokenize(
        "nemotron-science",
        download_nemotron_cc_step() / "contrib/science",
    )

    components = {**dclm_components(), "science": science}

    mixture_by_topic = {
        topic: lm_mixture_data_config(components, base_weights | change) for topic, change in MORE.items()
    }

    base_by_topic = {}
    cooldown_by_topic = {}
    for topic, mixture in mixture_by_topic.items():
        base_by_topic[topic] = default_train(
            f"1b-{topic}-base",
            mixture,
            llama_1_4b,
            dataclasses.replace(llama_1_4b_train_config, num_train_steps=60_000),
        )
        cooldown_by_topic[topic] = default_anneal(
            f"1b-{topic}-cooldown",
            base_by_topic[topic] / "checkpoints/step-48000",
            mixture,
            llama_1_4b,
        )


if __name__ == "__main__":
    executor_main(
        steps=[run_exp1246_1b_code_science_base()],
        description="More code, more science",
    )
