"""A tiny model on two data sets, on a slice of TPUs, written with the module's own names."""

import marin.execution.executor as executor
from experiments import defaults, llama
from marin.processing.tokenize import tokenize as tokenization
from marin.training.training import SimpleTrainConfig

local_text = executor.ExecutorStep(
    name="tokenized/local",
    fn=tokenization.tokenize,
    config=tokenization.TokenizeConfig(
        train_paths=[executor.InputName.hardcoded("raw/local/*.jsonl")],
        validation_paths=[],
        cache_path=executor.this_output_path(),
        tokenizer=executor.versioned("gpt2"),
    ),
)

model = defaults.default_train(
    "llama-nano-tpu",
    local_text,
    llama.llama_nano,
    SimpleTrainConfig(train_batch_size=128, num_train_steps=200, learning_rate=6e-4),
)

if __name__ == "__main__":
    executor.executor_main(steps=[model], description="A tiny model on TPUs")
