"""``marin-trace lint``: the findings of files."""

import functools
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path

from marin_trace.migration.findings import SYNTAX_ERROR, Finding
from marin_trace.migration.module import Module, Project
from marin_trace.migration.names import Packages
from marin_trace.migration.parallel import Workers
from marin_trace.migration.rules.registry import RULES
from marin_trace.migration.sources import read_source

CODES = frozenset({SYNTAX_ERROR, *(rule.code for rule in RULES)})


def lint_files(
    paths: Sequence[Path], *, codes: Iterable[str] = CODES, packages: Packages | None = None
) -> list[Finding]:
    """The findings of some files, over several processes where there are many.

    Args:
        paths: Files of Python. One that is none gives a finding of the code MT000.
        codes: What to look for.
        packages: Where the executor's names are imported from.

    Returns:
        By path, line and column.

    Raises:
        StorageError: A file cannot be read.
    """
    judge = functools.partial(_lint_part, codes=frozenset(codes), packages=packages or Packages())
    with Workers(len(paths)) as workers:
        return sorted(finding for findings in workers.map(judge, paths) for finding in findings)


def _lint_part(paths: Sequence[Path], *, codes: frozenset[str], packages: Packages) -> list[list[Finding]]:
    project = Project(packages)
    return [[finding for finding in lint_file(path, project) if finding.code in codes] for path in paths]


def lint_file(path: Path, project: Project) -> list[Finding]:
    """The findings of one file, without those that ``# noqa`` covers.

    Raises:
        StorageError: The file cannot be read.
    """
    try:
        return lint_text(path, read_source(path).text, project)
    except SyntaxError as error:
        return [syntax_finding(path, error)]


def lint_text(path: Path, text: str, project: Project) -> list[Finding]:
    """The findings of a text that stands for a file.

    Raises:
        SyntaxError: The text is no Python, or nested too deeply.
    """
    with deep_recursion(path):
        return lint_module(Module(path, text, project))


def lint_module(module: Module) -> list[Finding]:
    """The findings of a module, without those that ``# noqa`` covers."""
    found = {finding for rule in RULES for finding in rule.check(module)}
    return sorted(finding for finding in found if not module.is_suppressed(finding))


@contextmanager
def deep_recursion(path: Path) -> Generator[None]:
    """Lets deeply nested code be walked; what is nested deeper still counts as no Python.

    Raises:
        SyntaxError: The text is nested too deeply.
    """
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 8_000))
    try:
        yield
    except RecursionError as error:
        raise SyntaxError("nested too deeply", (str(path), 1, 1, "")) from error
    finally:
        sys.setrecursionlimit(limit)


def syntax_finding(path: Path, error: SyntaxError) -> Finding:
    """What is said of a file that cannot be read as Python."""
    line, column = error.lineno or 1, max(error.offset or 1, 1)
    message = f"cannot be read as Python: {error.msg}"
    return Finding(str(path), line, column, SYNTAX_ERROR, message, "make it valid Python first", line, column)
