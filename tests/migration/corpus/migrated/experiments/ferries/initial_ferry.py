"""A ferry: a small run of the real recipe on the real data, before the large one leaves.

Expected: a loss of about 3.1 after 2,000 steps.
"""

from experiments.datasets.mixtures import nemotron_mixture
from experiments.defaults import default_train
from experiments.llama import llama_1_4b
from marin_trace import executor_main, step
from marin.training.training import SimpleTrainConfig, TpuSlice

BATCH_SIZE = 1024
TOKENS = 8_000_000_000

train_config = SimpleTrainConfig(
    resources=TpuSlice("v5p-32"),
    train_batch_size=BATCH_SIZE,
    num_train_steps=TOKENS // (BATCH_SIZE * llama_1_4b.seq_len),
    learning_rate=3e-4,
)


@step(name="ferries/initial_ferry/all")
def run_initial_ferry():
    """The first ferry: Nemotron, 1.4B."""
    default_train(
        name="ferry-nemotron-1.4b",
        tokenized=nemotron_mixture(),
        model_config=llama_1_4b,
        train_config=train_config,
        tags=["ferry", "nemotron"],
    )


if __name__ == "__main__":
    executor_main(steps=[run_initial_ferry()], description="The first ferry: Nemotron, 1.4B.")
