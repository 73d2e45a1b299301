"""Downloads data sets of the Hugging Face Hub."""

from dataclasses import dataclass, field

from marin.utilities.jobs import finish


@dataclass(frozen=True)
class DownloadConfig:
    """What to download, and where to."""

    # fmt: off
    hf_dataset_id: str
    """The owner and the name of the data set."""

    revision: str

    gcs_output_path: str
    """Where the files come to lie."""

    hf_urls_glob: list[str] = field(default_factory=list)
    """Only files that match; all by default."""

    append_sha_to_path: bool = False  # older outputs have the revision in their path
    zephyr_max_parallelism: int = 8
    # fmt: on


def download_hf(config: DownloadConfig) -> None:
    """Downloads a data set to the path of the config."""
    if not config.revision:
        raise ValueError("a download needs a revision")
    finish("download_hf", config)
