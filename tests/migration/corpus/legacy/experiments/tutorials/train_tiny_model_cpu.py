"""A tiny model on TinyStories, on a laptop.

Start here: it shows how an experiment is put together.
"""

from experiments.defaults import default_tokenize, default_train
from experiments.llama import llama_nano
from marin.execution.executor import executor_main, versioned
from marin.training.training import SimpleTrainConfig, TpuSlice

RESOURCES = TpuSlice("cpu", 0)

# 1. Which data set?
tinystories_hf_id = "roneneldan/TinyStories"

# 2. Tokenize it.
tinystories_tokenized = default_tokenize(
    name=tinystories_hf_id,
    dataset=tinystories_hf_id,
    tokenizer="gpt2",
)

# 3. How to train.
nano_train_config = SimpleTrainConfig(
    resources=RESOURCES,
    train_batch_size=4,
    num_train_steps=100,
    learning_rate=6e-4,
    weight_decay=versioned(0.1),
)

# 4. Train.
nano_tinystories_model = default_train(
    name="marin-nano-tinystories",
    # What the second part made.
    tokenized=tinystories_tokenized,
    model_config=llama_nano,
    train_config=nano_train_config,
    tags=["llama", "nano", "tinystories", "tutorial"],
    # A tiny model is not worth an evaluation.
    eval_harness_tasks=[],
)

if __name__ == "__main__":
    executor_main(
        steps=[
            tinystories_tokenized,
            nano_tinystories_model,
        ]
    )
