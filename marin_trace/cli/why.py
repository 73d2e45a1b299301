"""``marin-trace why``: one step in full, and what would happen to it now."""

import argparse
import itertools
import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, final

from marin_trace.cli.outlook import outlook_of
from marin_trace.cli.path import find_step
from marin_trace.cli.request import RunRequest
from marin_trace.cli.status import relative_to
from marin_trace.cli.tables import print_facts, print_json, print_line, print_rows
from marin_trace.cli.target import AddCommand, CommandShape, Target, add_targeted
from marin_trace.errors import ControlFileError, FingerprintMismatchError
from marin_trace.planning.attempts import AttemptTold, attempt_json
from marin_trace.planning.dossier import Built, Dossier, OtherBuild, RecipePart, dossier_of
from marin_trace.planning.durations import age_of, in_words, moment_of
from marin_trace.planning.earlier import EarlierRuns
from marin_trace.planning.plan import PlannedStep
from marin_trace.planning.standing import StepStanding, StepState, standing_json
from marin_trace.runtime.records import FieldChange

__all__ = ["add_why"]

SCHEMA_VERSION: Final = 1
_SHOWN_CHANGES: Final = 10
_SHOWN_BUILDS: Final = 5
_SHOWN_ITEMS: Final = 5
_COMMIT: Final = 10
_INDEX: Final = re.compile(r"\[[0-9]+\]")


@final
@dataclass(frozen=True, slots=True)
class _Verdict:
    """What a run of the experiment would do about the step."""

    action: str
    """``hit | run | wait | skip``; ``refuse`` where an output's recipe is another one, or its log is damaged."""
    reason: str
    cause: str | None = None
    """The name of the step that changed first."""
    changes: tuple[FieldChange, ...] = ()
    """Of that step."""


