"""Names whose value changes: what reads one must not be moved to where it has another value."""

import ast
from collections.abc import Iterable, Iterator
from typing import Final

from marin_trace.migration.module import Module
from marin_trace.migration.scopes import Defined, Imported, walk_body, walk_own

MUTATORS: Final = frozenset(
    {"append", "extend", "insert", "add", "update", "setdefault", "remove", "pop", "clear", "sort"}
)
"""Methods that change what they are called on."""

_WRAPPERS: Final = frozenset({"versioned", "ensure_versioned", "unwrap_versioned_value"})


def changed_in_place(node: ast.AST) -> Iterator[str]:
    """Names whose value a node changes without binding them."""
    match node:
        case ast.Subscript(ctx=ast.Store() | ast.Del(), value=ast.Name(id=name)):
            yield name
        case ast.Attribute(ctx=ast.Store(), value=ast.Name(id=name)):
            yield name
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=attribute))):
            if attribute in MUTATORS:
                yield name
        case _:
            pass


def _changes_in(nodes: Iterable[ast.AST], module: Module) -> list[tuple[int, str]]:
    """The lines in which names are bound or change their value, other than by being made versioned."""
    found: list[tuple[int, str]] = []
    kept: set[ast.AST] = set()
    for node in nodes:
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Assign) and _is_same_but_versioned(node, module):
            kept.add(node.targets[0])
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load) and node not in kept:
            found.append((line, node.id))
        found += [(line, name) for name in changed_in_place(node)]
    return found


def _is_same_but_versioned(node: ast.Assign, module: Module) -> bool:
    match node:
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=function, args=[ast.Name(id=given)])):
            return name == given and module.framework_name(function) in _WRAPPERS
        case _:
            return False


def names_changed_after(statement: ast.stmt, module: Module) -> set[str]:
    """The names of the top level that a statement reads, and that change after it, before the pipeline is traced."""
    end = statement.end_lineno or statement.lineno
    changes = _changes_of_top_level(module)
    later = {name for line, name in changes if line > end}
    if not later:
        return later
    before = {name for line, name in changes if line <= end}
    before |= {
        name
        for name, bindings in module.root.bindings.items()
        if any(isinstance(binding, Imported | Defined) for binding in bindings)
    }
    return later & before & _reads_of_top_level(statement, module)


def are_bound_only(names: Iterable[str], module: Module) -> bool:
    """Whether names of the top level change by being bound again alone: a value that was taken of one stays."""
    nodes = [node for line in module.tree.body for node in walk_own(line)]
    return not {name for node in nodes for name in changed_in_place(node)} & set(names)


def _changes_of_top_level(module: Module) -> list[tuple[int, str]]:
    known: list[tuple[int, str]] | None = module.memo.get("changes")
    if known is None:
        nodes = [node for line in module.tree.body for node in walk_own(line) if module.has_place(node)]
        known = _changes_in([node for node in nodes if module.place(node).scope.is_module], module)
        module.memo["changes"] = known
    return known


def _reads_of_top_level(statement: ast.stmt, module: Module) -> set[str]:
    names = [node for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    scopes = {name.id: module.place(name).scope.lookup(name.id) for name in names}
    return {name for name, scope in scopes.items() if scope is not None and scope.is_module}


def names_changed_between(first: ast.stmt, last: ast.AST, module: Module, but: Iterable[ast.stmt]) -> set[str]:
    """The names of a function, or of the top level, that change after one statement and before another node.

    Args:
        first: The statement.
        last: Stands in the same function.
        module: Theirs.
        but: Statements whose changes do not count.
    """
    function = module.function(last)
    nodes = list(walk_body(function)) if function is not None else [n for s in module.tree.body for n in walk_own(s)]
    left_out = {node for line in (*but, last) for node in ast.walk(line)}
    start, end = first.end_lineno or first.lineno, getattr(last, "lineno", 0)
    between = [node for node in nodes if start < getattr(node, "lineno", 0) <= end and node not in left_out]
    return {name for _, name in _changes_in(between, module)}
