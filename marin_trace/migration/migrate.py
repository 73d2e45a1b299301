"""``marin-trace migrate``: the texts of files in today's style, and what had to be left.

Files are migrated together: a step that one of them constructs is a function in all of them afterwards. Two rounds over
all files: constructors and references first, then what modules build when they are imported, for which it must be known
what the others offer by then.
"""

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, final

from marin_trace.migration.findings import Finding
from marin_trace.migration.lint import deep_recursion, lint_module, syntax_finding
from marin_trace.migration.module import Module, Project, parsed
from marin_trace.migration.names import Packages
from marin_trace.migration.rewriting.constructor_plans import plan_constructors
from marin_trace.migration.rewriting.constructors import rewrite_constructors
from marin_trace.migration.rewriting.cst import Document, spaced
from marin_trace.migration.rewriting.expressions import rewrite_expressions
from marin_trace.migration.rewriting.hoisting import rewrite_imports_of_steps
from marin_trace.migration.rewriting.hoisting_plans import Surroundings, parts_read
from marin_trace.migration.rewriting.imports import LocalNames, tidied_imports, with_wanted_imports
from marin_trace.migration.rewriting.library import positional_arguments, rewrite_defaults
from marin_trace.migration.sources import Source, project_root, python_files, read_source

_TRIGGERS: Final = frozenset(f"MT{number:03}" for number in (1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 16))
"""Findings of which a file without any needs no change."""

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
    packages = packages or Packages()
    sources, unread = _read(paths)
    chosen = frozenset(str(path.resolve()) for path in sources)
    first = _first_round(sources, chosen, packages)
    final_texts = _second_round(sources, first, chosen, packages)
    return [unread[path] if path in unread else final_texts[path] for path in paths]


def _read(paths: Sequence[Path]) -> tuple[dict[Path, Source], dict[Path, Migrated]]:
    sources: dict[Path, Source] = {}
    unread: dict[Path, Migrated] = {}
    for path in paths:
        try:
            source = read_source(path)
            with deep_recursion(path):
                parsed(source.text, path)
                Document(source.text, path)
            sources[path] = source
        except SyntaxError as error:
            unread[path] = Migrated(Source(path, ""), "", (syntax_finding(path, error),))
    return sources, unread


@final
@dataclass(frozen=True, slots=True)
class _Begun:
    """A file after the first round."""

    text: str
    created: frozenset[str] = frozenset()
    is_touched: bool = False


def _first_round(
    sources: Mapping[Path, Source], chosen: frozenset[str], packages: Packages
) -> dict[Path, _Begun]:
    project = Project(packages)
    modules = {path: _module(path, source.text, project) for path, source in sources.items()}
    positional: dict[str, int] = {}
    for module in modules.values():
        for name, count in (positional_arguments(module) if module is not None else {}).items():
            positional[name] = max(positional.get(name, 0), count)
    return {
        path: _Begun(sources[path].text) if module is None else _begun(module, chosen, positional)
        for path, module in modules.items()
    }


def _module(path: Path, text: str, project: Project) -> Module | None:
    """A module of the project, or None for one that is nested too deeply to be judged."""
    with deep_recursion(path):
        try:
            return project.module_at(path.resolve()) or Module(path, text, project)
        except SyntaxError:
            return None


def _begun(module: Module, chosen: frozenset[str], positional: dict[str, int]) -> _Begun:
    with deep_recursion(module.path):
        if not _needs_change(module, chosen):
            return _Begun(module.text)
        names = LocalNames(module)
        current = _again(module, with_wanted_imports(module, names))
        kept = plan_constructors(current).kept_nodes
        current = _again(module, rewrite_expressions(current, names, kept))
        current = _again(module, rewrite_defaults(current, positional))
        text, created = rewrite_constructors(current, names, set(chosen))
        return _Begun(text, frozenset(created), is_touched=True)


def _again(module: Module, text: str) -> Module:
    """A module with another text."""
    return Module(module.path, text, module.project)


def _needs_change(module: Module, chosen: frozenset[str]) -> bool:
    packages = module.project.packages
    if packages.is_framework(module.dotted):
        return False
    if any(finding.code in _TRIGGERS for finding in lint_module(module)):
        return True
    if packages.old != packages.new and any(_is_below(node.module, packages.old) for node in module.nodes(ast.ImportFrom)):
        return True
    return _imports_chosen(module, chosen)


def _is_below(module: str | None, package: str) -> bool:
    return module is not None and (module == package or module.startswith(f"{package}."))


