"""The processes of one job that run side by side, as each of them sees itself.

The engine says it in environment variables: it starts every process of a gang with the same call.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

__all__ = ["Gang", "current_gang"]

_RANK: Final = "MARIN_TRACE_RANK"
_SIZE: Final = "MARIN_TRACE_GANG_SIZE"
_COORDINATOR: Final = "MARIN_TRACE_COORDINATOR"
_ATTEMPT: Final = "MARIN_TRACE_GANG_ATTEMPT"


@final
@dataclass(frozen=True, slots=True)
class Gang:
    """This process's place among those of its job."""

    rank: int
    """From 0."""
    size: int
    coordinator: str
    """``host:port`` on the machine of rank 0 that nothing listened to when the gang began: for
    ``jax.distributed.initialize``."""
    attempt: str
    """Names this start of the whole gang; every restart has another."""

    def as_variables(self) -> dict[str, str]:
        """The environment variables that say this."""
        return {
            _RANK: str(self.rank),
            _SIZE: str(self.size),
            _COORDINATOR: self.coordinator,
            _ATTEMPT: self.attempt,
        }


def current_gang(environment: Mapping[str, str] = os.environ) -> Gang | None:
    """The gang that this process belongs to; None where it is its job's only process."""
    if _RANK not in environment:
        return None
    return Gang(int(environment[_RANK]), int(environment[_SIZE]), environment[_COORDINATOR], environment[_ATTEMPT])
