"""A tiny model on two data sets, on a slice of TPUs, written with the module's own names."""

from marin_trace import StepRef, deferred, executor_main, output, step, versioned
from experiments import defaults, llama
from marin.processing.tokenize import tokenize as tokenization
from marin.training.training import SimpleTrainConfig


@step(name="tokenized/local")
def local_text() -> StepRef:
    return deferred(tokenization.tokenize)(tokenization.TokenizeConfig(
        train_paths=[StepRef.hardcoded("raw/local/*.jsonl")],
        validation_paths=[],
        cache_path=output(),
        tokenizer=versioned("gpt2"),
    ))


@step(name="tutorials/train_tiny_model_tpu/all")
def run_train_tiny_model_tpu():
    """A tiny model on TPUs."""
    defaults.default_train(
        "llama-nano-tpu",
        local_text(),
        llama.llama_nano,
        SimpleTrainConfig(train_batch_size=128, num_train_steps=200, learning_rate=6e-4),
    )


if __name__ == "__main__":
    executor_main(steps=[run_train_tiny_model_tpu()], description="A tiny model on TPUs")
