"""``marin-trace migrate``: the texts of files in today's style, and what had to be left.

Files are migrated together: a step that one of them constructs is a function in all of them afterwards. Two rounds over
all files: constructors and references first, then what modules build when they are imported, for which it must be known
what the others offer by then.
"""

import ast
import functools
import logging
import re
from bisect import bisect_right
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeAlias, final

from marin_trace.migration.findings import Finding
from marin_trace.migration.lint import deep_recursion, lint_module, syntax_finding
from marin_trace.migration.module import Module, Project, Span, parsed
from marin_trace.migration.names import Packages
from marin_trace.migration.parallel import Workers
from marin_trace.migration.rewriting.constructor_plans import Left, plan_constructors
from marin_trace.migration.rewriting.constructors import rewrite_constructors
from marin_trace.migration.rewriting.cst import Document
from marin_trace.migration.rewriting.expressions import rewrite_expressions
from marin_trace.migration.rewriting.fates import Surroundings
from marin_trace.migration.rewriting.hoisting import rewrite_imports_of_steps
from marin_trace.migration.rewriting.imports import LocalNames, tidied_imports, with_wanted_imports
from marin_trace.migration.rewriting.library import positional_arguments, rewrite_defaults
from marin_trace.migration.rewriting.lines import parts_read
from marin_trace.migration.rewriting.parameters import rewrite_parameters
from marin_trace.migration.rewriting.splitting import split_lines
from marin_trace.migration.sources import Source, comment_lines, project_root, python_files, read_source

logger = logging.getLogger(__name__)

_TRIGGERS: Final = frozenset(f"MT{number:03}" for number in (1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 16))
"""Findings of which a file without any needs no change."""

_MOST_ROUNDS: Final = 4
_REMARK: Final = re.compile(r"^\s*# (MT\d{3}): ")


@final
@dataclass(frozen=True, slots=True)
class Migrated:
    """What became of one file."""

    source: Source
    """As it was read; empty for one that could not be."""
    text: str
    """As it should be."""
    left: tuple[Finding, ...]
    """What stays in the older style, by its place in the new text, with a comment there that names the code."""

    @property
    def is_changed(self) -> bool:
        """Whether there is anything to write."""
        return self.text != self.source.text


def migrate_files(paths: Sequence[Path], *, packages: Packages | None = None) -> list[Migrated]:
    """What becomes of some files.

    Args:
        paths: Files of Python. One that is none is given back as it is, with a finding of the code MT000.
        packages: Where the executor's names are imported from, before and after.

    Returns:
        In the order of the paths. Nothing is written.

    Raises:
        StorageError: A file cannot be read.
    """
    with Workers(len(paths)) as workers:
        return _migrated(paths, packages or Packages(), workers)


def _migrated(paths: Sequence[Path], packages: Packages, workers: Workers) -> list[Migrated]:
    files = dict(zip(paths, workers.map(_read_part, paths), strict=True))
    positional: dict[str, int] = {}
    for file in files.values():
        for name, count in file.positional.items():
            positional[name] = max(positional.get(name, 0), count)
    texts = {path: file.source.text for path, file in files.items() if file.finding is None}
    chosen = frozenset(str(path.resolve()) for path in texts)
    # Once more where something is left: of several calls of executor_main each round gives one its entry step.
    clean: frozenset[Path] = frozenset()
    for _ in range(_MOST_ROUNDS):
        before = texts
        texts, clean = _round(_Run(before, chosen, packages, positional), workers)
        if texts == before:
            break
        clean = frozenset()
    tell = functools.partial(_remarked_part, texts=_resolved(texts), packages=packages, clean=clean)
    done = dict(zip(texts, workers.map(tell, [files[path].source for path in texts]), strict=True))
    return [done[path] if file.finding is None else _unread(path, file.finding) for path, file in files.items()]


def _unread(path: Path, finding: Finding) -> Migrated:
    return Migrated(Source(path, ""), "", (finding,))


