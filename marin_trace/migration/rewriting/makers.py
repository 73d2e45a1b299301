"""What readers of a hoisted name do now: call the function that it is, or those of a mapping of functions.

A mapping of steps, of which some readers want one item and others all, becomes a mapping of functions:
``tokens["web"]`` is ``tokens["web"]()``, and makes that step alone.
"""

import ast
from enum import StrEnum
from typing import Any

import libcst as cst

from marin_trace.migration.module import Module, Span
from marin_trace.migration.rewriting.fates import HOLDS_MAKERS, Fate, HoistPlan
from marin_trace.migration.rewriting.hoisting_plans import mapping_of_makers

_KEYS = frozenset({"len", "list", "sorted", "set", "tuple", "enumerate", "iter"})


class Use(StrEnum):
    """How a reader uses a mapping or list of functions."""

    ITEM = "one item"
    ALL = "the whole mapping"
    VALUES = "all values"


def calls_of(module: Module, plan: HoistPlan) -> set[Span]:
    """Where a name stands that became a function: each place calls it, those that build it excepted."""
    attributes = {node for node, fate in plan.attributes.items() if fate not in HOLDS_MAKERS}
    functions = plan.functions()
    calling = functions | (plan.imported.keys() - plan.partial_makers())
    inside = {
        name: {id(inner) for line in plan.lines if name in line.binds and line.depends for inner in ast.walk(line.node)}
        for name in functions
    }
    names = {module.span(node) for node in _reads(module, calling) if id(node) not in inside.get(node.id, set())}
    return names | set(map(module.span, attributes))


def _reads(module: Module, names: set[str]) -> list[ast.Name]:
    found: list[ast.Name] = []
    for node in module.nodes(ast.Name):
        if isinstance(node.ctx, ast.Load) and node.id in names:
            scope = module.place(node).scope.lookup(node.id)
            if scope is not None and scope.is_module:
                found.append(node)
    return found


def uses_of_makers(module: Module, plan: HoistPlan) -> dict[Span, Use]:
    """The expressions that use a mapping or list of functions, each with how it does."""
    uses = _uses_of_lists(module, plan)
    mappings = plan.partial_makers() - _lists(plan)
    lazy = {id(node.func) for node in module.nodes(ast.Call) if _is_iterated_lazily(node, module, plan)}
    attributes = [node for node, fate in plan.attributes.items() if fate is Fate.MAKERS]
    for node in (*_reads(module, mappings), *attributes):
        parent = module.parent(node)
        outer = module.parent(parent) if parent is not None else None
        match parent:
            case ast.Subscript(value=value) if value is node:
                uses[module.span(parent)] = Use.ITEM
            case ast.Attribute(attr="values") if isinstance(outer, ast.Call) and outer.func is parent:
                uses[module.span(outer)] = Use.VALUES
            case ast.Attribute(attr="keys"):
                continue
            case ast.Attribute() if id(parent) in lazy:
                continue
            case ast.Compare() | ast.For() | ast.comprehension():
                continue
            case ast.Call(func=ast.Name(id=function)) if function in _KEYS:
                continue
            case _:
                uses[module.span(node)] = Use.ALL
    return uses


def _lists(plan: HoistPlan) -> set[str]:
    return {name for fates in (plan.imported, plan.fates) for name, fate in fates.items() if fate is Fate.LISTED}


def _uses_of_lists(module: Module, plan: HoistPlan) -> dict[Span, Use]:
    uses: dict[Span, Use] = {}
    attributes = [node for node, fate in plan.attributes.items() if fate is Fate.LISTED]
    for node in (*_reads(module, _lists(plan)), *attributes):
        parent = module.parent(node)
        match parent:
            case ast.Subscript(value=value, slice=index) if value is node:
                uses[module.span(parent)] = Use.VALUES if isinstance(index, ast.Slice) else Use.ITEM
            case ast.Call(func=ast.Name(id="len")):
                continue
            case _:
                uses[module.span(node)] = Use.VALUES
    return uses


