"""Statements of a module: what each binds, reads and calls, and which depend on steps."""

import ast
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final, final

from marin_trace.migration.inference import calls_steps, definition_of, is_own_output, makes_older_steps
from marin_trace.migration.module import Module
from marin_trace.migration.rewriting.changes import changed_in_place
from marin_trace.migration.scopes import FunctionNode, is_main_test, walk_own

DEFINITIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@final
@dataclass(slots=True, eq=False)
class Line:
    """A statement of the module, or of the block that calls ``executor_main``."""

    node: ast.stmt
    in_main: bool
    binds: frozenset[str]
    """Names that it binds, or changes the value of."""
    reads: frozenset[str]
    """Names that it reads when it is executed; those of functions in it only for functions of the main block."""
    calls_steps: bool
    depends: bool = False


def line_of(node: ast.stmt, module: Module, imported: Collection[str | ast.AST], *, in_main: bool) -> Line:
    """What a statement binds, reads and calls.

    Args:
        node: The statement.
        module: Its module.
        imported: Names, and expressions, that stand for what another module makes: to read one is to call a step.
        in_main: Whether it stands in the block that calls ``executor_main``.
    """
    own = list(_own_nodes(node))
    binds = {
        name.id
        for name in own
        if isinstance(name, ast.Name) and not isinstance(name.ctx, ast.Load) and _is_own_scope(name, node, module)
    }
    binds |= {name for part in own for name in changed_in_place(part)}
    binds |= {node.name} if isinstance(node, DEFINITIONS) else set()
    reads = {name.id for name in own if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Load)}
    if in_main and isinstance(node, DEFINITIONS):
        reads |= {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
    is_definition = isinstance(node, (*DEFINITIONS, ast.Import, ast.ImportFrom))
    is_guard = isinstance(node, ast.If) and is_main_test(node.test)
    is_made = any(part in imported for part in (*reads, *own))
    calls = not is_definition and not is_guard and (is_made or _calls_steps(own, module))
    return Line(node, in_main, frozenset(binds), frozenset(reads), calls)


def _is_own_scope(name: ast.Name, line: ast.stmt, module: Module) -> bool:
    """Whether a name is bound where its statement stands, and not in a comprehension or lambda of it."""
    return module.place(name).scope is module.place(line).scope


def _own_nodes(node: ast.stmt) -> list[ast.AST]:
    """What a statement evaluates itself: of a function in it the defaults and decorators, of a lambda nothing."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        parts = [*node.decorator_list, *node.args.defaults, *(d for d in node.args.kw_defaults if d is not None)]
        return [inner for part in parts for inner in walk_own(part)]
    return [inner for inner in walk_own(node) if not isinstance(inner, DEFINITIONS) or inner is node]


def own_reads(node: ast.AST) -> set[str]:
    """The names that are read anywhere in a node."""
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Load)}


def _calls_steps(nodes: Iterable[ast.AST], module: Module) -> bool:
    for node in nodes:
        if isinstance(node, ast.Call) and calls_steps(node, module) and not makes_older_steps(node, module):
            return True
        if (
            isinstance(node, ast.expr)
            and is_own_output(node, module)
            and module.framework_name(_callee(node)) == "output"
        ):
            return True
    return False


def _callee(node: ast.expr) -> ast.expr:
    return node.func if isinstance(node, ast.Call) else node


def spread(lines: list[Line]) -> None:
    """Marks what depends on steps, until nothing more does."""
    names: set[str] = set()
    while True:
        changed = False
        for line in lines:
            is_plain = not isinstance(line.node, DEFINITIONS) or line.in_main
            if is_plain and not line.depends and (line.calls_steps or line.reads & names or line.binds & names):
                line.depends = changed = True
                names |= line.binds
        # A name that is bound again and again has its value at that moment: it moves along with what reads it.
        read = {name for line in lines if line.depends for name in line.reads}
        for name in read - names:
            binders = [
                line for line in lines if name in line.binds and not isinstance(line.node, ast.Import | ast.ImportFrom)
            ]
            if len(binders) > 1 and not all(line.in_main for line in binders):
                names.add(name)
                changed = True
        # A function of the main block that moved statements call moves as well.
        for line in lines:
            if line.in_main and isinstance(line.node, DEFINITIONS) and line.binds & read and not line.depends:
                line.depends = changed = True
                names |= line.binds
        if not changed:
            return


def dependent_names(lines: Iterable[Line]) -> dict[str, list[Line]]:
    """The names that depend on steps, each with the statements that bind or change it."""
    binders: dict[str, list[Line]] = {}
    for line in lines:
        for name in line.binds if line.depends else ():
            binders.setdefault(name, []).append(line)
    return binders


def names_read_inside(node: ast.AST, module: Module) -> set[str]:
    """The names of the module's top level that a function or class reads."""
    found: set[str] = set()
    for name in ast.walk(node):
        if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Load):
            scope = module.place(name).scope.lookup(name.id)
            if scope is not None and scope.is_module:
                found.add(name.id)
    return found