@final
@dataclass(frozen=True, slots=True)
class _Read:
    """A file as it was read, or what is wrong with it."""

    source: Source
    finding: Finding | None = None
    positional: Mapping[str, int] = field(default_factory=dict[str, int])
    """By name of what it calls, the most positional arguments that it gives."""


def _read_part(paths: Sequence[Path]) -> list[_Read]:
    return [_read(path) for path in paths]


def _read(path: Path) -> _Read:
    try:
        source = read_source(path)
        with deep_recursion(path):
            Document(source.text, path)
            return _Read(source, positional=positional_arguments(parsed(source.text, path)))
    except SyntaxError as error:
        return _Read(Source(path, ""), syntax_finding(path, error))


@final
@dataclass(frozen=True, slots=True)
class _Run:
    """What both halves of a round are told."""

    texts: Mapping[Path, str]
    chosen: frozenset[str]
    packages: Packages
    positional: Mapping[str, int]


@final
@dataclass(frozen=True, slots=True)
class _Begun:
    """A file after the first half of a round."""

    text: str
    created: frozenset[str] = frozenset()
    is_touched: bool = False
    is_clean: bool = False
    """Lint has nothing to say of it, as long as no file changes."""


def _resolved(texts: Mapping[Path, str]) -> dict[Path, str]:
    return {path.resolve(): text for path, text in texts.items()}


def _round(run: _Run, workers: Workers) -> tuple[dict[Path, str], frozenset[Path]]:
    """The texts after each pass was made once, and the files of which there was nothing to be said before."""
    paths = list(run.texts)
    begun = dict(zip(paths, workers.map(functools.partial(_begun_part, run=run), paths), strict=True))
    clean = frozenset(path for path, file in begun.items() if file.is_clean)
    if not any(file.is_touched for file in begun.values()):
        return dict(run.texts), clean
    texts = _resolved({path: file.text for path, file in begun.items()})
    look = functools.partial(_imports_part, texts=texts, packages=run.packages)
    surroundings = _surroundings(workers.map(look, _neighbours(paths)), run.chosen)
    finish = functools.partial(_hoisted_part, run=run, begun=begun, surroundings=surroundings)
    return dict(zip(paths, workers.map(finish, paths), strict=True)), clean


def _begun_part(paths: Sequence[Path], *, run: _Run) -> list[_Begun]:
    project = Project(run.packages, _resolved(run.texts))
    begun: list[_Begun] = []
    for path in paths:
        file = _Begun(run.texts[path])
        with _kept_if_invalid(path):
            module = project.module_at(path.resolve()) or Module(path, file.text, project)
            file = _begun(module, run.chosen, run.positional)
        begun.append(file)
    return begun


@contextmanager
def _kept_if_invalid(path: Path) -> Generator[None]:
    """Keeps the text of a file where a pass would make of it what is no Python; lint names what is left in it."""
    try:
        with deep_recursion(path):
            yield
    except SyntaxError as error:
        logger.warning(f"{path}: left as it was, since its new text would be no Python ({error}); please report this")


def _begun(module: Module, chosen: frozenset[str], positional: Mapping[str, int]) -> _Begun:
    if not _needs_change(module, chosen):
        return _Begun(module.text, is_clean=module.memo.get("findings") == [])
    names = LocalNames(module)
    current = _again(module, split_lines(module))
    current = _again(current, with_wanted_imports(current, names))
    kept = plan_constructors(current).kept_nodes
    current = _again(current, rewrite_expressions(current, names, kept))
    current = _again(current, rewrite_defaults(current, positional))
    text, created = rewrite_constructors(current, names, set(chosen))
    parsed(text, module.path)
    return _Begun(text, frozenset(created), is_touched=True)


def _again(module: Module, text: str) -> Module:
    """A module with another text."""
    return module if text == module.text else Module(module.path, text, module.project)


