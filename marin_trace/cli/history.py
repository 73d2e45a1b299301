"""``marin-trace history``: past runs, one of them, or how two differ."""

import argparse
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from marin_trace.cli.status import relative_to
from marin_trace.cli.tables import print_facts, print_json, print_line, print_rows
from marin_trace.cli.target import AddCommand, CommandShape, Target, add_targeted
from marin_trace.errors import FlagError, RunError, explain
from marin_trace.planning.durations import in_words, moment_of
from marin_trace.planning.past_runs import (
    PairKind,
    PastRun,
    PastStep,
    RunComparison,
    StepPair,
    compare_runs,
    find_run,
    past_runs,
)
from marin_trace.runtime.records import FieldChange
from marin_trace.runtime.report import OutcomeKind

__all__ = ["add_history"]

SCHEMA_VERSION: Final = 1
_LIMIT: Final = 20
_COMMIT: Final = 10
_SHOWN_HITS: Final = 40
_SHOWN_CHANGES: Final = 5
_SHOWN_FACTS: Final = 12
_COMPARED: Final = 2
_IN_WORDS: Final = {"succeeded": "built", "dep_failed": "skipped", "not_needed": "not needed"}


def add_history(add: AddCommand) -> None:
    """Adds the command to the parser of all commands."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("-n", "--limit", type=int, default=_LIMIT, metavar="N", help=f"the newest N runs ({_LIMIT})")
    own.add_argument("--full", action="store_true", help="show every step and change, on a terminal too")
    text = "List past runs; show one run; or compare two. RUN is an id, or the begin or end of one."
    add_targeted(add, CommandShape("history", text, further="run"), own, _history)


def _history(options: argparse.Namespace, target: Target) -> int:
    words: Sequence[str] = options.run
    directory = target.records_directory
    if options.limit < 1:
        raise FlagError(explain(f"--limit does not fit: {options.limit} is less than 1"))
    if len(words) > _COMPARED:
        raise FlagError(explain(f"history compares two runs, and {len(words)} were given"))
    if not words:
        return _list(past_runs(directory, experiment=target.experiment, limit=options.limit), directory, options)
    runs = [find_run(directory, word) for word in words]
    unreadable = next((run for run in runs if run.problem), None)
    if unreadable is not None:
        raise RunError(explain(unreadable.problem or ""))
    if len(runs) == 1:
        _show(runs[0], target.prefix, options)
    else:
        _compare(compare_runs(*runs), options)
    return 0


def _list(runs: Sequence[PastRun], directory: str, options: argparse.Namespace) -> int:
    if options.json:
        print_json({"schema_version": SCHEMA_VERSION, "directory": directory, "runs": [_run_json(run) for run in runs]})
        return 0
    if not runs:
        raise RunError(explain(f"no run left a record in {directory}"))
    rows = [_run_row(run) for run in runs]
    columns = ("run", "outcome", "took", "steps", "by", "commit", "experiment")
    print_rows(rows, columns, as_json=False, unbroken=("run", "outcome", "took"))
    return 0


def _run_row(run: PastRun) -> dict[str, str]:
    return {
        "run": run.run_id,
        "outcome": "unreadable" if run.problem else run.text("outcome") or "?",
        "took": "" if run.seconds is None else in_words(run.seconds),
        "steps": _counted(run.counts()),
        "by": run.by or "",
        "commit": _commit_text(run),
        "experiment": run.experiment or "",
    }


def _commit_text(run: PastRun) -> str:
    return f"{run.commit[:_COMMIT]}{'+' if run.is_dirty else ''}" if run.commit else ""


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {_IN_WORDS.get(outcome, outcome)}" for outcome, count in counts.items())


def _show(run: PastRun, prefix: str, options: argparse.Namespace) -> None:
    if options.json:
        steps = [_step_json(step) for step in run.steps]
        print_json({"schema_version": SCHEMA_VERSION, **_run_json(run), "steps": steps})
        return
    print_line(f"run {run.run_id}")
    print_facts(dict(_run_facts(run)))
    print_line()
    is_full = options.full or not sys.stdout.isatty() or len(run.steps) <= _SHOWN_HITS
    shown = [step for step in run.steps if is_full or step.outcome != "hit"]
    names = {step.output_path: step.name for step in run.steps}
    rows = [_step_row(step, prefix, names) for step in shown]
    print_rows(rows, ("outcome", "step", "began", "took", "detail"), as_json=False)
    if len(shown) < len(run.steps):
        print_line(f"… and {len(run.steps) - len(shown)} found finished: --full shows them")


def _run_facts(run: PastRun) -> Iterable[tuple[str, str]]:
    began = moment_of(run.text("started_at"))
    yield "outcome", f"{run.text('outcome')}: {_counted(run.counts())}"
    if began is not None:
        took = "" if run.seconds is None else f", took {in_words(run.seconds)}"
        yield "began", f"{began:%Y-%m-%d %H:%M:%S} UTC{took}"
    for label, text in (
        ("experiment", run.experiment),
        ("description", run.text("description")),
        ("by", run.by),
        ("commit", f"{run.commit}{' with changes' if run.is_dirty else ''}" if run.commit else None),
        ("command", shlex.join(run.argv)),
        ("record", run.recorded.path),
    ):
        if text:
            yield label, text


def _step_row(step: PastStep, prefix: str, names: Mapping[str, str]) -> dict[str, str]:
    cause = names.get(step.cause, step.cause) if step.cause else None
    return {
        "outcome": _IN_WORDS.get(step.outcome, step.outcome),
        "step": relative_to(prefix, step.output_path),
        "began": "" if step.began_after is None else f"+{in_words(step.began_after)}",
        "took": in_words(step.seconds) if step.has_run else "",
        "detail": step.error or (f"because of {cause}" if cause else ""),
    }


def _compare(comparison: RunComparison, options: argparse.Namespace) -> None:
    old, new = comparison.old, comparison.new
    if options.json:
        print_json(_comparison_json(comparison))
        return
    print_line(f"from run {old.run_id} to run {new.run_id}")
    shown = comparison.facts if options.full else comparison.facts[:_SHOWN_FACTS]
    for change in shown:
        print_line(f"  {change}")
    if len(shown) < len(comparison.facts):
        print_line(f"  … and {len(comparison.facts) - len(shown)} more: --full shows them")
    if old.seconds is not None and new.seconds is not None:
        print_line(f"  took: {in_words(old.seconds)} → {in_words(new.seconds)}")
    print_line()
    told = [pair for pair in comparison.steps if options.full or _is_told(pair)]
    print_rows(
        [_pair_row(pair, options) for pair in told], ("recipe", "step", "outcome", "took", "detail"), as_json=False
    )
    same = len(comparison.steps) - len(told)
    if same:
        steps = "1 step" if same == 1 else f"{same} steps"
        print_line(f"{'… and ' if told else ''}{steps} of the same recipe, found finished: --full shows them")


def _is_told(pair: StepPair) -> bool:
    return pair.kind is not PairKind.SAME or (pair.new is not None and pair.new.outcome != OutcomeKind.HIT)


def _pair_row(pair: StepPair, options: argparse.Namespace) -> dict[str, str]:
    shown = list(pair.changes if options.full else pair.changes[:_SHOWN_CHANGES])
    detail = [str(change) for change in shown]
    if len(shown) < len(pair.changes):
        detail.append(f"and {len(pair.changes) - len(shown)} more")
    if pair.through:
        detail.append(f"reads {', '.join(pair.through)}")
    both = (pair.old, pair.new)
    return {
        "recipe": pair.kind,
        "step": pair.name,
        "outcome": _arrow("" if step is None else _IN_WORDS.get(step.outcome, step.outcome) for step in both),
        "took": _arrow(in_words(step.seconds) if step is not None and step.has_run else "" for step in both),
        "detail": "; ".join(detail),
    }


def _arrow(texts: Iterable[str]) -> str:
    """Two values, or the one that they share."""
    old, new = texts
    return new if old == new else f"{old or '-'} → {new or '-'}"


def _run_json(run: PastRun) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "experiment": run.experiment,
        "outcome": run.text("outcome"),
        "started_at": run.text("started_at"),
        "ended_at": run.text("ended_at"),
        "seconds": run.seconds,
        "by": run.by,
        "commit": run.commit,
        "is_dirty": run.is_dirty,
        "description": run.text("description"),
        "counts": run.counts(),
        "record": run.recorded.path,
        "problem": run.problem,
    }


def _step_json(step: PastStep) -> dict[str, Any]:
    return {
        "name": step.name,
        "output_path": step.output_path,
        "fingerprint": step.fingerprint,
        "outcome": step.outcome,
        "began_after": step.began_after,
        "seconds": step.seconds,
        "attempt": step.attempt,
        "cause": step.cause,
        "error": step.error,
        "log": step.log,
    }


def _comparison_json(comparison: RunComparison) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "old": _run_json(comparison.old),
        "new": _run_json(comparison.new),
        "changes": _changes_json(comparison.facts),
        "steps": [
            {
                "name": pair.name,
                "recipe": pair.kind,
                "old": pair.old and _step_json(pair.old),
                "new": pair.new and _step_json(pair.new),
                "changes": _changes_json(pair.changes),
                "through": list(pair.through),
            }
            for pair in comparison.steps
        ],
    }


def _changes_json(changes: Iterable[FieldChange]) -> list[dict[str, str | None]]:
    return [{"path": change.path, "old": change.old, "new": change.new} for change in changes]
