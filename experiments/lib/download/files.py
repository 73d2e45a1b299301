"""Many files into one directory."""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

import fsspec

from experiments.lib.download.fetch import Checksums, Retries, fetch_file
from experiments.lib.download.sources import public_url
from experiments.lib.parallel import map_in_threads
from experiments.lib.paths import local_path
from marin_trace.io import atomic_write

__all__ = ["Download", "DownloadConfig", "DownloadedFile", "RemoteFile", "download_files", "download_into"]

logger = logging.getLogger(__name__)

PROGRESS_DIRECTORY: Final = ".download"
"""Below the output while a download is going on: partial files, and records of the complete ones."""


@dataclass(frozen=True)
class RemoteFile:
    """A file to download."""

    url: str
    """``http(s)://…``, a local path, or any fsspec URL."""

    sha256: str = ""
    """In hexadecimal; compared where it is given, and recorded in any case."""

    name: str = ""
    """Its path below the output; the last part of the URL's path where this is empty."""

    git_oid: str = ""
    """What git calls its content, for hosts that know this and no SHA-256."""


@dataclass(frozen=True)
class DownloadConfig:
    """What to download, and where to."""

    files: tuple[RemoteFile, ...]

    output_path: str
    """The directory that gets the files, local or an fsspec URL."""

    workers: int = 4
    """How many files are fetched at a time; at least 1."""

    retries: Retries = field(default_factory=Retries)


@dataclass(frozen=True)
class DownloadedFile:
    """A file that has been downloaded."""

    name: str
    """Its path below the output."""

    url: str
    """Without user, password and query."""

    size: int
    """Bytes."""

    sha256: str
    """In hexadecimal."""


@dataclass(frozen=True)
class Download:
    """What has been downloaded."""

    files: tuple[DownloadedFile, ...]
    """By name."""

    size: int
    """Bytes in all of them."""


def download_files(config: DownloadConfig) -> Download:
    """Downloads files. Each appears under its name when it is complete and its checksum, if one was given, is right.

    Called again after a failure it keeps the files that were complete, and goes on with the others where their sources
    allow it; partial files are kept only beside a local output.

    Raises:
        DownloadError: A file cannot be had, is truncated, or is not the one that was asked for.
        ValueError: There are no files, a name is not a path below the output, two files have the same name, or
            ``workers`` is less than 1.
    """
    return download_into(config.output_path, config.files, workers=config.workers, retries=config.retries)


def download_into(
    output_path: str,
    files: Sequence[RemoteFile],
    *,
    workers: int,
    retries: Retries,
    headers: Mapping[str, str] | None = None,
) -> Download:
    """:func:`download_files`, with headers for http requests: credentials, which have no place in a config.

    Raises:
        DownloadError: As of :func:`download_files`.
        ValueError: As of :func:`download_files`.
    """
    file_by_name = _file_by_name(files)
    with ExitStack() as stack:
        # Partial files are appended to, which object stores cannot.
        partials = local_path(f"{output_path}/{PROGRESS_DIRECTORY}") or stack.enter_context(
            tempfile.TemporaryDirectory(prefix="download-")
        )
        fetch = partial(_download, output_path=output_path, partials=partials, retries=retries, headers=headers or {})
        downloaded = tuple(map_in_threads(fetch, sorted(file_by_name.items()), workers=workers))
    file_system, progress = fsspec.core.url_to_fs(f"{output_path}/{PROGRESS_DIRECTORY}")
    with suppress(FileNotFoundError):
        file_system.rm(progress, recursive=True)
    return Download(files=downloaded, size=sum(file.size for file in downloaded))


def _file_by_name(files: Sequence[RemoteFile]) -> dict[str, RemoteFile]:
    if not files:
        raise ValueError("no files to download")
    file_by_name: dict[str, RemoteFile] = {}
    for file in files:
        shown = public_url(file.url)
        name = file.name or unquote(urlsplit(file.url).path).rpartition("/")[2]
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or parts[0] == PROGRESS_DIRECTORY:
            raise ValueError(f"{shown} has no name below the output: {name!r}; give it one: RemoteFile(url, name=…)")
        if name in file_by_name:
            raise ValueError(
                f"two files would be {name}: {public_url(file_by_name[name].url)} and {shown}; "
                "give them names: RemoteFile(url, name=…)"
            )
        file_by_name[name] = file
    return file_by_name


def _download(
    item: tuple[str, RemoteFile], *, output_path: str, partials: str, retries: Retries, headers: Mapping[str, str]
) -> DownloadedFile:
    name, file = item
    # By the whole URL: two that differ in the query are two files.
    digest = hashlib.sha256(file.url.encode()).hexdigest()
    record_path = f"{output_path}/{PROGRESS_DIRECTORY}/{name}.{digest[:16]}.done"
    target = f"{output_path}/{name}"
    shown = public_url(file.url)
    earlier = _recorded(record_path)
    if earlier is not None and file.sha256.lower() in ("", earlier.sha256) and _has_size(target, earlier.size):
        logger.info(f"{name}: downloaded before, {earlier.size:,} bytes")
        return earlier
    logger.info(f"{name}: downloading {shown}")
    partial_path = f"{partials}/{name}.part"
    checksums = Checksums(sha256=file.sha256, git_oid=file.git_oid)
    fetched = fetch_file(file.url, partial_path, checksums=checksums, retries=retries, headers=headers)
    _publish(partial_path, target)
    downloaded = DownloadedFile(name=name, url=shown, size=fetched.size, sha256=fetched.sha256)
    with atomic_write(record_path, "w") as record:
        json.dump(asdict(downloaded), record)
    logger.info(f"{name}: complete, {fetched.size:,} bytes")
    return downloaded


def _publish(partial_path: str, target: str) -> None:
    if (local := local_path(target)) is not None:
        os.makedirs(os.path.dirname(local), exist_ok=True)
        os.replace(partial_path, local)
        return
    with open(partial_path, "rb") as source, atomic_write(target) as file:
        shutil.copyfileobj(source, file)
    os.unlink(partial_path)


def _recorded(record_path: str) -> DownloadedFile | None:
    try:
        with fsspec.open(record_path, "rt", encoding="utf-8") as file:
            return DownloadedFile(**json.loads(file.read()))  # pyright: ignore[reportAttributeAccessIssue]
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _has_size(path: str, size: int) -> bool:
    file_system, key = fsspec.core.url_to_fs(path)
    return file_system.isfile(key) and file_system.size(key) == size
