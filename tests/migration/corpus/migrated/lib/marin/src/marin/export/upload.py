"""Uploads directories to the Hugging Face Hub."""

from dataclasses import dataclass, field

from marin.utilities.jobs import finish


@dataclass(frozen=True)
class UploadToHfConfig:
    """What to upload, and where to."""

    input_path: str
    repo_id: str
    output_path: str
    repo_type: str = "model"
    upload_kwargs: dict[str, str] = field(default_factory=dict)


def upload_to_hf(config: UploadToHfConfig) -> None:
    finish("upload_to_hf", config)
