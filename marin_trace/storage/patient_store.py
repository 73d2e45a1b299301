"""A control store that is asked again while it does not answer: for what no protocol program does.

Object stores answer 429 or 503 now and then. Programs retry by their own rule (`marin_trace.runtime.protocol.insist`);
records, artifacts and look-ups go through this.
"""

import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar, final

from marin_trace.errors import StoreUnavailableError
from marin_trace.storage.bounded import LARGEST_CONTROL_FILE

if TYPE_CHECKING:
    from marin_trace.storage.control_store import ControlStore

T = TypeVar("T")

__all__ = ["PATIENCE_S", "PatientStore"]

PATIENCE_S: Final = 60.0
_FIRST_BACKOFF_S: Final = 0.1
_LAST_BACKOFF_S: Final = 5.0


@final
class PatientStore:
    """A `ControlStore` around another. Thread-safe; each method blocks for its patience and one request at most."""

    __slots__ = ("_clock", "_patience_s", "_sleep", "_store")

    def __init__(
        self,
        store: "ControlStore",
        *,
        patience_s: float = PATIENCE_S,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Makes one.

        Args:
            store: What is asked.
            patience_s: For how long it is asked again.
            sleep: Waits between two tries, with full jitter.
            clock: Monotonic seconds.
        """
        self._store = store
        self._patience_s = patience_s
        self._sleep = sleep
        self._clock = clock

    def put_if_absent(self, path: str, content: bytes, *, durable: bool = False) -> bool:
        """See `ControlStore.put_if_absent`; content that was written by a try whose answer was lost counts as ours.

        So the content must be the caller's alone.
        """
        created = self._insist(lambda: self._store.put_if_absent(path, content, durable=durable))
        return created or self.get(path) == content

    def put(self, path: str, content: bytes) -> None:
        """See `ControlStore.put`."""
        self._insist(lambda: self._store.put(path, content))

    def get(self, path: str, *, limit: int = LARGEST_CONTROL_FILE) -> bytes | None:
        """See `ControlStore.get`."""
        return self._insist(lambda: self._store.get(path, limit=limit))

    def get_many(self, paths: Sequence[str], *, limit: int = LARGEST_CONTROL_FILE) -> list[bytes | None]:
        """See `ControlStore.get_many`."""
        return self._insist(lambda: self._store.get_many(paths, limit=limit))

    def list(self, directory: str) -> list[str]:
        """See `ControlStore.list`."""
        return self._insist(lambda: self._store.list(directory))

    def list_directories(self, directory: str, *, starting: str = "") -> Sequence[str]:
        """See `ControlStore.list_directories`."""
        return self._insist(lambda: self._store.list_directories(directory, starting=starting))

    def delete_exact(self, path: str) -> None:
        """See `ControlStore.delete_exact`."""
        self._insist(lambda: self._store.delete_exact(path))

    def _insist(self, act: Callable[[], T]) -> T:
        deadline, backoff_s = self._clock() + self._patience_s, _FIRST_BACKOFF_S
        while True:
            try:
                return act()
            except StoreUnavailableError:
                if self._clock() >= deadline:
                    raise
            self._sleep(random.uniform(0.0, backoff_s))
            backoff_s = min(2 * backoff_s, _LAST_BACKOFF_S)
