"""What training is told about its data: components with weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class DatasetComponent:
    cache_dir: str
    weight: float = 1.0


@dataclass(frozen=True)
class LMMixtureDatasetConfig:
    """A mixture of token caches."""

    configs: dict[str, DatasetComponent]
    tokenizer: str
    shuffle: bool | int = True
    block_cross_document_attention: bool = True
    tags: list[str] = field(default_factory=list)


def lm_mixture_data_config(
    components: Mapping[str, str],
    weights: Mapping[str, float],
    *,
    tokenizer: str = "llama3",
    shuffle: bool | int = True,
) -> LMMixtureDatasetConfig:
    """A mixture of what some steps have tokenized."""
    missing = [name for name in weights if name not in components]
    if missing:
        raise ValueError(f"no component for the weights of {', '.join(missing)}")
    configs = {name: DatasetComponent(components[name], weights.get(name, 0.0)) for name in components}
    return LMMixtureDatasetConfig(configs=configs, tokenizer=tokenizer, shuffle=shuffle)


def with_validation(config: LMMixtureDatasetConfig, components: Mapping[str, str]) -> LMMixtureDatasetConfig:
    """The mixture with further components that only validation reads."""
    extra = {name: DatasetComponent(component, 0.0) for name, component in components.items()}
    return dataclasses.replace(config, configs={**config.configs, **extra})
