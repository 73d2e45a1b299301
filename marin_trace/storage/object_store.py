"""What the control stores of all object stores share: deadlines, concurrency, threads, and one reading of answers.

A store's own module says how its five requests are made (`ObjectRequests`); here they are run on fsspec's one event
loop, each with a deadline and without a retry: `marin_trace.runtime.protocol.insist` retries, which knows how long
that is safe. An answer is read by its HTTP status alone, so the stores agree on what it means.

Nothing is cached, listings least of all. Names are keys, never patterns.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, TypeVar, final

from marin_trace.errors import StorageError, StoreRefusedError, StoreUnavailableError, explain
from marin_trace.storage.bounded import LARGEST_CONTROL_FILE, check_size
from marin_trace.storage.library_errors import AGAIN, REFUSED

T = TypeVar("T")

__all__ = [
    "CONCURRENCY",
    "DEADLINE_S",
    "ObjectControlStore",
    "ObjectRequests",
    "StatusError",
    "is_on_internet_of",
    "read_up_to",
]

DEADLINE_S: Final = 15.0
"""For one request, its connection included: a heartbeat's period under the default lease of 120 s."""
HURRY_S: Final = 2.0
"""For one request of a process that was asked to end: what it leaves open, its keeper releases."""
CONCURRENCY: Final = 64
"""Requests of one `ObjectControlStore.get_many` that are in flight together."""

_PRECONDITION_FAILED: Final = 412
_NOT_FOUND: Final = 404


class StatusError(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, reason: str = "") -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason
        """The store's own words, if it said any."""


class ObjectRequests(Protocol):
    """The requests of one store. Each is one HTTP request, tried once; it raises `StatusError` or the library's own."""

    @property
    def endpoint(self) -> str:
        """Where requests go."""
        ...

    @property
    def is_genuine(self) -> bool:
        """Whether that is the cloud itself, which keeps its word, and no emulator or compatible service."""
        ...

    async def create(self, bucket: str, key: str, content: bytes) -> None:
        """Creates an object; raises the status 412 where one lies there."""
        ...

    async def write(self, bucket: str, key: str, content: bytes) -> None:
        """Creates or replaces an object."""
        ...

    async def read(self, bucket: str, key: str, limit: int) -> bytes:
        """The content, as far as ``limit`` bytes."""
        ...

    async def page_of_names(self, bucket: str, before: str, page: str | None) -> tuple[list[str], str | None]:
        """The keys that begin so, each cut after its next slash, and the token of the next page, if any."""
        ...

    async def delete(self, bucket: str, key: str) -> None: ...

    def storage_error(self, error: Exception, what: str) -> StorageError | None:
        """What an error of the library means; None where it means no more than that there is no answer."""
        ...


