"""What a lease keeper does for the claims of its owner (`marin_trace.runtime.keeper_process`): one thread for each."""

import contextlib
import logging
import os
import signal
import sys
import threading
from typing import Any, Final, final

from marin_trace.errors import MarinTraceError
from marin_trace.runtime.clock import boottime
from marin_trace.runtime.driver import Driver, driver_for
from marin_trace.runtime.heartbeat import Kept, KeptClaim, keep
from marin_trace.runtime.keeper_process import KEEPER_VARIABLE, Keeping, Owner
from marin_trace.runtime.log_records import ClaimRecord
from marin_trace.runtime.operations import (
    AwaitDeath,
    AwaitOwner,
    HandOver,
    KillOwner,
    OwnerState,
    Program,
    Report,
    TellLost,
)
from marin_trace.runtime.process_tree import await_death, carriers_of, descendants_of, is_stopped, kill_all
from marin_trace.storage.control_store import control_store_for
from marin_trace.storage.files import protocol_of

__all__ = ["KeeperDuties"]

logger = logging.getLogger(__name__)

_DEATH_LIMIT_S: Final = 60.0
"""How long the death of what was killed is waited for at a time."""


@final
class KeeperDuties:
    """Renews claims, and kills the owner where one is lost. Called by the keeper's main thread."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._output = threading.Lock()
        self._death = threading.Lock()
        self._descendants: set[int] = set()
        self._is_clean = False
        self._how = "ended without a word"
        self._said: set[str] = set()
        logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s lease keeper: %(message)s")

    def start(self, keeping: Keeping) -> None:
        """Begins to look after a claim."""
        keeping.thread = threading.Thread(target=self._keep, args=(keeping,), daemon=True)
        keeping.thread.start()

    def await_owner(self) -> None:
        """Waits for the death of the owner: it closes its end of the pipe only when it holds no claim, or dies."""
        while not await_death(self._owner.pid, limit_s=_DEATH_LIMIT_S):
            continue

    def open_store(self, output_path: str, places: list[str]) -> dict[str, Any]:
        """Imports and connects what an output's store takes; the owner is told of what kept it from that."""
        sys.path += [place for place in places if place not in sys.path]
        problem = None
        try:
            control_store_for(output_path)
        except Exception as error:  # noqa: BLE001 - whatever it is: the owner tells it, and claims nothing
            problem = f"{type(error).__name__}: {error}"
        return {"opened": protocol_of(output_path), "problem": problem}

    def wonder(self, wish: object) -> None:
        """Says that the owner speaks another language."""
        logger.error(f"the keeper of {self._owner.pid} does not understand {wish}")

    def _keep(self, keeping: Keeping) -> None:
        wish = keeping.wish
        kept = KeptClaim(
            wish["output_path"],
            ClaimRecord.from_bytes(wish["claim"].encode(), "the owner's pipe"),
            wish["attempt"],
            wish["sent_at"],
            wish["awaits_start"],
            wish["is_member"],
        )
        try:
            self._driver(kept, keeping).run(_guarded(kept) if kept.is_member else keep(kept))
        except MarinTraceError as error:
            # The claim stays open; whoever comes next takes it over.
            logger.error(f"{kept.output_path}: its claim could not be kept or released: {error}")  # noqa: TRY400

    def _driver(self, kept: KeptClaim, keeping: Keeping) -> Driver:
        tell = self._owner.tell
        return driver_for(kept.output_path).answering(
            {
                AwaitOwner: lambda operation: self._owner_state(keeping, operation.seconds),
                Report: lambda operation: tell({"acknowledged": operation.nonce, "sent_at": operation.sent_at}),
                HandOver: lambda operation: tell({"handed_over": operation.nonce}),
                TellLost: lambda operation: tell({"lost": operation.nonce, "why": operation.why}),
                KillOwner: lambda operation: self._kill_owner(operation.why),
                AwaitDeath: lambda operation: self._ensure_death(),
            }
        )

    def _owner_state(self, keeping: Keeping, seconds: float) -> OwnerState:
        until = boottime() + seconds
        is_first_beat = keeping.due <= boottime() and keeping.due > float("-inf")
        keeping.due = float("-inf")
        if not is_first_beat:
            keeping.changed.wait(max(0.0, until - boottime()))
        if keeping.is_forgotten:
            return OwnerState.FORGOTTEN
        if self._owner.is_dead:
            return OwnerState.DEAD
        if not os.path.isdir("/proc"):
            # After its death nobody could tell what it had started.
            self._descendants = descendants_of(self._owner.pid)
        return OwnerState.STOPPED if is_stopped(self._owner.pid) else OwnerState.RUNS

    def _kill_owner(self, why: str) -> bool:
        if self._owner.is_spared:
            self._say_once(f"marin_trace: {why}; this notebook's kernel is not killed, what it writes is not committed")
            return False
        self._say_once(f"marin_trace: process {self._owner.pid} is killed by its lease keeper: {why}")
        self._how = "was killed by its lease keeper"
        self._ensure_death()
        return True

    def _ensure_death(self) -> str:
        """Kills whatever is left of the owner, and returns when it is gone."""
        with self._death:
            if not self._is_clean:
                self._descendants |= descendants_of(self._owner.pid)
                self._kill_group()
                while not kill_all({self._owner.pid}, self._survivors, limit_s=_DEATH_LIMIT_S):
                    self._say_once(f"marin_trace: what process {self._owner.pid} started does not die; waiting")
                self._is_clean = True
        return self._how

    def _kill_group(self) -> None:
        # Bystanders in a group that somebody else leads live.
        if self._owner.leads_group:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._owner.pid, signal.SIGKILL)

    def _survivors(self) -> set[int]:
        below = {pid for pid in self._descendants if not await_death(pid, limit_s=0.0)}
        keepers = carriers_of(f"{KEEPER_VARIABLE}=") if below else set[int]()
        carriers = carriers_of(self._owner.nonce, sparing=f"{KEEPER_VARIABLE}=")
        return ((below - keepers) | carriers) - {os.getpid()}

    def _say_once(self, text: str) -> None:
        with self._output:
            if text not in self._said:
                self._said.add(text)
                with contextlib.suppress(OSError):  # whoever read it is gone
                    os.write(sys.stderr.fileno(), f"{text}\n".encode())


def _guarded(kept: KeptClaim) -> Program[Kept]:
    from marin_trace.runtime.gang import guard  # most keepers are no gang's

    return guard(kept)
