"""Speedrun: a Llama of 760m parameters on FineWeb."""

import logging

from experiments.datasets.common import tokenized
from experiments.defaults import default_speedrun
from marin_trace import executor_main, step
from marin.speedrun.speedrun import Author, SpeedrunConfig
from marin.training.training import ModelConfig, SimpleTrainConfig, TpuSlice

logger = logging.getLogger("ray")

speedrun_config = SpeedrunConfig(
    author=Author(name="Ada", affiliation="Marin", url="https://example.org/ada"),
    description="760m: the shape of the paper, and the defaults for all else.",
    model_config=ModelConfig(hidden_dim=1536, num_layers=24, num_heads=16, seq_len=4096),
    train_config=SimpleTrainConfig(
        resources=TpuSlice("v5p-32"),
        train_batch_size=512,
        num_train_steps=20_000,
        learning_rate=3e-3,
        weight_decay=0.1,
    ),
)

logger.info(f"{speedrun_config.flops():.3g} operations")


@step(name="speedrun/llama/llama_760m/all")
def run_llama_760m():
    """Entry step of speedrun/llama/llama_760m."""
    default_speedrun("llama_760m", speedrun_config, tokenized["fineweb"]())


if __name__ == "__main__":
    executor_main(steps=[run_llama_760m()])
