"""Speedrun: the shape of Gemma 3, in two sizes, from one function."""

from experiments.datasets.common import tokenized
from experiments.defaults import default_speedrun
from marin_trace import executor_main, step
from marin.speedrun.speedrun import Author, SpeedrunConfig
from marin.training.training import ModelConfig, SimpleTrainConfig

AUTHOR = Author(name="Grace", affiliation="Marin")

MODELS = {
    "1b": ModelConfig(hidden_dim=1152, num_layers=26, num_heads=4),
    "4b": ModelConfig(hidden_dim=2560, num_layers=34, num_heads=8),
}
BATCH_SIZES = {"1b": 256, "4b": 512}


def build_config(size: str) -> tuple[str, SpeedrunConfig]:
    """The name and the configuration of a run."""
    train = SimpleTrainConfig(train_batch_size=BATCH_SIZES[size], num_train_steps=10_000, learning_rate=1e-3)
    return f"gemma3_{size}", SpeedrunConfig(AUTHOR, f"Gemma 3, {size}", MODELS[size], train)


@step(name="speedrun/gemma3/gemma3_1b/all")
def run_gemma3_1b(runs):
    """Gemma 3, two sizes."""
    steps = []
    for name, config in runs:
        print(f"{name}: {config.flops():.2e} operations")
        steps.extend(default_speedrun(name, config, tokenized["fineweb"](), tags=["gemma3"]))


if __name__ == "__main__":
    runs = [build_config(size) for size in MODELS]

    executor_main(steps=[run_gemma3_1b(runs)], description="Gemma 3, two sizes")
