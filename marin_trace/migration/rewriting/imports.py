"""Imports of the executor: which name is called what in a module, and which are needed in the end."""

import ast
import builtins
import keyword
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast, final

import libcst as cst

from marin_trace.migration.module import Module
from marin_trace.migration.names import LEGACY_NAMES, ROOT_NAMES, Packages
from marin_trace.migration.rewriting.cst import Carry, Document, comments_outside, spaced
from marin_trace.migration.scopes import Imported

WANTED: Final = ("StepRef", "deferred", "executor_main", "output", "step", "versioned")
"""What a pass may write into a module that did not import it."""

_LINE_LENGTH: Final = 120
_DIRECTIVE: Final = re.compile(r"#\s*(?:noqa|type:|pyright:|ruff:|isort:|fmt:|pylint:)")
"""A comment that tells a tool something of its line."""


class LocalNames:
    """How the names of the package's root are called in a module."""

    def __init__(self, module: Module) -> None:
        self._names: dict[str, str] = {}
        bound = _bound_names(module)
        for name in sorted(ROOT_NAMES):
            imported = _imported_as(name, module)
            self._names[name] = imported or (f"marin_{name}" if name in bound else name)
        self.missing: Final = tuple(name for name in WANTED if _imported_as(name, module) is None)
        """What may be written and is not imported yet."""

    def __getitem__(self, name: str) -> str:
        return self._names[name]


def _bound_names(module: Module) -> set[str]:
    return {name for scope in module.scopes for name in scope.bindings}


def _imported_as(name: str, module: Module) -> str | None:
    """The local name of a root export that a module imports at its top level."""
    for local, bindings in module.root.bindings.items():
        match bindings:
            case [Imported(module=source, attribute=attribute)] if attribute == name:
                if module.project.packages.is_framework(module.absolute(source)):
                    return local
            case _:
                continue
    return None


def with_wanted_imports(module: Module, names: LocalNames) -> str:
    """The text with everything imported that a pass may write; :func:`tidied_imports` takes away what was not."""
    if not names.missing:
        return module.text
    line = _import_line(module.project.packages.new, [(name, names[name]) for name in names.missing])
    lines = module.text.split("\n")
    index = _first_line_for_imports(module)
    return "\n".join([*lines[:index], line, *lines[index:]])


def _first_line_for_imports(module: Module) -> int:
    """The index of the line in front of which an import may stand."""
    after = 0
    packages = module.project.packages
    for statement in module.tree.body:
        if isinstance(statement, ast.ImportFrom) and packages.is_framework(statement.module or ""):
            return statement.end_lineno or statement.lineno
    for statement in module.tree.body:
        is_text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        is_future = isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
        if isinstance(statement, ast.Import | ast.ImportFrom) and not is_future:
            return statement.end_lineno or statement.lineno
        if not (is_text or is_future):
            break
        after = statement.end_lineno or statement.lineno
    return after


def _order(name: str) -> tuple[int, str]:
    """The order of imported names that formatters give: constants, classes, functions."""
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2), name


def _import_line(source: str, names: Iterable[tuple[str, str]]) -> str:
    ordered = sorted(names, key=lambda pair: _order(pair[0]))
    renamed = [f"from {source} import {name} as {local}" for name, local in ordered if name != local]
    parts = [name for name, local in ordered if name == local]
    if not parts:
        return "\n".join(renamed)
    line = f"from {source} import {', '.join(parts)}"
    if len(line) > _LINE_LENGTH:
        line = "\n".join([f"from {source} import (", *(f"    {part}," for part in parts), ")"])
    return "\n".join([line, *renamed])


