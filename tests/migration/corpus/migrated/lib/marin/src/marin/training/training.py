"""Trains language models."""

from dataclasses import dataclass, field
from typing import Any

from marin.utilities.jobs import finish


@dataclass(frozen=True)
class ModelConfig:
    hidden_dim: int
    num_layers: int
    num_heads: int = 8
    seq_len: int = 4096


@dataclass(frozen=True)
class TpuSlice:
    """What a training runs on."""

    tpu_type: str = "v4-128"
    slice_count: int = 1


@dataclass(frozen=True)
class SimpleTrainConfig:
    """What most trainings differ in."""

    train_batch_size: int
    num_train_steps: int
    learning_rate: float
    resources: TpuSlice = TpuSlice()
    weight_decay: float = 0.1
    warmup: float = 0.05
    lr_schedule: str = "cosine"
    initialize_from_checkpoint_path: str | None = None
    steps_per_eval: int = 1000


@dataclass(frozen=True)
class TrainLmConfig:
    """What one training is told."""

    data: Any
    model: ModelConfig
    train: SimpleTrainConfig
    output_path: str
    tags: list[str] = field(default_factory=list)
    eval_harness_tasks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class TrainDpoConfig:
    """What one training on preferences is told."""

    data: str
    reference_checkpoint: str
    output_path: str
    beta: float = 0.1


def run_train_lm(config: TrainLmConfig) -> None:
    """Trains, and leaves checkpoints below ``checkpoints`` and Hugging Face exports below ``hf``."""
    finish("run_train_lm", config)


def run_train_dpo(config: TrainDpoConfig) -> None:
    finish("run_train_dpo", config)
