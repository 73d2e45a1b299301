"""Copies a directory to another place: any fsspec URL, or a repository of the Hugging Face Hub."""

import logging
import tempfile
from dataclasses import dataclass

import fsspec

from experiments.lib.files import copy_file
from marin_trace.io import check_lease

__all__ = ["HUB", "Upload", "UploadConfig", "upload_directory"]

HUB = "hf://"
"""How a destination on the Hub begins; what follows is the repository, as in ``hf://user/model``."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class UploadConfig:
    """What to copy, and where to."""

    source_path: str
    """A directory, local or an fsspec URL. Hidden files and directories in it stay behind: a step's own records."""

    destination: str
    """A directory of any file system that fsspec knows, or ``hf://`` and a repository's name."""

    private: bool = True
    """Whether a repository that is made on the Hub can be seen by its owner only. One that is there stays as it is."""

    message: str = "Upload"
    """What the commit on the Hub says."""


@dataclass(frozen=True)
class Upload:
    """What was copied."""

    destination: str
    files: tuple[str, ...]
    """Relative to the destination, sorted."""

    bytes: int


def upload_directory(config: UploadConfig) -> Upload:
    """Copies every file that is not hidden; what else lies at the destination stays.

    Each file appears when it is complete; on the Hub all of them in one commit, with the token that
    ``huggingface_hub`` finds.

    Raises:
        FileNotFoundError: The source is no directory, or it has no files.
    """
    files = _files_below(config.source_path)
    if config.destination.startswith(HUB):
        _upload_to_hub(config, list(files))
    else:
        for name in files:
            check_lease()
            copy_file(f"{config.source_path}/{name}", f"{config.destination.rstrip('/')}/{name}")
    logger.info(f"{len(files)} files of {config.source_path} uploaded to {config.destination}")
    return Upload(config.destination, tuple(files), sum(files.values()))


def _files_below(source: str) -> dict[str, int]:
    """The size of each file by its path relative to the source, sorted."""
    file_system, root = fsspec.core.url_to_fs(source)
    root = root.rstrip("/")
    entries = file_system.find(root, detail=True) if file_system.isdir(root) else {}
    # Some file systems lead a path with a slash, some do not, whatever they were asked for.
    sizes = {
        path.strip("/").removeprefix(root.strip("/")).lstrip("/"): entry["size"] for path, entry in entries.items()
    }
    visible = {path: size for path, size in sizes.items() if not any(part.startswith(".") for part in path.split("/"))}
    if not visible:
        raise FileNotFoundError(f"no files to upload in {source}")
    return dict(sorted(visible.items()))


def _upload_to_hub(config: UploadConfig, files: list[str]) -> None:
    from huggingface_hub import HfApi

    repository = config.destination.removeprefix(HUB).strip("/")
    api = HfApi()
    api.create_repo(repository, private=config.private, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="upload-") as directory:
        for name in files:
            check_lease()
            copy_file(f"{config.source_path}/{name}", f"{directory}/{name}")
        api.upload_folder(repo_id=repository, folder_path=directory, commit_message=config.message)
