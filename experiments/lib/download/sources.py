"""One request: the bytes of a URL from an offset on.

A source is asked for the rest of a file that is partly here, together with the validator that came with the first part.
It answers with the rest only if it can tell that the file is the same; else with the whole file.
"""

import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse, InvalidURL
from ssl import SSLCertVerificationError
from typing import IO, Any, Final

import fsspec

from experiments.lib.download.errors import DownloadError

__all__ = ["TRANSIENT", "Body", "Interrupted", "Resumption", "hint_for", "open_source", "public_url"]

CHUNK: Final = 1024 * 1024
"""Bytes read at a time."""

TRANSIENT: Final = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,  # what is here is more than there is: another file by now
        HTTPStatus.TOO_EARLY,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
"""Answers after which the same request may succeed later."""

CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class Interrupted(Exception):
    """A transfer ended before its file did, for a reason that may pass."""

    retry_after: float = 0.0
    """Seconds that the server asks to wait."""

    start_over: bool = False
    """Whether what is here already is of no use any more."""


@dataclass(frozen=True)
class Resumption:
    """What is known of a file that is partly here."""

    offset: int
    """Bytes that are here."""

    validator: str
    """What came with them: equal for equal content under the same URL."""

    total: int | None
    """Bytes of the whole file."""


@dataclass(frozen=True)
class Body:
    """What a source answers."""

    start: int
    """Position in the file of the first byte: the offset asked for, or 0."""

    total: int | None
    """Bytes of the whole file; None where the source does not say."""

    validator: str | None
    """Equal for equal content under the same URL; None where there is nothing to rely on."""

    chunks: Iterator[bytes]
    """Read while the request is open; raises :class:`Interrupted`."""


@contextmanager
def open_source(
    url: str, resumption: Resumption | None, *, timeout: float, headers: Mapping[str, str]
) -> Generator[Body, None, None]:
    """Requests a file, or the rest of it.

    Args:
        url: ``http(s)://…``, a local path, or any fsspec URL.
        resumption: What is here already; None asks for all.
        timeout: Seconds without a byte after which an http request is given up.
        headers: Sent with an http request, and not again to where it is redirected.

    Yields:
        The answer.

    Raises:
        Interrupted: It may succeed when it is asked again.
        DownloadError: It will not.
    """
    if urllib.parse.urlsplit(url).scheme in ("http", "https"):
        with _open_http(url, resumption, timeout=timeout, headers=headers) as body:
            yield body
    else:
        with _open_fsspec(url, resumption) as body:
            yield body