@final
@dataclass(slots=True)
class _Needed:
    """The names that a module needs from the executor, by where they are imported from."""

    packages: Packages
    used: set[str]
    is_kept_unused: bool
    by_source: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])

    def add(self, source: str, name: str, local: str) -> None:
        if local not in self.used and not self.is_kept_unused:
            return
        target = self._target(source, name)
        self.by_source.setdefault(target, {})[local] = name

    def _target(self, source: str, name: str) -> str:
        packages = self.packages
        if name in ROOT_NAMES:
            return packages.new
        if name in LEGACY_NAMES and packages.new != packages.old:
            return packages.legacy
        return source

    def lines(self) -> list[str]:
        return [
            _import_line(source, [(name, local) for local, name in names.items()])
            for source, names in sorted(self.by_source.items())
        ]


def tidied_imports(module: Module, before: Module, created: set[str]) -> str:
    """The text with one import of the package's root, and without imports that nothing needs any more.

    Args:
        module: What the passes made.
        before: The module as it was read: imports that were unused then stay.
        created: New functions of the top level, around which blank lines are put.
    """
    used = names_used(module)
    lost = {name for name in names_used(before) - used if _is_import(name, module)}
    needed = _Needed(module.project.packages, used, is_kept_unused=module.path.name == "__init__.py")
    document = Document(module.text, module.path)
    tree = document.tree.visit(_Imports(module, needed, lost))
    return tree.with_changes(body=spaced(tree.body, created)).code


def names_used(module: Module) -> set[str]:
    """The names that a module reads anywhere: in code, quoted annotations and ``__all__``."""
    used = {name.id for name in module.nodes(ast.Name) if isinstance(name.ctx, ast.Load)}
    for constant in module.nodes(ast.Constant):
        if isinstance(constant.value, str) and (module.place(constant).is_annotation or _is_export(constant, module)):
            used |= set(re.findall(r"[^\W\d]\w*", constant.value))
    return used


def _is_export(constant: ast.Constant, module: Module) -> bool:
    statement = module.statement(constant)
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets)


def _is_import(name: str, module: Module) -> bool:
    return any(isinstance(binding, Imported) for binding in module.root.bindings.get(name, []))


