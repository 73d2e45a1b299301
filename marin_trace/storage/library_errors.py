"""What fsspec's libraries raise of a cloud, told apart as the control stores tell it.

Data goes through gcsfs and s3fs, each of which has errors of its own for one and the same answer. Whoever decides
whether to ask again has to know a refusal from a silence.
"""

import contextlib
import errno
from collections.abc import Generator
from typing import Any, Final, cast

from marin_trace.errors import StorageError, StoreRefusedError, StoreUnavailableError, explain

__all__ = ["AGAIN", "REFUSED", "storage_error_of", "told_apart"]

REFUSED: Final = frozenset({401, 403})
AGAIN: Final = frozenset({408, 409, 425, 429})
"""409 is S3's ConditionalRequestConflict: two requests met, and neither has won yet."""

_REFUSALS: Final = frozenset(
    {"RefreshError", "DefaultCredentialsError", "NoCredentialsError", "CredentialRetrievalError"}
)
"""Errors of credentials, by the name of their class: the libraries are not imported for a look."""
_TRANSPORTS: Final = frozenset({"aiohttp", "aiobotocore", "botocore", "google", "requests", "urllib3"})
"""What else these raise means that there was no answer."""
_BUSY: Final = frozenset({errno.EBUSY, getattr(errno, "EREMOTEIO", errno.EBUSY)})
"""What s3fs makes of 409, 500 and 503."""


@contextlib.contextmanager
def told_apart(act: str, path: str) -> Generator[None, None, None]:
    """In the block, a library's error that means a refusal or a silence becomes this package's; others stay.

    Raises:
        StoreRefusedError: The store does not let this user in.
        StoreUnavailableError: It did not answer, or asked to come back.
    """
    try:
        yield
    except Exception as error:
        told = storage_error_of(error, f"{act} {path}")
        if told is None:
            raise
        raise told from error


def storage_error_of(error: Exception, what: str) -> StorageError | None:
    """What an error of gcsfs or s3fs means; None where it is about something else than who asks and whether."""
    if isinstance(error, StorageError):
        return None
    kind = _kind_of(error)
    return None if kind is None else kind(explain(f"cannot {what}: {type(error).__name__}: {error}"))


def _kind_of(error: Exception) -> type[StorageError] | None:
    status = _status_of(error)
    if status in REFUSED or isinstance(error, PermissionError) or type(error).__name__ in _REFUSALS:
        return StoreRefusedError
    if status is not None:
        return StoreUnavailableError if status in AGAIN or status >= 500 else None
    is_transport = type(error).__module__.partition(".")[0] in _TRANSPORTS
    is_busy = isinstance(error, OSError) and error.errno in _BUSY
    # A TimeoutError, and a ConnectionError that is no library's own.
    is_silence = isinstance(error, TimeoutError | ConnectionError)
    return StoreUnavailableError if is_transport or is_busy or is_silence else None


def _status_of(error: Any) -> int | None:
    # gcsfs's HttpError has a code, and its 403 is told by its text alone; botocore's ClientError has a response.
    if isinstance(error, OSError) and str(error).startswith("Forbidden: "):
        return 403
    response: Any = getattr(error, "response", None)
    told = cast("dict[str, Any]", response) if isinstance(response, dict) else {}
    answer: dict[str, Any] = told.get("ResponseMetadata", {})
    code: Any = getattr(error, "code", None) or getattr(error, "status", None) or answer.get("HTTPStatusCode")
    return int(code) if isinstance(code, int | str) and str(code).isdigit() else None
