"""Baselines: one 1.4B for each data set.

Which data set gives the best model, all else being equal?
"""

from experiments.datasets.common import downloads
from experiments.defaults import default_tokenize, default_train
from experiments.llama import llama3_tokenizer, llama_1_4b, llama_1_4b_train_config
from marin_trace import StepRef, executor_main, step


# Tokenized as well, but nobody has trained on it yet.
@step(name="exp72_baselines/dolma_tokenized")
def dolma_tokenized() -> StepRef:
    return default_tokenize("dolma", "gs://marin-us-central2/raw/dolma/*.jsonl.gz", llama3_tokenizer)


@step(name="exp72_baselines/all")
def run_exp72_baselines():
    """Train 1.4B models on standard datasets (e.g., SlimPajama) using WSD."""
    # FineWeb
    fineweb_tokenized = default_tokenize("fineweb", downloads["fineweb"](), llama3_tokenizer)
    default_train("fineweb-1.4b", fineweb_tokenized, llama_1_4b, llama_1_4b_train_config)

    # SlimPajama
    slimpajama_tokenized = default_tokenize("SlimPajama-627B", downloads["slimpajama"](), llama3_tokenizer)
    default_train(
        name="SlimPajama-627B-1.4b",
        tokenized=slimpajama_tokenized,
        model_config=llama_1_4b,
        train_config=llama_1_4b_train_config,
    )


if __name__ == "__main__":
    executor_main(
        steps=[run_exp72_baselines()],
        description="Train 1.4B models on standard datasets (e.g., SlimPajama) using WSD",
    )
