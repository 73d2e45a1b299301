"""Finished outputs that steps could adopt: found by name, and weighed. Reads, and writes nothing."""

import itertools
import posixpath
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, final

from marin_trace.planning.words import age_text, size_text
from marin_trace.runtime.log_records import AttemptLog
from marin_trace.runtime.manifest import data_files
from marin_trace.runtime.run_plan import RunnableStep, RunPlan
from marin_trace.runtime.status import StepStatus, read_statuses
from marin_trace.storage.control_store import patient_store_for
from marin_trace.storage.files import written_at

__all__ = ["Adoptable", "outputs_of_older_steps", "outputs_to_adopt", "weighed"]

_HASHED: Final = re.compile(r"(?P<name>.+)-[0-9a-f]{6}")
"""How the older executor named the directories of outputs."""
_SEARCHED: Final = 200
"""Steps of a plan for which older outputs are looked for: nobody reads about more."""
_LOOKED_AT: Final = 20
"""Outputs of one name whose status a plan reads."""
_LISTERS: Final = 16
_WEIGHED: Final = 20
"""Steps of a plan for which an older output is listed for its size."""


@final
@dataclass(frozen=True, slots=True)
class Adoptable:
    """A finished output."""

    output_path: str
    size: int
    """Bytes of its data."""
    age_seconds: float | None
    """Since it was finished; None where nothing tells."""

    def __str__(self) -> str:
        return f"{self.output_path}, {size_text(self.size)}, {age_text(self.age_seconds)}"


def outputs_of_older_steps(
    steps: Iterable[RunnableStep], prefix: str, *, at_most: int | None = None
) -> dict[str, tuple[str, ...]]:
    """The finished outputs that the older executor would have given to steps of these names.

    Args:
        steps: With different output paths.
        prefix: Under which outputs lie.
        at_most: How many outputs of a name are looked at; None: all.

    Returns:
        Output paths by output path of the step; without steps that have none. One listing for each directory.
    """
    wanted = {step.output_path: f"{prefix}/{step.name}" for step in steps}
    names_by_parent: dict[str, set[str]] = defaultdict(set)
    for path in wanted.values():
        parent, _, name = path.rpartition("/")
        names_by_parent[parent].add(name)
    found: dict[str, list[str]] = {}
    with ThreadPoolExecutor(_LISTERS, thread_name_prefix="marin-trace-list") as pool:
        for listed in pool.map(_hashed_directories, names_by_parent, names_by_parent.values()):
            found |= {unhashed: paths[:at_most] for unhashed, paths in listed.items()}
    statuses = read_statuses(path for paths in found.values() for path in paths)
    finished = {
        own: tuple(path for path in found.get(unhashed, ()) if path != own and statuses[path].is_finished)
        for own, unhashed in wanted.items()
    }
    return {own: paths for own, paths in finished.items() if paths}


def _hashed_directories(parent: str, names: Collection[str]) -> dict[str, list[str]]:
    """By path without hash: the directories in ``parent`` that are named as outputs of some names were."""
    found: dict[str, list[str]] = defaultdict(list)
    starting = posixpath.commonprefix(list(names))
    for directory in patient_store_for(parent).list_directories(parent, starting=starting):
        matched = _HASHED.fullmatch(directory)
        if matched is not None and matched["name"] in names:
            found[f"{parent}/{matched['name']}"].append(f"{parent}/{directory}")
    return found


def outputs_to_adopt(run_plan: RunPlan, prefix: str) -> dict[str, str]:
    """What is to be said of outputs that would be computed again, though an older one of the name lies there.

    Args:
        run_plan: What the runner decided.
        prefix: Under which outputs lie.

    Returns:
        Words, by output path of the step; of the first steps only, where there are many.

    Raises:
        StorageError: What lies under the prefix cannot be listed.
    """
    missing = [run_plan.steps[path] for path in run_plan.to_run if not run_plan.is_finished(path)]
    if not missing:
        return {}
    found = outputs_of_older_steps(missing[:_SEARCHED], prefix, at_most=_LOOKED_AT)
    statuses = read_statuses(path for paths in found.values() for path in paths)
    return {own: _in_words(paths, statuses) for own, paths in itertools.islice(found.items(), _WEIGHED)}


def _in_words(paths: Sequence[str], statuses: Mapping[str, StepStatus]) -> str:
    newest = min(paths, key=lambda path: _age_of(path, statuses[path]) or 0.0)
    shown = weighed(newest, statuses[newest])
    if len(paths) == 1:
        return f"an output of this name exists: {shown}: adopt it?"
    return f"{len(paths)} outputs of this name exist, the newest {shown}: adopt one?"


def weighed(output_path: str, status: StepStatus) -> Adoptable:
    """An output with its size and age. Lists all its files."""
    files = data_files(output_path).values()
    return Adoptable(output_path, sum(file.size for file in files), _age_of(output_path, status))


def _moment(text: str | None) -> float | None:
    try:
        return None if text is None else datetime.fromisoformat(text).timestamp()
    except ValueError:  # it is for people alone: whoever wrote it may have written anything
        return None


def _age_of(output_path: str, status: StepStatus) -> float | None:
    finished = _moment(status.ended_at) or written_at(AttemptLog(output_path).status_token)
    return None if finished is None else max(0.0, datetime.now(UTC).timestamp() - finished)
