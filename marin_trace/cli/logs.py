"""``marin-trace logs``: what a step's attempts printed and logged, and go on to print."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any, Final

from marin_trace.cli.path import find_step
from marin_trace.cli.tables import print_json, print_text
from marin_trace.cli.target import AddCommand, CommandShape, Target, add_targeted
from marin_trace.errors import FlagError, RunError, explain
from marin_trace.planning.attempt_output import Followed, LogText, follow, read_log
from marin_trace.planning.attempts import AttemptTold, attempt_json, read_attempts
from marin_trace.planning.standing import standing_of
from marin_trace.planning.step_lookup import FoundStep
from marin_trace.runtime.status import StatusKind, StepStatus
from marin_trace.storage.control_store import is_object_store

__all__ = ["add_logs"]

SCHEMA_VERSION: Final = 1
_NO_SUCCESS: Final = 1
_ALL: Final = sys.maxsize


def add_logs(add: AddCommand) -> None:
    """Adds the command to the parser of all commands."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("-f", "--follow", action="store_true", help="go on until the attempt is decided; 1 if it failed")
    own.add_argument("--attempt", type=int, metavar="N", help="not the newest attempt but this one")
    text = "Print what a step's newest attempt printed and logged."
    add_targeted(add, CommandShape("logs", text, ("step",)), own, _logs)


def _logs(options: argparse.Namespace, target: Target) -> int:
    if options.follow and options.json:
        raise FlagError(explain("--json prints one value, and --follow never has it whole", hint="drop one of them"))
    step = find_step(options.step, target)
    attempts = read_attempts(step.output_path, newest=_ALL)
    attempt = _chosen(step, attempts, options.attempt)
    if options.json:
        print_json(_json(step, attempt))
        return 0
    if options.follow:
        return _follow(follow(step.output_path, attempt.epoch, is_pinned=options.attempt is not None), attempt.epoch)
    for file in attempt.logs:
        _print(LogText(file.epoch, file.rank, len(attempt.logs) > 1, read_log(file).decode(errors="replace")))
    if not attempt.logs:
        _note(_silence(step, attempt, attempts))
    return 0


def _chosen(step: FoundStep, attempts: Sequence[AttemptTold], number: int | None) -> AttemptTold:
    if not attempts:
        raise RunError(explain(f"{step.name} has no attempt: nothing was ever run at {step.output_path}"))
    if number is None:
        return attempts[-1]
    for attempt in attempts:
        if attempt.epoch == number:
            return attempt
    there = ", ".join(f"{attempt.epoch} ({attempt.outcome})" for attempt in attempts)
    raise RunError(explain(f"{step.name} has no attempt {number}", facts={"there are": there}))


def _silence(step: FoundStep, attempt: AttemptTold, attempts: Sequence[AttemptTold]) -> str:
    said = [str(other.epoch) for other in attempts if other.logs]
    others = f"; attempts that did: {', '.join(said)}" if said else ""
    if attempt.end is None and is_object_store(step.output_path):
        return f"attempt {attempt.epoch} is open: its log appears in the store when it ends{others}"
    return f"attempt {attempt.epoch} ({attempt.outcome}) has printed nothing{others}"


def _json(step: FoundStep, attempt: AttemptTold) -> dict[str, Any]:
    logs = [
        {"rank": file.rank, "path": file.path, "text": read_log(file).decode(errors="replace")} for file in attempt.logs
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "name": step.name,
        "output_path": step.output_path,
        **attempt_json(attempt),
        "logs": logs,
    }


def _follow(pieces: Followed, epoch: int) -> int:
    while True:
        try:
            piece = next(pieces)
        except StopIteration as end:
            return _told_end(end.value, epoch)
        if piece.epoch != epoch:
            epoch = piece.epoch
            _note(f"attempt {epoch}")
        _print(piece)


def _told_end(status: StepStatus, epoch: int) -> int:
    if status.epoch > epoch:
        _note(f"attempt {epoch} was followed by attempt {status.epoch}")
        return _NO_SUCCESS
    standing = standing_of("", "", status)
    _note(f"attempt {epoch} {standing.state}{f': {standing.detail}' if standing.detail else ''}")
    return 0 if status.kind is StatusKind.SUCCESS else _NO_SUCCESS


def _print(piece: LogText) -> None:
    if not piece.is_gang:
        print_text(piece.text)
        return
    for line in piece.text.splitlines():
        print_text(f"[{piece.rank}] {line}\n")


def _note(text: str) -> None:
    print(f"[{text}]", file=sys.stderr, flush=True)
