"""Downloads the Common Crawl part of Nemotron."""

from dataclasses import dataclass

from marin.utilities.jobs import finish


@dataclass
class NemotronIngressConfig:
    output_path: str
    log_path: str
    chunk_size: int = 100_000
    splits: tuple[str, ...] = ("hq_actual", "medium")


@dataclass(kw_only=True)
class NemotronIndexConfig:
    depth: int = 2
    output_path: str
    input_path: str


def download_nemotron(config: NemotronIngressConfig) -> None:
    finish("download_nemotron", config)


def index_nemotron(config: NemotronIndexConfig) -> None:
    finish("index_nemotron", config)
