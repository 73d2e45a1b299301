"""What becomes of each ``ExecutorStep(...)``: a step function, and where it stands."""

import ast
from dataclasses import dataclass, field
from typing import TypeAlias, final

from marin_trace.migration.inference import kind_of_name, names_read, own_output_in
from marin_trace.migration.kinds import depends_on_steps
from marin_trace.migration.module import Module
from marin_trace.migration.rewriting.changes import are_bound_only, names_changed_after
from marin_trace.migration.rewriting.given import Given, given_of
from marin_trace.migration.rewriting.imports import fresh_name
from marin_trace.migration.rewriting.own_paths import (
    COMPREHENSIONS,
    LOOPS,
    bound_in,
    changes_between,
    is_bound_by,
    own_statements,
    parameters_of,
)
from marin_trace.migration.rewriting.templates import template_of
from marin_trace.migration.rules.legacy import is_copy_of_step, is_redirection
from marin_trace.migration.scopes import (
    Assigned,
    Defined,
    Imported,
    Scope,
    is_main_test,
    walk_body,
)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """``NAME = ExecutorStep(...)`` at the top level: a step function NAME, called where NAME was read."""

    given: Given
    name: str
    statement: ast.stmt
    config_name: str | None
    """A function of its own for the config, where others read ``NAME.config``."""
    redirect: ast.expr | None = None
    """The path of ``ExecutorStep(...).with_output_path(path)``."""
    captured: tuple[str, ...] = ()
    """Names that are bound again later: the function keeps their value as a default."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class WholeFunction:
    """A function that ends in ``return ExecutorStep(...)``: it becomes the step itself."""

    given: Given
    function: ast.FunctionDef
    statement: ast.stmt
    name_template: str
    resources: str | None


@final
@dataclass(frozen=True, slots=True, eq=False)
class Lifted:
    """Any other constructor: a step function in front of the statement that it stands in, called in its place."""

    given: Given
    name: str
    anchor: ast.stmt
    parameters: tuple[str, ...]
    """Names that the loops and comprehensions around it bind."""
    is_named_outside: bool
    """The name is computed at each call, and passed as an argument."""
    moved: tuple[ast.stmt, ...]
    """Statements that make own paths for it: they come along into its body."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Left:
    """A constructor that stays, and why."""

    call: ast.Call
    reason: str


Rewritten: TypeAlias = Assignment | WholeFunction | Lifted
Plan: TypeAlias = Rewritten | Left


@final
@dataclass(slots=True)
class Plans:
    """The plans of a module."""

    module: Module
    plans: list[Plan] = field(default_factory=list[Plan])
    taken: set[str] = field(default_factory=set[str])
    """Names given to new functions."""

    @property
    def kept_nodes(self) -> set[ast.AST]:
        """Nodes in which own-path markers stay, since the constructor that they are for does."""
        kept: set[ast.AST] = set()
        for plan in self.plans:
            if isinstance(plan, Left):
                kept |= _reached(plan.call, self.module)
        return kept


def _reached(call: ast.Call, module: Module) -> set[ast.AST]:
    """A constructor, the function around it, and the statements of the module that make what it reads."""
    function = module.function(call)
    pending: list[ast.AST] = [call, *([function] if function is not None else [])]
    if isinstance(function, ast.FunctionDef):
        pending += own_path_arguments(function, module)
    reached: set[ast.AST] = set()
    while pending:
        node = pending.pop()
        if node in reached:
            continue
        reached |= set(ast.walk(node))
        for name in names_read(node):
            bindings = module.root.bindings.get(name, [])
            pending += [binding.value for binding in bindings if isinstance(binding, Assigned)]
    return reached


def plan_constructors(module: Module) -> Plans:
    """What becomes of the constructors of a module, in the order of the text."""
    known: Plans | None = module.memo.get("constructors")
    if known is not None:
        return known
    plans = module.memo["constructors"] = Plans(module)
    calls = [call for call in module.nodes(ast.Call) if module.framework_name(call.func) == "ExecutorStep"]
    for call in sorted(calls, key=lambda call: (call.lineno, call.col_offset)):
        plans.plans.append(_plan(call, plans))
    return plans


def _plan(call: ast.Call, plans: Plans) -> Plan:
    module = plans.module
    given = given_of(call)
    reason = "its arguments are not spelled out" if given is None else _obstacle(given, module)
    if given is None or reason is not None:
        return Left(call, reason or "")
    assigned = _assignment(given, plans)
    if assigned is not None:
        return assigned
    whole = _whole_function(given, module)
    return whole if whole is not None else _lifted(given, plans)


