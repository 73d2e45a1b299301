"""
Paloma: downloaded once, tokenized set by set.
"""

import os.path

from experiments.llama import llama3_tokenizer
from marin.download.huggingface.download_hf import DownloadConfig
from marin.download.huggingface.download_hf import download_hf as _download_hf
from marin_trace import StepRef, deferred, executor_main, output, step, versioned
from marin.processing.tokenize.tokenize import TokenizeConfig
from marin.processing.tokenize.tokenize import tokenize as _tokenize

download_hf = deferred(_download_hf)
tokenize = deferred(_tokenize)

# The datasets in the Paloma eval set and their paths within the HF dataset
PALOMA_DATASETS_TO_DIR = {
    "4chan": "4chan_meta_sep",
    "c4_en": "c4_en",
    "m2d2_s2orc_unsplit": "m2d2_s2orc_unsplit",
}


@step(name="raw/paloma")
def paloma_2() -> StepRef:
    return download_hf(DownloadConfig(
        hf_dataset_id=versioned("allenai/paloma"),
        revision=versioned("65cd6fc"),
        gcs_output_path=output(),
    ))


@step(name="paloma/paloma")
def paloma() -> StepRef:
    return (
        paloma_2()
        .with_output_path("raw/paloma-fc6827")
        .cd("65cd6fc")
    )


def paloma_tokenized(*, base_path="tokenized/", tokenizer=llama3_tokenizer, paloma_raw=None):
    """
    Returns a dictionary of steps to tokenize the Paloma eval sets. Keys are the subset names (with `paloma/` prefix)
    """
    if paloma_raw is None:
        paloma_raw = paloma()
    paloma_steps: dict[str, StepRef] = {}

    @step(name="{step_name}")
    def tokenize_step(step_name, path_part) -> StepRef:
        return tokenize(TokenizeConfig(
            train_paths=versioned([]),
            validation_paths=[paloma_raw.cd(f"{path_part}/val/val*.jsonl.gz")],
            cache_path=output(),
            tokenizer=versioned(tokenizer),
        ))

    for dataset, path_part in PALOMA_DATASETS_TO_DIR.items():
        paloma_steps[os.path.join("paloma", dataset)] = tokenize_step(os.path.join(base_path, "paloma", dataset), path_part)

    return paloma_steps


@step(name="paloma/all")
def run_paloma():
    """Entry step of paloma."""
    paloma()
    paloma_tokenized()


if __name__ == "__main__":
    executor_main(steps=[run_paloma()])
