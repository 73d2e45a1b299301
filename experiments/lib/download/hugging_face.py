"""The files of a data set on the Hugging Face Hub, at one revision."""

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from experiments.lib.download.errors import DownloadError
from experiments.lib.download.fetch import Retries, backoff_delay
from experiments.lib.download.files import Download, RemoteFile, download_into
from experiments.lib.download.sources import TRANSIENT, hint_for

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

__all__ = ["HuggingFaceConfig", "dataset_files", "download_hugging_face"]

COMMIT = re.compile(r"[0-9a-f]{7,40}")
"""A commit hash or the beginning of one."""


@dataclass(frozen=True)
class HuggingFaceConfig:
    """Which files of which data set, and where to."""

    dataset_id: str
    """``owner/name``."""

    revision: str
    """A commit, by its hash or the first seven digits or more: branches and tags move, and then the same recipe would
    give another result."""

    output_path: str
    """The directory that gets the files, under their paths in the repository; local or an fsspec URL."""

    allow_patterns: tuple[str, ...] = ()
    """Of the files only those that match one of these globs, such as ``data/*.parquet``; all where this is empty."""

    ignore_patterns: tuple[str, ...] = (".gitattributes",)
    """Of those, none that matches one of these."""

    workers: int = 4
    """How many files are fetched at a time; at least 1."""

    retries: Retries = field(default_factory=Retries)

    def __post_init__(self) -> None:
        """Refuses a revision that moves before anything is run.

        Raises:
            ValueError: ``revision`` is not the hash of a commit.
        """
        if not COMMIT.fullmatch(self.revision):
            raise ValueError(
                f"revision {self.revision!r} of {self.dataset_id} is not a commit, and may move; give a hash of its "
                "history: its page's `Files and versions`, or HfApi().dataset_info(id).sha"
            )


def download_hugging_face(config: HuggingFaceConfig) -> Download:
    """Downloads the chosen files of a data set, and compares each with the checksum that the Hub has of it.

    The Hub is asked at ``HF_ENDPOINT``, with the token of ``HF_TOKEN`` or of ``hf auth login``, where there is one.

    Raises:
        DownloadError: The data set or a file cannot be had, is truncated, or has another checksum.
        ValueError: No file matches, or ``workers`` is less than 1.
    """
    from huggingface_hub.utils import build_hf_headers

    return download_into(
        config.output_path,
        dataset_files(config),
        workers=config.workers,
        retries=config.retries,
        headers={name: value for name, value in build_hf_headers().items() if name.lower() == "authorization"},
    )


def dataset_files(config: HuggingFaceConfig) -> list[RemoteFile]:
    """The chosen files with their URLs at the commit and the checksums that the Hub has of them.

    Raises:
        DownloadError: There is no such data set or commit, or no access to it.
        ValueError: No file matches.
    """
    from huggingface_hub import HfApi, constants, hf_hub_url
    from huggingface_hub.utils import filter_repo_objects

    endpoint = constants.ENDPOINT
    commit, entries = _listed(HfApi(endpoint=endpoint), config)
    chosen = filter_repo_objects(
        entries,
        allow_patterns=list(config.allow_patterns) or None,
        ignore_patterns=list(config.ignore_patterns) or None,
        key=lambda entry: entry.path,
    )
    files = [
        RemoteFile(
            url=hf_hub_url(config.dataset_id, entry.path, repo_type="dataset", revision=commit, endpoint=endpoint),
            sha256=entry.lfs.sha256 if entry.lfs else "",
            name=entry.path,
            git_oid="" if entry.lfs else entry.blob_id,
        )
        for entry in chosen
    ]
    if not files:
        raise ValueError(
            f"no file of {config.dataset_id} matches {list(config.allow_patterns)}; "
            f"among its {len(entries)} files are {', '.join(entry.path for entry in entries[:5])}"
        )
    return files


def _listed(api: "HfApi", config: HuggingFaceConfig) -> tuple[str, list["RepoFile"]]:
    """The whole hash of the commit, and its files."""
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import RepoFile

    failures = 0
    while True:
        try:
            commit = api.dataset_info(config.dataset_id, revision=config.revision).sha
            entries = api.list_repo_tree(config.dataset_id, repo_type="dataset", revision=commit, recursive=True)
            files = [entry for entry in entries if isinstance(entry, RepoFile)]
            break
        except HfHubHTTPError as error:
            failures += 1
            status = error.response.status_code
            shown = f"{config.dataset_id} at {config.revision}"
            if status not in TRANSIENT:
                raise DownloadError(
                    f"the Hugging Face Hub answers {status} for {shown}\n\nhint: {hint_for(status)}"
                ) from error
            if failures >= config.retries.attempts:
                raise DownloadError(
                    f"the Hugging Face Hub cannot list {shown}: {failures} requests in a row failed; the last: {status}"
                ) from error
        time.sleep(backoff_delay(failures, config.retries))
    if commit is None or not commit.startswith(config.revision):
        raise DownloadError(
            f"{config.dataset_id} knows {config.revision} as something else: it leads to commit {commit}\n\n"
            "hint: give the whole hash of the commit"
        )
    return commit, files
