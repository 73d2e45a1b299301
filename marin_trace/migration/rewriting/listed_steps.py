"""What ``executor_main`` is given: what of it an entry step has to call, and what was made where it does not."""

import ast
import itertools

from marin_trace.migration.inference import calls_steps, makes_older_steps
from marin_trace.migration.module import Module
from marin_trace.migration.rewriting.changes import MUTATORS
from marin_trace.migration.rewriting.fates import HOLDS_MAKERS, SEEN_OUTSIDE, Entry, Fate, HoistPlan
from marin_trace.migration.rewriting.lines import DEFINITIONS, own_reads
from marin_trace.migration.scopes import Assigned, Element, Imported

_COLLECTIONS = frozenset({"list", "tuple", "sorted", "set", "reversed", "dict"})
_PASSING_ON = frozenset({"values", "copy", "cd", "nonblocking", "with_output_path"})
"""Methods of refs and of collections of them that make no step."""
_FUNCTIONS = (*DEFINITIONS, ast.Lambda)


def lists_made_elsewhere(entry: Entry, plan: HoistPlan, module: Module) -> bool:
    """Whether a list for ``executor_main`` names steps that the entry step does not call: it would lose them."""
    lists = own_reads(entry.steps)
    for line in plan.lines:
        if not line.depends or not line.binds & lists:
            continue
        for node in ast.walk(line.node):
            if any(_is_made_elsewhere(item, plan, module) for item in _listed(node, lists)):
                return True
    return False


def _listed(node: ast.AST, lists: set[str]) -> list[ast.expr]:
    """What a statement or call puts into one of some lists."""
    match node:
        case ast.Assign(value=value) | ast.AnnAssign(value=ast.expr() as value) | ast.AugAssign(value=value):
            given = [value]
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=attribute), args=given):
            given = given if name in lists and attribute in MUTATORS else []
        case _:
            given = []
    return [item for value in given for item in (value.elts if isinstance(value, ast.List | ast.Tuple) else [value])]


def _is_made_elsewhere(item: ast.expr, plan: HoistPlan, module: Module) -> bool:
    """Whether what is listed, or a part of it, was made where the entry step does not call it."""

    def any_of(*parts: ast.expr) -> bool:
        return any(_is_made_elsewhere(part, plan, module) for part in parts)

    match item:
        case ast.Call(func=ast.Name(id=name), args=args) if name in _COLLECTIONS:
            return any_of(*args)
        case ast.Call(func=ast.Attribute(value=value, attr=attribute)) if attribute in _PASSING_ON:
            return any_of(value)
        case ast.Call():
            return makes_older_steps(item, module)
        case ast.ListComp(elt=made, generators=loops) | ast.GeneratorExp(elt=made, generators=loops):
            return any_of(made) or (not isinstance(made, ast.Call) and any_of(*(loop.iter for loop in loops)))
        case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts):
            return any_of(*parts)
        case ast.BinOp(left=left, right=right):
            return any_of(left, right)
        case ast.IfExp(body=left, orelse=right):
            return any_of(left, right)
        case ast.Subscript(value=value) | ast.Attribute(value=value) | ast.Starred(value=value):
            return any_of(value)
        case ast.Name(ctx=ast.Load()):
            return _is_bound_elsewhere(item, plan, module)
        case _:
            return False


def _is_bound_elsewhere(name: ast.Name, plan: HoistPlan, module: Module) -> bool:
    scope = module.place(name).scope.lookup(name.id)
    bindings = scope.bindings[name.id] if scope is not None else []
    is_value = any(isinstance(binding, Imported) for binding in bindings) and name.id not in plan.imported
    is_older = any(isinstance(b, Assigned) and _is_older(b.value, module) for b in bindings)
    looped = [binding.iterable for binding in bindings if isinstance(binding, Element)]
    is_item = any(_is_made_elsewhere(iterable, plan, module) for iterable in looped)
    return plan.fates.get(name.id) is Fate.LEFT or is_value or is_older or is_item


def constructs_older(line: ast.stmt, module: Module) -> bool:
    """Whether a statement makes a step by the older constructor, other than in a function in it."""
    known: set[ast.AST] | None = module.memo.get("constructing")
    if known is None:
        known = module.memo["constructing"] = set[ast.AST]()
        for call in module.nodes(ast.Call):
            if module.framework_name(call.func) == "ExecutorStep":
                outside = itertools.takewhile(lambda node: not isinstance(node, _FUNCTIONS), module.ancestors(call))
                known.update(outside)
    return line in known


def _is_older(value: ast.expr, module: Module) -> bool:
    constructs = isinstance(value, ast.Call) and module.framework_name(value.func) == "ExecutorStep"
    return constructs or (isinstance(value, ast.Call) and makes_older_steps(value, module))


def emitted_steps(steps: ast.expr, plan: HoistPlan, module: Module) -> list[ast.expr] | None:
    """Of what ``executor_main`` is given, what the entry step has to call; None where that cannot be told."""
    match steps:
        case ast.List(elts=items) | ast.Tuple(elts=items):
            parts = [emitted_steps(item, plan, module) for item in items]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            parts = [emitted_steps(side, plan, module) for side in (left, right)]
        case ast.Starred(value=value) | ast.BinOp(left=value, op=ast.Div()):
            return emitted_steps(value, plan, module)
        case ast.Call(func=ast.Name(id="list" | "tuple" | "sorted" | "set"), args=[value], keywords=[]):
            return emitted_steps(value, plan, module)
        case ast.Call(func=ast.Attribute(value=value, attr="values" | "cd" | "nonblocking")):
            return emitted_steps(value, plan, module)
        case ast.Name(id=name):
            return _emitted_name(steps, name, plan)
        case ast.Call() if calls_steps(steps, module) and not makes_older_steps(steps, module):
            return [steps]
        case ast.Subscript(value=ast.Name(id=name)):
            return [steps] if (plan.fates.get(name) or plan.imported.get(name)) in HOLDS_MAKERS else None
        case ast.ListComp(generators=[_]) | ast.GeneratorExp(generators=[_]):
            return _emitted_loop(steps, plan, module)
        case _:
            return None
    flat: list[ast.expr] = []
    for part in parts:
        if part is None:
            return None
        flat += part
    return flat


def _emitted_name(node: ast.Name, name: str, plan: HoistPlan) -> list[ast.expr] | None:
    fate = plan.fates.get(name) or plan.imported.get(name)
    if fate is Fate.LOCAL:
        return []
    return [node] if fate in SEEN_OUTSIDE else None


def _emitted_loop(node: ast.ListComp | ast.GeneratorExp, plan: HoistPlan, module: Module) -> list[ast.expr] | None:
    [generator] = node.generators
    makes = any(isinstance(part, ast.Call) and calls_steps(part, module) for part in ast.walk(node.elt))
    if makes and not generator.is_async:
        return [node]
    passes_on = isinstance(node.elt, ast.Name) and ast.unparse(node.elt) == ast.unparse(generator.target)
    is_local = isinstance(generator.iter, ast.Name) and plan.fates.get(generator.iter.id) is Fate.LOCAL
    return [] if passes_on and is_local and not generator.ifs else None
