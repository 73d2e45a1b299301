"""
Paloma: downloaded once, tokenized set by set.
"""

import os.path

from experiments.llama import llama3_tokenizer
from marin.download.huggingface.download_hf import DownloadConfig, download_hf
from marin.execution.executor import ExecutorStep, executor_main, this_output_path, versioned
from marin.processing.tokenize.tokenize import TokenizeConfig, tokenize

# The datasets in the Paloma eval set and their paths within the HF dataset
PALOMA_DATASETS_TO_DIR = {
    "4chan": "4chan_meta_sep",
    "c4_en": "c4_en",
    "m2d2_s2orc_unsplit": "m2d2_s2orc_unsplit",
}

paloma = (
    ExecutorStep(
        name="raw/paloma",
        fn=download_hf,
        config=DownloadConfig(
            hf_dataset_id=versioned("allenai/paloma"),
            revision=versioned("65cd6fc"),
            gcs_output_path=this_output_path(),
        ),
    )
    .with_output_path("raw/paloma-fc6827")
    .cd("65cd6fc")
)


def paloma_tokenized(*, base_path="tokenized/", tokenizer=llama3_tokenizer, paloma_raw=paloma):
    """
    Returns a dictionary of steps to tokenize the Paloma eval sets. Keys are the subset names (with `paloma/` prefix)
    """
    paloma_steps: dict[str, ExecutorStep[TokenizeConfig]] = {}
    for dataset, path_part in PALOMA_DATASETS_TO_DIR.items():
        paloma_steps[os.path.join("paloma", dataset)] = ExecutorStep(
            name=os.path.join(base_path, "paloma", dataset),
            fn=tokenize,
            config=TokenizeConfig(
                train_paths=versioned([]),
                validation_paths=[paloma_raw.cd(f"{path_part}/val/val*.jsonl.gz")],
                cache_path=this_output_path(),
                tokenizer=versioned(tokenizer),
            ),
        )

    return paloma_steps


if __name__ == "__main__":
    executor_main(steps=[paloma, *paloma_tokenized().values()])
