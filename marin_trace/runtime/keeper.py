"""The leases that this process holds, and the child process that keeps them (`marin_trace.runtime.keeper_process`).

The keeper is started, and has answered, before this process sends its first claim; a run in which nothing is claimed
has none. It renews by itself and tells what was acknowledged; a lease about which nothing was heard for 0.7 of its
length counts as lost here, whatever the keeper does. If the keeper dies, another is started and given all claims with
the last acknowledged times, before any further body starts.

A step that has lost its lease is stopped: `LeaseLostError` is raised into its thread, and 0.9 of the lease after the
last acknowledged time the process is killed, by the keeper, or by itself if the keeper has not. A notebook's kernel is
never killed.

Outputs in ``memory://`` are this process's own: their leases need no keeper and do not expire.
"""

import atexit
import contextlib
import ctypes
import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

from marin_trace.errors import LeaseLostError, StorageError, explain
from marin_trace.runtime.clock import boottime
from marin_trace.runtime.heartbeat import KeptClaim
from marin_trace.runtime.keeper_process import KEEPER_VARIABLE
from marin_trace.runtime.liveness import liveness_descriptor, process_nonce
from marin_trace.runtime.operations import LeaseView
from marin_trace.runtime.process_tree import descendants_of, kill_all
from marin_trace.runtime.protocol import HEARTBEAT_FRACTION, KILL_FRACTION, LEASE_FRACTION, UNWIND_FRACTION, Claimed
from marin_trace.storage.control_store import is_object_store
from marin_trace.storage.files import protocol_of

__all__ = [
    "HeldLease",
    "dismiss_keeper",
    "forget_claim",
    "hearing_of_ends",
    "hold_claim",
    "prepare_keeper",
    "ready_keeper",
    "wait_for_an_end",
]

logger = logging.getLogger(__name__)

_SELF_KILL_DELAY: Final = 0.05
"""Of the lease: how much longer than the keeper this process waits before it kills itself."""
_OPENING_LIMIT_S: Final = 60.0
"""For how long a keeper may take to import what an object store takes: it is half a second on a quiet machine."""
_RESTART_DELAY_S: Final = 1.0
"""After which a keeper that could not be started in the place of another is tried again."""
_EXIT_LIMIT_S: Final = 1.0
"""For how long a keeper that keeps nothing may take to exit before it is killed."""
_KERNEL_MODULE: Final = "ipykernel"
"""Loaded in every notebook's kernel."""
_KEEPER_CODE: Final = """
import sys, types
package = types.ModuleType("marin_trace")
package.__path__ = [{package!r}]
sys.modules["marin_trace"] = package
from marin_trace.runtime.keeper_process import main
main()
"""
"""What a keeper runs. It is started without the directories of installed packages, of which it needs this one alone."""


