"""Run records, read back: which runs there were under a prefix, newest first, and what each did.

A record's name holds the run and, where one is known, the experiment: one listing finds the runs of an experiment.
"""

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast, final

from marin_trace.storage.bounded import LARGEST_RUN_RECORD, parsed_json
from marin_trace.storage.control_store import patient_store_for
from marin_trace.storage.files import join

__all__ = ["RecordedRun", "experiment_slug", "finished_entries", "list_runs", "read_runs", "record_name"]

logger = logging.getLogger(__name__)

_SUFFIX: Final = ".json"


@final
@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A run that left a record."""

    run_id: str
    experiment: str | None
    """What is left of the experiment's name in a file's name; None where the run had none."""
    path: str
    """Of the record."""


def experiment_slug(experiment: str) -> str:
    """An experiment's name as it stands in the names of its records."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", experiment)


def record_name(run_id: str, experiment: str | None) -> str:
    """The file name of a run's record.

    Example:
        >>> record_name("20260131-235959-1a2b3c", "experiments.hello")
        '20260131-235959-1a2b3c.experiments.hello.json'
    """
    return f"{run_id}.{experiment_slug(experiment)}{_SUFFIX}" if experiment else f"{run_id}{_SUFFIX}"


def list_runs(directory: str, *, experiment: str | None = None) -> list[RecordedRun]:
    """The runs that left a record, newest first. One listing.

    Args:
        directory: Where run records lie.
        experiment: Only its runs; None: all.
    """
    found: list[RecordedRun] = []
    wanted = None if experiment is None else experiment_slug(experiment)
    for name in patient_store_for(directory).list(directory):
        run_id, _, slug = name.removesuffix(_SUFFIX).partition(".")
        if name.endswith(_SUFFIX) and (wanted is None or slug == wanted):
            found.append(RecordedRun(run_id, slug or None, join(directory, name)))
    found.sort(key=lambda run: run.run_id, reverse=True)
    return found


def read_runs(runs: Sequence[RecordedRun]) -> list[dict[str, Any] | None]:
    """The records of some runs, side by side; None for one that is gone or is no record, which is told in the log."""
    if not runs:
        return []
    contents = patient_store_for(runs[0].path).get_many([run.path for run in runs], limit=LARGEST_RUN_RECORD)
    return [_parsed(run, content) for run, content in zip(runs, contents, strict=True)]


def _parsed(run: RecordedRun, content: bytes | None) -> dict[str, Any] | None:
    if content is None:
        return None
    try:
        record = parsed_json(content)
    except ValueError as error:
        logger.warning(f"the run record {run.path} cannot be read: {error}")
        return None
    if not isinstance(record, dict) or not isinstance(cast("dict[str, Any]", record).get("steps"), list):
        logger.warning(f"the run record {run.path} holds no steps")
        return None
    return cast("dict[str, Any]", record)


def finished_entries(record: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """The steps of a run's record whose outputs were there when it ended."""
    return (step for step in record["steps"] if step.get("outcome") in ("hit", "succeeded"))
