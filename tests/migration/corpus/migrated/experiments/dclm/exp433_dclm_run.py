"""Do we reach what the paper of DCLM reports for 1B at one Chinchilla?"""

from experiments.datasets.mixtures import dclm_mixture
from experiments.defaults import default_train
from experiments.llama import llama_1_4b
from marin_trace import executor_main, step
from marin.training.training import SimpleTrainConfig

training_config = SimpleTrainConfig(
    train_batch_size=256,
    # 28 billion tokens
    num_train_steps=57_166,
    learning_rate=3e-3,
    weight_decay=0.033,
    warmup=0.087,
)


@step(name="dclm/exp433_dclm_run/all")
def run_exp433_dclm_run():
    """Reproduce the 1B of DCLM."""
    default_train(
        name="dclm_1b_1x_how_to_repro",
        tokenized=dclm_mixture(),
        model_config=llama_1_4b,
        train_config=training_config,
    )


if __name__ == "__main__":
    executor_main(
        steps=[run_exp433_dclm_run()],
        description="Reproduce the 1B of DCLM.",
    )
