"""How the functions of this library report what they did."""

import dataclasses
import logging
from typing import Any

logger = logging.getLogger(__name__)

FINISHED: list[tuple[str, Any]] = []
"""What has been done in this process: the name of each function, with the config that it was given."""


def finish(job: str, config: Any) -> None:
    """Notes that a job has done its work."""
    if not dataclasses.is_dataclass(config):
        raise TypeError(f"{job} was given no config: {config!r}")
    FINISHED.append((job, config))
    logger.info(f"{job} is done")
