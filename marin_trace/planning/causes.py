"""Why steps are missing: which step changed first, and in which fields. What is below it is explained by its name."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, final

from marin_trace.lowering.paths import HASH_DIGITS
from marin_trace.planning.earlier import Earlier, EarlierBuild, EarlierRuns, builds_beside, nearest_builds
from marin_trace.planning.plan import Explanation, read_deps_of
from marin_trace.runtime.records import FieldChange, field_differences
from marin_trace.runtime.redaction import redact_parts
from marin_trace.runtime.run_plan import RunnableStep, RunPlan

__all__ = ["Causes", "find_causes"]

_ROUNDS: Final = 4
"""How often what lies beside outputs is looked for: each round goes below what the one before found to be new."""
_SEARCHED: Final = 100
"""Steps whose neighbours are looked for, where no run record knows them: nobody reads more first causes than that."""
_LEAST_READS: Final = 100
_UPSTREAM: Final = 50
"""How far a difference is followed from input to input."""


@final
@dataclass(frozen=True, slots=True)
class Causes:
    """What is known of the steps that are missing, by output path."""

    explanations: Mapping[str, Explanation] = field(default_factory=dict[str, Explanation])
    """Of missing steps, and of finished ones that changed first."""
    gone: frozenset[str] = frozenset()
    """Missing ones that an earlier run had finished by this very recipe."""


def find_causes(run_plan: RunPlan, runs: EarlierRuns, prefix: str) -> Causes:
    """Explains what a run would build.

    Args:
        run_plan: What the runner decided.
        runs: Of this experiment.
        prefix: Under which outputs lie.

    Raises:
        StorageError: Records or earlier builds cannot be read.
    """
    missing = frozenset(path for path in run_plan.to_run if not run_plan.is_finished(path))
    if not missing:
        return Causes()
    search = _Search(run_plan, runs, prefix, missing)
    search.decide()
    return search.causes()


@final
@dataclass(slots=True)
class _Search:
    """The state of one search: what is decided of each step, and what was found of the earlier builds."""

    run_plan: RunPlan
    runs: EarlierRuns
    prefix: str
    missing: Collection[str]
    cause_by_path: dict[str, str | None] = field(default_factory=dict[str, str | None])
    """The step that changed first; None: nothing did, as far as is known."""
    builds: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """The earlier builds of steps that changed first."""
    gone: set[str] = field(default_factory=set[str])

    def decide(self) -> None:
        """Finds the step that changed first for each missing one; reads run records and listings."""
        left = _SEARCHED
        for _ in range(_ROUNDS):
            unknown = self._decide_by_records()[:left]
            if not unknown:
                return
            left -= len(unknown)
            found = builds_beside(unknown, self.prefix, without=self.run_plan.steps)
            for step in unknown:
                self._settle(step.output_path, Earlier(output_paths=found[step.output_path]))
        self._decide_by_records()

    def _decide_by_records(self) -> list[RunnableStep]:
        """Decides what can be decided without looking beside outputs; gives back what cannot, nearest the sources."""
        unknown: list[RunnableStep] = []
        open_paths: set[str] = set()
        for path, step in self.run_plan.steps.items():
            if path in self.cause_by_path:
                continue
            read = [dep.output_path for dep in read_deps_of(step)]
            upstream = next((cause for dep in read if (cause := self.cause_by_path.get(dep)) is not None), None)
            if path not in self.missing:
                self._settle(path, self.runs.find(step, newest_only=True), upstream)
            elif upstream is not None:
                self.cause_by_path[path] = upstream
            elif not open_paths.isdisjoint(read):
                open_paths.add(path)
            elif (earlier := self.runs.find(step)) is not None:
                self._settle(path, earlier)
            else:
                unknown.append(step)
                open_paths.add(path)
        return unknown

    def _settle(self, path: str, earlier: Earlier | None, upstream: str | None = None) -> None:
        if earlier is None or earlier.is_same or not earlier.output_paths:
            self.cause_by_path[path] = None
            if earlier is not None and earlier.is_same and path in self.missing:
                self.gone.add(path)
            return
        self.cause_by_path[path] = upstream or path
        if upstream is None:
            self.builds[path] = earlier.output_paths

    def causes(self) -> Causes:
        """Reads the recipes of the builds that are compared, and follows differences upstream."""
        steps = self.run_plan.steps
        first = {cause for path in self.missing if (cause := self.cause_by_path.get(path)) is not None}
        compared = _compared(steps, {path: self.builds[path] for path in steps if path in first})
        explanations: dict[str, Explanation] = {}
        for path in steps:
            cause = self.cause_by_path.get(path) if path in self.missing else None
            if path in compared:
                explanations[path] = Explanation(_source(path, compared), _own_changes(path, compared))
            elif cause is not None:
                explanations[path] = Explanation(_source(cause, compared))
        return Causes(explanations, frozenset(self.gone))


@final
@dataclass(frozen=True, slots=True)
class _Comparison:
    """A step beside an earlier build."""

    changes: tuple[FieldChange, ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict[str, str])
    """For changes of inputs: by config path, the output path of the step that is read."""
    is_read: bool = False
    """Whether there was something to compare with."""


def _own_changes(path: str, compared: Mapping[str, _Comparison]) -> tuple[FieldChange, ...]:
    """The changes that no input explains."""
    inputs = compared[path].inputs
    return tuple(change for change in compared[path].changes if not _is_read(inputs.get(change.path), compared))


def _source(path: str, compared: Mapping[str, _Comparison]) -> str:
    """Where a chain of changed inputs begins."""
    while path in compared:
        inputs = compared[path].inputs.values()
        upstream = next((dep for dep in inputs if _is_read(dep, compared)), None)
        if upstream is None:
            return path
        path = upstream
    return path


def _is_read(path: str | None, compared: Mapping[str, _Comparison]) -> bool:
    return path is not None and path in compared and compared[path].is_read


def _compared(steps: Mapping[str, RunnableStep], builds: Mapping[str, tuple[str, ...]]) -> dict[str, _Comparison]:
    """Steps beside the nearest of their builds, and the inputs that explain the differences beside theirs."""
    compared: dict[str, _Comparison] = {}
    wanted = dict(builds)
    reads_left = max(_LEAST_READS, len(steps))
    for _ in range(_UPSTREAM):
        if not wanted or reads_left <= 0:
            break
        parts = {path: redact_parts(steps[path].recipe_parts()) for path in wanted}
        nearest = nearest_builds(parts, wanted, at_most=reads_left)
        reads_left -= len(wanted)
        further: dict[str, tuple[str, ...]] = {}
        for path in wanted:
            build = nearest.get(path)
            if build is None:
                compared[path] = _Comparison()
                continue
            inputs = _changed_inputs(steps[path], parts[path], build)
            further |= {dep: (old,) for dep, old in inputs.values() if dep in steps}
            changes = tuple(field_differences(build.parts, parts[path]))
            compared[path] = _Comparison(changes, {key: dep for key, (dep, _) in inputs.items()}, is_read=True)
        wanted = {path: old for path, old in further.items() if path not in compared}
    return compared


def _changed_inputs(step: RunnableStep, parts: Mapping[str, str], build: EarlierBuild) -> dict[str, tuple[str, str]]:
    """The inputs that are of the same name as before and built by another recipe.

    Returns:
        By config path: the input's output path, and that of the earlier build.
    """
    changed: dict[str, tuple[str, str]] = {}
    for path, text in parts.items():
        old = build.parts.get(path)
        if old is None or old == text:
            continue
        for dep in read_deps_of(step):
            head = dep.name_with_hash
            length, kept = len(head), len(head) - HASH_DIGITS
            is_same_use = old[:kept] == head[:kept] and old[length:] == text[length:]
            if text.startswith(head) and is_same_use and dep.output_path.endswith(head):
                changed[path] = (dep.output_path, dep.output_path[:-HASH_DIGITS] + old[kept:length])
    return changed
