"""Whether the process that made a claim still lives on this machine, so that a re-run after a crash never waits.

Every process that claims holds, as long as it lives, an flock on a file in this machine's runtime directory, named by
a nonce of its own; and every process that it starts inherits that nonce in the environment variable
``MARIN_TRACE_OWNERS``. If the file is here and can be locked, and no process of this user carries the nonce, then the
owner and all its children are dead. A file that is not here says nothing: the owner may be on another machine; nor
does one of another PID namespace, whose processes cannot be seen from here. One from before the machine's last boot
is a dead owner's.

A forked child shares its parent's open file, and so keeps the lock held as long as it lives.

A claim of this very process whose attempt has ended without ending its epoch (its store failed, say) is gone as well.
"""

import atexit
import contextlib
import fcntl
import getpass
import os
import re
import stat
import tempfile
import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

from marin_trace.errors import StorageError, explain
from marin_trace.runtime.clock import boottime
from marin_trace.runtime.log_records import ClaimRecord, StartRecord
from marin_trace.storage.bounded import read_regular_file

__all__ = [
    "OWNERS_VARIABLE",
    "claiming",
    "leave_claim_open",
    "liveness_descriptor",
    "living_attempt",
    "owner_is_gone",
    "process_nonce",
    "runtime_directory",
]

OWNERS_VARIABLE: Final = "MARIN_TRACE_OWNERS"
"""Nonces of the claiming processes above a process, separated by colons."""

_PROCESSES = Path("/proc")
_NONCE: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_BIRTH_BYTES: Final = 1000
"""More than a liveness file holds."""


@final
@dataclass(slots=True)
class _Identity:
    """This process's nonce and the locked file that it holds open until it dies."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    nonce: str | None = None
    descriptor: int | None = None
    attempts: set[str] = field(default_factory=set[str])
    """Nonces of the attempts of this process that run at this moment."""
    left_open: bool = False
    """Whether a claim of this process could not be ended: its death must then be visible."""
    gone: set[str] = field(default_factory=set[str])
    """Nonces found dead: death is final, and looking takes milliseconds."""


_identity = _Identity()


def process_nonce() -> str:
    """This process's nonce; the first call creates and locks its liveness file. Thread-safe.

    Raises:
        StorageError: No runtime directory can be used.
    """
    with _identity.lock:
        if _identity.nonce is None:
            nonce = os.urandom(12).hex()
            _identity.descriptor = _hold(runtime_directory() / nonce)
            above = os.environ.get(OWNERS_VARIABLE)
            os.environ[OWNERS_VARIABLE] = f"{above}:{nonce}" if above else nonce
            _identity.nonce = nonce
            atexit.register(_remove_file, nonce)
        return _identity.nonce


def liveness_descriptor() -> int:
    """The open, locked file of this process: who inherits it keeps the lock as long as it lives."""
    process_nonce()
    descriptor = _identity.descriptor
    assert descriptor is not None
    return descriptor


@contextlib.contextmanager
def claiming() -> Generator[None, None, None]:
    """The block sends a claim: should it fail, the claim may have been made all the same."""
    try:
        yield
    except BaseException:
        leave_claim_open()
        raise


def leave_claim_open() -> None:
    """Says that a claim of this process could not be ended, so that its liveness file outlives it."""
    _identity.left_open = True


@contextlib.contextmanager
def living_attempt(nonce: str) -> Generator[None, None, None]:
    """Marks an attempt of this process as running, from before its claim until after its end.

    An interrupt may come between its claim and its end, and leave the claim open.
    """
    _identity.attempts.add(nonce)
    try:
        yield
    except Exception:
        raise
    except BaseException:
        leave_claim_open()
        raise
    finally:
        _identity.attempts.discard(nonce)


def owner_is_gone(claim: ClaimRecord | StartRecord) -> bool:
    """Whether a claim's owner (of a start: the job's process), and every process that it started, is certainly dead.

    Returns:
        False also where nothing is known: the file is not on this machine, a process of this user cannot be read, or
        the owner leads a gang.
    """
    if isinstance(claim, StartRecord) and claim.gang is not None:
        # Of its other processes this machine may know nothing.
        return False
    nonce = claim.process_nonce
    if not _NONCE.fullmatch(nonce):
        # It names a file of this machine, and was read from a store: anybody may have written it.
        return False
    if nonce == _identity.nonce:
        attempt = claim.attempt if isinstance(claim, StartRecord) else claim.nonce
        return attempt not in _identity.attempts
    if nonce in _identity.gone:
        return True
    path = runtime_directory() / nonce
    if not _lock_is_free(path) or not _is_deserted(nonce, _Birth.read(path)):
        return False
    _identity.gone.add(nonce)
    return True


def runtime_directory() -> Path:
    """This machine's directory for liveness files, private to the user, gone at the latest with the machine's boot.

    Raises:
        StorageError: What lies at its place is a link, belongs to somebody else, or is open to others.
    """
    user = os.getuid()
    for candidate in (os.environ.get("XDG_RUNTIME_DIR"), f"/run/user/{user}"):
        if candidate and os.path.isdir(candidate) and os.access(candidate, os.W_OK | os.X_OK):
            return _private(Path(candidate) / "marin_trace")
    return _private(Path(tempfile.gettempdir()) / f"marin_trace-{user}")


def _private(directory: Path) -> Path:
    """A directory, made if it is missing, that nobody else can read, write or have put there."""
    with contextlib.suppress(FileExistsError):  # a link, a file or another user's directory: looked at below
        directory.mkdir(mode=0o700)
    facts = directory.lstat()
    if facts.st_uid != os.getuid() or not stat.S_ISDIR(facts.st_mode) or facts.st_mode & 0o077:
        raise StorageError(
            explain(
                f"{directory} is not a private directory of {getpass.getuser()}",
                hint=f"chmod 700 {directory}, if it is yours; or set XDG_RUNTIME_DIR to a directory of your own",
            )
        )
    return directory


@final
@dataclass(frozen=True, slots=True)
class _Birth:
    """When and where a process made its liveness file: the file's content."""

    boot: str
    """Of the machine: its boot's id; empty where the system tells none."""
    namespace: str
    """Of PIDs; empty where there are none."""
    boottime_s: float
    """Seconds since that boot, suspend included: the clock of /proc's start times."""

    @classmethod
    def now(cls) -> "_Birth":
        """This process's."""
        return cls(_boot_id(), _pid_namespace(), boottime())

    @classmethod
    def read(cls, path: Path) -> "_Birth | None":
        """What a file says; None if its owner died before it had written it."""
        lines = read_regular_file(str(path), _BIRTH_BYTES).decode("ascii").splitlines()
        return cls(lines[0], lines[1], float(lines[2])) if len(lines) == 3 else None

    def to_text(self) -> str:
        """The file's content."""
        return f"{self.boot}\n{self.namespace}\n{self.boottime_s:.3f}\n"