@final
@dataclass(slots=True, eq=False)
class HeldLease:
    """A claim that this process holds. Written by the watch, read by the attempt's thread."""

    kept: KeptClaim
    sent_at: float
    """When the last acknowledged claim or heartbeat was first sent."""
    lost: str | None = None
    lost_at: float = 0.0
    """When that was noticed."""
    has_keeper: bool = True
    thread: int | None = None
    """The thread that `LeaseLostError` may be raised into, while it runs body, save and manifest."""
    was_raised: bool = False
    is_handed_over: bool = False
    """The job that the claim was made for has begun, and renews it."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def lease_s(self) -> float:
        """The lease; without end where nobody else can see the output."""
        return self.kept.claim.lease_s if self.has_keeper else float("inf")

    def view(self) -> LeaseView:
        """What the protocol asks for."""
        return LeaseView(self.lease_s, self.sent_at, self.lost)

    @contextlib.contextmanager
    def interruptible(self) -> Generator[None, None, None]:
        """The block is interrupted by a `LeaseLostError` that says why, should the lease be lost in it.

        Nothing of the attempt runs once it has ended so: the claim is forgotten, and nobody is killed for it while a
        store that is away is told of the end.
        """
        self.thread = threading.get_ident()
        try:
            yield
        except LeaseLostError as error:
            forget_claim(self)
            if self.lost is None or error.args:
                raise
            raise LeaseLostError(explain(self.lost, hint="this attempt's work is not committed")) from error
        finally:
            with self.lock:
                self.thread = None
                if self.was_raised:
                    # It may be on its way still: it was meant for this block.
                    _raise_in(threading.get_ident(), None)

    def due(self) -> float:
        """When this process has to look at it next: whether it is lost, and once it is, to kill itself."""
        if self.is_handed_over:
            return float("inf")
        if self.lost is None:
            return self.sent_at + LEASE_FRACTION * self.lease_s
        # Nothing runs here under a claim that awaits its job, and a notebook's kernel is never killed.
        if self.kept.awaits_start or _KERNEL_MODULE in sys.modules:
            return float("inf")
        kill_at = max(self.sent_at + KILL_FRACTION * self.lease_s, self.lost_at + UNWIND_FRACTION * self.lease_s)
        return kill_at + _SELF_KILL_DELAY * self.lease_s

    def lose(self, why: str) -> None:
        """Marks it as lost and interrupts the attempt, once."""
        with self.lock:
            if self.lost is None:
                self.lost, self.lost_at = why, boottime()
            if self.thread is None or self.was_raised:
                return
            self.was_raised = True
            _raise_in(self.thread, LeaseLostError)


@final
class _Watch:
    """This process's side: its leases, its keeper, and the thread that watches both."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._leases: dict[str, HeldLease] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._prepared: subprocess.Popen[bytes] | None = None
        self._wakes, self._wake = os.pipe()
        self._thread: threading.Thread | None = None
        self._sleeps_until = float("inf")
        self._stores: dict[str, _KeptStore] = {}
        self.is_over = False

    def prepare(self, output_path: str) -> None:
        """Lets a keeper begin to start; `ready` waits for its answer."""
        # A failure is `ready`'s to tell: it tries again.
        with self._lock, contextlib.suppress(OSError):
            if self._process is None and self._prepared is None:
                self._prepared = _spawned()
                self._add_store(output_path, self._prepared)

    def ready(self, output_path: str) -> None:
        """Has a keeper running that can reach an output.

        The first call takes a tenth of a second, or what is left of it after `prepare`; the first one for an object
        store half a second more.

        Raises:
            StorageError: It cannot be started, or cannot reach the output.
        """
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()
            store = self._add_store(output_path, self._process)
        if store is None:
            return
        if not store.is_open.wait(_OPENING_LIMIT_S):
            raise StorageError(explain(f"the lease keeper cannot reach {output_path}: nothing was claimed"))
        if store.problem is not None:
            raise StorageError(explain(f"the lease keeper cannot reach {output_path}: {store.problem}"))

    def _add_store(self, output_path: str, process: "subprocess.Popen[bytes] | None") -> "_KeptStore | None":
        """The object store of an output, which a keeper is told of before its first claim there."""
        if not is_object_store(output_path):
            return None
        protocol = protocol_of(output_path)
        store = self._stores.get(protocol)
        if store is None:
            store = self._stores[protocol] = _KeptStore(output_path)
            if process is not None:
                _send(process, store.wish())
        return store

    def hold(self, lease: HeldLease) -> None:
        with self._lock:
            self._leases[lease.kept.attempt] = lease
            if self._process is None or not self._tell(_wish(lease)):
                self._start()
            elif lease.sent_at + LEASE_FRACTION * lease.lease_s < self._sleeps_until:
                os.write(self._wake, b"!")

    def forget(self, attempt: str) -> None:
        with self._lock:
            if self._leases.pop(attempt, None) is not None and self._process is not None:
                self._tell({"forget": attempt})

    def _start(self) -> None:
        prepared, self._prepared = self._prepared, None
        # What was prepared may have been killed since.
        process = prepared if prepared is not None and _answers(prepared) else _spawned()
        if process is not prepared and not _answers(process):
            raise StorageError(explain("the lease keeper could not be started: nothing was claimed"))
        self._process = process
        for store in self._stores.values():
            self._tell(store.wish())
        for lease in self._leases.values():
            self._tell(_wish(lease))
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="marin-trace-leases", daemon=True)
            self._thread.start()
        os.write(self._wake, b"!")

    def _tell(self, wish: dict[str, Any]) -> bool:
        assert self._process is not None
        return _send(self._process, wish)

    def _watch(self) -> None:
        buffers: dict[int, bytes] = {}
        while not self.is_over:
            process = self._process
            news = -1 if process is None or process.stdout is None else process.stdout.fileno()
            watched = [descriptor for descriptor in (news, self._wakes) if descriptor >= 0]
            ready, _, _ = select.select(watched, [], [], self._next_look())
            if self._wakes in ready:
                os.read(self._wakes, 1 << 10)
            if news in ready and process is not None:
                read = os.read(news, 1 << 16)
                *lines, buffers[news] = (buffers.get(news, b"") + read).split(b"\n")
                for line in lines:
                    self._learn(json.loads(line))
                if not read:
                    self._replace(process)
            elif process is None:
                with self._lock:
                    if self._process is None and self._is_needed() and not self.is_over:
                        self._start_again()
            self._look_at_clocks()

    def _replace(self, process: "subprocess.Popen[bytes]") -> None:
        with self._lock:
            if self.is_over or process is not self._process:
                return
            process.communicate()
            self._process = None
            if self._is_needed():
                logger.warning(f"the lease keeper (process {process.pid}) died: another is started")
                self._start_again()

    def _is_needed(self) -> bool:
        """Whether a claim is held, or a step waits for a keeper that can reach its store before it claims."""
        return bool(self._leases) or not all(store.is_open.is_set() for store in self._stores.values())

    def _start_again(self) -> None:
        """Starts a keeper where another died; that it cannot be done now is told, and tried again before long."""
        try:
            self._start()
        except (OSError, StorageError) as error:
            logger.error(f"no lease keeper could be started, it is tried again: {error}")  # noqa: TRY400

    def _learn(self, message: dict[str, Any]) -> None:
        match message:
            case {"acknowledged": attempt, "sent_at": sent_at}:
                lease = self._leases.get(attempt)
                if lease is not None:
                    lease.sent_at = sent_at
            case {"handed_over": attempt}:
                lease = self._leases.get(attempt)
                if lease is not None:
                    lease.is_handed_over = True
            case {"lost": attempt, "why": why}:
                lease = self._leases.get(attempt)
                if lease is not None:
                    logger.error(why)
                    lease.lose(why)
            case {"opened": protocol, "problem": problem}:
                store = self._stores.get(protocol)
                if store is not None:
                    store.problem = problem
                    store.is_open.set()
            case _:
                logger.error(f"the lease keeper said {message}, which nobody understands")

    def _next_look(self) -> float | None:
        now = boottime()
        self._sleeps_until = min((lease.due() for lease in list(self._leases.values())), default=float("inf"))
        if self._process is None and self._is_needed():
            self._sleeps_until = min(self._sleeps_until, now + _RESTART_DELAY_S)
        return max(0.0, self._sleeps_until - now) if self._sleeps_until < float("inf") else None

    def _look_at_clocks(self) -> None:
        now = boottime()
        for lease in list(self._leases.values()):
            if now < lease.due():
                continue
            claim = lease.kept.claim
            lease.lose(
                f"attempt {claim.epoch} of {lease.kept.output_path} has lost its lease: "
                f"no heartbeat was acknowledged for {LEASE_FRACTION:g} of its {claim.lease_s:g} s"
            )
            if now >= lease.due():
                self._kill_self(lease)

    def _kill_self(self, lease: HeldLease) -> None:
        with contextlib.suppress(OSError):
            why = f"marin_trace: process {os.getpid()} kills itself, its lease keeper has not: {lease.lost}\n"
            os.write(sys.stderr.fileno(), why.encode())
        keeper = {self._process.pid} if self._process is not None else set[int]()
        kill_all(descendants_of(os.getpid()) - keeper, set[int], limit_s=0.05 * lease.lease_s)
        os.kill(os.getpid(), signal.SIGKILL)

    def dismiss(self) -> None:
        """Ends the keeper and the watch, if nothing is held. A keeper of claims that stay waits for our death."""
        with self._lock:
            process, thread = self._process, self._thread
            if self.is_over or self._leases:
                return
            self.is_over = True
            if self._prepared is not None:
                self._prepared.kill()
                self._prepared.communicate()
        os.write(self._wake, b"!")
        if thread is not None:
            thread.join()
        if process is not None:
            _end(process)
        os.close(self._wake)
        os.close(self._wakes)


