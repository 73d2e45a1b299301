"""``marin-trace adopt``: existing outputs for steps that were migrated, renamed or changed, without moving data."""

import argparse
from collections.abc import Callable
from functools import partial

__all__ = ["add_adopt"]


def add_adopt(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the command to the parser of all commands; ``add`` makes a subparser."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--old", metavar="OLD.py", help="with --from-legacy: the old form, which says where outputs lie")
    own.add_argument("--yes", action="store_true", help="with --from-legacy: adopt what would be adopted")
    text = "Take an existing output as a step's own. No data is moved or changed."
    parser = add("adopt", partial(_adopt, own=own), text, own)
    parser.add_argument("step", nargs="?", metavar="STEP", help="its name; without --experiment: its output path")
    parser.add_argument("path", nargs="?", metavar="PATH", help="the finished output")
    which = parser.add_mutually_exclusive_group()
    for flag, text in (
        ("--experiment", "the experiment that has the step, and its flags; the last option"),
        ("--from-legacy", "a migrated experiment, and its flags: look at all its steps"),
    ):
        which.add_argument(flag, help=text, nargs=argparse.REMAINDER, metavar="FILE.py FLAGS")


def _adopt(options: argparse.Namespace, own: argparse.ArgumentParser) -> int:
    # What it takes is loaded by this command alone.
    from marin_trace.cli.adopting import run_adopt

    return run_adopt(options, own)