def _needs_change(module: Module, chosen: frozenset[str]) -> bool:
    """Whether a file has something to change: in itself, or since it imports what changes in another."""
    known: bool | None = module.memo.get("needs change")
    if known is None:
        # Modules that import each other in a circle: what is being asked for counts as no reason.
        module.memo["needs change"] = False
        known = module.memo["needs change"] = _has_old_style(module) or _imports_changes(module, chosen)
    return known


def _has_old_style(module: Module) -> bool:
    packages = module.project.packages
    if packages.is_framework(module.dotted):
        return False
    findings = module.memo["findings"] = lint_module(module)
    if any(finding.code in _TRIGGERS for finding in findings):
        return True
    imports = module.nodes(ast.ImportFrom)
    return packages.old != packages.new and any(_is_below(node.module, packages.old) for node in imports)


def _is_below(module: str | None, package: str) -> bool:
    return module is not None and (module == package or module.startswith(f"{package}."))


def _imports_changes(module: Module, chosen: frozenset[str]) -> bool:
    """Whether a module imports from a file that is migrated and changes, so that a name may be a function by then."""
    for node in module.nodes(ast.ImportFrom):
        owner = module.project.module_of(module, module.absolute("." * node.level + (node.module or "")))
        if owner is None or owner is module or str(owner.resolved) not in chosen:
            continue
        if _needs_change(owner, chosen):
            return True
    return False


def _hoisted_part(
    paths: Sequence[Path], *, run: _Run, begun: Mapping[Path, _Begun], surroundings: Surroundings
) -> list[str]:
    project = Project(run.packages, _resolved({path: file.text for path, file in begun.items()}))
    texts: list[str] = []
    for path in paths:
        text = run.texts[path]
        if begun[path].is_touched:
            with _kept_if_invalid(path):
                text = _hoisted(path, begun[path], text, project, surroundings)
        texts.append(text)
    return texts


_Imported: TypeAlias = list[tuple[str, str, bool]]
"""Of a module's imports: the file that a name comes from, the name, and whether single items of it are read."""


def _imports_part(paths: Sequence[Path], *, texts: Mapping[Path, str], packages: Packages) -> list[_Imported]:
    project = Project(packages, texts)
    return [_imports_of(project.module_at(path.resolve())) for path in paths]


def _imports_of(module: Module | None) -> _Imported:
    if module is None:
        return []
    in_parts = {name for name, _ in parts_read(module)}
    found: _Imported = []
    for node in module.nodes(ast.ImportFrom):
        owner = module.project.module_of(module, module.absolute("." * node.level + (node.module or "")))
        if owner is not None and owner is not module:
            path = str(owner.resolved)
            found += [(path, alias.name, (alias.asname or alias.name) in in_parts) for alias in node.names]
    for node in module.nodes(ast.Attribute):
        qualified = module.qualified(node)
        owner = None if qualified is None else module.project.module_of(module, qualified.rpartition(".")[0])
        if owner is not None and owner is not module:
            user = module.parent(node)
            is_part = isinstance(user, ast.Subscript) and user.value is node
            found.append((str(owner.resolved), node.attr, is_part))
    return found


def _surroundings(imports: Iterable[_Imported], chosen: frozenset[str]) -> Surroundings:
    """What the other files of the project import from each, and of what they read single items."""
    imported: dict[str, set[str]] = {}
    parts: dict[str, set[str]] = {}
    for path, name, is_part in (item for module in imports for item in module):
        imported.setdefault(path, set()).add(name)
        if is_part:
            parts.setdefault(path, set()).add(name)
    return Surroundings(chosen, _frozen(imported), _frozen(parts))


def _frozen(found: Mapping[str, set[str]]) -> dict[str, frozenset[str]]:
    return {path: frozenset(names) for path, names in found.items()}


