"""Downloads the Common Crawl part of Nemotron."""

import dataclasses
from dataclasses import dataclass

from marin.execution.executor import THIS_OUTPUT_PATH, this_output_path
from marin.utilities.jobs import finish


@dataclass
class NemotronIngressConfig:
    chunk_size: int = 100_000
    output_path: str = THIS_OUTPUT_PATH
    splits: tuple[str, ...] = ("hq_actual", "medium")
    log_path: str = dataclasses.field(default_factory=this_output_path)


@dataclass(kw_only=True)
class NemotronIndexConfig:
    depth: int = 2
    output_path: str = THIS_OUTPUT_PATH
    input_path: str


def download_nemotron(config: NemotronIngressConfig) -> None:
    finish("download_nemotron", config)


def index_nemotron(config: NemotronIndexConfig) -> None:
    finish("index_nemotron", config)
