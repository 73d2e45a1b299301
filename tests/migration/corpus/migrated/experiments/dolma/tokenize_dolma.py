"""Dolma 1.7, part by part; some parts lie where they have always lain."""
import os

from experiments.defaults import default_download
from experiments.llama import llama3_tokenizer
from marin_trace import StepRef, deferred, executor_main, output, versioned
from marin_trace import step as marin_step
from marin.processing.tokenize.data_configs import lm_mixture_data_config
from marin.processing.tokenize.tokenize import TokenizeConfig
from marin.processing.tokenize.tokenize import tokenize as _tokenize

tokenize = deferred(_tokenize)


@marin_step(name="dolma/tokenize_dolma/dolma")
def dolma() -> StepRef:
    return default_download("dolma", "allenai/dolma", "7f48140")


@marin_step(name="dolma/tokenize_dolma/BASE_DIR_DOLMA")
def BASE_DIR_DOLMA() -> StepRef:
    return dolma() / "v1.7"


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


def tokenize_dolma_steps(*, base_path="tokenized/", tokenizer=llama3_tokenizer) -> dict[str, StepRef]:
    dolma_steps = {}

    @marin_step(name="{step_name}")
    def tokenize_step(step_name, files) -> StepRef:
        return tokenize(TokenizeConfig(
            train_paths=[BASE_DIR_DOLMA() / file.replace("{0000..0015}", "*") for file in files],
            validation_paths=versioned([]),
            cache_path=output(),
            tokenizer=versioned(tokenizer),
        ))

    for dataset, files in DOLMA_DATASETS.items():
        step = tokenize_step(os.path.join(base_path, "dolma", dataset), files)

        if tokenizer == llama3_tokenizer and dataset in DOLMA_LLAMA3_OVERRIDES:
            step = step.with_output_path(DOLMA_LLAMA3_OVERRIDES[dataset])
        dolma_steps[os.path.join("dolma", dataset)] = step

    return dolma_steps


@marin_step(name="dolma/tokenize_dolma/dolma_llama3_tokenized")
def dolma_llama3_tokenized() -> dict[str, StepRef]:
    return tokenize_dolma_steps()


def dolma_mixture():
    return lm_mixture_data_config(components=dolma_llama3_tokenized(), weights=DOLMA_OLMO_MIXTURE_WEIGHTS)


@marin_step(name="dolma/tokenize_dolma/all")
def run_tokenize_dolma():
    """Entry step of dolma/tokenize_dolma."""
    tokenize_dolma_steps()


if __name__ == "__main__":
    executor_main(steps=[run_tokenize_dolma()])
