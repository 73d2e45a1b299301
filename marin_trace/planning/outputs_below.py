"""The outputs below a prefix with the status of each, and the steps that run records know.

A directory is asked for its attempt log first: an output is known by that (or by an older system's status token), and
nothing below it is listed. Only what is no output is looked into, one level at a time; a listing of data never happens
where there is a log. The requests of one level go side by side.
"""

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast, final

from marin_trace.errors import ControlFileError, StorageError, StoreRefusedError
from marin_trace.lowering.paths import HASH_DIGITS
from marin_trace.runtime.records import RUN_RECORDS_DIRECTORY
from marin_trace.runtime.run_history import list_runs, read_runs
from marin_trace.runtime.status import StatusKind, StepStatus, read_status, read_statuses
from marin_trace.storage.control_store import is_object_store, patient_store_for

__all__ = [
    "RecordedStep",
    "Unreadable",
    "is_output",
    "name_of_output",
    "outputs_below",
    "recorded_steps",
    "statuses_of",
]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_CONCURRENCY: Final = 64
_HASH: Final = re.compile(rf"-[0-9a-f]{{{HASH_DIGITS}}}$")


@final
@dataclass(frozen=True, slots=True)
class Unreadable:
    """An output whose log cannot be read."""

    problem: str
    """In a line."""


@final
@dataclass(frozen=True, slots=True)
class RecordedStep:
    """A step as the newest run record that has it tells of it."""

    name: str
    output_path: str
    outcome: str
    run_id: str
    is_latest: bool
    """Whether that is the newest run of its experiment."""
    cause: str | None = None
    """The output path of the step because of whose failure it was skipped."""


def outputs_below(prefix: str) -> dict[str, StepStatus | Unreadable]:
    """The status of every output at and below a prefix, by output path, sorted.

    Costs two requests for each output, and four for each directory above one.

    Raises:
        StorageError: The prefix cannot be listed. A directory below it that may not be read is told in the log.
    """
    found: dict[str, StepStatus | Unreadable] = {}
    records = f"{prefix}/{RUN_RECORDS_DIRECTORY}"
    level = [prefix]
    while level:
        found |= {path: status for path, status in statuses_of(level).items() if is_output(status)}
        rest = [path for path in level if path not in found and path != records]
        listing = _directories_in if rest == [prefix] else _readable_directories_in
        level = [path for below in _side_by_side(listing, rest) for path in below]
    return dict(sorted(found.items()))


def statuses_of(output_paths: Sequence[str]) -> dict[str, StepStatus | Unreadable]:
    """The status of each output; one whose log is damaged hides no other.

    Raises:
        StorageError: The store cannot be used.
    """
    try:
        return dict(read_statuses(output_paths))
    except ControlFileError:
        return dict(zip(output_paths, _side_by_side(_status_or_problem, output_paths), strict=True))


def _status_or_problem(path: str) -> StepStatus | Unreadable:
    try:
        return read_status(path)
    except ControlFileError as error:
        return Unreadable(str(error).partition("\n")[0])


def is_output(status: StepStatus | Unreadable) -> bool:
    """Whether something was ever built there, or begun."""
    return isinstance(status, Unreadable) or status.kind is not StatusKind.MISSING or status.foreign_run


def _directories_in(directory: str) -> list[str]:
    names = patient_store_for(directory).list_directories(directory)
    return [f"{directory}/{name}" for name in names if not name.startswith(".")]


def _readable_directories_in(directory: str) -> list[str]:
    try:
        return _directories_in(directory)
    except StoreRefusedError as error:
        logger.warning(f"{str(error).partition(chr(10))[0]}: what lies there is not shown")
        return []


def _side_by_side(act: Callable[[str], T], paths: Sequence[str]) -> list[T]:
    if not any(map(is_object_store, paths)):
        return [act(path) for path in paths]
    with ThreadPoolExecutor(min(_CONCURRENCY, len(paths)), thread_name_prefix="marin-trace-outputs") as pool:
        return list(pool.map(act, paths))


def name_of_output(output_path: str, prefix: str) -> str:
    """What a step was called, as its output path tells it: below the prefix, without hash.

    Example:
        >>> name_of_output("/data/tokenize/web-1a2b3c4d", "/data"), name_of_output("/other/web", "/data")
        ('tokenize/web', '/other/web')
    """
    return _HASH.sub("", output_path.removeprefix(f"{prefix}/"))


def recorded_steps(directory: str, *, experiment: str | None = None, newest: int) -> dict[str, RecordedStep]:
    """The steps of the newest runs, by output path, each as the newest record that has it tells of it.

    A record that cannot be read is told in the log and passed over.

    Args:
        directory: Where run records lie.
        experiment: Only its runs; None: all.
        newest: How many records are read.
    """
    steps: dict[str, RecordedStep] = {}
    try:
        runs = list_runs(directory, experiment=experiment)[:newest]
        records = read_runs(runs)
    except StorageError as error:
        logger.warning(f"run records in {directory} cannot be read: {str(error).partition(chr(10))[0]}")
        return steps
    seen: set[str | None] = set()
    for run, record in zip(runs, records, strict=True):
        is_latest = run.experiment not in seen
        seen.add(run.experiment)
        for entry in _entries(record):
            path = entry.get("output_path")
            if isinstance(path, str) and path not in steps:
                name, outcome = str(entry.get("name")), str(entry.get("outcome"))
                cause = entry.get("cause")
                steps[path] = RecordedStep(
                    name, path, outcome, run.run_id, is_latest, cause if isinstance(cause, str) else None
                )
    return steps


def _entries(record: Mapping[str, Any] | None) -> Iterable[Mapping[str, Any]]:
    entries: list[Any] = (record or {}).get("steps", [])
    return (cast("dict[str, Any]", entry) for entry in entries if isinstance(entry, dict))
