"""The one clock by which leases are counted."""

import time
from typing import Final

__all__ = ["boottime"]

_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boottime() -> float:
    """Seconds since some instant of this machine's last boot: the same for all its processes, suspend counted.

    Where the system has no such clock, the monotonic one.
    """
    return time.clock_gettime(_CLOCK)
