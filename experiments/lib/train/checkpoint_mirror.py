"""Checkpoints of a training whose output lies in an object store: made on this machine's disk, and copied there.

Orbax writes arrays by clients of its own, which know neither every store nor how fsspec was told to reach it. So it
writes to a temporary directory, and a thread copies each checkpoint once it is whole. Orbax's own marker of a whole
checkpoint, ``commit_success.txt``, is copied last and deleted first: who finds it finds all other files.
"""

import logging
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, final

import fsspec

__all__ = ["CheckpointMirror", "fetched_checkpoint", "mirrored_steps"]

logger = logging.getLogger(__name__)

_MARKER: Final = "commit_success.txt"
_PERIOD_S: Final = 0.5
"""Between two looks at what Orbax has written."""
_COPIES: Final = 8
"""Files that are copied side by side."""


@final
class CheckpointMirror:
    """A local directory, and its copy. `close` returns when both hold the same whole checkpoints."""

    def __init__(self, url: str) -> None:
        """Fetches what is there, and deletes what an attempt that was killed has left in parts.

        Args:
            url: Of the directory of checkpoints. Nobody else writes below it.
        """
        self.directory = tempfile.mkdtemp(prefix="checkpoints-")
        self._url = url
        self._copied = set[int]()
        self._error: Exception | None = None
        self._is_closing = threading.Event()
        self._copying = threading.Lock()
        whole = mirrored_steps(url)
        for step in sorted(_steps_of(_relative_files(url))):
            if step in whole:
                _fetch(f"{url}/{step}", f"{self.directory}/{step}")
                self._copied.add(step)
            else:
                _delete(url, step)
        self._thread = threading.Thread(target=self._watch, name="checkpoint-mirror", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises what kept a checkpoint from being copied."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Copies what is left, and removes the local directory. Orbax has written all by then."""
        self._is_closing.set()
        self._thread.join()
        try:
            self.check()
            self._copy()
        finally:
            shutil.rmtree(self.directory)

    def _watch(self) -> None:
        while not self._is_closing.wait(_PERIOD_S):
            try:
                self._copy()
            except Exception as error:  # noqa: BLE001 - whatever a store's library raises: `check` raises it
                self._error = error
                return

    def _copy(self) -> None:
        whole = {int(name) for name in os.listdir(self.directory) if name.isdecimal()}
        for step in sorted(whole - self._copied):
            try:
                _publish(f"{self.directory}/{step}", f"{self._url}/{step}")
            except FileNotFoundError:
                # Orbax deletes what is no longer kept. Anything else that is missing is an error.
                if os.path.isdir(f"{self.directory}/{step}"):
                    raise
                _delete(self._url, step)
                continue
            self._copied.add(step)
            logger.info(f"checkpoint {self._url}/{step} is written")
        for step in sorted(self._copied - whole):
            _delete(self._url, step)
            self._copied.discard(step)


def mirrored_steps(url: str) -> list[int]:
    """The steps of the whole checkpoints at a URL, in order."""
    marked = (re.fullmatch(rf"(\d+)/{re.escape(_MARKER)}", name) for name in _relative_files(url))
    return sorted(int(match[1]) for match in marked if match)


def fetched_checkpoint(url: str, directory: str, *, items: Iterable[str]) -> None:
    """Copies a checkpoint to an empty local directory.

    Args:
        url: Of the checkpoint.
        directory: On this machine.
        items: The parts that are wanted; what describes the whole comes with them.

    Raises:
        FileNotFoundError: It has been deleted meanwhile.
    """
    wanted = tuple(f"{item}/" for item in items)
    _fetch(url, directory, lambda name: "/" not in name or name.startswith(wanted))


def _store(url: str) -> tuple[Any, str]:
    # A listing that was kept would show what others have changed since as it was.
    return fsspec.core.url_to_fs(url, use_listings_cache=False)


def _relative_files(url: str) -> list[str]:
    store, key = _store(url)
    store.invalidate_cache()
    found: list[str] = store.find(key)
    return sorted(name.lstrip("/").removeprefix(key.lstrip("/")).lstrip("/") for name in found)


def _steps_of(names: Iterable[str]) -> set[int]:
    return {int(head) for name in names if (head := name.partition("/")[0]).isdecimal()}


def _fetch(url: str, directory: str, is_wanted: Any = lambda name: True) -> None:
    store, key = _store(url)
    names = [name for name in _relative_files(url) if is_wanted(name)]
    if _MARKER not in names:
        raise FileNotFoundError(f"{url} is no checkpoint, or was deleted")
    for parent in {os.path.dirname(f"{directory}/{name}") for name in names}:
        os.makedirs(parent, exist_ok=True)
    with ThreadPoolExecutor(_COPIES) as pool:
        list(pool.map(lambda name: store.get_file(f"{key}/{name}", f"{directory}/{name}"), names))


def _publish(directory: str, url: str) -> None:
    store, key = _store(url)
    found = (os.path.join(parent, name) for parent, _, names in os.walk(directory) for name in names)
    names = [os.path.relpath(path, directory) for path in found]
    with ThreadPoolExecutor(_COPIES) as pool:
        others = [name for name in names if name != _MARKER]
        list(pool.map(lambda name: store.put_file(f"{directory}/{name}", f"{key}/{name}"), others))
    store.put_file(f"{directory}/{_MARKER}", f"{key}/{_MARKER}")


def _delete(url: str, step: int) -> None:
    store, key = _store(f"{url}/{step}")
    names = _relative_files(f"{url}/{step}")
    # By exact keys, the marker first: a file system's recursive delete takes names for patterns.
    for name in sorted(names, key=lambda name: name != _MARKER):
        store.rm_file(f"{key}/{name}")
