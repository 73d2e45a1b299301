"""A module as text to be judged, and the project that its imports lead into."""

import ast
import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar, cast, final

from marin_trace.errors import StorageError
from marin_trace.migration.findings import Finding
from marin_trace.migration.names import LIBRARY_MODULES, WELL_KNOWN_NAMES, Packages
from marin_trace.migration.scopes import Imported, Place, Scope, ScopeTree, dotted_name
from marin_trace.migration.sources import EVERY_CODE, project_root, read_source, suppressed_codes

_Node = TypeVar("_Node", bound=ast.AST)

_ROOTS: Final = ("pyproject.toml", ".git")
"""What lies in the topmost directory that a project's modules are looked for in."""


class Layer(StrEnum):
    """The layers of an experiment's code."""

    LIBRARY = "library"
    WIRING = "wiring"
    USER = "user"


@final
@dataclass(frozen=True, slots=True)
class Span:
    """Where a node stands: lines from 1, columns in characters from 0."""

    line: int
    column: int
    end_line: int
    end_column: int


def parsed(text: str, path: Path) -> ast.Module:
    """The syntax tree of a text.

    Raises:
        SyntaxError: The text is no Python, or nested too deeply to be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text, str(path))
    except (RecursionError, MemoryError) as error:
        raise SyntaxError("nested too deeply", (str(path), 1, 1, "")) from error
    except ValueError as error:
        raise SyntaxError(str(error), (str(path), 1, 1, "")) from error


def layer_of(path: Path) -> Layer:
    """The layer of a file, by where it lies in its project.

    ``experiments/lib`` and ``lib`` are the library, ``experiments/steps`` is wiring.
    """
    root = project_root(path)
    # Without a project the directories above the experiments say nothing.
    parts = path.resolve().relative_to(root).parts if root is not None else path.parts
    folders = parts[:-1]
    if "tests" in folders:
        return Layer.USER
    if "experiments" in folders:
        index = len(folders) - folders[::-1].index("experiments")
        below = folders[index] if index < len(folders) else ""
        return {"lib": Layer.LIBRARY, "steps": Layer.WIRING}.get(below, Layer.USER)
    return Layer.LIBRARY if "lib" in folders else Layer.USER


class Module:
    """One file: its syntax tree, its scopes, and the project around it.

    Raises:
        SyntaxError: The text is no Python.
    """

    def __init__(self, path: Path, text: str, project: "Project") -> None:
        self.path: Final = path
        self.text: Final = text
        self.project: Final = project
        self.tree: Final = parsed(text, path)
        self._scopes: Final = ScopeTree(self.tree)
        self.root: Final[Scope] = self._scopes.root
        self._nodes: dict[type[ast.AST], list[ast.AST]] = {}
        for node in self._scopes.places:
            self._nodes.setdefault(type(node), []).append(node)
        self.values: Final[dict[ast.expr, Any]] = {}
        """What inference found out; it is the owner."""
        self.memo: Final[dict[str, Any]] = {}
        """What else was found out about the module, by what it is called."""

    @cached_property
    def resolved(self) -> Path:
        """The file without links."""
        return self.path.resolve()

    @cached_property
    def layer(self) -> Layer:
        """The layer of the file."""
        return layer_of(self.path)

    @cached_property
    def dotted(self) -> str:
        """The module's name, as far as packages with ``__init__.py`` say."""
        path = self.resolved
        parts = [] if path.stem == "__init__" else [path.stem]
        folder = path.parent
        while (folder / "__init__.py").exists():
            parts.append(folder.name)
            folder = folder.parent
        return ".".join(reversed(parts))

    @cached_property
    def _suppressed(self) -> Mapping[int, frozenset[str]]:
        return suppressed_codes(self.text)

    @cached_property
    def _lines(self) -> list[str]:
        return self.text.split("\n")

    def nodes(self, kind: type[_Node]) -> list[_Node]:
        """The nodes of a class, in the order of the text as far as scopes allow."""
        return self._nodes.get(kind, [])  # pyright: ignore[reportReturnType]

    def place(self, node: ast.AST) -> Place:
        """Where a node stands."""
        return self._scopes.places[node]

    @property
    def scopes(self) -> list[Scope]:
        """Every scope of the file."""
        return list(self._scopes.scopes.values())

    def scope_in(self, node: ast.AST) -> Scope:
        """The scope that a function, class or module opens."""
        return self._scopes.scopes[node]

    def has_place(self, node: ast.AST) -> bool:
        """Whether a node belongs to this module."""
        return node in self._scopes.places

    def parent(self, node: ast.AST) -> ast.AST | None:
        """The node that holds a node; None for a statement of the module."""
        place = self._scopes.places.get(node)
        return None if place is None or place.parent is self.tree else place.parent

    def ancestors(self, node: ast.AST) -> list[ast.AST]:
        """The nodes that hold a node, from the inside out."""
        found: list[ast.AST] = []
        parent = self.parent(node)
        while parent is not None:
            found.append(parent)
            parent = self.parent(parent)
        return found

    def statement(self, node: ast.AST) -> ast.stmt:
        """The innermost statement that a node belongs to."""
        current: ast.AST | None = node
        while current is not None and not isinstance(current, ast.stmt):
            current = self.parent(current)
        assert isinstance(current, ast.stmt)
        return current

    def line_of(self, statement: ast.stmt) -> list[ast.stmt]:
        """The statements that stand on the line of one, in order: itself, and what semicolons divide from it."""
        parent = self.place(statement).parent
        for name in ("body", "orelse", "finalbody"):
            block: Any = getattr(parent, name, None)
            # A lambda and a conditional expression have one expression there.
            if isinstance(block, list) and statement in block:
                return [line for line in cast("list[ast.stmt]", block) if line.lineno == statement.lineno]
        return [statement]

    def function(self, node: ast.AST) -> ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | None:
        """The innermost function whose body a node belongs to."""
        scope: Scope | None = self.place(node).scope
        while scope is not None:
            if isinstance(scope.node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                return scope.node
            scope = scope.parent
        return None

    def qualified(self, node: ast.expr) -> str | None:
        """The absolute dotted name that an expression has through this module's imports."""
        dotted = dotted_name(node)
        if dotted is None:
            return None
        first, _, rest = dotted.partition(".")
        place = self._scopes.places.get(node)
        scope = (place.scope if place is not None else self.root).lookup(first)
        binding = scope.bindings[first][-1] if scope is not None else None
        if not isinstance(binding, Imported):
            return None
        base = self.absolute(binding.module)
        if binding.attribute is not None:
            base = f"{base}.{binding.attribute}"
        return f"{base}.{rest}" if rest else base

    def framework_name(self, node: ast.expr) -> str | None:
        """``step`` for an expression that means the executor's ``step``, however it was imported.

        A name that nothing binds, as in an excerpt or after ``import *``, means what the executor calls so. A generic
        class with its arguments, ``ExecutorStep[Config]``, is that class.
        """
        if isinstance(node, ast.Subscript):
            node = node.value
        qualified = self.qualified(node)
        if qualified is not None:
            return self.project.packages.framework_name(qualified)
        return node.id if isinstance(node, ast.Name) and node.id in WELL_KNOWN_NAMES and self.is_unbound(node) else None

    def is_unbound(self, node: ast.Name) -> bool:
        """Whether nothing in the module binds a name that is read."""
        place = self._scopes.places.get(node)
        return (place.scope if place is not None else self.root).lookup(node.id) is None

    def absolute(self, module: str) -> str:
        """The absolute name of a module that an import of this file names."""
        level = len(module) - len(module.lstrip("."))
        if not level:
            return module
        parts = self.dotted.split(".")
        is_package = self.path.stem == "__init__"
        kept = parts[: len(parts) - level + is_package]
        return ".".join([*kept, module[level:]] if module[level:] else kept)

    def span(self, node: ast.AST) -> Span:
        """Where a node stands, in characters."""
        line: int = getattr(node, "lineno", 1)
        end_line: int = getattr(node, "end_lineno", None) or line
        column, end_column = getattr(node, "col_offset", 0), getattr(node, "end_col_offset", None) or 0
        return Span(line, self._characters(line, column), end_line, self._characters(end_line, end_column))

    def _characters(self, line: int, column: int) -> int:
        text = self._lines[line - 1] if line <= len(self._lines) else ""
        return column if text.isascii() else len(text.encode()[:column].decode(errors="replace"))

    def finding(self, code: str, node: ast.AST, message: str, fix: str) -> Finding:
        """A finding about a node."""
        span = self.span(node)
        end = (span.end_line, span.end_column + 1)
        return Finding(str(self.path), span.line, span.column + 1, code, message, fix, *end)

    def is_suppressed(self, finding: Finding) -> bool:
        """Whether ``# noqa`` on the first or last line of what was found covers it."""
        lines = (finding.line, finding.end_line)
        codes = frozenset[str]().union(*(self._suppressed.get(line, frozenset()) for line in lines))
        return codes == EVERY_CODE or bool(codes & {finding.code, *EVERY_CODE})


class Project:
    """The modules that imports lead to, as far as their source can be found; each is read once.

    Nothing is imported. A module that cannot be found, read or parsed is unknown, and so is what comes from it.
    """

    def __init__(self, packages: Packages | None = None, overlay: Mapping[Path, str] | None = None) -> None:
        self.packages: Final = packages or Packages()
        self._overlay: Final = dict(overlay or {})
        """Texts that stand for what lies on the disk, by resolved path."""
        self._modules: dict[Path, Module | None] = {}
        self._paths: dict[tuple[Path, str], Path | None] = {}

    def module_of(self, importer: Module, dotted: str) -> Module | None:
        """The module that a file's import of an absolute name leads to."""
        if not dotted or self.packages.is_framework(dotted):
            return None
        folder = importer.resolved.parent
        key = (folder, dotted)
        if key not in self._paths:
            self._paths[key] = _file_of(folder, dotted)
        path = self._paths[key]
        return None if path is None else self.module_at(path)

    def module_at(self, path: Path) -> Module | None:
        """The module in a file, or None where there is none that can be read."""
        if path not in self._modules:
            self._modules[path] = self._read(path)
        return self._modules[path]

    def _read(self, path: Path) -> Module | None:
        try:
            text = self._overlay[path] if path in self._overlay else read_source(path).text
            return Module(path, text, self)
        except (SyntaxError, RecursionError, StorageError):
            # What is wrong with it is said where that file itself is judged.
            return None


def _file_of(folder: Path, dotted: str) -> Path | None:
    """Where a module's source lies: below a directory above the importing file, or below a source root there."""
    top = dotted.partition(".")[0]
    relative = dotted.replace(".", os.sep)
    for root in map(str, (folder, *folder.parents)):
        for source_root in (root, f"{root}/src", f"{root}/lib/{top}/src"):
            # Most names are found nowhere: where there is no such directory or file, nothing below it is asked for.
            if not os.path.exists(f"{source_root}/{top}") and not os.path.exists(f"{source_root}/{top}.py"):
                continue
            for candidate in (f"{source_root}/{relative}.py", f"{source_root}/{relative}/__init__.py"):
                if os.path.isfile(candidate):
                    return Path(candidate)
        if top in sys.stdlib_module_names or any(os.path.exists(f"{root}/{name}") for name in _ROOTS):
            return None
    return None


def is_library_import(dotted: str, packages: Packages) -> bool:
    """Whether library code may import a module of the package."""
    return any(
        dotted == f"{packages.new}.{name}" or dotted.startswith(f"{packages.new}.{name}.") for name in LIBRARY_MODULES
    )
