"""``marin-trace status``: how the steps of an experiment, or of a whole prefix, stand."""

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from marin_trace.cli.outlook import outlook_of
from marin_trace.cli.request import RunRequest
from marin_trace.cli.tables import print_json, print_line, print_rows
from marin_trace.cli.target import AddCommand, CommandShape, Target, add_targeted
from marin_trace.errors import ControlFileError, FingerprintMismatchError, RunError, explain
from marin_trace.planning.durations import age_of, in_words
from marin_trace.planning.outputs_below import outputs_below, recorded_steps, statuses_of
from marin_trace.planning.standing import (
    StepStanding,
    StepState,
    counted_states,
    is_finished,
    standing_json,
    standing_of_steps,
    standing_under_prefix,
)

__all__ = ["add_status", "relative_to", "standing_of_request"]

logger = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 1
_FAILED: Final = 1
_RUNS_READ: Final = 20
_SHOWN: Final = 40
_SHOWN_OF_A_STATE: Final = 10
"""On a terminal, where there are more than `_SHOWN`; the rest is counted."""


def add_status(add: AddCommand) -> None:
    """Adds the command to the parser of all commands."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--full", action="store_true", help="show every step and the whole of it, on a terminal too")
    own.add_argument(
        "--state", action="append", choices=[state.value for state in StepState], help="only steps that stand so"
    )
    text = "Show which steps are finished, running, failed or waiting; 1 if any failed."
    add_targeted(add, CommandShape("status", text), own, _status)


def _status(options: argparse.Namespace, target: Target) -> int:
    if target.request is None:
        recorded = recorded_steps(target.records_directory, newest=_RUNS_READ)
        standings = standing_under_prefix(outputs_below(target.prefix), recorded, target.prefix)
    else:
        standings = standing_of_request(target.request)
    if not standings:
        raise RunError(explain(f"there is no output below {target.prefix}", hint="marin-trace status PREFIX"))
    now = datetime.now(UTC)
    shown = [step for step in standings if not options.state or step.state.value in options.state]
    if options.json:
        print_json(
            {
                "schema_version": SCHEMA_VERSION,
                "prefix": target.prefix,
                "experiment": target.experiment,
                "counts": counted_states(standings),
                "steps": [standing_json(step, now) for step in shown],
            }
        )
    else:
        _print(shown, target.prefix, now, is_full=options.full)
        print_line(_totals(standings))
    is_bad = any(step.state in (StepState.FAILED, StepState.UNREADABLE) for step in standings)
    return _FAILED if is_bad else 0


def standing_of_request(request: RunRequest) -> list[StepStanding]:
    """How the steps of an experiment stand, dependencies first. Reads their statuses in one batch.

    An output at which a run would stop (by another recipe, or with a damaged log) is told in the log.
    """
    try:
        plan = outlook_of(request).run_plan
    except (FingerprintMismatchError, ControlFileError) as error:
        logger.warning(str(error).partition("\n")[0])
        statuses = statuses_of(list(request.steps))
        unfinished = {path for path, status in statuses.items() if not is_finished(status)}
        return standing_of_steps(request.steps, statuses, unfinished)
    return standing_of_steps(plan.steps, plan.statuses, set(plan.to_run))


def _print(standings: Sequence[StepStanding], prefix: str, now: datetime, *, is_full: bool) -> None:
    # What asks for attention comes first.
    ordered = sorted(standings, key=lambda step: list(StepState).index(step.state))
    is_short = is_full or not sys.stdout.isatty() or len(ordered) <= _SHOWN
    kept = list(ordered if is_short else _first_of_each_state(ordered))
    rows: list[dict[str, Any]] = []
    for step in kept:
        age = age_of(step.since, now)
        rows.append(
            {
                "state": step.state.value,
                "step": relative_to(prefix, step.output_path),
                "age": "" if age is None else in_words(age),
                "detail": step.detail,
            }
        )
    columns = ("state", "step", "age", "detail")
    cropped = None if is_full else "detail"
    print_rows(rows, columns, as_json=False, unbroken=("state", "step", "age"), cropped=cropped)
    hidden = Counter(step.state for step in ordered) - Counter(step.state for step in kept)
    if hidden:
        print_line(f"… and {', '.join(f'{count} {state.value}' for state, count in hidden.items())}: --full shows them")
    if rows:
        print_line()


def _first_of_each_state(ordered: Iterable[StepStanding]) -> Iterable[StepStanding]:
    seen: Counter[StepState] = Counter()
    for step in ordered:
        seen[step.state] += 1
        if seen[step.state] <= _SHOWN_OF_A_STATE:
            yield step


def _totals(standings: Sequence[StepStanding]) -> str:
    parts = ", ".join(f"{count} {state}" for state, count in counted_states(standings).items())
    return f"{len(standings)} step{'' if len(standings) == 1 else 's'}: {parts}"


def relative_to(prefix: str, output_path: str) -> str:
    """An output path as it is shown beside its prefix: ``name-hash``."""
    return output_path.removeprefix(f"{prefix}/")
