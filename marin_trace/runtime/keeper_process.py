"""The lease keeper's own process: renews its owner's claims, kills an owner that lost one, releases after its death.

It is started by `marin_trace.runtime.keeper` in a session of its own, so that no Ctrl-C and no hang-up reaches it, and
needs the standard library alone. It speaks one JSON object a line: on its standard input come the claims to keep and to
forget, on its standard output go what was acknowledged and what is lost. It ends when its owner has, after it has ended
the claims that the owner left.

Every job has a keeper, and most bodies end before the first heartbeat is due. So what a keeper takes to look after a
claim (`marin_trace.runtime.keeper_duties`) is imported when one has been held for a second, and this module imports
little.
"""

import contextlib
import json
import os
import select
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final, final

from marin_trace.runtime.clock import boottime

if TYPE_CHECKING:
    from marin_trace.runtime.keeper_duties import KeeperDuties

__all__ = ["KEEPER_VARIABLE", "Keeping", "Owner", "main"]

KEEPER_VARIABLE: Final = "MARIN_TRACE_KEEPER"
"""Set in a keeper's environment: who kills an owner's descendants spares keepers, which end by themselves."""
_GATHERING_S: Final = 0.002
"""For how long wishes gather: to wake a keeper that waits for the next one costs its owner 60 µs, twice a step."""
_RESPITE_S: Final = 1.0
"""For how long a claim is held before the keeper imports what it takes to look after one."""
_IMPORT_S: Final = 1.0
"""How long before a heartbeat is due that must have begun: it is a tenth of it on a quiet machine."""


@final
class Owner:
    """The process whose claims are kept, as its keeper knows it."""

    def __init__(self, pid: int, nonce: str, *, is_spared: bool) -> None:
        self.pid: Final = pid
        self.nonce: Final = nonce
        self.is_spared: Final = is_spared
        """Not killed whatever it has lost: a notebook's kernel."""
        self.leads_group: Final = os.getpgid(pid) == pid
        self.is_dead = False
        self._output = threading.Lock()

    def tell(self, message: dict[str, Any]) -> None:
        """Sends it a message; one that died does not read any more. Thread-safe."""
        with self._output, contextlib.suppress(BrokenPipeError):
            os.write(sys.stdout.fileno(), f"{json.dumps(message)}\n".encode())


@final
class Keeping:
    """A claim that is kept."""

    def __init__(self, wish: dict[str, Any]) -> None:
        self.wish: Final = wish
        """What the owner has told of it."""
        self.due: float = wish["due"]
        """When its first heartbeat is due: until then it costs nothing."""
        self.changed: Final = threading.Event()
        self.is_forgotten = False
        self.thread: threading.Thread | None = None


@final
class _Keeper:
    """The state of the process. The main thread reads the owner's wishes; each claim that lasts has a thread."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._pidfd = os.pidfd_open(owner.pid) if hasattr(os, "pidfd_open") else None
        self._keepings: dict[str, Keeping] = {}
        self._duties: KeeperDuties | None = None
        self._imports_at = float("inf")

    def run(self) -> None:
        """Serves until the owner has ended and its claims are settled."""
        self._owner.tell({"ready": os.getpid()})
        buffer, wishes = b"", sys.stdin.fileno()
        os.set_blocking(wishes, False)
        while not self._owner.is_dead:
            watched = [descriptor for descriptor in (wishes, self._pidfd) if descriptor is not None]
            ready, _, _ = select.select(watched, [], [], self._next_look())
            if wishes in ready:
                read = os.read(wishes, 1 << 16)
                buffer += read
                *lines, buffer = buffer.split(b"\n")
                for line in lines:
                    self._obey(json.loads(line))
                if not read:
                    if not self._keepings:
                        return
                    self._duty().await_owner()
                    self._owner.is_dead = True
                time.sleep(_GATHERING_S)
            elif self._pidfd in ready or os.getppid() != self._owner.pid:
                self._owner.is_dead = True
            self._start_due()
        self._read_rest(buffer, wishes)
        self._settle()

    def _read_rest(self, buffer: bytes, wishes: int) -> None:
        """What the owner wrote before it died is still in the pipe."""
        with contextlib.suppress(BlockingIOError):  # a child of the owner holds its end open
            while read := os.read(wishes, 1 << 16):
                buffer += read
        for line in buffer.split(b"\n")[:-1]:
            self._obey(json.loads(line))

    def _settle(self) -> None:
        for keeping in list(self._keepings.values()):
            keeping.changed.set()
            if keeping.thread is None:
                self._duty().start(keeping)
        for keeping in list(self._keepings.values()):
            if keeping.thread is not None:
                keeping.thread.join()

    def _next_look(self) -> float | None:
        due = [keeping.due for keeping in self._keepings.values() if keeping.thread is None]
        if self._duties is None:
            due.append(self._imports_at)
        until = max(0.0, min(due) - boottime()) if due and min(due) < float("inf") else None
        if self._pidfd is not None:
            return until
        # Without pidfds the owner's death shows in our own parent, if a child of the owner holds its pipe open.
        return 1.0 if until is None else min(1.0, until)

    def _start_due(self) -> None:
        now = boottime()
        if self._imports_at <= now:
            self._duty()
        for keeping in list(self._keepings.values()):
            if keeping.thread is None and keeping.due <= now:
                self._duty().start(keeping)

    def _duty(self) -> "KeeperDuties":
        if self._duties is None:
            from marin_trace.runtime.keeper_duties import KeeperDuties

            self._duties = KeeperDuties(self._owner)
        return self._duties

    def _obey(self, wish: dict[str, Any]) -> None:
        match wish:
            case {"open": output_path, "sys_path": places}:
                self._owner.tell(self._duty().open_store(output_path, places))
            case {"keep": record}:
                keeping = self._keepings[record["attempt"]] = Keeping(record)
                self._imports_at = min(self._imports_at, boottime() + _RESPITE_S, keeping.due - _IMPORT_S)
            case {"forget": attempt}:
                keeping = self._keepings.pop(attempt, None)
                if keeping is not None:
                    keeping.is_forgotten = True
                    keeping.changed.set()
            case _:
                self._duty().wonder(wish)


def main() -> None:
    """Keeps the claims of the process whose id and nonce are the arguments."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    owner, nonce, spares = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "spare"
    _Keeper(Owner(owner, nonce, is_spared=spares)).run()
    # Nothing is buffered, and the owner waits for the exit: taking the interpreter down would be 10 ms of it.
    os._exit(0)


if __name__ == "__main__":
    main()
