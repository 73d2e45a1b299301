"""Checkpoints as models of Hugging Face."""

from dataclasses import dataclass

from marin.utilities.jobs import finish


@dataclass(frozen=True)
class ConvertCheckpointStepConfig:
    """Which checkpoint to convert."""

    checkpoint_path: str
    tokenizer: str
    output_path: str
    upload_to_hf: bool | str = False
    discover_latest: bool = False


def convert_checkpoint_to_hf(config: ConvertCheckpointStepConfig) -> None:
    finish("convert_checkpoint_to_hf", config)
