"""``marin-trace plan``: what running an experiment would do, and why."""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import Final

from marin_trace.cli.checks import refuse_outdated
from marin_trace.cli.experiment import requested_by
from marin_trace.cli.flags import told
from marin_trace.cli.outlook import outlook_of
from marin_trace.cli.plan_output import show_plan
from marin_trace.cli.tables import print_json
from marin_trace.errors import MarinTraceError
from marin_trace.planning.plan_json import plan_json

__all__ = ["add_experiment", "add_plan", "experiment_arguments"]

WOULD_RUN: Final = 2
"""Exit code of ``plan --exit-code`` where something would run."""
_DONE: Final = 0
_FAILED: Final = 1


def add_experiment(parser: argparse.ArgumentParser) -> None:
    """Lets a command take an experiment file and, after it, what the file takes."""
    parser.add_argument("file", metavar="FILE.py", help="an experiment: a file that calls executor_main")
    parser.add_argument(
        "arguments",
        nargs=argparse.REMAINDER,
        metavar="FLAGS",
        help="the experiment's flags; after a lone -- the command's own names are the experiment's too",
    )


def experiment_arguments(options: argparse.Namespace, own: argparse.ArgumentParser) -> list[str]:
    """What is for the experiment of the arguments that follow its file; the command's own are put into ``options``.

    Args:
        options: As parsed; from `add_experiment`.
        own: The flags of the command alone, without positional arguments.
    """
    _, rest = own.parse_known_args(options.arguments, options)
    return [*rest, *options.after_dashes]


def add_plan(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the command to the parser of all commands; ``add`` makes a subparser."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--exit-code", action="store_true", help="0: nothing to do; 2: something would run; 1: an error")
    own.add_argument("--full", action="store_true", help="show each step of a long fan")
    parser = add("plan", partial(_plan, own=own), "Show what running an experiment would do, and why.", own)
    add_experiment(parser)


def _plan(options: argparse.Namespace, own: argparse.ArgumentParser) -> int:
    argv = experiment_arguments(options, own)
    try:
        with requested_by(options.file, argv, replaces_script=options.is_own_process) as request:
            outlook = outlook_of(request)
            plan = outlook.plan()
        if options.json:
            print_json(plan_json(plan))
        else:
            show_plan(plan, full=options.full)
        refuse_outdated(outlook)
    except SystemExit as end:
        code = exit_code(end)
        return _FAILED if options.exit_code and code else code
    except MarinTraceError as error:
        if not options.exit_code:
            raise
        return told(error, _FAILED)  # 2 would be mistaken for a plan
    return WOULD_RUN if options.exit_code and not plan.is_done else _DONE


def exit_code(end: SystemExit) -> int:
    """The code that a process ends with that raises this; a text is printed, as Python does."""
    if end.code is None or isinstance(end.code, int):
        return end.code or _DONE
    print(end.code, file=sys.stderr)
    return _FAILED
