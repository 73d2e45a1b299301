"""A tiny model on WikiText, on one GPU."""

from experiments.defaults import default_tokenize, default_train
from experiments.llama import llama_nano
from marin.execution.executor import executor_main
from marin.training.training import SimpleTrainConfig, TpuSlice

WIKITEXT = "dlwh/wikitext_103_detokenized"

wikitext_tokenized = default_tokenize(name=WIKITEXT.rpartition("/")[2], dataset=WIKITEXT)

nano_wikitext_model = default_train(
    name="llama-nano-wikitext",
    tokenized=wikitext_tokenized,
    model_config=llama_nano,
    train_config=SimpleTrainConfig(32, 100, 6e-4, resources=TpuSlice("a100", 1)),
    eval_harness_tasks=[],
)


def main():
    executor_main(steps=[nano_wikitext_model], description="A tiny model on a GPU")


if __name__ == "__main__":
    main()
