"""Other processes of this machine: their state, their descendants, and their death. Standard library only.

Linux is read through /proc, and death is awaited with pidfds; elsewhere ``ps`` is asked.
"""

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

__all__ = ["await_death", "carriers_of", "descendants_of", "is_stopped", "kill_all"]

_PROCESSES: Final = Path("/proc")
_POLL_S: Final = 0.02
"""Between two looks at processes that cannot be awaited."""


def is_stopped(pid: int) -> bool:
    """Whether a process is suspended by a signal or a tracer; False for one that is gone."""
    return _state_of(pid) in ("T", "t")


def descendants_of(pid: int) -> set[int]:
    """The processes below a process, as far as their parents still live."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents().items():
        children.setdefault(parent, []).append(child)
    found: set[int] = set()
    pending = [pid]
    while pending:
        below = [child for child in children.get(pending.pop(), []) if child not in found]
        found.update(below)
        pending += below
    return found


def carriers_of(nonce: str, *, sparing: str | None = None) -> set[int]:
    """This user's processes whose environment holds a nonce. Only where there is /proc.

    Args:
        nonce: What to look for.
        sparing: Processes whose environment holds this are left out.
    """
    if not _PROCESSES.is_dir():
        return set()
    found: set[int] = set()
    user, needle, spared = os.getuid(), nonce.encode(), sparing and sparing.encode()
    with os.scandir(_PROCESSES) as entries:
        for entry in entries:
            # A process may end, or be another user's, at any instant of this.
            with contextlib.suppress(OSError):
                if entry.name.isdecimal() and os.stat(entry.path).st_uid == user:
                    environment = Path(entry.path, "environ").read_bytes()
                    if needle in environment and not (spared and spared in environment):
                        found.add(int(entry.name))
    return found


def kill_all(pids: Iterable[int], find_more: Callable[[], set[int]], *, limit_s: float) -> bool:
    """Kills processes and waits for their death, until no more are found twice in a row.

    Args:
        pids: The first to be killed.
        find_more: Looks for those that were started meanwhile; must not find the caller.
        limit_s: For how long, at most: one in an uninterruptible call does not die.

    Returns:
        Whether all are dead.
    """
    deadline = time.monotonic() + limit_s
    pending, empty_looks = set(pids), 0
    while empty_looks < 2:
        for pid in pending:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not all(await_death(pid, limit_s=deadline - time.monotonic()) for pid in pending):
            return False
        pending = find_more()
        empty_looks = 0 if pending else empty_looks + 1
    return True


def await_death(pid: int, *, limit_s: float) -> bool:
    """Waits until a process has ended; one that its parent has not waited for counts as ended.

    Returns:
        False if it lives on after the limit.
    """
    if hasattr(os, "pidfd_open"):
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        try:
            return bool(select.select([descriptor], [], [], max(0.0, limit_s))[0])
        finally:
            os.close(descriptor)
    deadline = time.monotonic() + limit_s
    while _state_of(pid) not in ("", "Z"):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _state_of(pid: int) -> str:
    """The one letter of a process's state; empty for one that is gone."""
    if _PROCESSES.is_dir():
        try:
            status = Path(_PROCESSES, str(pid), "stat").read_bytes()
        except OSError:
            return ""
        # The second field, the command's name, may hold anything but ends with the last parenthesis.
        return status.rpartition(b")")[2].split()[0].decode()
    shown = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout.strip()[:1]


def _parents() -> dict[int, int]:
    """The parent of each process."""
    if not _PROCESSES.is_dir():
        shown = subprocess.run(["ps", "-axo", "pid=,ppid="], capture_output=True, text=True, check=True)
        pairs = (line.split() for line in shown.stdout.splitlines())
        return {int(pid): int(parent) for pid, parent in pairs}
    parents: dict[int, int] = {}
    for name in os.listdir(_PROCESSES):
        with contextlib.suppress(OSError):
            if name.isdecimal():
                status = Path(_PROCESSES, name, "stat").read_bytes()
                parents[int(name)] = int(status.rpartition(b")")[2].split()[1])
    return parents
