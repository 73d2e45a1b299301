"""Statements that make own paths for a constructor: they come along into the body of its step, where that is safe."""

import ast
from collections.abc import Iterator
from typing import Final

from marin_trace.migration.inference import names_read, own_output_in
from marin_trace.migration.module import Module
from marin_trace.migration.rewriting.changes import names_changed_between
from marin_trace.migration.rewriting.given import Given
from marin_trace.migration.scopes import FunctionNode, Parameter, walk_own

LOOPS: Final = (ast.For, ast.AsyncFor, ast.While)
COMPREHENSIONS: Final = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def parameters_of(function: FunctionNode | ast.Lambda) -> list[str]:
    """The parameters of a function, but for ``*args`` and ``**kwargs``."""
    arguments = function.args
    return [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]


def bound_in(binder: ast.AST, module: Module) -> Iterator[str]:
    """The names that a statement or comprehension binds; not those that comprehensions in it bind for themselves."""
    if isinstance(binder, ast.Lambda):
        yield from parameters_of(binder)
        return
    targets: list[ast.AST] = [binder]
    scope = module.place(binder).scope
    if isinstance(binder, COMPREHENSIONS):
        targets = [*(generator.target for generator in binder.generators)]
        scope = module.scope_in(binder)
    for target in targets:
        for node in walk_own(target):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and module.place(node).scope is scope:
                yield node.id
            elif isinstance(node, ast.FunctionDef | ast.ClassDef) and node is not binder:
                yield node.name


def changes_between(moved: tuple[ast.stmt, ...], call: ast.Call, module: Module) -> bool:
    """Whether statements that come along into a step's body would read there what has changed since."""
    return any(names_read(line) & names_changed_between(line, call, module, moved) for line in moved)


def is_bound_by(name: str, statements: tuple[ast.stmt, ...], module: Module) -> bool:
    """Whether one of some statements binds a name."""
    return any(name in set(bound_in(statement, module)) for statement in statements)


def own_statements(
    given: Given, anchor: ast.stmt, function: ast.AST | None, module: Module
) -> tuple[ast.stmt, ...] | None:
    """The statements of the function around a constructor that make own paths for it; None: they cannot be moved.

    At the top level of a module such statements become functions of their own instead.
    """
    block = _block_of(given.call, function, module)
    needed: list[ast.stmt] = []
    pending = names_read(given.call)
    seen: set[str] = set()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        for statement in block:
            if (
                name in set(bound_in(statement, module))
                and own_output_in(statement, module)
                and statement not in needed
            ):
                needed.append(statement)
                pending |= names_read(statement)
    # What is computed from an own path is one as well: `longer = replace(config, steps=9)`.
    changed = True
    while changed:
        changed = False
        own = {name for statement in needed for name in bound_in(statement, module)}
        for statement in block:
            is_simple = isinstance(statement, ast.Assign | ast.AnnAssign)
            if (
                statement not in needed
                and is_simple
                and names_read(statement) & own
                and set(bound_in(statement, module)) & seen
            ):
                needed.append(statement)
                seen |= names_read(statement)
                changed = True
    needed.sort(key=lambda statement: statement.lineno)
    is_movable = all(
        isinstance(line, ast.Assign | ast.AnnAssign | ast.If)
        and line.lineno < given.call.lineno
        and len(module.line_of(line)) == 1
        for line in needed
    )
    if needed and (not is_movable or anchor in needed):
        return None
    is_whole = _are_read_only_here(needed, given, block, module) and _are_bound_only_here(needed, given, module)
    return tuple(needed) if is_whole else None


def _block_of(call: ast.Call, function: ast.AST | None, module: Module) -> list[ast.stmt]:
    """The statements beside which, and around which, a constructor of a function stands."""
    if function is None and module.place(call).scope.is_module:
        nodes: list[ast.AST] = [node for node in module.ancestors(call) if isinstance(node, LOOPS)]
    else:
        nodes = [node for node in module.ancestors(call) if isinstance(node, (*LOOPS, ast.If, ast.With))]
        nodes += [function] if function is not None else []
    block: list[ast.stmt] = []
    for node in nodes:
        block += [line for line in getattr(node, "body", []) if isinstance(line, ast.stmt)]
        block += [line for line in getattr(node, "orelse", []) if isinstance(line, ast.stmt)]
    holders = set(module.ancestors(call))
    return [line for line in block if line not in holders]


def _are_read_only_here(needed: list[ast.stmt], given: Given, block: list[ast.stmt], module: Module) -> bool:
    own = {name for statement in needed for name in bound_in(statement, module)}
    inside = {id(node) for root in (*needed, given.call) for node in ast.walk(root)}
    constructors = [c for c in module.nodes(ast.Call) if module.framework_name(c.func) == "ExecutorStep"]
    inside |= {id(node) for constructor in constructors for node in ast.walk(constructor)}
    readers = [node for line in block for node in ast.walk(line) if isinstance(node, ast.Name)]
    return not any(node.id in own and isinstance(node.ctx, ast.Load) and id(node) not in inside for node in readers)


def _are_bound_only_here(needed: list[ast.stmt], given: Given, module: Module) -> bool:
    """Whether nothing of what some statements bind is said of the step itself, or keeps a value from before them."""
    own = {name for statement in needed for name in bound_in(statement, module)}
    if any(own & names_read(value) for value in (given.by_name["name"], *given.options.values())):
        return False
    # Under a condition a name may keep what it was: so nothing else may bind it.
    perhaps = {name for line in needed if isinstance(line, ast.If) for name in bound_in(line, module)}
    inside = {id(node) for statement in needed for node in ast.walk(statement)}
    scope = module.place(given.call).scope
    return not any(
        node.id in perhaps and not isinstance(node.ctx, ast.Load) and id(node) not in inside
        for node in module.nodes(ast.Name)
        if module.place(node).scope is scope
    ) and not any(isinstance(binding, Parameter) for name in perhaps for binding in scope.bindings.get(name, []))
