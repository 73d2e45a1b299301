"""Which place in a gang an engine gave this process: told by environment variables, which every adapter sets.

A gang is a job of several processes that run one step together, as the hosts of a TPU slice do.
"""

import os
from dataclasses import dataclass
from typing import Final, final

__all__ = ["ATTEMPT_VARIABLE", "HOST_VARIABLE", "RANK_VARIABLE", "SIZE_VARIABLE", "GangSeat", "gang_seat"]

RANK_VARIABLE: Final = "MARIN_TRACE_RANK"
SIZE_VARIABLE: Final = "MARIN_TRACE_GANG_SIZE"
ATTEMPT_VARIABLE: Final = "MARIN_TRACE_GANG_ATTEMPT"
"""The same for all processes that an engine started together, another one when it starts them again."""
HOST_VARIABLE: Final = "MARIN_TRACE_GANG_HOST"
"""How the others reach this process's machine, where the engine knows better than the machine itself."""


@final
@dataclass(frozen=True, slots=True)
class GangSeat:
    """A place in a gang."""

    rank: int
    size: int
    attempt: str | None = None
    """What tells this gang from earlier ones of its job; None where the engine does not say."""
    host: str | None = None

    def to_environment(self) -> dict[str, str]:
        """As variables for the process."""
        optional = {ATTEMPT_VARIABLE: self.attempt, HOST_VARIABLE: self.host}
        told = {name: value for name, value in optional.items() if value is not None}
        return {RANK_VARIABLE: str(self.rank), SIZE_VARIABLE: str(self.size), **told}


def gang_seat() -> GangSeat | None:
    """This process's place; None: it works alone."""
    size = int(os.environ.get(SIZE_VARIABLE, "1"))
    if size == 1:
        return None
    return GangSeat(
        int(os.environ[RANK_VARIABLE]), size, os.environ.get(ATTEMPT_VARIABLE), os.environ.get(HOST_VARIABLE)
    )
