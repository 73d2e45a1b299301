"""``marin-trace path``: where a step's output lies, and nothing else, for ``$(...)`` in a shell."""

import argparse
from typing import Final

from marin_trace.cli.tables import print_json, print_line
from marin_trace.cli.target import AddCommand, CommandShape, Target, add_targeted
from marin_trace.planning.step_lookup import FoundStep, step_among, step_below

__all__ = ["add_path", "find_step"]

SCHEMA_VERSION: Final = 1


def add_path(add: AddCommand) -> None:
    """Adds the command to the parser of all commands."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    text = "Print where a step's output lies (in an experiment: would lie); 1 if that is not one step."
    add_targeted(add, CommandShape("path", text, ("step",)), own, _path)


def _path(options: argparse.Namespace, target: Target) -> int:
    step = find_step(options.step, target)
    if options.json:
        print_json({"schema_version": SCHEMA_VERSION, "name": step.name, "output_path": step.output_path})
    else:
        print_line(step.output_path)
    return 0


def find_step(word: str, target: Target) -> FoundStep:
    """The step that a word of the command line means.

    Raises:
        StepUnknownError: None, or several.
    """
    request = target.request
    if request is None:
        return step_below(target.prefix, word, records_directory=target.records_directory)
    steps = (FoundStep(step.name, path) for path, step in request.steps.items())
    return step_among(steps, word, target.prefix, groups={group.name for group in request.lowered.traced.groups})
