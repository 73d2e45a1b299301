"""Nemotron with and without code, depending on what the caller wants."""

import argparse
import os

from experiments.datasets.mixtures import nemotron_mixture
from experiments.datasets.nemotron import NEMOTRON_WEIGHTS, tokenize_nemotron_steps
from experiments.defaults import default_train
from experiments.llama import compute_num_parameters, llama_1_4b
from marin_trace import executor_main, step
from marin.processing.tokenize.data_configs import lm_mixture_data_config
from marin.training.training import SimpleTrainConfig

VOCAB_SIZE = 128_256


def model_name(with_code: bool) -> str:
    billions = compute_num_parameters(llama_1_4b, VOCAB_SIZE) / 1e9
    return f"nemotron-v3-{billions:.1f}b{'-code' if with_code else ''}"


@step(name="exp2029_nemotron_lm_v3/all")
def run_exp2029_nemotron_lm_v3(train_config):
    """Nemotron, with and without code."""
    without_code = lm_mixture_data_config(
        tokenize_nemotron_steps(),
        {f"nemotron_cc/{split}": weight for split, weight in NEMOTRON_WEIGHTS.items()},
    )
    default_train(model_name(False), without_code, llama_1_4b, train_config)
    default_train(model_name(True), nemotron_mixture(), llama_1_4b, train_config)


def main() -> None:
    if os.environ.get("MARIN_SKIP_EXPERIMENTS"):
        return

    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20_000)
    args, _ = parser.parse_known_args([])

    train_config = SimpleTrainConfig(train_batch_size=1024, num_train_steps=args.steps, learning_rate=4e-4)

    executor_main(steps=[run_exp2029_nemotron_lm_v3(train_config)], description="Nemotron, with and without code")


if __name__ == "__main__":
    main()
