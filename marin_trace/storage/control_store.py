"""The control store: the few operations on small files that locks and commits rest on.

Data goes through fsspec; claims, ends and status tokens do not, because fsspec's local ``mode="create"`` is
exists-then-write (up to 11 winners of 16 writers were measured) and its listings may be stale. There is one
implementation for each kind of store, each with a real create-if-absent.

Paths are full paths, as elsewhere. Every method may be called from any thread.
"""

import contextlib
import os
import threading
from collections.abc import Generator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Final, Protocol

from marin_trace.errors import PrefixError, explain
from marin_trace.storage.bounded import LARGEST_CONTROL_FILE
from marin_trace.storage.files import protocol_of
from marin_trace.storage.local_store import LocalControlStore
from marin_trace.storage.memory_store import MemoryControlStore
from marin_trace.storage.patient_store import PATIENCE_S, PatientStore

if TYPE_CHECKING:
    from marin_trace.storage.object_store import ObjectControlStore

__all__ = [
    "SUPPORTED_PROTOCOLS",
    "ControlStore",
    "check_supported",
    "control_store_for",
    "hurried_stores",
    "is_object_store",
    "patient_store_for",
]

SUPPORTED_PROTOCOLS = ("file", "memory", "gs", "gcs", "s3")
"""What `control_store_for` knows; a path without a protocol is a ``file``."""

_EXTRAS: Final = {"gs": "gcs", "gcs": "gcs", "s3": "s3"}
"""What has to be installed, by protocol."""


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

    def get(self, path: str, *, limit: int = LARGEST_CONTROL_FILE) -> bytes | None:
        """The content, or None where nothing lies.

        Raises:
            ControlFileError: It has more than ``limit`` bytes (no more are read), or is no regular file.
        """
        ...

    def get_many(self, paths: Sequence[str], *, limit: int = LARGEST_CONTROL_FILE) -> list[bytes | None]:
        """The contents in order, None where nothing lies; concurrent where a request takes long. Bounded as `get`."""
        ...

    def list(self, directory: str) -> list[str]:
        """The names of the files directly in a directory, sorted; none where it is missing. Never from a cache."""
        ...

    def list_directories(self, directory: str, *, starting: str = "") -> Sequence[str]:
        """The names of the directories directly in a directory that begin so, sorted. Looks into none of them."""
        ...

    def delete_exact(self, path: str) -> None:
        """Deletes one file by its exact key, never by a pattern; nothing happens where it is missing."""
        ...


def control_store_for(path: str) -> ControlStore:
    """The control store that holds a path.

    Args:
        path: A full path or URL.

    Returns:
        One store per protocol and process. The first one of an object store imports its library, for half a second.

    Raises:
        PrefixError: The protocol is not supported, or its library is not installed.

    Example:
        >>> control_store_for("/tmp/outputs").get("/tmp/no/such/file") is None
        True
    """
    protocol = check_supported(path)
    if protocol not in _EXTRAS:
        return _local_store(protocol)
    # A forked child has none of its parent's connections; the parent's store is kept, unused.
    extra, pid = _EXTRAS[protocol], os.getpid()
    store = _object_stores.get((extra, pid))
    if store is None:
        # By one thread: each client costs a tenth of a second, and a graph's statuses are read by many threads.
        with _connecting:
            store = _object_stores.get((extra, pid)) or _connected(extra)
            _object_stores[extra, pid] = store
    return store


def patient_store_for(path: str, *, patience_s: float = PATIENCE_S) -> ControlStore:
    """The same store for whoever has no protocol program to do it: one that does not answer is asked for a minute.

    Args:
        path: A full path or URL.
        patience_s: Another time.

    Raises:
        PrefixError: As for `control_store_for`.
    """
    store = control_store_for(path)
    return PatientStore(store, patience_s=patience_s) if is_object_store(path) else store


@contextlib.contextmanager
def hurried_stores() -> Generator[None, None, None]:
    """In the block no store of this process is waited for: it was asked to end. Safe in a signal handler.

    What a silent store keeps from being written stays as it is: claims are released by the keeper.
    """
    stores = [store for (_, pid), store in list(_object_stores.items()) if pid == os.getpid()]
    for store in stores:
        store.hurry()
    try:
        yield
    finally:
        for store in stores:
            store.calm()


def is_object_store(path: str) -> bool:
    """Whether a path lies in a cloud, or in what speaks its language."""
    return protocol_of(path) in _EXTRAS


def check_supported(path: str) -> str:
    """The protocol of a path.

    Raises:
        PrefixError: Chained, with credentials, or of a protocol that this version has no control store for.
    """
    if "::" in path:
        raise PrefixError(explain(f"chained URLs cannot hold outputs: {path}", hint="give the inner URL alone"))
    protocol = protocol_of(path)
    if protocol != "file" and "@" in path.partition("://")[2].partition("/")[0]:
        raise PrefixError(
            explain(
                f"{path} holds credentials, and paths are written into every record",
                hint="give them to the store's library: its configuration file, or its environment variables",
            )
        )
    if protocol in SUPPORTED_PROTOCOLS:
        return protocol
    why = ": it can only be read" if protocol.lower() in ("http", "https") else ""
    raise PrefixError(
        explain(
            f"{protocol}:// cannot hold outputs: {path}{why}",
            facts={"supported": "a local directory, gs://, s3:// or memory://"},
        )
    )


@cache
def _local_store(protocol: str) -> ControlStore:
    return LocalControlStore() if protocol == "file" else MemoryControlStore()


_object_stores: "dict[tuple[str, int], ObjectControlStore]" = {}
_connecting = threading.Lock()


def _forget_lock_after_fork() -> None:
    global _connecting  # noqa: PLW0603 - the thread that held it is not there in the child
    _connecting = threading.Lock()


os.register_at_fork(after_in_child=_forget_lock_after_fork)


def _connected(extra: str) -> "ObjectControlStore":
    try:
        if extra == "gcs":
            from marin_trace.storage.gcs_store import gcs_control_store

            return gcs_control_store()
        from marin_trace.storage.s3_store import s3_control_store

        return s3_control_store()
    except ImportError as error:
        scheme = "gs" if extra == "gcs" else "s3"
        raise PrefixError(
            explain(
                f"{scheme}:// needs a package that is not installed: {error}",
                hint=f"pip install 'marin-trace[{extra}]'",
            )
        ) from error
