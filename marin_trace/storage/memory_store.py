"""The control store of ``memory://``: fsspec's in-process file system under one lock."""

import threading
from collections.abc import Sequence
from typing import Any, final

from marin_trace.storage.bounded import LARGEST_CONTROL_FILE, check_size
from marin_trace.storage.files import undisturbed

__all__ = ["MemoryControlStore"]


@final
class MemoryControlStore:
    """A `marin_trace.storage.control_store.ControlStore` in this process's memory. Thread-safe."""

    __slots__ = ("_filesystem", "_lock")

    def __init__(self) -> None:
        from fsspec.implementations.memory import MemoryFileSystem  # pyright: ignore[reportMissingTypeStubs]

        self._filesystem: Any = MemoryFileSystem()
        self._lock = threading.Lock()

    def put_if_absent(self, path: str, content: bytes, *, durable: bool = False) -> bool:
        """See `ControlStore.put_if_absent`; nothing in memory is durable."""
        with self._lock:
            if self._filesystem.isfile(path):
                return False
            self._filesystem.pipe_file(path, content)
        return True

    def put(self, path: str, content: bytes) -> None:
        """See `ControlStore.put`."""
        with self._lock:
            self._filesystem.pipe_file(path, content)

    def get(self, path: str, *, limit: int = LARGEST_CONTROL_FILE) -> bytes | None:
        """See `ControlStore.get`."""
        with self._lock:
            try:
                content: bytes = self._filesystem.cat_file(path)
            except FileNotFoundError:
                return None
        check_size(path, len(content), limit)
        return content

    def get_many(self, paths: Sequence[str], *, limit: int = LARGEST_CONTROL_FILE) -> list[bytes | None]:
        """See `ControlStore.get_many`."""
        return [self.get(path, limit=limit) for path in paths]

    def list(self, directory: str) -> list[str]:
        """See `ControlStore.list`."""
        with self._lock:
            return _names(self._filesystem, directory, "file")

    def list_directories(self, directory: str, *, starting: str = "") -> Sequence[str]:
        """See `ControlStore.list_directories`."""
        with self._lock:
            names = _names(self._filesystem, directory, "directory")
        return [name for name in names if name.startswith(starting)]

    def delete_exact(self, path: str) -> None:
        """See `ControlStore.delete_exact`."""
        with self._lock:
            if self._filesystem.isfile(path):
                self._filesystem.rm_file(path)


def _names(filesystem: Any, directory: str, kind: str) -> list[str]:
    try:
        entries: list[dict[str, Any]] = undisturbed(lambda: filesystem.ls(directory, detail=True))
    except FileNotFoundError:
        return []
    return sorted(entry["name"].rstrip("/").rpartition("/")[2] for entry in entries if entry["type"] == kind)
