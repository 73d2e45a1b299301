"""``marin-trace lint``: what is left of the older style in some files."""

import argparse
import re
from typing import Final

from marin_trace.errors import FlagError, explain
from marin_trace.migration.names import OLD_PACKAGE, PACKAGE, REPORT_FORMATS, Packages

_CLEAN: Final = 0
_FOUND: Final = 1

SUMMARY: Final = (
    "Find what is left of the older executor's style, and what cannot work while tracing; 1 if there is any."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command; ``--json`` is there already."""
    parser.add_argument("path", nargs="*", help="files, or directories of files")
    parser.add_argument("--format", choices=REPORT_FORMATS, default="text", help="how to print what was found")
    parser.add_argument("--select", action="append", default=[], metavar="CODES", help="only these: MT003,MT01")
    parser.add_argument("--ignore", action="append", default=[], metavar="CODES", help="all but these")
    parser.add_argument("--explain", metavar="CODE", help="say what a code is about")
    add_packages(parser)


def add_packages(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that say where the executor is imported from."""
    parser.add_argument("--from", dest="old", default=OLD_PACKAGE, help=f"the older executor (default {OLD_PACKAGE})")
    parser.add_argument("--to", dest="new", default=PACKAGE, help=f"the package of today (default {PACKAGE})")


def lint(options: argparse.Namespace) -> int:
    """Runs the command.

    Returns:
        0 if nothing was found, 1 if something was, 2 if the command line cannot be understood.
    """
    from marin_trace.migration.findings import chosen_codes
    from marin_trace.migration.lint import CODES, lint_files
    from marin_trace.migration.reports import REPORTS
    from marin_trace.migration.sources import python_files

    if options.explain is not None:
        return _explain(options.explain)
    if not options.path:
        raise FlagError(explain("lint was given no file and no directory", hint="marin-trace lint experiments"))
    codes = chosen_codes(CODES, _split(options.select), _split(options.ignore))
    packages = Packages(options.old, options.new)
    findings = lint_files(python_files(options.path), codes=codes, packages=packages)
    report = REPORTS["json" if options.json else options.format](findings)
    if report:
        print(report)
    return _FOUND if findings else _CLEAN


def _explain(code: str) -> int:
    from marin_trace.migration.findings import explanation
    from marin_trace.migration.rules.registry import RULES

    for rule in RULES:
        if rule.code == code.upper() or rule.name == code:
            print(explanation(rule))
            return _CLEAN
    raise FlagError(explain(f"there is no rule {code!r}", facts=[f"{rule.code}  {rule.name}" for rule in RULES]))


def _split(texts: list[str]) -> list[str]:
    return [code.upper() for text in texts for code in re.split(r"[,\s]+", text) if code]
