"""One entry step: what an experiment hands to ``executor_main``."""

import ast
from collections.abc import Iterator

from marin_trace.migration.findings import Finding
from marin_trace.migration.inference import calls_steps, definition_of, is_helper_name, is_step, kind_of
from marin_trace.migration.kinds import Kind, depends_on_steps, kind_of_annotation
from marin_trace.migration.module import Module
from marin_trace.migration.names import STEP_LIST
from marin_trace.migration.scopes import Assigned, Imported, Opaque

_REF_ATTRIBUTES = frozenset({"artifact", "cd", "nonblocking", "with_output_path"})
_SEVERAL = (ast.List, ast.Tuple, ast.ListComp, ast.GeneratorExp, ast.BinOp, ast.Set)
_MADE = frozenset({Kind.REF, Kind.REFS, Kind.MAPPING})
_FUNCTIONS = ("fn", "func", "function", "factory", "callback")
"""How parameters end that take a function, and not what calling it returns."""
_FIX = "one @step(name='.../all') function that calls the leaves, and executor_main(steps=[run_...()])"


def executor_calls(module: Module) -> Iterator[tuple[ast.Call, ast.expr | None]]:
    """Each call of ``executor_main``, with its steps."""
    for call in module.nodes(ast.Call):
        if module.framework_name(call.func) == "executor_main":
            named = [keyword.value for keyword in call.keywords if keyword.arg == "steps"]
            yield call, next(iter([*named, *call.args]), None)


def step_lists(module: Module) -> Iterator[Finding]:
    """Lists that name the steps of an experiment."""
    for _, steps in executor_calls(module):
        if steps is not None and _names_several(steps, module):
            yield module.finding("MT004", steps, "executor_main is given a list of steps", _FIX)
    for statement in [*module.nodes(ast.Assign), *module.nodes(ast.AnnAssign)]:
        if module.place(statement).at_import and _is_step_list(statement, module):
            yield module.finding("MT004", statement, f"{_target(statement)} lists steps by hand", _FIX)


def needs_entry(steps: ast.expr, module: Module) -> bool:
    """Whether what ``executor_main`` is given is a list, or no call of an entry step."""
    elements = steps.elts if isinstance(steps, ast.List | ast.Tuple) else [steps]
    return _names_several(steps, module) or any(_is_no_entry(element, module) for element in elements)


def _names_several(steps: ast.expr, module: Module) -> bool:
    if isinstance(steps, ast.List | ast.Tuple):
        return len(steps.elts) > 1 or any(isinstance(item, ast.Starred) for item in steps.elts)
    is_slice = isinstance(steps, ast.Subscript) and isinstance(steps.slice, ast.Slice)
    if is_slice or isinstance(steps, _SEVERAL):
        return True
    if isinstance(steps, ast.Call) and isinstance(steps.func, ast.Name) and steps.func.id in ("list", "tuple"):
        return True
    return any(isinstance(value, _SEVERAL) for value in _values_of(steps, module))


def _values_of(node: ast.expr, module: Module) -> list[ast.expr]:
    """What a name was assigned, or was taken from."""
    scope = module.place(node).scope.lookup(node.id) if isinstance(node, ast.Name) else None
    if scope is None or not isinstance(node, ast.Name):
        return []
    values: list[ast.expr] = []
    for binding in scope.bindings[node.id]:
        values += [binding.value] if isinstance(binding, Assigned) else []
        values += binding.sources if isinstance(binding, Opaque) else ()
    return values


def _is_step_list(statement: ast.Assign | ast.AnnAssign, module: Module) -> bool:
    value = statement.value
    if not isinstance(value, ast.List | ast.Tuple) or not value.elts:
        return False
    if isinstance(statement, ast.AnnAssign) and kind_of_annotation(statement.annotation, module) is Kind.REFS:
        return True
    return STEP_LIST.fullmatch(_target(statement)) is not None and kind_of(value, module) is Kind.REFS


def _target(statement: ast.Assign | ast.AnnAssign) -> str:
    return ast.unparse(statement.targets[0] if isinstance(statement, ast.Assign) else statement.target)