def public_url(url: str) -> str:
    """A URL without what may be secret in it: user and password, and of http the query.

    Example:
        >>> public_url("https://me:secret@example.org/a.gz?signature=1")
        'https://example.org/a.gz'
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme in ("http", "https"):
        parts = parts._replace(query="", fragment="")
    elif ":" not in parts.netloc.rpartition("@")[0]:
        return url
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


@contextmanager
def _open_http(
    url: str, resumption: Resumption | None, *, timeout: float, headers: Mapping[str, str]
) -> Generator[Body, None, None]:
    if "@" in urllib.parse.urlsplit(url).netloc:
        raise DownloadError(
            f"{public_url(url)} is given with a user and password, which would end up in records\n\n"
            "hint: use a URL that is signed, or a file system of fsspec that reads them from the environment"
        )
    request = urllib.request.Request(url)  # noqa: S310 - the caller has looked at the scheme
    # Ranges count the bytes that are sent, so they must be those of the file.
    request.add_header("Accept-Encoding", "identity")
    request.add_header("User-Agent", "marin-trace-experiments")
    for name, value in headers.items():
        request.add_unredirected_header(name, value)
    if resumption is not None:
        # RFC 9110, 13.1.5: the range where the file is still the same, else all of it.
        request.add_header("Range", f"bytes={resumption.offset}-")
        request.add_header("If-Range", resumption.validator)
    with _urlopen(request, timeout=timeout) as response:
        yield _http_body(response, resumption)


def _urlopen(request: urllib.request.Request, *, timeout: float) -> HTTPResponse:
    shown = public_url(request.full_url)
    try:
        return urllib.request.urlopen(request, timeout=timeout)  # noqa: S310 - the caller has looked at the scheme
    except urllib.error.HTTPError as error:
        with error:
            answer = f"{shown} answers {error.code} {error.reason}"
            if error.code not in TRANSIENT:
                raise DownloadError(f"{answer}\n\nhint: {hint_for(error.code)}") from error
            interrupted = Interrupted(answer)
            interrupted.retry_after = _seconds(error.headers.get("Retry-After"))
            interrupted.start_over = error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
            raise interrupted from error
    except (InvalidURL, UnicodeError) as error:
        raise DownloadError(f"{shown} is not a URL: {error}\n\nhint: urllib.parse.quote(…) its path") from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, SSLCertVerificationError):
            raise DownloadError(
                f"{shown} has no trusted certificate: {reason.verify_message}\n\n"
                "hint: check the URL; a certificate authority of your own goes into SSL_CERT_FILE"
            ) from error
        raise Interrupted(f"{shown}: {reason or type(error).__name__}") from error


def _http_body(response: HTTPResponse, resumption: Resumption | None) -> Body:
    etag = response.headers.get("ETag", "")
    # A weak validator (`W/"…"`) promises equal meaning, not equal bytes: nothing to append by.
    validator = etag if etag.startswith('"') else None
    chunks = _chunks(response, public_url(response.url))
    if response.status == HTTPStatus.OK:
        return Body(start=0, total=response.length, validator=validator, chunks=chunks)
    if response.status != HTTPStatus.PARTIAL_CONTENT:
        raise DownloadError(f"{public_url(response.url)} answers {response.status} {response.reason}, without a file")
    found = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    total = None if found is None or found[2] == "*" else int(found[2])
    same = (
        resumption is not None
        and found is not None
        and int(found[1]) == resumption.offset
        and validator == resumption.validator
        and total == resumption.total
    )
    if not same:
        interrupted = Interrupted(f"{public_url(response.url)} continues another file than it began")
        interrupted.start_over = True
        raise interrupted
    assert resumption is not None
    return Body(start=resumption.offset, total=total, validator=validator, chunks=chunks)


@contextmanager
def _open_fsspec(url: str, resumption: Resumption | None) -> Generator[Body, None, None]:
    shown = public_url(url)
    try:
        file_system, path = fsspec.core.url_to_fs(url)
        entry = file_system.info(path)
        validator = file_system.ukey(path)
        stream = file_system.open(path, "rb")
    except IsADirectoryError as error:
        raise DownloadError(f"{shown} is a directory\n\nhint: name the files below it, each with its URL") from error
    except FileNotFoundError as error:
        raise DownloadError(f"{shown} does not exist\n\nhint: {hint_for(HTTPStatus.NOT_FOUND)}") from error
    except PermissionError as error:
        raise DownloadError(f"{shown} may not be read\n\nhint: {hint_for(HTTPStatus.FORBIDDEN)}") from error
    except (ValueError, ImportError) as error:  # how fsspec says that it does not know a protocol
        raise DownloadError(f"{shown} cannot be opened: {error}") from error
    except OSError as error:
        raise Interrupted(f"{shown}: {error}") from error
    start = resumption.offset if resumption is not None and resumption.validator == validator else 0
    with stream:
        if start:
            stream.seek(start)
        yield Body(start=start, total=entry.get("size"), validator=validator, chunks=_chunks(stream, shown))


def _chunks(stream: IO[bytes] | HTTPResponse | Any, shown: str) -> Iterator[bytes]:
    while True:
        try:
            chunk = stream.read(CHUNK)
        except (OSError, HTTPException) as error:
            raise Interrupted(f"{shown} stopped: {error or type(error).__name__}") from error
        if not chunk:
            return
        yield chunk


def _seconds(retry_after: str | None) -> float:
    """A Retry-After header in seconds; 0 where it is absent or a date."""
    return float(retry_after) if retry_after is not None and retry_after.isdecimal() else 0.0


def hint_for(status: int) -> str:
    """What to do about an HTTP status that will not pass."""
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return "ask for access, and log in (for the Hugging Face Hub: `hf auth login`, or HF_TOKEN)"
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return "open the URL in a browser: the file may have moved or been renamed"
    return "the server refuses this request; asking again will not help"