def _hold(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.write(descriptor, _Birth.now().to_text().encode())
    return descriptor


def _remove_file(nonce: str) -> None:
    """At exit: nobody will ask about a process that has ended all its claims."""
    if nonce == _identity.nonce and not _identity.attempts and not _identity.left_open:
        (runtime_directory() / nonce).unlink(missing_ok=True)


def _boot_id() -> str:
    path = _PROCESSES / "sys" / "kernel" / "random" / "boot_id"
    return path.read_text(encoding="ascii").strip() if path.exists() else ""


def _pid_namespace() -> str:
    link = _PROCESSES / "self" / "ns" / "pid"
    return os.readlink(link) if link.is_symlink() else ""


def _lock_is_free(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _is_deserted(nonce: str, birth: _Birth | None) -> bool:
    """Whether nothing that the owner of a free lock started can still run."""
    if birth is not None and birth.boot != _boot_id():
        return True
    if birth is not None and birth.namespace != _pid_namespace():
        return False
    since = birth.boottime_s if birth else 0.0
    # Looked for twice: a process may fork between the reading of its directory entry and of its environment.
    return not (_somebody_carries(nonce, since) or _somebody_carries(nonce, since))


def _somebody_carries(nonce: str, since_s: float) -> bool:
    """Whether a process of this user has the nonce in its environment, or cannot be read. False without /proc."""
    if not _PROCESSES.is_dir():
        return False
    user, needle = os.getuid(), nonce.encode()
    with os.scandir(_PROCESSES) as entries:
        return any(_carries(entry.path, user, needle, since_s) for entry in entries if entry.name.isdecimal())


def _carries(process: str, user: int, needle: bytes, since_s: float) -> bool:
    try:
        if os.stat(process).st_uid != user:
            return False
        with open(f"{process}/environ", "rb") as stream:
            environment = stream.read()
        if environment:
            return needle in environment
        # For an instant within exec(2) there is none to be read, though there will be.
        return not _has_ended_or_is_the_kernels(process) and _began_since(process, since_s)
    except (FileNotFoundError, ProcessLookupError):
        return False
    except PermissionError:
        # What began before the owner was not started by it. Containers show such processes: their PID 1.
        return _began_since(process, since_s)


def _has_ended_or_is_the_kernels(process: str) -> bool:
    """Whether it is right that a process has no environment: a zombie has lost it, a kernel thread never had one."""
    with open(f"{process}/stat", "rb") as stream:
        state, parent = stream.read().rpartition(b")")[2].split()[:2]
    return state in (b"Z", b"X") or parent in (b"0", b"2")


def _began_since(process: str, since_s: float) -> bool:
    """Whether a process began after a moment, in seconds after boot; True if that cannot be told.

    The kernel gives starts in whole clock ticks, rounded down: one from within the tick of the moment counts.
    """
    try:
        with open(f"{process}/stat", "rb") as stream:
            # The second field, the command's name, may hold anything but ends with the last parenthesis.
            fields = stream.read().rpartition(b")")[2].split()
    except OSError:
        return True
    return (int(fields[19]) + 1) / os.sysconf("SC_CLK_TCK") > since_s


def _forget_after_fork() -> None:
    global _identity  # noqa: PLW0603 - a forked child is another process, with a nonce of its own
    _identity = _Identity()


os.register_at_fork(after_in_child=_forget_after_fork)
