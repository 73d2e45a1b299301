"""Nemotron Common Crawl: downloaded once, tokenized split by split."""

import os

from experiments.defaults import default_tokenize
from marin.download.download_nemotron import (
    NemotronIndexConfig,
    NemotronIngressConfig,
    download_nemotron,
    index_nemotron,
)
from marin.execution.executor import ExecutorStep, output_path_of, this_output_path, versioned

NEMOTRON_WEIGHTS = {
    "hq_actual": 0.91,
    "medium": 3.38,
}  # terabytes

download_nemotron_cc_step = ExecutorStep(
    name="raw/nemotro-cc",
    fn=download_nemotron,
    config=NemotronIngressConfig(
        chunk_size=versioned(50_000),
    ),
)

_nemotron_cc_path = output_path_of(download_nemotron_cc_step, "contrib/Nemotron/Nemotron-CC/data-jsonl/")

index = ExecutorStep(
    name="index/nemotron-cc",
    fn=index_nemotron,
    config=NemotronIndexConfig(input_path=_nemotron_cc_path, output_path=this_output_path("index")),
)


def tokenize_nemotron_steps(*, base_path="nemotron_cc/", tokenizer="llama3"):
    """A step for each split, by its name."""
    steps = {}
    for split in NEMOTRON_WEIGHTS:
        output_name = os.path.join(base_path, split)
        split_path = _nemotron_cc_path / split
        steps[output_name] = default_tokenize(output_name, split_path, tokenizer)
    return steps