@final
@dataclass(slots=True, eq=False)
class _KeptStore:
    """An object store that the keeper reaches. To import what it takes would cost a lease, were it done at the beat."""

    output_path: str
    is_open: threading.Event = field(default_factory=threading.Event)
    problem: str | None = None

    def wish(self) -> dict[str, Any]:
        """What a keeper is told. It is started without the installed packages, and finds them where we do."""
        return {"open": self.output_path, "sys_path": sys.path}


def _send(process: "subprocess.Popen[bytes]", wish: dict[str, Any]) -> bool:
    assert process.stdin is not None
    try:
        os.write(process.stdin.fileno(), f"{json.dumps(wish)}\n".encode())
    except BrokenPipeError:
        return False
    return True


def _spawned() -> "subprocess.Popen[bytes]":
    nonce = process_nonce()
    code = _KEEPER_CODE.format(package=str(Path(__file__).parents[1]))
    spares = "spare" if _KERNEL_MODULE in sys.modules else "kill"
    return subprocess.Popen(
        [sys.executable, "-S", "-c", code, str(os.getpid()), nonce, spares],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, KEEPER_VARIABLE: nonce},
        start_new_session=True,
        pass_fds=(liveness_descriptor(),),
    )


def _answers(process: "subprocess.Popen[bytes]") -> bool:
    """Whether a keeper has started; one that has not is gone afterwards."""
    assert process.stdout is not None
    if process.stdout.readline().startswith(b'{"ready"'):
        return True
    process.kill()
    process.communicate()
    return False


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ends a keeper that keeps nothing: it exits when its pipe is closed, if it runs at all."""
    try:
        process.communicate(timeout=_EXIT_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def _wish(lease: HeldLease) -> dict[str, Any]:
    kept = lease.kept
    heartbeat_s = HEARTBEAT_FRACTION * kept.claim.lease_s
    return {
        "keep": {
            "output_path": kept.output_path,
            "claim": kept.claim.to_bytes().decode(),
            "attempt": kept.attempt,
            "sent_at": lease.sent_at,
            "due": lease.sent_at + heartbeat_s,
            "awaits_start": kept.awaits_start,
            "is_member": kept.is_member,
        }
    }


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), error and ctypes.py_object(error))


@final
@dataclass(slots=True)
class _Process:
    """What this process holds; made when it is first needed."""

    watch: _Watch | None = None
    is_registered: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


_process = _Process()
_ends = threading.Condition()
_hearers: list[Callable[[str], None]] = []


def _the_watch() -> _Watch:
    with _process.lock:
        if _process.watch is None or _process.watch.is_over:
            _process.watch = _Watch()
            if not _process.is_registered:
                atexit.register(dismiss_keeper)
                _process.is_registered = True
        return _process.watch


def prepare_keeper(output_path: str) -> None:
    """Lets a keeper begin to start, where an output that is about to be claimed needs one. Does not wait for it."""
    if not output_path.startswith("memory://"):
        _the_watch().prepare(output_path)


def ready_keeper(output_path: str) -> None:
    """Has a keeper running where an output needs one. Blocks for a tenth of a second the first time.

    Raises:
        StorageError: It cannot be started.
    """
    if not output_path.startswith("memory://"):
        _the_watch().ready(output_path)


def dismiss_keeper() -> None:
    """Ends this process's keeper, unless a claim is held still; the next claim starts another. Takes milliseconds."""
    with _process.lock:
        watch = _process.watch
        if watch is not None:
            watch.dismiss()


