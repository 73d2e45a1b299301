"""Tokenizes files of text."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from marin.utilities.jobs import finish

if TYPE_CHECKING:
    from marin.execution.executor import InputName


@dataclass(frozen=True)
class TokenizeConfig:
    """Which files become which cache."""

    train_paths: Sequence[str | InputName]
    validation_paths: Sequence[str | InputName]
    cache_path: str
    tokenizer: str
    tags: list[str] = field(default_factory=list)
    window_size_bytes: int = 10_000_000_000


@dataclass(frozen=True)
class HfTokenizeConfig:
    """A data set of the Hub that is tokenized without a download of its own."""

    id: str
    cache_path: str
    tokenizer: str
    name: str | None = None


def tokenize(config: TokenizeConfig | HfTokenizeConfig) -> None:
    """Writes a cache of tokens."""
    if isinstance(config, TokenizeConfig) and not (config.train_paths or config.validation_paths):
        raise ValueError("nothing to tokenize")
    finish("tokenize", config)


def cache_ledger(cache_path: str) -> str:
    """Where a cache says which shards it has."""
    return os.path.join(cache_path, "train", "shard_ledger.json")
