"""Which place in a gang an engine gave this process: told by environment variables, which every adapter sets.

A gang is a job of several processes that run one step together, as the hosts of a TPU slice do.
"""

import os
from dataclasses import dataclass
from typing import Final, final

__all__ = [
    "ATTEMPT_VARIABLE",
    "HOST_VARIABLE",
    "NOTICE_VARIABLE",
    "RANK_VARIABLE",
    "SIZE_VARIABLE",
    "GangSeat",
    "gang_seat",
]

RANK_VARIABLE: Final = "MARIN_TRACE_RANK"
SIZE_VARIABLE: Final = "MARIN_TRACE_GANG_SIZE"
ATTEMPT_VARIABLE: Final = "MARIN_TRACE_GANG_ATTEMPT"
"""The same for all processes that an engine started together, another one when it starts them again."""
HOST_VARIABLE: Final = "MARIN_TRACE_GANG_HOST"
"""How the others reach this process's machine, where the engine knows better than the machine itself."""
NOTICE_VARIABLE: Final = "MARIN_TRACE_GANG_NOTICE_S"
"""Within how many seconds the engine has noticed that a process is gone, and ends or restarts the gang."""
_NOTICE_S: Final = 10.0
"""Of clusters, for a process that died on a machine that lives. Where a machine vanishes, who waits for it does so for
longer than the engine takes to notice: a connection without an answer breaks after minutes."""


@final
@dataclass(frozen=True, slots=True)
class GangSeat:
    """A place in a gang."""

    rank: int
    size: int
    attempt: str | None = None
    """What tells this gang from earlier ones of its job; None where the engine does not say."""
    host: str | None = None
    notice_s: float = _NOTICE_S
    """See `NOTICE_VARIABLE`."""

    def to_environment(self) -> dict[str, str]:
        """As variables for the process."""
        optional = {ATTEMPT_VARIABLE: self.attempt, HOST_VARIABLE: self.host}
        told = {name: value for name, value in optional.items() if value is not None}
        always = {RANK_VARIABLE: self.rank, SIZE_VARIABLE: self.size, NOTICE_VARIABLE: self.notice_s}
        return {**{name: f"{value:g}" for name, value in always.items()}, **told}


def gang_seat() -> GangSeat | None:
    """This process's place; None: it works alone."""
    size = int(os.environ.get(SIZE_VARIABLE, "1"))
    if size == 1:
        return None
    return GangSeat(
        int(os.environ[RANK_VARIABLE]),
        size,
        os.environ.get(ATTEMPT_VARIABLE),
        os.environ.get(HOST_VARIABLE),
        float(os.environ.get(NOTICE_VARIABLE, _NOTICE_S)),
    )
