"""The control store: the few operations on small files that locks and commits rest on.

Data goes through fsspec; claims, ends and status tokens do not, because fsspec's local ``mode="create"`` is
exists-then-write (up to 11 winners of 16 writers were measured) and its listings may be stale. There is one
implementation for each kind of store, each with a real create-if-absent.

Paths are full paths, as elsewhere. Every method may be called from any thread.
"""

from collections.abc import Sequence
from functools import cache
from typing import Protocol

from marin_trace.errors import PrefixError, explain
from marin_trace.storage.files import protocol_of
from marin_trace.storage.local_store import LocalControlStore
from marin_trace.storage.memory_store import MemoryControlStore

__all__ = ["SUPPORTED_PROTOCOLS", "ControlStore", "check_supported", "control_store_for"]

SUPPORTED_PROTOCOLS = ("file", "memory")
"""What `control_store_for` knows; a path without a protocol is a ``file``."""

_PLANNED_PROTOCOLS = frozenset({"gs", "gcs", "s3", "s3a"})


class ControlStore(Protocol):
    """Small files with an atomic create-if-absent."""

    def put_if_absent(self, path: str, content: bytes, *, durable: bool = False) -> bool:
        """Creates a file whole, or leaves what is there.

        Args:
            path: Full path; missing parent directories are made.
            content: The whole file.
            durable: Return only when the file and its directory entry would survive a power cut.

        Returns:
            The store's own answer: True if this call created it. False means that something is there, which may be
            this very content, written by a request whose answer was lost: read it back
            (`marin_trace.runtime.protocol.create` does).

        Raises:
            StorageError: The store could not be written; whether it was is then unknown.
        """
        ...

    def put(self, path: str, content: bytes) -> None:
        """Creates or replaces a file whole; a reader sees the old content or the new one."""
        ...

    def get(self, path: str) -> bytes | None:
        """The content, or None where nothing lies."""
        ...

    def get_many(self, paths: Sequence[str]) -> list[bytes | None]:
        """The contents in order, None where nothing lies; concurrent where a request takes long."""
        ...

    def list(self, directory: str) -> list[str]:
        """The names of the files directly in a directory, sorted; none where it is missing. Never from a cache."""
        ...

    def delete_exact(self, path: str) -> None:
        """Deletes one file by its exact key, never by a pattern; nothing happens where it is missing."""
        ...


def control_store_for(path: str) -> ControlStore:
    """The control store that holds a path.

    Args:
        path: A full path or URL.

    Returns:
        One store per protocol and process.

    Raises:
        PrefixError: The protocol is not supported.

    Example:
        >>> control_store_for("/tmp/outputs").get("/tmp/no/such/file") is None
        True
    """
    return _store_of(check_supported(path))


def check_supported(path: str) -> str:
    """The protocol of a path.

    Raises:
        PrefixError: Chained, or of a protocol that this version has no control store for.
    """
    if "::" in path:
        raise PrefixError(explain(f"chained URLs cannot hold outputs: {path}", hint="give the inner URL alone"))
    protocol = protocol_of(path)
    if protocol in SUPPORTED_PROTOCOLS:
        return protocol
    supported = "a local directory or memory://"
    if protocol in _PLANNED_PROTOCOLS:
        summary = f"{protocol}:// is not supported yet by this version of marin_trace: {path}"
    else:
        summary = f"{protocol}:// cannot hold outputs: {path}"
    raise PrefixError(explain(summary, facts={"supported": supported}))


@cache
def _store_of(protocol: str) -> ControlStore:
    return LocalControlStore() if protocol == "file" else MemoryControlStore()
