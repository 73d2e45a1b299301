"""A ferry with another optimizer and another shuffle, for three widths."""

import dataclasses

from experiments.datasets.mixtures import nemotron_mixture
from experiments.defaults import default_train
from experiments.llama import llama_150m
from marin_trace import executor_main, step
from marin.training.training import SimpleTrainConfig

WIDTHS = (256, 512, 1024)


def _train_config(width: int) -> SimpleTrainConfig:
    return SimpleTrainConfig(
        train_batch_size=256,
        num_train_steps=4_000,
        learning_rate=0.02 * (256 / width) ** 0.5,
        weight_decay=0.0,
    )


@step(name="ferries/ferry_10_31_muonh_feistel/all")
def run_ferry_10_31_muonh_feistel():
    """A ferry: MuonH with a Feistel shuffle."""
    feistel_mixture = dataclasses.replace(nemotron_mixture(), shuffle=True, tags=["feistel"])

    ferry_models = []
    for width in WIDTHS:
        model_config = dataclasses.replace(llama_150m, hidden_dim=width)
        ferry_model = default_train(
            name=f"ferry-muonh-{width}",
            tokenized=feistel_mixture,
            model_config=model_config,
            train_config=_train_config(width),
            tags=("ferry", "muonh"),
            eval_harness_tasks=(),
        )
        ferry_models.append(ferry_model)

    assert len(ferry_models) == len(WIDTHS)


if __name__ == "__main__":
    executor_main(
        steps=[run_ferry_10_31_muonh_feistel()],
        description="A ferry: MuonH with a Feistel shuffle.",
    )
