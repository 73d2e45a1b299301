"""Dolma 1.7, part by part; some parts lie where they have always lain."""
import os

from experiments.defaults import default_download
from experiments.llama import llama3_tokenizer
from marin.execution.executor import ExecutorStep, executor_main, this_output_path, versioned
from marin.processing.tokenize.data_configs import lm_mixture_data_config
from marin.processing.tokenize.tokenize import TokenizeConfig, tokenize

dolma = default_download("dolma", "allenai/dolma", "7f48140")
BASE_DIR_DOLMA = dolma / "v1.7"

# sampling proportions
DOLMA_OLMO_MIXTURE_WEIGHTS = {
    "dolma/algebraic-stack": 12.6,
    "dolma/arxiv": 28.0,  # sampled twice
    "dolma/c4": 124.95,
}

DOLMA_DATASETS = {
    "algebraic-stack": ["algebraic-stack-train-{0000..0015}.json.gz"],
    "arxiv": ["arxiv-*.json.gz"],
    "c4": ["c4-*.json.gz", "c4-extra.json.gz"],
}

DOLMA_LLAMA3_OVERRIDES = {"c4": "tokenized/dolma/c4-e0e5ec"}


def tokenize_dolma_steps(*, base_path="tokenized/", tokenizer=llama3_tokenizer) -> dict[str, ExecutorStep[TokenizeConfig]]:
    dolma_steps = {}
    for dataset, files in DOLMA_DATASETS.items():
        step = ExecutorStep(
            name=os.path.join(base_path, "dolma", dataset),
            fn=tokenize,
            config=TokenizeConfig(
                train_paths=[BASE_DIR_DOLMA / file.replace("{0000..0015}", "*") for file in files],
                validation_paths=versioned([]),
                cache_path=this_output_path(),
                tokenizer=versioned(tokenizer),
            ),
        )

        if tokenizer == llama3_tokenizer and dataset in DOLMA_LLAMA3_OVERRIDES:
            step = step.with_output_path(DOLMA_LLAMA3_OVERRIDES[dataset])
        dolma_steps[os.path.join("dolma", dataset)] = step

    return dolma_steps


dolma_llama3_tokenized = tokenize_dolma_steps()
dolma_mixture = lm_mixture_data_config(components=dolma_llama3_tokenized, weights=DOLMA_OLMO_MIXTURE_WEIGHTS)

if __name__ == "__main__":
    executor_main(steps=list(tokenize_dolma_steps().values()))
