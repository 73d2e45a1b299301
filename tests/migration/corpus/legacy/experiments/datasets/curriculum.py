"""Stages of a curriculum, built in a loop."""

from experiments.datasets.common import downloads
from experiments.defaults import default_tokenize

TOKENIZERS = {
    "llama3": "meta-llama/Meta-Llama-3.1-8B",
    "gpt2": "gpt2",
}

stages = {}
for tokenizer_name, tokenizer in TOKENIZERS.items():
    stages[tokenizer_name] = default_tokenize(
        f"fineweb-{tokenizer_name}",
        downloads["fineweb"],
        tokenizer,
    )
