"""Baselines: one 1.4B for each data set.

Which data set gives the best model, all else being equal?
"""

from experiments.datasets.common import downloads
from experiments.defaults import default_tokenize, default_train
from experiments.llama import llama3_tokenizer, llama_1_4b, llama_1_4b_train_config
from marin.execution.executor import executor_main

fineweb_tokenized = default_tokenize("fineweb", downloads["fineweb"], llama3_tokenizer)
fineweb_1_4b_model = default_train("fineweb-1.4b", fineweb_tokenized, llama_1_4b, llama_1_4b_train_config)

slimpajama_tokenized = default_tokenize("SlimPajama-627B", downloads["slimpajama"], llama3_tokenizer)
slimpajama_1_4b_model = default_train(
    name="SlimPajama-627B-1.4b",
    tokenized=slimpajama_tokenized,
    model_config=llama_1_4b,
    train_config=llama_1_4b_train_config,
)

# Tokenized as well, but nobody has trained on it yet.
dolma_tokenized = default_tokenize("dolma", "gs://marin-us-central2/raw/dolma/*.jsonl.gz", llama3_tokenizer)

if __name__ == "__main__":
    executor_main(
        steps=[
            # FineWeb
            fineweb_tokenized,
            fineweb_1_4b_model,
            # SlimPajama
            slimpajama_tokenized,
            slimpajama_1_4b_model,
        ],
        description="Train 1.4B models on standard datasets (e.g., SlimPajama) using WSD",
    )