@final
class ObjectControlStore:
    """A `marin_trace.storage.control_store.ControlStore` on an object store. Thread-safe; for the process that made it.

    Every method blocks for `DEADLINE_S` at most (a listing for that long a page).
    """

    __slots__ = ("_deadline_s", "_hurries", "_loop", "_requests", "_sync", "_waiting")

    def __init__(self, requests: ObjectRequests, *, deadline_s: float = DEADLINE_S) -> None:
        """Makes a store.

        Args:
            requests: How its requests are made.
            deadline_s: For one request.
        """
        from fsspec import asyn  # pyright: ignore[reportMissingTypeStubs]

        untyped: Any = asyn
        self._requests = requests
        self._deadline_s = deadline_s
        self._hurries = 0
        self._loop: asyncio.AbstractEventLoop = untyped.get_loop()
        self._waiting: set[asyncio.Timeout] = set()
        self._sync: Callable[[Callable[[], Awaitable[Any]]], Any] = lambda act: untyped.sync(self._loop, act)

    @property
    def endpoint(self) -> str:
        """Where its requests go."""
        return self._requests.endpoint

    @property
    def is_genuine(self) -> bool:
        """Whether that is the cloud itself; emulators and compatible services have to be tried first."""
        return self._requests.is_genuine

    def hurry(self) -> None:
        """Until `calm` no request takes longer than `HURRY_S`, and no caller is told to try again. From any thread.

        For a process that was asked to end, and whose store may be silent. What waits now ends as soon.
        """
        self._hurries += 1
        self._loop.call_soon_threadsafe(self._shorten)

    def calm(self) -> None:
        """Takes one `hurry` back."""
        self._hurries -= 1

    def _shorten(self) -> None:
        latest = self._loop.time() + HURRY_S
        for timeout in self._waiting:
            when = timeout.when()
            if not timeout.expired() and (when is None or when > latest):
                timeout.reschedule(latest)

    def _told(self, error: StorageError) -> StorageError:
        """What the caller is told: in a hurry, nothing that it would try again."""
        is_final = self._hurries > 0 and isinstance(error, StoreUnavailableError)
        return StorageError(f"{error}, and this process was asked to end") if is_final else error

    def put_if_absent(self, path: str, content: bytes, *, durable: bool = False) -> bool:
        """See `ControlStore.put_if_absent`: what an object store has acknowledged is durable."""
        bucket, key = _bucket_and_key(path)
        try:
            self._run("write", path, lambda: self._requests.create(bucket, key, content))
        except _Answered as answer:
            if answer.status == _PRECONDITION_FAILED:
                return False
            raise self._told(_storage_error("write", path, answer)) from answer
        return True

    def put(self, path: str, content: bytes) -> None:
        """See `ControlStore.put`."""
        bucket, key = _bucket_and_key(path)
        try:
            self._run("write", path, lambda: self._requests.write(bucket, key, content))
        except _Answered as answer:
            raise self._told(_storage_error("write", path, answer)) from answer

    def get(self, path: str, *, limit: int = LARGEST_CONTROL_FILE) -> bytes | None:
        """See `ControlStore.get`."""
        return self._sync(lambda: self._read(path, limit))

    def delete_exact(self, path: str) -> None:
        """See `ControlStore.delete_exact`."""
        bucket, key = _bucket_and_key(path)
        try:
            self._run("delete", path, lambda: self._requests.delete(bucket, key))
        except _Answered as answer:
            if answer.status != _NOT_FOUND:
                raise self._told(_storage_error("delete", path, answer)) from answer

    def _run(self, act: str, path: str, request: Callable[[], Awaitable[T]]) -> T:
        result: T = self._sync(lambda: self._within_deadline(act, path, request))
        return result

    async def _within_deadline(self, act: str, path: str, request: Callable[[], Awaitable[T]]) -> T:
        what = f"{act} {path}"
        deadline_s = min(self._deadline_s, HURRY_S) if self._hurries else self._deadline_s
        try:
            async with asyncio.timeout(deadline_s) as timeout:
                self._waiting.add(timeout)
                try:
                    return await request()
                finally:
                    self._waiting.discard(timeout)
        except StatusError as error:
            raise _Answered(error.status, error.reason) from error
        except TimeoutError as error:
            silent = StoreUnavailableError(explain(f"cannot {what}: no answer for {deadline_s:g} s"))
            raise self._told(silent) from error
        except RuntimeError as error:
            # What asyncio and thread pools raise once the interpreter ends: there is nothing to wait for.
            raise StorageError(explain(f"cannot {what}: {error}")) from error
        except Exception as error:
            known = self._requests.storage_error(error, what)
            # Never as it is: whoever renews a lease must be able to try again, whatever a library raises.
            unknown = StoreUnavailableError(explain(f"cannot {what}: {type(error).__name__}: {error}"))
            raise self._told(known or unknown) from error

    async def _read(self, path: str, limit: int = LARGEST_CONTROL_FILE) -> bytes | None:
        bucket, key = _bucket_and_key(path)
        try:
            content = await self._within_deadline("read", path, lambda: self._requests.read(bucket, key, limit + 1))
        except _Answered as answer:
            if answer.status == _NOT_FOUND:
                return None
            raise self._told(_storage_error("read", path, answer)) from answer
        check_size(path, len(content), limit)
        return content

    async def _read_many(self, paths: Sequence[str], limit: int) -> list[bytes | None]:
        gate = asyncio.Semaphore(CONCURRENCY)

        async def read(path: str) -> bytes | None:
            async with gate:
                return await self._read(path, limit)

        return list(await asyncio.gather(*map(read, paths)))

    async def _names(self, directory: str, starting: str = "") -> Sequence[str]:
        """Of files and, with a slash at their end, directories."""
        bucket, key = _bucket_and_key(f"{directory.rstrip('/')}/")
        names: list[str] = []
        page: str | None = None
        while True:
            try:
                keys, page = await self._within_deadline(
                    "list", directory, lambda token=page: self._requests.page_of_names(bucket, key + starting, token)
                )
            except _Answered as answer:
                if answer.status == _NOT_FOUND:
                    raise StorageError(explain(f"cannot list {directory}: there is no bucket {bucket}")) from answer
                raise self._told(_storage_error("list", directory, answer)) from answer
            names += [found[len(key) :] for found in keys]
            if page is None:
                # The key of the directory itself is how consoles mark an empty one.
                return sorted(name for name in names if name)

    def get_many(self, paths: Sequence[str], *, limit: int = LARGEST_CONTROL_FILE) -> list[bytes | None]:
        """See `ControlStore.get_many`: side by side."""
        return self._sync(lambda: self._read_many(paths, limit))

    def list(self, directory: str) -> list[str]:
        """See `ControlStore.list`: as many requests as there are thousands of names."""
        names: list[str] = self._sync(lambda: self._names(directory))
        return [name for name in names if not name.endswith("/")]

    def list_directories(self, directory: str, *, starting: str = "") -> Sequence[str]:
        """See `ControlStore.list_directories`: as many requests as there are thousands of names."""
        names: list[str] = self._sync(lambda: self._names(directory, starting))
        return [name[:-1] for name in names if name.endswith("/")]


async def read_up_to(limit: int, read: Callable[[int], Awaitable[bytes]]) -> bytes:
    """The first bytes of a stream.

    Args:
        limit: How many.
        read: Gives so many bytes of it or fewer, and none at its end.
    """
    content = bytearray()
    while len(content) < limit and (chunk := await read(limit - len(content))):
        content += chunk
    return bytes(content)


def is_on_internet_of(endpoint: str, domains: Sequence[str]) -> bool:
    """Whether an endpoint's host is one of these domains, or below one."""
    from urllib.parse import urlsplit

    host = urlsplit(endpoint).hostname or ""
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)


class _Answered(Exception):
    """The store has answered, and not with a success."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason


def _bucket_and_key(path: str) -> tuple[str, str]:
    bucket, _, key = path.partition("://")[2].partition("/")
    return bucket, key


def _storage_error(act: str, path: str, answer: _Answered) -> StorageError:
    kind = StorageError
    if answer.status in REFUSED:
        kind = StoreRefusedError
    elif answer.status in AGAIN or answer.status >= 500:
        kind = StoreUnavailableError
    reason = " ".join(answer.reason.split())[:300]
    return kind(explain(f"cannot {act} {path}: HTTP status {answer.status}{f', {reason}' if reason else ''}"))
