"""The lease keeper's own process: renews its owner's claims, kills an owner that lost one, releases after its death.

It is started by `marin_trace.runtime.keeper` in a session of its own, so that no Ctrl-C and no hang-up reaches it, and
needs the standard library alone. It speaks one JSON object a line: on its standard input come the claims to keep and to
forget, on its standard output go what was acknowledged and what is lost. It ends when its owner has, after it has ended
the claims that the owner left.
"""

import contextlib
import json
import logging
import os
import select
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final, final

from marin_trace.errors import MarinTraceError
from marin_trace.runtime.clock import boottime
from marin_trace.runtime.driver import Driver, driver_for
from marin_trace.runtime.gang import guard
from marin_trace.runtime.heartbeat import KeptClaim, keep
from marin_trace.runtime.log_records import ClaimRecord
from marin_trace.runtime.operations import AwaitDeath, AwaitOwner, HandOver, KillOwner, OwnerState, Report, TellLost
from marin_trace.runtime.process_tree import await_death, carriers_of, descendants_of, is_stopped, kill_all
from marin_trace.runtime.protocol import HEARTBEAT_FRACTION
from marin_trace.storage.control_store import control_store_for
from marin_trace.storage.files import protocol_of

__all__ = ["KEEPER_VARIABLE", "main"]

logger = logging.getLogger(__name__)

KEEPER_VARIABLE: Final = "MARIN_TRACE_KEEPER"
"""Set in a keeper's environment: who kills an owner's descendants spares keepers, which end by themselves."""
_DEATH_LIMIT_S: Final = 60.0
"""How long the death of what was killed is waited for at a time."""
_GATHERING_S: Final = 0.002
"""For how long wishes gather: to wake a keeper that waits for the next one costs its owner 60 µs, twice a step."""


@final
@dataclass(slots=True)
class _Keeping:
    """A claim that is kept."""

    kept: KeptClaim
    due: float
    """When its first heartbeat is due: until then it costs nothing."""
    changed: threading.Event = field(default_factory=threading.Event)
    is_forgotten: bool = False
    thread: threading.Thread | None = None


