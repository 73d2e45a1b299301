"""Past runs, as their records tell them: what a run did, and how two runs differ.

Records may be of another version, or damaged: what cannot be read is told, and never fatal. A run leaves its record
when it ends; one that goes on, or was killed, has none.
"""

import enum
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast, final

from marin_trace.errors import RunError, explain
from marin_trace.lowering.paths import name_with_hash
from marin_trace.runtime.records import FieldChange, field_differences, read_step_infos
from marin_trace.runtime.report import OutcomeKind
from marin_trace.runtime.run_history import RecordedRun, list_runs, read_runs

__all__ = ["PairKind", "PastRun", "PastStep", "RunComparison", "StepPair", "compare_runs", "find_run", "past_runs"]

_NEWEST_NAMED: Final = 5


@final
@dataclass(frozen=True, slots=True)
class PastStep:
    """What became of a step in a run."""

    name: str
    output_path: str
    outcome: str
    fingerprint: str = ""
    seconds: float = 0.0
    began_after: float | None = None
    """Seconds from the begin of the run; None if it never began."""
    attempt: int | None = None
    cause: str | None = None
    """Of a skipped step: the output path of the step that failed."""
    error: str | None = None
    """``Type: first line of the message``."""
    log: str | None = None

    @property
    def has_run(self) -> bool:
        """Whether its body ran to an end."""
        return self.outcome in ("succeeded", "failed")


@final
@dataclass(frozen=True, slots=True)
class PastRun:
    """A run that left a record."""

    recorded: RecordedRun
    facts: Mapping[str, Any]
    """The record without its steps; empty where it cannot be read."""
    steps: tuple[PastStep, ...] = ()
    problem: str | None = None
    """Why its record cannot be read."""

    @property
    def run_id(self) -> str:
        """Its name, which sorts by time."""
        return self.recorded.run_id

    @property
    def experiment(self) -> str | None:
        """As the record has it, else as its file's name does."""
        return self.text("experiment") or self.recorded.experiment

    @property
    def seconds(self) -> float | None:
        """How long it took."""
        return _number(self.facts.get("seconds"))

    @property
    def by(self) -> str | None:
        """``user@host``."""
        user, host = self._provenance.get("user"), self._provenance.get("host")
        return f"{user}@{host}" if user or host else None

    @property
    def commit(self) -> str | None:
        """Of the working directory; None outside a repository."""
        return _text(self._provenance.get("git_commit"))

    @property
    def is_dirty(self) -> bool:
        """Whether tracked files differed from the commit."""
        return self._provenance.get("git_dirty") is True

    @property
    def argv(self) -> tuple[str, ...]:
        """The command line of the run's process; of an older record what `parse_flags` had left of it."""
        argv = self._provenance.get("argv")
        return tuple(map(str, cast("list[object]", argv))) if isinstance(argv, list) else ()

    @property
    def packages(self) -> dict[str, str]:
        """Versions of installed packages."""
        return {name: str(version) for name, version in _mapping(self._provenance.get("packages")).items()}

    @property
    def _provenance(self) -> Mapping[str, Any]:
        return _mapping(self.facts.get("provenance"))

    def text(self, key: str) -> str | None:
        """A fact that is a text."""
        return _text(self.facts.get(key))

    def counts(self) -> dict[str, int]:
        """How many steps ended so: what was built first, then what was found, then the rest."""
        counts = Counter(step.outcome for step in self.steps)
        known = [OutcomeKind.SUCCEEDED.value, *(kind.value for kind in OutcomeKind)]
        return {outcome: counts[outcome] for outcome in dict.fromkeys((*known, *counts)) if counts[outcome]}

    def provenance_fact(self, key: str) -> str | None:
        """A fact of the launcher that is a text."""
        return _text(self._provenance.get(key))


def past_runs(directory: str, *, experiment: str | None = None, limit: int | None = None) -> list[PastRun]:
    """The runs that left a record, newest first. One listing, and one batch of reads.

    Args:
        directory: Where run records lie.
        experiment: Only its runs; None: all.
        limit: The newest so many; None: all.

    Raises:
        StorageError: The store cannot be read.
    """
    runs = list_runs(directory, experiment=experiment)[:limit]
    return [_told(run, record) for run, record in zip(runs, read_runs(runs), strict=True)]


def find_run(directory: str, word: str) -> PastRun:
    """The run that a word means: its id, or the begin or end of it.

    Raises:
        RunError: None, or several.
        StorageError: The store cannot be read.
    """
    runs = list_runs(directory)
    found = [run for run in runs if run.run_id == word]
    found = found or [run for run in runs if run.run_id.startswith(word) or run.run_id.endswith(word)]
    if len(found) == 1:
        return _told(found[0], read_runs(found)[0])
    if found:
        facts = [run.run_id for run in found[:_NEWEST_NAMED]] + (["…"] if len(found) > _NEWEST_NAMED else [])
        raise RunError(explain(f"{word} is the begin or end of {len(found)} runs' ids", facts=facts))
    newest = ", ".join(run.run_id for run in runs[:_NEWEST_NAMED])
    facts = {"newest": newest} if newest else {}
    raise RunError(explain(f"no run {word} left a record in {directory}", facts=facts, hint="marin-trace history"))


def _told(run: RecordedRun, record: dict[str, Any] | None) -> PastRun:
    if record is None:
        return PastRun(run, {}, problem=f"the record {run.path} cannot be read")
    steps = tuple(_step(_mapping(entry)) for entry in cast("list[object]", record["steps"]))
    return PastRun(run, {key: value for key, value in record.items() if key != "steps"}, steps)


