"""Finds documents that hold parts of evaluation sets."""

from dataclasses import dataclass
from enum import StrEnum

from marin.utilities.jobs import finish


class DeconMode(StrEnum):
    DECONTAMINATE = "decontaminate"
    TRAIN_TEST_OVERLAP = "train_test_overlap"


@dataclass(frozen=True)
class NGramConfig:
    """How long a part must be to count."""

    ngram_length: tuple[int, ...] = (13,)
    overlap_threshold: float = 0.7


@dataclass(frozen=True)
class DeconConfig:
    """Which documents to compare with which others."""

    input_path: str
    output_path: str
    decontaminate_source: str | None = None
    ngram: NGramConfig = NGramConfig()
    processes: int = 16
    mode: DeconMode = DeconMode.DECONTAMINATE


def decontaminate(config: DeconConfig) -> None:
    finish("decontaminate", config)
