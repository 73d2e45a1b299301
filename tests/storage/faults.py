"""Faults of a store's server: which request is hit, and how."""

import contextlib
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Call:
    """A request as the server sees it."""

    method: str
    path: str
    """With its query."""
    headers: Mapping[str, str]
    content: bytes = b""

    @property
    def is_write(self) -> bool:
        return self.method in ("PUT", "POST")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer."""

    status: int
    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    sent_bytes: int | None = None
    """How much of the content is sent before the connection breaks; None: all of it."""


Answer = Callable[[Call], Reply]
Fault = Callable[[Call, Answer], Reply | None]
"""What is done to a request that is hit; None: the connection breaks without an answer."""


def status_before(status: int, content: bytes = b"") -> Fault:
    """The store answers so, and has done nothing."""
    return lambda call, answer: Reply(status, content)


def status_after(status: int) -> Fault:
    """The store has done it, and answers so."""

    def act(call: Call, answer: Answer) -> Reply:
        answer(call)
        return Reply(status, b"")

    return act


def lost_answer(call: Call, answer: Answer) -> None:
    """The store has done it, and nobody hears of it."""
    answer(call)


def truncated(call: Call, answer: Answer) -> Reply:
    """Half of the answer comes."""
    reply = answer(call)
    return replace(reply, sent_bytes=len(reply.content) // 2)


def no_answer(call: Call, answer: Answer) -> None:
    """The connection breaks, and nothing was done: the store is away."""


@dataclass(slots=True)
class Faults:
    """The faults of a server, in the order in which requests meet them. Thread-safe."""

    calls: list[Call] = field(default_factory=list[Call])
    """Every request so far."""
    keeps_calls: bool = True
    """False: there will be too many."""
    standing: tuple[Callable[[Call], bool], Fault] | None = None
    """Hits every such request for as long as it stands."""
    pending: list[tuple[Callable[[Call], bool], Fault]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def hit(self, fault: Fault, *, where: Callable[[Call], bool] = lambda call: call.is_write, times: int = 1) -> None:
        """The next requests that are such ones."""
        with self.lock:
            self.pending += [(where, fault)] * times

    @contextlib.contextmanager
    def throughout(
        self, fault: Fault, *, where: Callable[[Call], bool] = lambda call: True
    ) -> Generator[None, None, None]:
        """Every such request in the block."""
        self.standing = (where, fault)
        try:
            yield
        finally:
            self.standing = None

    def clear(self) -> None:
        """Forgets what is pending and what was asked."""
        with self.lock:
            self.pending.clear()
            self.calls.clear()

    def applied(self, call: Call, answer: Answer) -> Reply | None:
        standing = self.standing
        with self.lock:
            if self.keeps_calls:
                self.calls.append(call)
            is_standing = standing is not None and standing[0](call)
            fault = standing[1] if standing is not None and is_standing else self._pending_fault(call)
        return answer(call) if fault is None else fault(call, answer)

    def _pending_fault(self, call: Call) -> Fault | None:
        found = next((n for n, (where, _) in enumerate(self.pending) if where(call)), None)
        return None if found is None else self.pending.pop(found)[1]