def _step(entry: Mapping[str, Any]) -> PastStep:
    attempt = entry.get("epoch")
    return PastStep(
        name=_text(entry.get("name")) or "?",
        output_path=_text(entry.get("output_path")) or "",
        outcome=_text(entry.get("outcome")) or "?",
        fingerprint=_text(entry.get("fingerprint")) or "",
        seconds=_number(entry.get("seconds")) or 0.0,
        began_after=_number(entry.get("began_after")),
        attempt=attempt if isinstance(attempt, int) else None,
        cause=_text(entry.get("cause")),
        error=_error_line(_mapping(entry.get("error"))),
        log=_text(entry.get("log")),
    )


def _error_line(error: Mapping[str, Any]) -> str | None:
    if not error:
        return None
    first = (_text(error.get("message")) or "").strip().partition("\n")[0]
    kind = (_text(error.get("type")) or "?").rpartition(".")[2]
    return f"{kind}: {first}" if first else kind


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _mapping(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


class PairKind(enum.StrEnum):
    """What two runs have of a step."""

    SAME = "same"
    """The same recipe."""
    CHANGED = "changed"
    """Another recipe of the same name."""
    ADDED = "added"
    REMOVED = "removed"


@final
@dataclass(frozen=True, slots=True)
class StepPair:
    """A step in two runs."""

    name: str
    kind: PairKind
    old: PastStep | None
    new: PastStep | None
    changes: tuple[FieldChange, ...] = ()
    """Of a changed step: its own fields, as far as both recipes are still there to be read."""
    through: tuple[str, ...] = ()
    """Of a changed step: the names of changed steps that it reads."""


@final
@dataclass(frozen=True, slots=True)
class RunComparison:
    """How two runs differ."""

    old: PastRun
    new: PastRun
    facts: tuple[FieldChange, ...]
    """Of the runs themselves: commit, user, packages and so on."""
    steps: tuple[StepPair, ...]
    """Every step of either run, in the newer one's order, then those that are gone."""


def compare_runs(old: PastRun, new: PastRun) -> RunComparison:
    """How two runs differ: in themselves, in their steps' recipes, outcomes and times.

    Reads the recipes of the steps that changed.

    Raises:
        StorageError: The store cannot be read.
    """
    pairs = _paired(old.steps, new.steps)
    changed = [(before, after) for before, after in pairs if before and after and not _is_same(before, after)]
    infos = read_step_infos(dict.fromkeys(step.output_path for pair in changed for step in pair if step.output_path))
    renamed = {_head(before): (_head(after), after.name) for before, after in changed}
    steps = [_pair(before, after, infos, renamed) for before, after in pairs]
    return RunComparison(old, new, tuple(field_differences(_facts(old), _facts(new))), tuple(steps))


def _is_same(old: PastStep, new: PastStep) -> bool:
    return (old.fingerprint, old.output_path) == (new.fingerprint, new.output_path)


def _head(step: PastStep) -> str:
    """How a recipe that reads the step begins to say so."""
    return name_with_hash(step.name, step.fingerprint)


def _paired(old: Sequence[PastStep], new: Sequence[PastStep]) -> list[tuple[PastStep | None, PastStep | None]]:
    """Steps of one output path, then those of one name, in order."""
    rest = {step.output_path: step for step in old}
    same = {step.output_path: rest.pop(step.output_path) for step in new if step.output_path in rest}
    by_name: dict[str, list[PastStep]] = {}
    for step in rest.values():
        by_name.setdefault(step.name, []).append(step)
    pairs: list[tuple[PastStep | None, PastStep | None]] = []
    for step in new:
        before = same.get(step.output_path)
        if before is None and by_name.get(step.name):
            before = by_name[step.name].pop(0)
        pairs.append((before, step))
    return pairs + [(step, None) for steps in by_name.values() for step in steps]


def _pair(
    old: PastStep | None,
    new: PastStep | None,
    infos: Mapping[str, Mapping[str, Any]],
    renamed: Mapping[str, tuple[str, str]],
) -> StepPair:
    if old is None or new is None:
        present = cast("PastStep", old or new)
        return StepPair(present.name, PairKind.ADDED if old is None else PairKind.REMOVED, old, new)
    if _is_same(old, new):
        return StepPair(new.name, PairKind.SAME, old, new)
    parts = [_mapping(infos.get(step.output_path, {}).get("parts")) for step in (old, new)]
    changes = field_differences(*parts) if all(parts) else []
    through = {change: name for change in changes for name in _read_through(change, renamed)}
    own = tuple(change for change in changes if change not in through)
    return StepPair(new.name, PairKind.CHANGED, old, new, own, tuple(dict.fromkeys(through.values())))


def _read_through(change: FieldChange, renamed: Mapping[str, tuple[str, str]]) -> Iterable[str]:
    """The name of the changed step whose output a changed field is, at the same place in it."""
    if change.old is None or change.new is None:
        return
    for length in range(len(change.old), 0, -1):
        found = renamed.get(change.old[:length])
        if found is not None and change.new == found[0] + change.old[length:]:
            yield found[1]
            return


def _facts(run: PastRun) -> dict[str, str]:
    """What two runs are compared by, beside their steps."""
    facts: dict[str, str | None] = {
        "experiment": run.experiment,
        "outcome": run.text("outcome"),
        "description": run.text("description"),
        "by": run.by,
        "commit": f"{run.commit}{' with changes' if run.is_dirty else ''}" if run.commit else None,
        "command": shlex.join(run.argv) or None,
        "python": run.provenance_fact("python"),
        "forced": ", ".join(_mapping(run.facts.get("forced"))) or None,
        **{f"packages.{name}": version for name, version in sorted(run.packages.items())},
    }
    return {name: value for name, value in facts.items() if value is not None}