def needed_names(lines: list[Line], wanted: set[str]) -> set[str]:
    """The names that depend on steps and that some wanted ones are made of, themselves included."""
    binders = dependent_names(lines)
    needed: set[str] = set()
    pending = [name for name in wanted if name in binders]
    while pending:
        name = pending.pop()
        if name not in needed:
            needed.add(name)
            pending += [read for line in binders[name] for read in (line.reads | line.binds) if read in binders]
    return needed


def names_read_in_parts(module: Module) -> set[str]:
    """The names of the module's top level of which single items are read."""
    return {name for name, node in parts_read(module) if _is_global(node, module)}


def parts_read(module: Module) -> Iterable[tuple[str, ast.Name]]:
    """Each name of which an item is read."""
    for node in module.nodes(ast.Subscript):
        if isinstance(node.value, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.value.id, node.value


def names_taken_apart(module: Module) -> set[str]:
    """The names that are given to functions which read single items of them: all of their steps are made for one."""
    found: set[str] = set()
    for call in module.nodes(ast.Call):
        defined = definition_of(call.func, module)
        if defined is None:
            continue
        function, owner = defined
        positional = [*function.args.posonlyargs, *function.args.args]
        given = [(argument.arg, value) for argument, value in zip(positional, call.args, strict=False)]
        given += [(keyword.arg, keyword.value) for keyword in call.keywords if keyword.arg is not None]
        for parameter, value in given:
            if isinstance(value, ast.Name) and _is_read_in_parts(parameter, function, owner):
                found.add(value.id)
    return found


def _is_read_in_parts(parameter: str, function: FunctionNode, module: Module) -> bool:
    """Whether all that a function reads of a parameter are items by their key."""
    nodes = [node for line in function.body for node in ast.walk(line) if isinstance(node, ast.Name)]
    reads = [node for node in nodes if node.id == parameter and isinstance(node.ctx, ast.Load)]
    return bool(reads) and all(_is_item(node, module) for node in reads)


def _is_item(node: ast.Name, module: Module) -> bool:
    match module.parent(node):
        case ast.Subscript(value=value, slice=index):
            return value is node and not isinstance(index, ast.Slice)
        case ast.Attribute(attr=attribute):
            return attribute in ("get", "pop")
        case _:
            return False


def _is_global(node: ast.Name, module: Module) -> bool:
    scope = module.place(node).scope.lookup(node.id)
    return scope is not None and scope.is_module


def shares_its_line(line: Line, module: Module) -> bool:
    """Whether another statement of the module stands on the same line."""
    return len(module.line_of(line.node)) > 1


def is_simple(node: ast.stmt) -> bool:
    """Whether a statement gives one name its value: ``name = value``."""
    match node:
        case ast.Assign(targets=[ast.Name()]):
            return True
        case ast.AnnAssign(target=ast.Name(), value=ast.expr()):
            return True
        case _:
            return False
