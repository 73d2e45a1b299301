"""What this machine has: looked up when a step asks, never at import."""

import os
from dataclasses import dataclass
from glob import glob
from typing import final

__all__ = ["Machine", "this_machine", "usable_cores"]


@final
@dataclass(frozen=True, slots=True)
class Machine:
    """What steps can be given here."""

    cores: int
    ram_bytes: int | None
    gpus: int
    tpus: int


def this_machine() -> Machine:
    """Looks at the devices that the operating system shows; no driver is loaded."""
    return Machine(
        cores=usable_cores(),
        ram_bytes=_ram_bytes(),
        gpus=len(glob("/dev/nvidia[0-9]*")),
        tpus=len(glob("/dev/accel[0-9]*")) or len(glob("/dev/vfio/[0-9]*")),
    )


def usable_cores() -> int:
    """The cores that this process may run on, where the system tells; else all of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ram_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):  # a system that does not tell
        return None
