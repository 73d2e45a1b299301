"""One file: requests until all of it is here.

What has arrived stays in a partial file, beside a note of what it is part of. A later request, of this process or of
the next one, asks for the rest only where the source can tell that the file is still the same.
"""

import hashlib
import json
import logging
import os
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Final

from experiments.lib.download.errors import ChecksumError, DownloadError, TruncatedDownloadError
from experiments.lib.download.sources import Body, Interrupted, Resumption, open_source, public_url
from marin_trace.io import atomic_write, check_lease

__all__ = ["Checksums", "FetchedFile", "Retries", "backoff_delay", "fetch_file"]

logger = logging.getLogger(__name__)

PROGRESS_INTERVAL: Final = 30.0
"""Seconds between two lines about the progress of a file."""


@dataclass(frozen=True)
class Retries:
    """How patient a download is with a source that fails."""

    attempts: int = 8
    """How many requests in a row may bring nothing new, at least 1. One that brings more of the file starts the count
    again, so that a large file may be interrupted any number of times."""

    base_delay: float = 1.0
    """Seconds; the first wait is at most this long, each further one at most twice the one before."""

    max_delay: float = 60.0
    """Seconds; no wait is longer, whatever the server asks for."""

    timeout: float = 60.0
    """Seconds without a byte after which a request counts as failed."""


@dataclass(frozen=True)
class Checksums:
    """What is known beforehand of a file's content; an empty one is not compared."""

    sha256: str = ""
    """In hexadecimal."""

    git_oid: str = ""
    """What git calls the content: the SHA-1 of a header and the bytes, in hexadecimal."""


@dataclass(frozen=True)
class FetchedFile:
    """What has been fetched."""

    size: int
    """Bytes."""

    sha256: str
    """In hexadecimal."""


def fetch_file(
    url: str,
    partial_path: str,
    *,
    checksums: Checksums | None = None,
    retries: Retries | None = None,
    headers: Mapping[str, str] | None = None,
) -> FetchedFile:
    """Fetches a file into ``partial_path``, going on from what lies there if that is part of the same file.

    The caller moves it to where it belongs, and removes what an error leaves. Blocks for as long as it takes.

    Args:
        url: ``http(s)://…``, a local path, or any fsspec URL.
        partial_path: A local file; ``{partial_path}.json`` beside it says what it is part of.
        checksums: What the content has to match.
        retries: How patient to be.
        headers: Sent with http requests, and not again to where they are redirected.

    Raises:
        DownloadError: The source refuses, or keeps failing.
        TruncatedDownloadError: The source keeps sending less than it announces.
        ChecksumError: The content is another one. Nothing of it stays.
    """
    checksums = checksums or Checksums()
    retries = retries or Retries()
    headers = headers or {}
    resumed = _fetch_all(url, partial_path, retries=retries, headers=headers)
    fetched, mismatch = _compare(partial_path, checksums)
    if mismatch and resumed:
        # One of the pieces may be to blame; a file in one piece is what its server has.
        logger.warning(f"{public_url(url)}: {mismatch}; fetching it again from its beginning")
        _discard(partial_path)
        _fetch_all(url, partial_path, retries=retries, headers=headers)
        fetched, mismatch = _compare(partial_path, checksums)
    if mismatch:
        _discard(partial_path)
        raise ChecksumError(
            f"{public_url(url)} is not the file that was asked for: {mismatch}\n\n"
            "hint: if the file has changed on purpose, look at it and give its new checksum"
        )
    with suppress(FileNotFoundError):
        os.unlink(_note_path(partial_path))
    return fetched


def backoff_delay(failures: int, retries: Retries, *, asked: float = 0.0, uniform: float | None = None) -> float:
    """Seconds to wait after so many failures in a row: full jitter, so that many clients do not come back at once.

    (M. Brooker, "Exponential Backoff And Jitter", 2015.) What the server ``asked`` for is the least, ``max_delay`` the
    most. ``uniform`` is a random number from [0, 1), drawn where it is None.

    Example:
        >>> [backoff_delay(n, Retries(base_delay=1, max_delay=5), uniform=1.0) for n in (1, 2, 3, 4)]
        [1.0, 2.0, 4.0, 5.0]
    """
    drawn = random.random() if uniform is None else uniform
    # The exponent is bounded, not only the product: 2.0**1100 is an error.
    jittered = drawn * retries.base_delay * 2.0 ** min(failures - 1, 32)
    return float(min(retries.max_delay, max(asked, jittered)))


