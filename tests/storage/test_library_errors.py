"""What gcsfs and s3fs raise, told apart: the errors themselves are made as the libraries make them."""

import errno

import aiohttp
import pytest
from botocore.exceptions import ClientError
from gcsfs.retry import HttpError, validate_response
from s3fs.errors import translate_boto_error

from marin_trace.errors import StorageError, StoreRefusedError, StoreUnavailableError
from marin_trace.storage.library_errors import storage_error_of, told_apart


def of_gcsfs(status: int) -> Exception:
    try:
        validate_response(status, b'{"error": {"code": %d, "message": "no"}}' % status, "bucket/x")
    except Exception as error:
        return error
    raise AssertionError(f"{status} is no error")


def of_s3fs(status: int, code: str) -> Exception:
    answer = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return translate_boto_error(ClientError(answer, "GetObject"))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (of_gcsfs(401), StoreRefusedError),
        (of_gcsfs(403), StoreRefusedError),
        (of_gcsfs(429), StoreUnavailableError),
        (of_gcsfs(502), StoreUnavailableError),
        (of_gcsfs(503), StoreUnavailableError),
        (of_s3fs(403, "AccessDenied"), StoreRefusedError),
        (of_s3fs(400, "ExpiredToken"), StoreRefusedError),
        (of_s3fs(503, "SlowDown"), StoreUnavailableError),
        (of_s3fs(500, "InternalError"), StoreUnavailableError),
        (aiohttp.ServerDisconnectedError(), StoreUnavailableError),
        (ConnectionResetError("gone"), StoreUnavailableError),
        (TimeoutError("late"), StoreUnavailableError),
    ],
)
def test_a_refusal_and_a_silence_are_told_apart(error: Exception, kind: type[StorageError]) -> None:
    with (
        pytest.raises(StorageError, match=r"^cannot list gs://bucket/x: \w+: ") as caught,
        told_apart("list", "gs://bucket/x"),
    ):
        raise error
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    "error",
    [
        of_gcsfs(404),
        of_s3fs(404, "NoSuchKey"),
        HttpError({"code": 412, "message": "precondition"}),
        OSError(errno.ENOSPC, "full"),
        ValueError("of somebody's own"),
        StoreUnavailableError("told already"),
    ],
)
def test_what_is_neither_stays_as_it_is(error: Exception) -> None:
    assert storage_error_of(error, "read x") is None