class _Imports(cst.CSTTransformer):
    """Merges the executor's imports of the top level into the first, and mends those in functions where they stand."""

    def __init__(self, module: Module, needed: _Needed, lost: set[str]) -> None:
        super().__init__()
        self._module = module
        self._needed = needed
        self._lost = lost
        self._top: set[int] = set()
        self._pending = True
        self._is_merged = False
        """Whether one of them stands already, with the comments of all."""
        self._comments: list[cst.EmptyLine] = []
        """Of the executor's imports of the top level, to stand above the one that they become."""
        self._orphans: list[cst.EmptyLine] = []
        """Comments of an import that is needed no more, to stand above what follows."""
        self._body: set[int] = set()
        self._carry = Carry()

    def on_leave(self, original_node: cst.CSTNodeT, updated_node: cst.CSTNodeT) -> Any:
        updated: Any = super().on_leave(original_node, updated_node)
        if id(original_node) not in self._body:
            return updated
        updated = self._carry.passed_on(original_node, updated)
        if self._orphans and isinstance(updated, cst.SimpleStatementLine | cst.BaseCompoundStatement):
            updated = updated.with_changes(leading_lines=[*self._orphans, *updated.leading_lines])
            self._orphans = []
        return updated

    def visit_SimpleStatementLine(self, node: cst.SimpleStatementLine) -> bool:
        return False

    def visit_Module(self, node: cst.Module) -> None:
        self._body = {id(statement) for statement in node.body}
        for statement in node.body:
            line = self._framework_import(statement)
            if line is not None:
                self._top.add(id(statement))
                source = _source_of(line)
                for alias in cast("Sequence[cst.ImportAlias]", line.names):
                    self._needed.add(source, *_names_of(alias))
                self._comments += self._comments_of(cst.ensure_type(statement, cst.SimpleStatementLine), line)

    def _comments_of(self, statement: cst.SimpleStatementLine, line: cst.ImportFrom) -> list[cst.EmptyLine]:
        """The comments of an import that is merged into another, or built anew; those for tools are about its line."""
        is_first = len(self._top) == 1
        comments = comments_outside(statement if not is_first else line, [])
        return [line for line in comments if line.comment is not None and _DIRECTIVE.match(line.comment.value) is None]

    def _framework_import(self, statement: cst.CSTNode) -> cst.ImportFrom | None:
        if not isinstance(statement, cst.SimpleStatementLine) or len(statement.body) != 1:
            return None
        [line] = statement.body
        if not isinstance(line, cst.ImportFrom) or isinstance(line.names, cst.ImportStar) or line.relative:
            return None
        source = _source_of(line)
        packages = self._needed.packages
        if not packages.is_framework(source) or packages.is_framework(self._module.dotted):
            return None
        names = {_names_of(alias)[0] for alias in line.names}
        is_moved = source == packages.old or source.startswith(f"{packages.old}.")
        return line if is_moved or names & (ROOT_NAMES | LEGACY_NAMES) else None

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> Any:
        line = self._framework_import(original_node)
        if line is None:
            return self._without_lost(updated_node)
        if id(original_node) in self._top:
            lines = self._needed.lines() if self._pending else []
            self._pending = False
        else:
            needed = _Needed(self._needed.packages, self._needed.used, self._needed.is_kept_unused)
            for alias in cast("Sequence[cst.ImportAlias]", line.names):
                needed.add(_source_of(line), *_names_of(alias))
            lines = needed.lines()
        if not lines:
            is_merged = id(original_node) in self._top and self._is_merged
            self._orphans += (
                [] if is_merged else [line for line in updated_node.leading_lines if line.comment is not None]
            )
            return cst.RemoveFromParent()
        self._is_merged = True
        parsed = cst.parse_module("\n".join([*lines, ""])).body
        statements = [cst.ensure_type(statement, cst.SimpleStatementLine) for statement in parsed]
        comments = self._comments if id(original_node) in self._top else comments_outside(line, [])
        leading = [*updated_node.leading_lines, *comments]
        statements[0] = statements[0].with_changes(leading_lines=leading)
        statements[-1] = statements[-1].with_changes(trailing_whitespace=updated_node.trailing_whitespace)
        return cst.FlattenSentinel(statements)

    def _without_lost(self, statement: cst.SimpleStatementLine) -> Any:
        if len(statement.body) != 1 or not self._lost:
            return statement
        [line] = statement.body
        if not isinstance(line, cst.ImportFrom | cst.Import) or isinstance(line.names, cst.ImportStar):
            return statement
        kept = [alias for alias in line.names if _local_name(alias) not in self._lost]
        if len(kept) == len(line.names):
            return statement
        if not kept:
            return cst.RemoveFromParent()
        last = (
            kept[-1]
            if isinstance(line, cst.ImportFrom) and line.lpar
            else kept[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
        )
        return statement.with_changes(body=[line.with_changes(names=[*kept[:-1], last])])

    def leave_If(self, original_node: cst.If, updated_node: cst.If) -> Any:
        body = updated_node.body
        is_empty = isinstance(body, cst.IndentedBlock) and not body.body
        return cst.RemoveFromParent() if is_empty and updated_node.orelse is None else updated_node


def _source_of(line: cst.ImportFrom) -> str:
    return "" if line.module is None else cst.Module([]).code_for_node(line.module)


def _names_of(alias: cst.ImportAlias) -> tuple[str, str]:
    return alias.evaluated_name, alias.evaluated_alias or alias.evaluated_name


def _local_name(alias: cst.ImportAlias) -> str:
    return alias.evaluated_alias or alias.evaluated_name.partition(".")[0]


def fresh_name(wanted: str, module: Module, taken: Iterable[str] = ()) -> str:
    """A name that nothing in a module is called: the wanted one, or with a number."""
    used = {*_bound_names(module), *names_used(module), *taken, *dir(builtins)}
    name = re.sub(r"\W+", "_", wanted).strip("_") or "step"
    if name[0].isdigit():
        name = f"step_{name}"
    if not name.isidentifier() or name in used or keyword.iskeyword(name):
        name = next(f"{name}_{number}" for number in range(2, len(used) + 4) if f"{name}_{number}" not in used)
    return name
