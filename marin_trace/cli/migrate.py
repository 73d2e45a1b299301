"""``marin-trace migrate``: brings files into today's style, as far as that is safe."""

import argparse
import difflib
import importlib.util
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from marin_trace.cli.lint import add_packages
from marin_trace.errors import FlagError, explain
from marin_trace.migration.names import Packages

if TYPE_CHECKING:
    from marin_trace.migration.migrate import Migrated

_DONE: Final = 0
_LEFT: Final = 1

SUMMARY: Final = (
    "Rewrite files of the older executor's style. Shows the difference, and writes nothing without --write."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command; ``--json`` is there already."""
    parser.add_argument("path", nargs="+", help="files, or directories of files; what belongs together, together")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--diff", action="store_true", help="show the difference (the default)")
    how.add_argument("--write", action="store_true", help="replace the files, each in one step")
    add_packages(parser)


def migrate(options: argparse.Namespace) -> int:
    """Runs the command.

    Returns:
        0 if nothing is left in the older style, 1 if something is, 2 if the command line cannot be understood.
    """
    if importlib.util.find_spec("libcst") is None:
        raise FlagError(
            explain("migrate needs libcst, which is not installed", hint="pip install 'marin-trace[migrate]'")
        )
    from marin_trace.migration.migrate import migrate_files
    from marin_trace.migration.sources import python_files, write_source

    files = migrate_files(python_files(options.path), packages=Packages(options.old, options.new))
    for file in files:
        if file.is_changed and options.write:
            write_source(replace(file.source, text=file.text))
        elif file.is_changed and not options.json:
            print(_difference(file), end="")
    if options.json:
        print(_as_json(files))
    else:
        _tell(files, is_written=options.write)
    return _LEFT if any(file.left for file in files) else _DONE


def _difference(file: "Migrated") -> str:
    path = str(file.source.path)
    before, after = file.source.text.splitlines(keepends=True), file.text.splitlines(keepends=True)
    lines = difflib.unified_diff(before, after, path, path)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _as_json(files: "list[Migrated]") -> str:
    import json

    rows = [
        {
            "path": str(file.source.path),
            "changed": file.is_changed,
            "text": file.text if file.is_changed else None,
            "left": [finding.as_json() for finding in file.left],
        }
        for file in files
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False)


def _tell(files: "list[Migrated]", *, is_written: bool) -> None:
    changed = sum(file.is_changed for file in files)
    left = [finding for file in files for finding in file.left]
    verb = "rewritten" if is_written else "would be rewritten"
    print(f"{changed} of {len(files)} {'file' if len(files) == 1 else 'files'} {verb}", file=sys.stderr)
    if left:
        print(f"left as it was, {len(left)} {'place' if len(left) == 1 else 'places'}:", file=sys.stderr)
    for finding in left:
        print(f"  {finding.path}:{finding.line}: {finding.code} {finding.message}", file=sys.stderr)
        print(f"      write: {finding.fix}", file=sys.stderr)


__all__ = ["SUMMARY", "add_arguments", "migrate"]