def _is_iterated_lazily(node: ast.Call, module: Module, plan: HoistPlan) -> bool:
    """Whether a call is ``name.items()`` in a comprehension that makes a mapping of functions itself."""
    if mapping_of_makers(node, plan) is None:
        return False
    statement = module.statement(node)
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.DictComp(generators=[generator])):
            return name in plan.makers() and generator.iter is node
        case _:
            return False


def used(node: cst.BaseExpression, use: Use) -> cst.BaseExpression:
    """What a reader writes instead."""
    code = cst.Module([]).code_for_node(node)
    match use:
        case Use.ITEM:
            return cst.Call(node)
        case Use.ALL:
            return cst.parse_expression(f"{{key: make() for key, make in {code}.items()}}")
        case Use.VALUES:
            return cst.parse_expression(f"[make() for make in {code}]")


def with_makers(statement: Any, module: Module, plan: HoistPlan, name: str) -> Any:
    """The assignment of a mapping or list, with functions that make its values."""
    [small] = statement.body
    value = small.value
    if isinstance(value, cst.Dict | cst.List):
        elements = [element.with_changes(value=_maker(element.value, ())) for element in value.elements]
        return _assigned(statement, name, value.with_changes(elements=elements))
    [line] = [line.node for line in plan.lines if name in line.binds and line.depends]
    comprehension = line.value if isinstance(line, ast.Assign | ast.AnnAssign) else None
    assert isinstance(comprehension, ast.DictComp | ast.ListComp)
    [generator] = comprehension.generators
    made_item = comprehension.value if isinstance(comprehension, ast.DictComp) else comprehension.elt
    bound = [node.id for node in ast.walk(generator.target) if isinstance(node, ast.Name)]
    lazy = {bound[-1]} if mapping_of_makers(generator.iter, plan) is not None and len(bound) == 2 else set[str]()
    read = {node.id for node in ast.walk(made_item) if isinstance(node, ast.Name)}
    parameters = tuple(parameter for parameter in bound if parameter in read)
    if isinstance(value, cst.ListComp):
        return _assigned(statement, name, value.with_changes(elt=_maker(value.elt, parameters)))
    item = value.value.visit(_Called(lazy)) if lazy else value.value
    return _assigned(statement, name, value.with_changes(value=_maker(item, parameters)))


def _assigned(statement: Any, name: str, value: cst.BaseExpression) -> Any:
    """The statement as a plain assignment: an annotation of refs would not fit any more."""
    return statement.with_changes(body=[cst.Assign([cst.AssignTarget(cst.Name(name))], value)])


def _maker(value: cst.BaseExpression, parameters: tuple[str, ...]) -> cst.BaseExpression:
    """A function that makes a value: of ``step()`` the step itself."""
    match value:
        case cst.Call(func=cst.Name() as function, args=[]) if not parameters:
            return function
        case _:
            pass
    equal = cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))
    # What a loop binds is kept as a default: the function is called when the loop has ended.
    given = [cst.Param(cst.Name(name), default=cst.Name(name), equal=equal) for name in parameters]
    made = cst.Lambda(cst.Parameters(given), value)
    return made.with_changes(whitespace_after_lambda=cst.SimpleWhitespace(" ")) if given else made


class _Called(cst.CSTTransformer):
    """Calls some names."""

    def __init__(self, names: set[str]) -> None:
        super().__init__()
        self._names = names

    def leave_Arg(self, original_node: cst.Arg, updated_node: cst.Arg) -> cst.Arg:
        return updated_node.with_changes(keyword=original_node.keyword)

    def leave_Attribute(self, original_node: cst.Attribute, updated_node: cst.Attribute) -> cst.Attribute:
        return updated_node.with_changes(attr=original_node.attr)

    def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.BaseExpression:
        return cst.Call(updated_node) if original_node.value in self._names else updated_node
