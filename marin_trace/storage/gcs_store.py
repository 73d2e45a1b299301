"""The requests of Google Cloud Storage: its JSON API, with the session and the credentials of gcsfs.

Create-if-absent is ``ifGenerationMatch=0``. gcsfs's own requests are not used: they are retried for over a minute, and
what they raise no longer tells 403 from an unreadable answer. Its support for hierarchical buckets is left out as
well: control files need none of it, and against an emulator it asks for a minute what the emulator cannot tell.
"""

import asyncio
import json
import os
from typing import Any, Final, final
from urllib.parse import quote

from marin_trace.errors import StorageError, StoreRefusedError, StoreUnavailableError, explain
from marin_trace.storage.object_store import ObjectControlStore, StatusError, is_on_internet_of

__all__ = ["gcs_control_store"]

_PAGE: Final = 1000


def gcs_control_store() -> ObjectControlStore:
    """The control store of ``gs://``, as fsspec is configured for it. Finds credentials, which may take a request.

    Raises:
        ImportError: gcsfs is not installed.
    """
    from gcsfs.core import GCSFileSystem  # pyright: ignore[reportMissingTypeStubs]

    filesystem: Any = GCSFileSystem(use_listings_cache=False, skip_instance_cache=True)
    return ObjectControlStore(_GcsRequests(filesystem))


@final
class _GcsRequests:
    """See `marin_trace.storage.object_store.ObjectRequests`."""

    def __init__(self, filesystem: Any) -> None:
        self._filesystem = filesystem
        self.endpoint: str = filesystem._location
        """See `ObjectRequests`. Of the time when the store was made: gcsfs reads the environment at each look."""

    @property
    def is_genuine(self) -> bool:
        return is_on_internet_of(self.endpoint, ["googleapis.com"])

    async def create(self, bucket: str, key: str, content: bytes) -> None:
        await self._upload(bucket, key, content, {"ifGenerationMatch": "0"})

    async def write(self, bucket: str, key: str, content: bytes) -> None:
        await self._upload(bucket, key, content, {})

    async def read(self, bucket: str, key: str) -> bytes:
        return await self._request("GET", _object(bucket, key), {"alt": "media"})

    async def page_of_names(self, bucket: str, before: str, page: str | None) -> tuple[list[str], str | None]:
        params = {
            "prefix": before,
            "delimiter": "/",
            "maxResults": _PAGE,
            "fields": "items/name,prefixes,nextPageToken",
        }
        if page is not None:
            params["pageToken"] = page
        answer: dict[str, Any] = json.loads(await self._request("GET", f"/storage/v1/b/{quote(bucket)}/o", params))
        names = [item["name"] for item in answer.get("items", ())]
        return [*names, *answer.get("prefixes", ())], answer.get("nextPageToken")

    async def delete(self, bucket: str, key: str) -> None:
        await self._request("DELETE", _object(bucket, key), {})

    def storage_error(self, error: Exception, what: str) -> StorageError | None:
        import google.auth.exceptions as auth

        if isinstance(error, auth.TransportError) or getattr(error, "retryable", False):
            return StoreUnavailableError(explain(f"cannot {what}: the credentials could not be renewed: {error}"))
        if isinstance(error, auth.GoogleAuthError):
            return StoreRefusedError(explain(f"cannot {what}: {error}", hint="gcloud auth application-default login"))
        return None

    async def _upload(self, bucket: str, key: str, content: bytes, conditions: dict[str, Any]) -> None:
        # In parts, so that the object says `no-store`: one that everybody may read is kept by caches for an hour.
        boundary = os.urandom(16).hex()
        about = json.dumps({"name": key, "cacheControl": "no-store"})
        head = f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{about}\r\n"
        middle = f"--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n"
        await self._request(
            "POST",
            f"/upload/storage/v1/b/{quote(bucket)}/o",
            {"uploadType": "multipart", **conditions},
            content=b"".join([head.encode(), middle.encode(), content, f"\r\n--{boundary}--".encode()]),
            headers={"Content-Type": f"multipart/related; boundary={boundary}"},
        )

    async def _request(
        self,
        method: str,
        path: str,
        params: dict[str, Any],
        *,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> bytes:
        filesystem = self._filesystem
        session = await filesystem._set_session()
        # Renewing credentials blocks, and all stores of this process share the loop.
        signed = await asyncio.to_thread(filesystem._get_headers, headers)
        async with session.request(
            method,
            self.endpoint + path,
            params=filesystem._get_params(params),
            data=content,
            headers=signed,
        ) as response:
            body: bytes = await response.read()
            if response.status >= 400:
                raise StatusError(response.status, body.decode(errors="replace"))
            return body


def _object(bucket: str, key: str) -> str:
    return f"/storage/v1/b/{quote(bucket)}/o/{quote(key, safe='')}"