def missing_entries(module: Module) -> Iterator[Finding]:
    """``executor_main`` without a call of an entry step."""
    for call, steps in executor_calls(module):
        if steps is None:
            if not any(keyword.arg is None for keyword in call.keywords):
                yield module.finding("MT007", call, "executor_main is given no steps", _FIX)
            continue
        if _names_several(steps, module):
            continue
        elements = steps.elts if isinstance(steps, ast.List | ast.Tuple) else [steps]
        if not elements:
            yield module.finding("MT007", steps, "executor_main is given no steps", _FIX)
        for element in elements:
            if _is_no_entry(element, module):
                text = ast.unparse(element).partition("\n")[0]
                shown = text if len(text) <= 60 else f"{text[:57]}..."
                yield module.finding("MT007", element, f"executor_main is given {shown}, which is no entry step", _FIX)


def _is_no_entry(element: ast.expr, module: Module) -> bool:
    if isinstance(element, ast.Name):
        scope = module.place(element).scope.lookup(element.id)
        bindings = scope.bindings[element.id] if scope is not None else []
        if any(isinstance(binding, Imported) for binding in bindings):
            return kind_of(element, module) is not Kind.STEP
        return any(_is_made_without_entry(value, module) for value in _values_of(element, module))
    is_call_of_step = isinstance(element, ast.Call) and kind_of(element.func, module) is Kind.STEP
    return not is_call_of_step and _is_made_without_entry(element, module)


def _is_made_without_entry(value: ast.expr, module: Module) -> bool:
    """Whether a value is a step that no entry step called."""
    place = module.place(value)
    value = _container(value)
    if not isinstance(value, ast.Call):
        base = next((node for node in ast.walk(value) if isinstance(node, ast.Name)), None)
        made = [] if base is None or base is value else _values_of(base, module)
        is_made = place.at_import and depends_on_steps(kind_of(value, module))
        return is_made or any(_is_made_without_entry(inner, module) for inner in made)
    if place.at_import and (calls_steps(value, module) or kind_of(value, module) in _MADE):
        return True
    if module.framework_name(value.func) == "ExecutorStep" or is_helper_name(value.func, module):
        return True
    found = definition_of(value.func, module)
    if found is None or is_step(*found):
        return False
    return calls_steps(value, module) or kind_of(value, module) in _MADE


def _container(value: ast.expr) -> ast.expr:
    """The call of which a value is an item, attribute or path: ``made()`` of ``made()[0] / "x"``."""
    base = value
    while isinstance(base, ast.Subscript | ast.Attribute | ast.BinOp):
        base = base.left if isinstance(base, ast.BinOp) else base.value
    return base if isinstance(base, ast.Call) else value


def uncalled_steps(module: Module) -> Iterator[Finding]:
    """Step functions in the place of what calling them returns."""
    for node in [*module.nodes(ast.Name), *module.nodes(ast.Attribute)]:
        if isinstance(node.ctx, ast.Load) and kind_of(node, module) is Kind.STEP and _is_used_as_ref(node, module):
            name = ast.unparse(node)
            yield module.finding("MT016", node, f"{name} is a step, not what calling it returns", f"{name}()")


def _is_used_as_ref(node: ast.expr, module: Module) -> bool:
    parent = module.parent(node)
    match parent:
        case ast.BinOp(left=left, op=ast.Div()):
            return left is node
        case ast.Attribute(attr=attribute):
            return attribute in _REF_ATTRIBUTES
        case ast.keyword():
            call = module.parent(parent)
            return isinstance(call, ast.Call) and _takes_values(call, parent.arg, module)
        case ast.Call(func=function):
            return function is not node and _takes_values(parent, None, module)
        case ast.List() | ast.Tuple():
            outer = module.parent(parent)
            call = module.parent(outer) if isinstance(outer, ast.keyword) else outer
            return isinstance(call, ast.Call) and _takes_values(call, None, module)
        case _:
            return False


def _takes_values(call: ast.Call, parameter: str | None, module: Module) -> bool:
    """Whether a call is one that takes refs rather than functions: a config, a step, the run itself."""
    if parameter is not None and parameter.endswith(_FUNCTIONS):
        return False
    if module.framework_name(call.func) is not None:
        return module.framework_name(call.func) == "executor_main"
    name = ast.unparse(call.func).rpartition(".")[2]
    return name.endswith("Config") or kind_of(call.func, module) in (Kind.STEP, Kind.DEFERRED)