def add_why(add: AddCommand) -> None:
    """Adds the command to the parser of all commands."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--full", action="store_true", help="show every earlier build, and every change")
    text = "Show one step in full: its recipe, who built it, how earlier builds differ, and what would happen now."
    add_targeted(add, CommandShape("why", text, ("step",)), own, _why)


def _why(options: argparse.Namespace, target: Target) -> int:
    step = find_step(options.step, target)
    request = target.request
    if request is None:
        dossier, verdict = dossier_of(step, target.prefix), None
    else:
        planned = request.steps[step.output_path]
        runs = EarlierRuns(target.records_directory, request.experiment, request.steps)
        earlier = runs.find(planned)
        builds = earlier.output_paths if earlier else ()
        dossier = dossier_of(step, target.prefix, planned=planned, known_builds=builds)
        verdict = _verdict(request, step.output_path)
    now = datetime.now(UTC)
    if options.json:
        print_json(_json(dossier, verdict, now))
    else:
        _print(dossier, verdict, target.prefix, now, is_full=options.full)
    return 0


def _verdict(request: RunRequest, output_path: str) -> _Verdict:
    try:
        steps: Mapping[str, PlannedStep] = outlook_of(request).plan().by_path()
    except (FingerprintMismatchError, ControlFileError) as error:
        return _Verdict("refuse", str(error).partition("\n")[0])
    step = steps[output_path]
    explanation = step.explanation
    if explanation is None:
        return _Verdict(step.action.value, step.reason)
    first = steps[explanation.cause]
    changes = first.explanation.changes if first.explanation else ()
    return _Verdict(step.action.value, step.reason, first.name, changes)


def _print(dossier: Dossier, verdict: _Verdict | None, prefix: str, now: datetime, *, is_full: bool) -> None:
    step = dossier.standing
    print_line(relative_to(prefix, step.output_path))
    print_facts(dict(_facts(dossier, verdict, now)))
    if verdict is not None and verdict.cause is not None:
        _print_heading(f"what changed first: {verdict.cause}")
        _print_changes(verdict.changes, is_full=is_full)
    if dossier.recipe:
        print_line()
        is_long = not is_full and sys.stdout.isatty()
        rows = list(_folded(dossier.recipe) if is_long else map(_part_row, dossier.recipe))
        print_rows(rows, ("part", "value"), as_json=False, unbroken=("part",))
    if len(dossier.attempts) > 1 or any(attempt.detail for attempt in dossier.attempts):
        _print_heading("attempts")
        rows = [_attempt_row(attempt) for attempt in dossier.attempts]
        print_rows(rows, ("attempt", "outcome", "began", "took", "where", "detail"), as_json=False)
    shown = dossier.earlier if is_full else dossier.earlier[:_SHOWN_BUILDS]
    for build in shown:
        _print_build(build, prefix, now, is_full=is_full)
    if len(shown) < len(dossier.earlier):
        _print_heading(f"… and {len(dossier.earlier) - len(shown)} earlier builds: --full shows them")


def _facts(dossier: Dossier, verdict: _Verdict | None, now: datetime) -> Iterable[tuple[str, str]]:
    step = dossier.standing
    yield "output", step.output_path
    yield "state", f"{_state_text(step, now)}{f': {step.detail}' if step.detail else ''}"
    if verdict is not None:
        yield "plan", f"{verdict.action}: {verdict.reason}"
    if dossier.built is not None:
        yield "built by", _built_text(dossier.built)
        if dossier.built.argv:
            yield "command", f"{shlex.join(dossier.built.argv)}  in {dossier.built.working_directory}"
    if dossier.attempts:
        yield from _attempt_facts(dossier.attempts[-1])
    if dossier.functions:
        yield "calls", ", ".join(dossier.functions)
    if dossier.location:
        yield "called at", dossier.location
    if dossier.description:
        yield "description", dossier.description


def _attempt_facts(attempt: AttemptTold) -> Iterable[tuple[str, str]]:
    row, claim = _attempt_row(attempt), attempt.claim
    yield "attempt", f"{row['attempt']}{f' in run {claim.run_id}' if claim is not None and claim.run_id else ''}"
    if row["began"]:
        yield "began", f"{row['began']} UTC{', took ' if row['took'] else ''}{row['took']}"


def _state_text(step: StepStanding, now: datetime) -> str:
    age = age_of(step.since, now)
    if age is None:
        return step.state.value
    return f"running for {in_words(age)}" if step.state is StepState.RUNNING else f"{step.state} {in_words(age)} ago"


def _built_text(built: Built) -> str:
    commit = f" at commit {built.commit[:_COMMIT]}{' with changes' if built.is_dirty else ''}" if built.commit else ""
    return f"{built.by}{commit}"


def _role(part: RecipePart) -> str:
    if part.input is None:
        return part.role
    return f"input, {part.input.state}{', built again since' if part.is_rebuilt else ''}"


def _part_row(part: RecipePart) -> dict[str, str]:
    return {"part": _role(part), "value": f"{part.path} = {part.value}"}


def _folded(parts: Iterable[RecipePart]) -> Iterable[dict[str, str]]:
    """The rows of a recipe, with the later items of long lists counted."""
    for _, items in itertools.groupby(parts, key=lambda part: _INDEX.sub("[…]", part.path, count=1)):
        rows = [_part_row(part) for part in items]
        shown = _SHOWN_ITEMS if len(rows) > 2 * _SHOWN_ITEMS else len(rows)
        yield from rows[:shown]
        for part, count in Counter(row["part"] for row in rows[shown:]).items():
            yield {"part": part, "value": f"… and {count} more: --full shows them"}


def _attempt_row(attempt: AttemptTold) -> dict[str, str]:
    claim, end = attempt.claim, attempt.end
    began, ended = moment_of(claim and claim.claimed_at), moment_of(end and end.ended_at)
    return {
        "attempt": str(attempt.epoch),
        "outcome": attempt.outcome if attempt.problem is None else "unreadable",
        "began": began.strftime("%Y-%m-%d %H:%M:%S") if began else "",
        "took": in_words((ended - began).total_seconds()) if began and ended else "",
        "where": f"{claim.host} pid {claim.pid}" if claim else "",
        "detail": attempt.detail,
    }


def _print_heading(text: str) -> None:
    print_line()
    print_line(text)


def _print_build(build: OtherBuild, prefix: str, now: datetime, *, is_full: bool) -> None:
    by = f" by {_built_text(build.built)}" if build.built else ""
    path = relative_to(prefix, build.standing.output_path)
    _print_heading(f"earlier build {path}: {_state_text(build.standing, now)}{by}")
    if build.changes is None:
        print_line("  it left no recipe to compare with")
    elif not build.changes:
        print_line("  differs in nothing that was recorded")
    else:
        _print_changes(build.changes, is_full=is_full)


def _print_changes(changes: Sequence[FieldChange], *, is_full: bool) -> None:
    shown = changes if is_full else changes[:_SHOWN_CHANGES]
    for change in shown:
        print_line(f"  {change}")
    if len(shown) < len(changes):
        print_line(f"  … and {len(changes) - len(shown)} more: --full shows them")


def _json(dossier: Dossier, verdict: _Verdict | None, now: datetime) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        **standing_json(dossier.standing, now),
        "fingerprint": dossier.fingerprint,
        "functions": list(dossier.functions),
        "location": dossier.location,
        "description": dossier.description,
        "plan": verdict
        and {
            "action": verdict.action,
            "reason": verdict.reason,
            "cause": verdict.cause,
            "changes": _changes_json(verdict.changes),
        },
        "recipe": [_part_json(part) for part in dossier.recipe],
        "built": _built_json(dossier.built),
        "attempts": [attempt_json(attempt) for attempt in dossier.attempts],
        "earlier_builds": [
            {
                **standing_json(build.standing, now),
                "built": _built_json(build.built),
                "changes": None if build.changes is None else _changes_json(build.changes),
            }
            for build in dossier.earlier
        ],
    }


def _part_json(part: RecipePart) -> dict[str, Any]:
    return {
        "path": part.path,
        "value": part.value,
        "role": part.role,
        "input": part.input
        and {
            "output_path": part.input.output_path,
            "state": part.input.state.value,
            "is_rebuilt": part.is_rebuilt,
        },
    }


def _built_json(built: Built | None) -> dict[str, Any] | None:
    return built and {
        "by": built.by,
        "commit": built.commit,
        "is_dirty": built.is_dirty,
        "argv": list(built.argv),
        "working_directory": built.working_directory,
        "python": built.python,
    }


def _changes_json(changes: Iterable[FieldChange]) -> list[dict[str, str | None]]:
    return [{"path": change.path, "old": change.old, "new": change.new} for change in changes]