@final
class _Keeper:
    """The state of the process. The main thread reads the owner's wishes; each claim that lasts has a thread."""

    def __init__(self, owner: int, nonce: str, *, spares_owner: bool) -> None:
        self._owner = owner
        self._nonce = nonce
        self._spares_owner = spares_owner
        self._leads_group = os.getpgid(owner) == owner
        self._pidfd = os.pidfd_open(owner) if hasattr(os, "pidfd_open") else None
        self._keepings: dict[str, _Keeping] = {}
        self._output = threading.Lock()
        self._death = threading.Lock()
        self._descendants: set[int] = set()
        self._is_dead = False
        self._is_clean = False
        self._how = "ended without a word"
        self._said: set[str] = set()

    def run(self) -> None:
        """Serves until the owner has ended and its claims are settled."""
        self._send({"ready": os.getpid()})
        buffer, wishes = b"", sys.stdin.fileno()
        os.set_blocking(wishes, False)
        while not self._is_dead:
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
                    self._await_owner()
                time.sleep(_GATHERING_S)
            elif self._pidfd in ready or os.getppid() != self._owner:
                self._is_dead = True
            self._start_due()
        # What the owner wrote before it died is still in the pipe.
        with contextlib.suppress(BlockingIOError):
            while read := os.read(wishes, 1 << 16):
                buffer += read
        for line in buffer.split(b"\n")[:-1]:
            self._obey(json.loads(line))
        self._settle()

    def _await_owner(self) -> None:
        # It is dying: it closes its end only when it holds no claim.
        while not await_death(self._owner, limit_s=_DEATH_LIMIT_S):
            continue
        self._is_dead = True

    def _settle(self) -> None:
        for keeping in list(self._keepings.values()):
            keeping.changed.set()
            if keeping.thread is None:
                self._start(keeping)
        for keeping in list(self._keepings.values()):
            if keeping.thread is not None:
                keeping.thread.join()

    def _next_look(self) -> float | None:
        due = [keeping.due for keeping in list(self._keepings.values()) if keeping.thread is None]
        until = max(0.0, min(due) - boottime()) if due else None
        if self._pidfd is not None:
            return until
        # Without pidfds the owner's death shows in our own parent, if a child of the owner holds its pipe open.
        return 1.0 if until is None else min(1.0, until)

    def _start_due(self) -> None:
        now = boottime()
        for keeping in list(self._keepings.values()):
            if keeping.thread is None and keeping.due <= now:
                self._start(keeping)

    def _start(self, keeping: _Keeping) -> None:
        keeping.thread = threading.Thread(target=self._keep, args=(keeping,), daemon=True)
        keeping.thread.start()

    def _obey(self, wish: dict[str, Any]) -> None:
        match wish:
            case {"open": output_path, "sys_path": places}:
                self._send({"opened": protocol_of(output_path), "problem": _opened(output_path, places)})
            case {"keep": record}:
                claim = ClaimRecord.from_bytes(record["claim"].encode(), "the owner's pipe")
                kept = KeptClaim(
                    record["output_path"],
                    claim,
                    record["attempt"],
                    record["sent_at"],
                    record["awaits_start"],
                    record["is_member"],
                )
                self._keepings[kept.attempt] = _Keeping(kept, kept.sent_at + HEARTBEAT_FRACTION * claim.lease_s)
            case {"forget": attempt}:
                keeping = self._keepings.pop(attempt, None)
                if keeping is not None:
                    keeping.is_forgotten = True
                    keeping.changed.set()
            case _:
                logger.error(f"the keeper of {self._owner} does not understand {wish}")

    def _keep(self, keeping: _Keeping) -> None:
        try:
            driver = self._driver(keeping)
            driver.run(guard(keeping.kept) if keeping.kept.is_member else keep(keeping.kept))
        except MarinTraceError as error:
            # The claim stays open; whoever comes next takes it over.
            logger.error(f"{keeping.kept.output_path}: its claim could not be kept or released: {error}")  # noqa: TRY400

    def _driver(self, keeping: _Keeping) -> Driver:
        return driver_for(keeping.kept.output_path).answering(
            {
                AwaitOwner: lambda operation: self._owner_state(keeping, operation.seconds),
                Report: lambda operation: self._send({"acknowledged": operation.nonce, "sent_at": operation.sent_at}),
                HandOver: lambda operation: self._send({"handed_over": operation.nonce}),
                TellLost: lambda operation: self._send({"lost": operation.nonce, "why": operation.why}),
                KillOwner: lambda operation: self._kill_owner(operation.why),
                AwaitDeath: lambda operation: self._ensure_death(),
            }
        )

    def _owner_state(self, keeping: _Keeping, seconds: float) -> OwnerState:
        until = boottime() + seconds
        is_first_beat = keeping.due <= boottime() and keeping.due > float("-inf")
        keeping.due = float("-inf")
        if not is_first_beat:
            keeping.changed.wait(max(0.0, until - boottime()))
        if keeping.is_forgotten:
            return OwnerState.FORGOTTEN
        if self._is_dead:
            return OwnerState.DEAD
        if not os.path.isdir("/proc"):
            # After its death nobody could tell what it had started.
            self._descendants = descendants_of(self._owner)
        return OwnerState.STOPPED if is_stopped(self._owner) else OwnerState.RUNS

    def _kill_owner(self, why: str) -> bool:
        if self._spares_owner:
            self._say_once(f"marin_trace: {why}; this notebook's kernel is not killed, what it writes is not committed")
            return False
        self._say_once(f"marin_trace: process {self._owner} is killed by its lease keeper: {why}")
        self._how = "was killed by its lease keeper"
        self._ensure_death()
        return True

    def _ensure_death(self) -> str:
        """Kills whatever is left of the owner, and returns when it is gone."""
        with self._death:
            if not self._is_clean:
                self._descendants |= descendants_of(self._owner)
                self._kill_group()
                while not kill_all({self._owner}, self._survivors, limit_s=_DEATH_LIMIT_S):
                    self._say_once(f"marin_trace: what process {self._owner} started does not die; waiting")
                self._is_clean = True
        return self._how

    def _kill_group(self) -> None:
        # Bystanders in a group that somebody else leads live.
        if self._leads_group:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._owner, signal.SIGKILL)

    def _survivors(self) -> set[int]:
        below = {pid for pid in self._descendants if not await_death(pid, limit_s=0.0)}
        keepers = carriers_of(f"{KEEPER_VARIABLE}=") if below else set[int]()
        carriers = carriers_of(self._nonce, sparing=f"{KEEPER_VARIABLE}=")
        return ((below - keepers) | carriers) - {os.getpid()}

    def _say_once(self, text: str) -> None:
        with self._output:
            if text not in self._said:
                self._said.add(text)
                with contextlib.suppress(OSError):  # whoever read it is gone
                    os.write(sys.stderr.fileno(), f"{text}\n".encode())

    def _send(self, message: dict[str, Any]) -> None:
        # An owner that died does not read any more.
        with self._output, contextlib.suppress(BrokenPipeError):
            os.write(sys.stdout.fileno(), f"{json.dumps(message)}\n".encode())


def _opened(output_path: str, places: list[str]) -> str | None:
    """Imports and connects what an output's store takes. What kept it from that, if anything did."""
    sys.path += [place for place in places if place not in sys.path]
    try:
        control_store_for(output_path)
    except Exception as error:  # noqa: BLE001 - whatever it is: the owner tells it, and claims nothing
        return f"{type(error).__name__}: {error}"
    return None


def main() -> None:
    """Keeps the claims of the process whose id and nonce are the arguments."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s lease keeper: %(message)s")
    owner, nonce, spares = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "spare"
    _Keeper(owner, nonce, spares_owner=spares).run()
    # Nothing is buffered, and the owner waits for the exit: taking the interpreter down would be 10 ms of it.
    os._exit(0)


if __name__ == "__main__":
    main()