def hold_claim(output_path: str, claimed: Claimed, *, awaits_start: bool = False, is_member: bool = False) -> HeldLease:
    """Has a claim kept from here on. The caller forgets it when it has ended the epoch.

    Args:
        output_path: Of the step.
        claimed: The claim.
        awaits_start: It is held for a job that has not started.
        is_member: It is held by the first process of a gang, and this is another one: it is watched, and not renewed.
    """
    kept = KeptClaim(output_path, claimed.claim, claimed.attempt, claimed.sent_at, awaits_start, is_member)
    lease = HeldLease(kept, claimed.sent_at, has_keeper=not output_path.startswith("memory://"))
    if lease.has_keeper:
        _the_watch().hold(lease)
    return lease


def forget_claim(lease: HeldLease) -> None:
    """Says that an epoch has ended, or that nobody is to renew its claim any more."""
    if lease.has_keeper:
        _the_watch().forget(lease.kept.attempt)
    with _ends:
        _ends.notify_all()
    for hear in _hearers:
        hear(lease.kept.output_path)


def wait_for_an_end(seconds: float) -> None:
    """Waits so long, or until an attempt of this process has ended: it may be the one that is waited for."""
    with _ends:
        _ends.wait(seconds)


@contextlib.contextmanager
def hearing_of_ends(hear: Callable[[str], None]) -> Generator[None, None, None]:
    """In the block, is called with each output path at which an attempt of this process has ended, in its thread."""
    _hearers.append(hear)
    try:
        yield
    finally:
        _hearers.remove(hear)


def _forget_after_fork() -> None:
    global _process, _ends  # noqa: PLW0603 - a forked child holds none of its parent's claims
    _process = _Process()
    _ends = threading.Condition()
    _hearers.clear()


os.register_at_fork(after_in_child=_forget_after_fork)