def _neighbours(sources: Iterable[Path]) -> list[Path]:
    """The files that may import from some: all of their project's experiments, or of their directory."""
    roots: dict[Path, None] = {}
    for path in sources:
        resolved = path.resolve()
        experiments = [folder for folder in resolved.parents if folder.name == "experiments"]
        roots[experiments[-1] if experiments else project_root(path) or resolved.parent] = None
    return list(dict.fromkeys([path for root in roots for path in python_files([str(root)])]))


def _hoisted(path: Path, file: _Begun, before: str, project: Project, surroundings: Surroundings) -> str:
    """The text of a module that builds nothing when it is imported, with the imports that it needs."""
    module = project.module_at(path.resolve()) or Module(path, file.text, project)
    text, created = rewrite_imports_of_steps(module, LocalNames(module), surroundings)
    original = Module(path, before, project)
    created |= file.created
    text = rewrite_parameters(_again(module, text))
    text = tidied_imports(_again(module, text), original, created)
    if "TYPE_CHECKING" in text:
        # A block that has lost its imports is gone by now, and with it what its condition needed.
        text = tidied_imports(_again(module, text), original, created)
    parsed(text, path)
    return text


def _remarked_part(
    sources: Sequence[Source], *, texts: Mapping[Path, str], packages: Packages, clean: frozenset[Path]
) -> list[Migrated]:
    project = Project(packages, texts)
    done: list[Migrated] = []
    for source in sources:
        text = texts[source.path.resolve()]
        is_done = source.path in clean and _without_remarks(text) == text
        done.append(Migrated(source, text, ()) if is_done else _remarked(source, text, project))
    return done


def _remarked(source: Source, text: str, project: Project) -> Migrated:
    """A file with a comment above each statement that stays in the older style, and what is in it."""
    path = source.path
    with deep_recursion(path):
        bare = _without_remarks(text)
        module = Module(path, bare, project)
        findings = _with_reasons(lint_module(module), module)
    if not findings:
        return Migrated(source, bare, ())
    starts = sorted(_statement_lines(module))
    lines = bare.split("\n")
    messages: dict[int, dict[str, str]] = {}
    for finding in findings:
        start = starts[bisect_right(starts, finding.line) - 1]
        messages.setdefault(start, {}).setdefault(finding.code, finding.message)
    for start in sorted(messages, reverse=True):
        indent = lines[start - 1][: len(lines[start - 1]) - len(lines[start - 1].lstrip())]
        lines[start - 1 : start - 1] = [
            f"{indent}# {code}: {message}" for code, message in sorted(messages[start].items())
        ]

    def moved(line: int) -> int:
        return line + sum(len(told) for start, told in messages.items() if start <= line)

    left = [replace(finding, line=moved(finding.line), end_line=moved(finding.end_line)) for finding in findings]
    return Migrated(source, "\n".join(lines), tuple(left))


def _with_reasons(findings: Sequence[Finding], module: Module) -> list[Finding]:
    """Findings that say of constructors why they were left."""
    reasons = {
        module.span(plan.call): plan.reason for plan in plan_constructors(module).plans if isinstance(plan, Left)
    }
    told: list[Finding] = []
    for finding in findings:
        place = Span(finding.line, finding.column - 1, finding.end_line, finding.end_column - 1)
        reason = reasons.get(place) if finding.code == "MT005" else None
        told.append(replace(finding, message=f"{finding.message}: {reason}") if reason else finding)
    return told


def _without_remarks(text: str) -> str:
    """A text without the comments of an earlier time, which may be true no more."""
    if not any(_REMARK.match(line) for line in text.split("\n")):
        return text
    comments = comment_lines(text)
    lines = enumerate(text.split("\n"), 1)
    return "\n".join(line for number, line in lines if not (_REMARK.match(line) and number in comments))


def _statement_lines(module: Module) -> set[int]:
    """The first lines of statements, those of their decorators included."""
    lines: set[int] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.stmt):
            decorators = getattr(node, "decorator_list", [])
            lines.add(min([node.lineno, *(decorator.lineno for decorator in decorators)]))
    return lines
