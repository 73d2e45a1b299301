"""A tiny model on WikiText, on one GPU."""

from experiments.defaults import default_tokenize, default_train
from experiments.llama import llama_nano
from marin_trace import executor_main, step
from marin.training.training import SimpleTrainConfig, TpuSlice

WIKITEXT = "dlwh/wikitext_103_detokenized"


@step(name="tutorials/train_tiny_model_gpu/all")
def run_train_tiny_model_gpu():
    """A tiny model on a GPU."""
    wikitext_tokenized = default_tokenize(name=WIKITEXT.rpartition("/")[2], dataset=WIKITEXT)

    default_train(
        name="llama-nano-wikitext",
        tokenized=wikitext_tokenized,
        model_config=llama_nano,
        train_config=SimpleTrainConfig(32, 100, 6e-4, resources=TpuSlice("a100", 1)),
        eval_harness_tasks=[],
    )


def main():
    executor_main(steps=[run_train_tiny_model_gpu()], description="A tiny model on a GPU")


if __name__ == "__main__":
    main()
