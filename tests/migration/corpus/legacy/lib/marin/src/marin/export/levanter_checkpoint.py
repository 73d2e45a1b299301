"""Checkpoints as models of Hugging Face."""

import dataclasses
from dataclasses import dataclass

from marin.execution.executor import InputName, this_output_path
from marin.utilities.jobs import finish


@dataclass(frozen=True)
class ConvertCheckpointStepConfig:
    """Which checkpoint to convert."""

    checkpoint_path: str | InputName
    tokenizer: str
    output_path: str = dataclasses.field(default_factory=this_output_path)
    upload_to_hf: bool | str = False
    discover_latest: bool = False


def convert_checkpoint_to_hf(config: ConvertCheckpointStepConfig) -> None:
    finish("convert_checkpoint_to_hf", config)
