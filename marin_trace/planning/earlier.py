"""Earlier builds of a step: from the records of this experiment's runs, else what lies beside its output.

Reads, and writes nothing. What is read grows with what has to be explained, never with what lies under the prefix:
at most a few run records, one listing for each directory, and no more recipes than the plan has steps.
"""

import difflib
import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast, final

from marin_trace.runtime.records import read_step_infos
from marin_trace.runtime.run_history import RecordedRun, finished_entries, list_runs, read_runs
from marin_trace.runtime.run_plan import RunnableStep
from marin_trace.storage.control_store import patient_store_for
from marin_trace.storage.files import modified_at

__all__ = ["Earlier", "EarlierBuild", "EarlierRuns", "builds_beside", "nearest_builds"]

_RUNS_LOOKED_AT: Final = 5
"""The newest may have run a part of the experiment, or have failed: a build is then looked for in the ones before."""
_SIBLINGS: Final = 20
"""Builds of a name that are compared, the newest."""
_HASHED: Final = re.compile(r"(?P<name>.+)-[0-9a-f]{8}")


@final
@dataclass(frozen=True, slots=True)
class Earlier:
    """What is known of earlier builds of a step."""

    is_same: bool = False
    """This very recipe was finished in an earlier run."""
    output_paths: tuple[str, ...] = ()
    """Of builds by other recipes, the likeliest first."""


@final
@dataclass(frozen=True, slots=True)
class EarlierBuild:
    """The earlier build that a step is compared with."""

    output_path: str
    parts: Mapping[str, str]
    """What its fingerprint was made of: readable text by config path; redacted."""


@final
@dataclass(slots=True)
class _RunIndex:
    """The finished steps of one run, and which names it had at all."""

    by_name: dict[str, list[Mapping[str, Any]]]
    by_origin: dict[tuple[str, tuple[str, ...]], list[Mapping[str, Any]]]
    """By template and functions."""


@final
class EarlierRuns:
    """The runs of one experiment, newest first; each is read when the ones after it did not say enough."""

    def __init__(self, directory: str, experiment: str | None, planned: Mapping[str, RunnableStep]) -> None:
        """Reads nothing yet.

        Args:
            directory: Where run records lie.
            experiment: Whose runs; None: those of no named one.
            planned: The steps of the plan by output path: what is still in it is no earlier build of another step.
        """
        self._directory = directory
        self._experiment = experiment
        self._planned = planned
        self._names = {step.name for step in planned.values()}
        self._runs: list[RecordedRun] | None = None
        self._indices: list[_RunIndex | None] = []

    def find(self, step: RunnableStep, *, newest_only: bool = False) -> Earlier | None:
        """What the runs know of a step: of its name, else of its template and functions under a name that is gone.

        Args:
            step: Of the plan.
            newest_only: Look at one run.

        Returns:
            None: no run knows an earlier build of it.
        """
        for number in range(1 if newest_only else _RUNS_LOOKED_AT):
            if not self._has(number):
                return None
            index = self._indices[number]
            if index is None:
                continue
            entries = index.by_name.get(step.name, ())
            if any(entry.get("fingerprint") == step.fingerprint for entry in entries):
                return Earlier(is_same=True)
            paths = self._other_paths(entries) or self._renamed(step, index)
            if paths:
                return Earlier(output_paths=tuple(paths[:_SIBLINGS]))
        return None

    def _other_paths(self, entries: Iterable[Mapping[str, Any]]) -> list[str]:
        return [entry["output_path"] for entry in entries if entry["output_path"] not in self._planned]

    def _renamed(self, step: RunnableStep, index: _RunIndex) -> list[str]:
        if step.template is None:
            return []
        entries = index.by_origin.get((step.template, tuple(step.functions)), ())
        left = [entry for entry in entries if entry["name"] not in self._names]
        near = difflib.get_close_matches(step.name, {entry["name"] for entry in left}, n=1, cutoff=0.0)
        return self._other_paths(entry for entry in left if entry["name"] in near)

    def _has(self, number: int) -> bool:
        """Whether there is such a run; reads its record."""
        if self._runs is None:
            runs = list_runs(self._directory, experiment=self._experiment)
            self._runs = [run for run in runs if self._experiment is not None or run.experiment is None]
        while len(self._indices) <= number < len(self._runs):
            record = read_runs([self._runs[len(self._indices)]])[0]
            self._indices.append(None if record is None else _indexed(finished_entries(record)))
        return number < len(self._runs)


