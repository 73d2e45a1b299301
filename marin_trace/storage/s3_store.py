"""The requests of S3 and of what speaks its protocol: the client of s3fs, with its credentials.

Create-if-absent is ``If-None-Match: *``. s3fs's own calls are not used: they retry, and they leave out a condition that
the installed botocore does not know, which would make a create an overwrite.
"""

from typing import Any, Final, final

from marin_trace.errors import StorageError, StoreRefusedError, explain
from marin_trace.storage.object_store import CONCURRENCY, ObjectControlStore, StatusError, is_on_internet_of

__all__ = ["s3_control_store"]

_BOUNDS: Final = {
    "connect_timeout": 5,
    "read_timeout": 10,
    "retries": {"total_max_attempts": 1},
    "max_pool_connections": CONCURRENCY,
}
_REFUSED_CODES: Final = frozenset({"ExpiredToken", "InvalidToken", "TokenRefreshRequired"})
"""Come with the status 400."""
_UNAVAILABLE_CODES: Final = frozenset({"RequestTimeout"})
"""Likewise."""


def s3_control_store() -> ObjectControlStore:
    """The control store of ``s3://``, as fsspec is configured for it.

    Raises:
        ImportError: s3fs is not installed.
    """
    from fsspec import config as fsspec_config  # pyright: ignore[reportMissingTypeStubs]
    from s3fs.core import S3FileSystem  # pyright: ignore[reportMissingTypeStubs]

    untyped: Any = fsspec_config
    configured: dict[str, Any] = untyped.apply_config(S3FileSystem, {})
    config = {**configured.get("config_kwargs", {}), **_BOUNDS}
    filesystem: Any = S3FileSystem(config_kwargs=config, use_listings_cache=False, skip_instance_cache=True)
    filesystem.connect()
    return ObjectControlStore(_S3Requests(filesystem))


@final
class _S3Requests:
    """See `marin_trace.storage.object_store.ObjectRequests`."""

    def __init__(self, filesystem: Any) -> None:
        self._filesystem = filesystem

    @property
    def endpoint(self) -> str:
        url: str = self._filesystem.s3.meta.endpoint_url
        return url

    @property
    def is_genuine(self) -> bool:
        return is_on_internet_of(self.endpoint, ["amazonaws.com", "amazonaws.com.cn"])

    async def create(self, bucket: str, key: str, content: bytes) -> None:
        await self._call("put_object", Bucket=bucket, Key=key, Body=content, must={"IfNoneMatch": "*"})

    async def write(self, bucket: str, key: str, content: bytes) -> None:
        await self._call("put_object", Bucket=bucket, Key=key, Body=content)

    async def read(self, bucket: str, key: str) -> bytes:
        answer = await self._call("get_object", Bucket=bucket, Key=key)
        async with answer["Body"] as stream:
            content: bytes = await stream.read()
        return content

    async def page_of_names(self, bucket: str, before: str, page: str | None) -> tuple[list[str], str | None]:
        further: dict[str, Any] = {} if page is None else {"ContinuationToken": page}
        answer = await self._call("list_objects_v2", Bucket=bucket, Prefix=before, Delimiter="/", **further)
        names = [item["Key"] for item in answer.get("Contents", ())]
        below = [item["Prefix"] for item in answer.get("CommonPrefixes", ())]
        return [*names, *below], answer.get("NextContinuationToken")

    async def delete(self, bucket: str, key: str) -> None:
        await self._call("delete_object", Bucket=bucket, Key=key)

    def storage_error(self, error: Exception, what: str) -> StorageError | None:
        import botocore.exceptions as boto  # pyright: ignore[reportMissingTypeStubs]

        if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError | boto.CredentialRetrievalError):
            return StoreRefusedError(explain(f"cannot {what}: {error}", hint="aws configure"))
        if isinstance(error, boto.ParamValidationError):
            hint = "pip install --upgrade 'marin-trace[s3]'" if "IfNoneMatch" in str(error) else None
            return StorageError(explain(f"cannot {what}: {error}", hint=hint))
        return None

    async def _call(self, name: str, *, must: dict[str, Any] | None = None, **arguments: Any) -> Any:
        """One request.

        Args:
            name: Of the client's method.
            must: Arguments that are an error where the client does not know them.
            **arguments: The others, with those that fsspec is configured to add.
        """
        from botocore.exceptions import ClientError  # pyright: ignore[reportMissingTypeStubs]

        filesystem = self._filesystem
        client = await filesystem.set_session()
        method = getattr(client, name)
        filled = filesystem._get_s3_method_kwargs(method, **arguments)
        try:
            return await method(**filled, **(must or {}))
        except ClientError as error:
            raise _status_error(error.response) from error


def _status_error(response: Any) -> StatusError:
    problem = response.get("Error", {})
    code = str(problem.get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _REFUSED_CODES:
        status = 401
    elif code in _UNAVAILABLE_CODES:
        status = 408
    return StatusError(status, f"{code} {problem.get('Message', '')}")
