"""Nemotron Common Crawl: downloaded once, tokenized split by split."""

import os

from experiments.defaults import default_tokenize
from marin.download.download_nemotron import (
    NemotronIndexConfig,
    NemotronIngressConfig,
    )
from marin.download.download_nemotron import download_nemotron as _download_nemotron
from marin.download.download_nemotron import index_nemotron as _index_nemotron
from marin_trace import StepRef, deferred, output, step, versioned

download_nemotron = deferred(_download_nemotron)
index_nemotron = deferred(_index_nemotron)

NEMOTRON_WEIGHTS = {
    "hq_actual": 0.91,
    "medium": 3.38,
}  # terabytes


@step(name="raw/nemotro-cc")
def download_nemotron_cc_step() -> StepRef:
    return download_nemotron(NemotronIngressConfig(
        chunk_size=versioned(50_000),
        output_path=output(),
        log_path=output(),
    ))


@step(name="datasets/nemotron/_nemotron_cc_path")
def _nemotron_cc_path() -> StepRef:
    return download_nemotron_cc_step() / "contrib/Nemotron/Nemotron-CC/data-jsonl"


@step(name="index/nemotron-cc")
def index() -> StepRef:
    return index_nemotron(NemotronIndexConfig(input_path=_nemotron_cc_path(), output_path=output() / "index"))


def tokenize_nemotron_steps(*, base_path="nemotron_cc/", tokenizer="llama3"):
    """A step for each split, by its name."""
    steps = {}
    for split in NEMOTRON_WEIGHTS:
        output_name = os.path.join(base_path, split)
        split_path = _nemotron_cc_path() / split
        steps[output_name] = default_tokenize(output_name, split_path, tokenizer)
    return steps