def _imports_chosen(module: Module, chosen: frozenset[str]) -> bool:
    """Whether a module imports from a file that is migrated as well, so that a name may be a function by then."""
    for node in module.nodes(ast.ImportFrom):
        owner = module.project.module_of(module, module.absolute("." * node.level + (node.module or "")))
        if owner is not None and str(owner.path.resolve()) in chosen and owner.path.resolve() != module.path.resolve():
            return True
    return False


def _second_round(
    sources: Mapping[Path, Source], begun: Mapping[Path, _Begun], chosen: frozenset[str], packages: Packages
) -> dict[Path, Migrated]:
    project = Project(packages, {path.resolve(): file.text for path, file in begun.items()})
    surroundings = _surroundings(sources, chosen, project)
    return {
        path: _finished(sources[path], file, project, surroundings) for path, file in begun.items()
    }


def _surroundings(sources: Mapping[Path, Source], chosen: frozenset[str], project: Project) -> Surroundings:
    """What the other files of the project import from each, and of what they read single items."""
    imported: dict[str, set[str]] = {}
    parts: dict[str, set[str]] = {}
    for path in _neighbours(sources):
        module = project.module_at(path.resolve())
        if module is None:
            continue
        in_parts = {name for name, _ in parts_read(module)}
        for node in module.nodes(ast.ImportFrom):
            owner = project.module_of(module, module.absolute("." * node.level + (node.module or "")))
            if owner is None or owner is module:
                continue
            key = str(owner.path.resolve())
            imported.setdefault(key, set()).update(alias.name for alias in node.names)
            parts.setdefault(key, set()).update(a.name for a in node.names if (a.asname or a.name) in in_parts)
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


def _finished(source: Source, file: _Begun, project: Project, surroundings: Surroundings) -> Migrated:
    path = source.path
    with deep_recursion(path):
        try:
            text = _hoisted(source, file, project, surroundings) if file.is_touched else file.text
            text, left = _with_remarks(path, text, project)
        except SyntaxError as error:
            # Whatever went wrong, what is written is Python: then it is what was read.
            message = f"left as it was, since its new text would be no Python ({error.msg}): please report this"
            return Migrated(source, source.text, (replace(syntax_finding(path, error), message=message),))
        return Migrated(source, text, left)


def _hoisted(source: Source, file: _Begun, project: Project, surroundings: Surroundings) -> str:
    path = source.path
    module = project.module_at(path.resolve()) or Module(path, file.text, project)
    text, created = rewrite_imports_of_steps(module, LocalNames(module), surroundings)
    original = Module(path, source.text, project)
    text = tidied_imports(Module(path, text, project), original)
    if "TYPE_CHECKING" in text:
        # A block that has lost its imports is gone by now, and with it what its condition needed.
        text = tidied_imports(Module(path, text, project), original)
    text = _spaced(text, path, {*file.created, *created})
    parsed(text, path)
    return text


def _spaced(text: str, path: Path, created: set[str]) -> str:
    tree = Document(text, path).tree
    return tree.with_changes(body=spaced(tree.body, created)).code if created else text


def _with_remarks(path: Path, text: str, project: Project) -> tuple[str, tuple[Finding, ...]]:
    """A text with a comment above each statement that stays in the older style, and what is in it."""
    findings = _judged(path, text, project)
    if not findings:
        return text, ()
    module = Module(path, text, project)
    starts = _statement_lines(module)
    lines = text.split("\n")
    codes_by_line: dict[int, list[Finding]] = {}
    for finding in findings:
        start = max((line for line in starts if line <= finding.line), default=finding.line)
        codes_by_line.setdefault(start, []).append(finding)
    for start in sorted(codes_by_line, reverse=True):
        present = _remarks_above(lines, start - 1)
        indent = re.match(r"\s*", lines[start - 1])
        by_code = {finding.code: finding for finding in codes_by_line[start] if finding.code not in present}
        added = [f"{indent.group() if indent else ''}# {code}: {found.message}" for code, found in sorted(by_code.items())]
        lines[start - 1 : start - 1] = added
    remarked = "\n".join(lines)
    return remarked, tuple(_judged(path, remarked, project))


def _judged(path: Path, text: str, project: Project) -> list[Finding]:
    return lint_module(Module(path, text, Project(project.packages, {path.resolve(): text})))


def _statement_lines(module: Module) -> set[int]:
    """The first lines of statements, those of their decorators included."""
    lines: set[int] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.stmt):
            decorators = getattr(node, "decorator_list", [])
            lines.add(min([node.lineno, *(decorator.lineno for decorator in decorators)]))
    return lines


def _remarks_above(lines: list[str], index: int) -> set[str]:
    """The codes that the comments directly above a line name."""
    codes: set[str] = set()
    while index > 0 and (match := _REMARK.match(lines[index - 1])) is not None:
        codes.add(match[1])
        index -= 1
    return codes