def _indexed(entries: Iterable[dict[str, Any]]) -> _RunIndex:
    index = _RunIndex({}, {})
    for entry in entries:
        index.by_name.setdefault(entry["name"], []).append(entry)
        if entry.get("template") is not None:
            origin = (entry["template"], tuple(entry.get("functions") or ()))
            index.by_origin.setdefault(origin, []).append(entry)
    return index


def builds_beside(
    steps: Sequence[RunnableStep], prefix: str, *, without: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """Other builds of some steps' names under the prefix, newest first where the store tells; at most 20 of each.

    Args:
        steps: With different output paths.
        prefix: Under which outputs lie.
        without: Output paths that are no earlier builds.

    Returns:
        Output paths, by output path of the step.
    """
    names_by_parent: dict[str, set[str]] = defaultdict(set)
    for step in steps:
        parent, _, name = f"{prefix}/{step.name}".rpartition("/")
        names_by_parent[parent].add(name)
    found: dict[str, list[str]] = {}
    for parent, names in names_by_parent.items():
        found |= _builds_in(parent, names)
    return {
        step.output_path: _newest([path for path in found.get(f"{prefix}/{step.name}", ()) if path not in without])
        for step in steps
    }


def _builds_in(parent: str, names: Collection[str]) -> dict[str, list[str]]:
    """By path without hash: the directories in ``parent`` that are builds of some names."""
    found: dict[str, list[str]] = defaultdict(list)
    starting = os.path.commonprefix(list(names))  # noqa: RUF071 - of names, letter by letter
    for directory in patient_store_for(parent).list_directories(parent, starting=starting):
        matched = _HASHED.fullmatch(directory)
        if matched is not None and matched["name"] in names:
            found[posixpath.join(parent, matched["name"])].append(f"{parent}/{directory}")
    return found


def _newest(paths: Sequence[str]) -> tuple[str, ...]:
    if len(paths) > 1:
        # Clouds list directories without times: then any of them.
        paths = sorted(paths, key=lambda path: modified_at(path) or 0.0, reverse=True)
    return tuple(paths[:_SIBLINGS])


def nearest_builds(
    steps: Mapping[str, Mapping[str, str]], candidates: Mapping[str, Sequence[str]], *, at_most: int
) -> dict[str, EarlierBuild]:
    """For each step the candidate whose recipe has most fields in common with its own. One batch of reads.

    Args:
        steps: The parts of each step's recipe, redacted, by output path.
        candidates: Output paths of earlier builds for each, the likeliest first, which wins where two are as near.
        at_most: How many recipes may be read; where that is not enough for all, each gets fewer.

    Returns:
        By output path of the step; without those of whose candidates nothing can be read.
    """
    share = max(1, at_most // max(1, len(candidates)))
    wanted = {path: builds[:share] for path, builds in candidates.items()}
    infos = read_step_infos(dict.fromkeys(build for builds in wanted.values() for build in builds))
    nearest: dict[str, EarlierBuild] = {}
    for path, builds in wanted.items():
        known = [EarlierBuild(build, parts) for build in builds if (parts := _parts_of(infos.get(build)))]
        if known:
            mine = steps[path].items()
            nearest[path] = max(known, key=lambda build, mine=mine: len(mine & build.parts.items()))
    return nearest


def _parts_of(info: Mapping[str, Any] | None) -> dict[str, str] | None:
    parts: Any = info.get("parts") if info is not None else None
    return cast("dict[str, str]", parts) if isinstance(parts, dict) else None