def _obstacle(given: Given, module: Module) -> str | None:
    """Why a constructor cannot become a step function."""
    function = given.by_name["fn"]
    if isinstance(function, ast.Lambda):
        return "its function is a lambda, which has no name that another process would find"
    if isinstance(function, ast.Name):
        scope = module.place(function).scope.lookup(function.id)
        is_nested = scope is not None and not scope.is_module
        if scope is not None and is_nested and any(isinstance(b, Defined) for b in scope.bindings[function.id]):
            return f"its function {function.id} is defined in another function"
    return None


def _is_copied(name: str, module: Module) -> bool:
    """Whether another step is made of one by ``replace``."""
    calls = [call for call in module.nodes(ast.Call) if call.args and isinstance(call.args[0], ast.Name)]
    return any(
        is_global(call.args[0], name, module) and is_copy_of_step(call, module) and not is_redirection(call, module)
        for call in calls
        if isinstance(call.args[0], ast.Name)
    )


def _assignment(given: Given, plans: Plans) -> Assignment | Left | None:
    module, value = plans.module, given.call
    redirect: ast.expr | None = None
    parent = module.parent(value)
    if isinstance(parent, ast.Attribute) and parent.attr == "with_output_path":
        outer = module.parent(parent)
        if isinstance(outer, ast.Call) and len(outer.args) == 1 and not outer.keywords:
            value, redirect = outer, outer.args[0]
    statement = module.parent(value)
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            pass
        case _:
            return None
    is_top = statement in module.tree.body and len(module.line_of(statement)) == 1
    if not is_top or len(module.root.bindings[name]) != 1 or _is_rebound(name, module):
        return None
    changed = tuple(sorted(names_changed_after(statement, module)))
    kinds = [kind_of_name(changing, module.root, module) for changing in changed]
    if any(map(depends_on_steps, kinds)) or not are_bound_only(changed, module):
        # A function would read what they are in the end: they are passed to it as they are now.
        return None
    if _is_copied(name, module):
        return Left(given.call, "copies of it are made with other fields")
    config_name = None
    if any(_is_attribute_of(node, name, "config", module) for node in module.nodes(ast.Attribute)):
        config_name = fresh_name(f"{name}_config", module, plans.taken)
        plans.taken.add(config_name)
    return Assignment(given, name, statement, config_name, redirect, changed)


def _is_attribute_of(node: ast.Attribute, name: str, attribute: str, module: Module) -> bool:
    return node.attr == attribute and isinstance(node.value, ast.Name) and is_global(node.value, name, module)


def is_global(node: ast.Name, name: str, module: Module) -> bool:
    """Whether a name that is read means what the module's top level binds."""
    scope = module.place(node).scope.lookup(name)
    return node.id == name and scope is not None and scope.is_module


def _is_rebound(name: str, module: Module) -> bool:
    return any(name in scope.outer_names for scope in module.scopes)


def _whole_function(given: Given, module: Module) -> WholeFunction | None:
    call = given.call
    function = module.function(call)
    if not isinstance(function, ast.FunctionDef) or function.decorator_list or function not in module.tree.body:
        return None
    last = function.body[-1]
    lines = list(walk_body(function))
    returns = [line for line in lines if isinstance(line, ast.Return)]
    calls = [
        line for line in lines if isinstance(line, ast.Call) and module.framework_name(line.func) == "ExecutorStep"
    ]
    is_generator = any(isinstance(line, ast.Yield | ast.YieldFrom | ast.Await) for line in lines)
    if returns != [last] or returns[0].value is not call or calls != [call] or is_generator:
        return None
    is_recursive = function.name in {name.id for name in lines if isinstance(name, ast.Name)}
    if is_recursive or own_path_arguments(function, module):
        return None
    scope = module.scope_in(function)
    unchanged = [name for name in parameters_of(function) if len(scope.bindings[name]) == 1]
    template = template_of(given.by_name["name"], unchanged, module)
    if template is None or _reads(given.by_name["name"], scope) - set(unchanged):
        return None
    resources = _options_of_whole(given, unchanged, scope, module)
    return None if resources is None else WholeFunction(given, function, last, template, resources or None)


def _reads(node: ast.expr, scope: Scope) -> set[str]:
    """The names of a function that an expression reads."""
    return {name for name in names_read(node) if name in scope.bindings}


def _options_of_whole(given: Given, unchanged: list[str], scope: Scope, module: Module) -> str | None:
    """The resources of a step that was a function, as a function of its arguments; "" for none, None: not possible."""
    resources = ""
    for name, value in given.options.items():
        local = _reads(value, scope)
        if not local:
            continue
        if not local <= set(unchanged):
            return None
        if name == "resources":
            resources = f"lambda {', '.join(sorted(local))}: {ast.unparse(value)}"
        elif name not in ("description", "override_output_path") or template_of(value, unchanged, module) is None:
            return None
        elif name == "override_output_path" and isinstance(value, ast.Name):
            # It may be None, which no template gives.
            return None
    return resources