def _fetch_all(url: str, partial_path: str, *, retries: Retries, headers: Mapping[str, str]) -> bool:
    """Requests until the file is whole. Returns whether it was put together from more than one answer."""
    failures = 0
    furthest = _size(partial_path)
    while True:
        try:
            return _request(url, partial_path, timeout=retries.timeout, headers=headers)
        except Interrupted as error:
            if error.start_over:
                _discard(partial_path)
            failures = 1 if _size(partial_path) > furthest else failures + 1
            furthest = max(furthest, _size(partial_path))
            if failures >= retries.attempts:
                raise _given_up(url, partial_path, error, failures) from error
            delay = backoff_delay(failures, retries, asked=error.retry_after)
            logger.warning(f"{error}; asking again in {delay:.1f} s, having {_size(partial_path):,} bytes")
        time.sleep(delay)


def _request(url: str, partial_path: str, *, timeout: float, headers: Mapping[str, str]) -> bool:
    """One request and its answer. Returns whether it continued an earlier one."""
    known = _resumption(url, partial_path)
    if known is not None and known.offset == known.total:
        return True
    with open_source(url, known, timeout=timeout, headers=headers) as body:
        if body.start == 0:
            # Emptied before its note is replaced: bytes of one file never stand beside the note of another.
            os.makedirs(os.path.dirname(partial_path) or ".", exist_ok=True)
            with open(partial_path, "wb"):
                _write_note(partial_path, url, body)
        _append(partial_path, body, public_url(url))
    size = _size(partial_path)
    if body.total is not None and size != body.total:
        interrupted = Interrupted(f"{public_url(url)} sent {size:,} of {body.total:,} bytes")
        interrupted.start_over = size > body.total
        raise interrupted
    return body.start > 0


def _append(partial_path: str, body: Body, shown: str) -> None:
    began = said = time.monotonic()
    position = body.start
    with open(partial_path, "ab") as file:
        for chunk in body.chunks:
            check_lease()
            file.write(chunk)
            position += len(chunk)
            now = time.monotonic()
            if now - said >= PROGRESS_INTERVAL:
                said = now
                speed = (position - body.start) / (now - began) / 1e6
                of_total = "" if body.total is None else f" of {body.total:,}"
                logger.info(f"{shown}: {position:,}{of_total} bytes, {speed:.1f} MB/s")


@dataclass(frozen=True)
class _Note:
    """What a partial file is part of."""

    url: str
    validator: str | None
    total: int | None


def _note_path(partial_path: str) -> str:
    return f"{partial_path}.json"


def _write_note(partial_path: str, url: str, body: Body) -> None:
    # The URL as its digest: it may hold a signature, which is not for a file.
    note = _Note(url=_digest(url), validator=body.validator, total=body.total)
    with atomic_write(_note_path(partial_path), "w") as file:
        json.dump(asdict(note), file)


def _resumption(url: str, partial_path: str) -> Resumption | None:
    """What can be asked for the rest; None where all has to be fetched."""
    try:
        with open(_note_path(partial_path), encoding="utf-8") as file:
            note = _Note(**json.load(file))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    offset = _size(partial_path)
    if not offset or note.validator is None or note.url != _digest(url):
        return None
    return Resumption(offset=offset, validator=note.validator, total=note.total)


def _compare(path: str, checksums: Checksums) -> tuple[FetchedFile, str]:
    """What a file is, and what is wrong with it, or an empty text."""
    size = os.path.getsize(path)
    sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(1024 * 1024):
            check_lease()
            sha256.update(chunk)
            if checksums.git_oid:
                git.update(chunk)
    fetched = FetchedFile(size=size, sha256=sha256.hexdigest())
    if checksums.sha256 and checksums.sha256.lower() != fetched.sha256:
        return fetched, f"its SHA-256 is {fetched.sha256}, not {checksums.sha256.lower()}, in {size:,} bytes"
    if checksums.git_oid and checksums.git_oid != git.hexdigest():
        return fetched, f"git's name for it is {git.hexdigest()}, not {checksums.git_oid}, in {size:,} bytes"
    return fetched, ""


def _given_up(url: str, partial_path: str, error: Interrupted, failures: int) -> DownloadError:
    shown, size = public_url(url), _size(partial_path)
    if size:
        return TruncatedDownloadError(
            f"{shown} came only in part: {failures} requests in a row brought nothing new; the last: {error}\n"
            f"  here: {size:,} bytes\n\n"
            "hint: run it again later, it goes on from there; if it always ends there, the source is damaged"
        )
    return DownloadError(
        f"{shown} cannot be fetched: {failures} requests in a row failed; the last: {error}\n\n"
        "hint: check the URL and the network, and run it again later"
    )


def _discard(partial_path: str) -> None:
    for path in (partial_path, _note_path(partial_path)):
        with suppress(FileNotFoundError):
            os.unlink(path)


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return 0


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