def own_path_arguments(function: ast.FunctionDef, module: Module) -> list[ast.expr]:
    """What calls of a function pass that holds an own path, which belongs to no other step's body."""
    found: list[ast.expr] = []
    for call in module.nodes(ast.Call):
        if isinstance(call.func, ast.Name) and is_global(call.func, function.name, module):
            arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
            found += [argument for argument in arguments if own_output_in(argument, module)]
    return found


def _lifted(given: Given, plans: Plans) -> Plan:
    module, call = plans.module, given.call
    if _is_in_class(call, module):
        return Left(call, "it is made in the body of a class")
    function = module.function(call)
    if isinstance(function, ast.Lambda):
        return Left(call, "it is made in a lambda")
    anchor, binders = _surroundings(call, module)
    bound = {name for binder in binders for name in bound_in(binder, module)}
    if function is None:
        bound |= names_changed_after(module.statement(call), module)
    if isinstance(function, ast.FunctionDef) and own_path_arguments(function, module):
        return Left(call, f"{function.name} is given an own path, which belongs to no other step")
    moved = own_statements(given, anchor, function, module)
    if moved is None:
        return Left(call, "this_output_path() reaches it through more than plain assignments")
    if changes_between(moved, call, module):
        return Left(call, "what its config is made of changes before it is made")
    named = names_read(given.by_name["name"]) & bound
    is_named_outside = bool(named) and template_of(given.by_name["name"], named, module) is None
    inside = [value for key, value in given.by_name.items() if key != "name" or not is_named_outside]
    read = {name for node in (*inside, *moved) for name in names_read(node)}
    parameters = tuple(sorted(name for name in read & bound if not is_bound_by(name, moved, module)))
    if any(set(parameters) & names_read(value) for value in given.options.values()):
        return Left(call, "an option of it depends on the loop around it")
    name = fresh_name(_wanted_name(given, module), module, plans.taken)
    plans.taken.add(name)
    return Lifted(given, name, anchor, parameters, is_named_outside, moved)


def _is_in_class(node: ast.AST, module: Module) -> bool:
    scope: Scope | None = module.place(node).scope
    while scope is not None and not isinstance(scope.node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Module):
        if isinstance(scope.node, ast.ClassDef):
            return True
        scope = scope.parent
    return False


def _surroundings(call: ast.Call, module: Module) -> tuple[ast.stmt, list[ast.AST]]:
    """The statement to stand in front of, and what around the call binds names anew for each round."""
    anchor = module.statement(call)
    binders: list[ast.AST] = []
    for node in module.ancestors(call):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            break
        is_guard = isinstance(node, ast.If) and is_main_test(node.test)
        if isinstance(node, (*COMPREHENSIONS, ast.Lambda)):
            binders.append(node)
        elif isinstance(node, LOOPS) or is_guard:
            assert isinstance(node, ast.stmt)
            anchor, binders = node, [*binders, node]
    return module.line_of(anchor)[0], binders


def _wanted_name(given: Given, module: Module) -> str:
    """What to call the function of a constructor that no name of the module was assigned."""
    match module.parent(given.call):
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)) if "step" not in name:
            return f"{name}_step"
        case ast.Dict(keys=keys, values=values):
            key = keys[values.index(given.call)]
            statement = module.statement(given.call)
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                prefix = f"{ast.unparse(statement.targets[0])}_" if isinstance(statement, ast.Assign) else ""
                return f"{prefix}{key.value}"
        case _:
            pass
    name = given.by_name["name"]
    if isinstance(name, ast.Constant) and isinstance(name.value, str):
        return name.value.strip("/").rpartition("/")[2].lower()
    function = given.by_name["fn"]
    text = ast.unparse(function).rpartition(".")[2] if isinstance(function, ast.Name | ast.Attribute) else "made"
    return f"{text.lstrip('_')}_step"


def imported_assignment(binding: Imported, module: Module, chosen: set[str]) -> bool:
    """Whether an imported name is a step that becomes a function, in a file that is migrated as well.

    Args:
        binding: Of the importing module.
        module: The importing module.
        chosen: The files that are migrated, as resolved paths.
    """
    owner = module.project.module_of(module, module.absolute(binding.module))
    if owner is None or binding.attribute is None:
        return False
    match owner.root.bindings.get(binding.attribute, []):
        case [Imported() as further]:
            return imported_assignment(further, owner, chosen)
        case [Assigned()] if str(owner.resolved) in chosen:
            plans = plan_constructors(owner)
            return any(isinstance(plan, Assignment) and plan.name == binding.attribute for plan in plans.plans)
        case _:
            return False
