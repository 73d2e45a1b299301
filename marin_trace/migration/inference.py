"""What an expression is, as far as reading tells: a ref, a tree of refs, a step function, a deferred result.

An answer is given where every binding of a name agrees; else a value is unknown, and no rule says anything of it.
Values are followed through assignments, parameters with annotations, returns of functions, and imports of modules whose
source can be found.
"""

import ast
from collections.abc import Iterable
from typing import Final

from marin_trace.migration.kinds import Kind, depends_on_steps, element_kind, item_kind, kind_of_annotation, last_name
from marin_trace.migration.module import Module
from marin_trace.migration.names import HELPER, HELPERS, HELPERS_FOR_MAPPINGS, HELPERS_FOR_SEVERAL
from marin_trace.migration.scopes import (
    Assigned,
    Binding,
    Defined,
    Element,
    FunctionNode,
    Imported,
    Opaque,
    Parameter,
    Scope,
    walk_body,
)

_REF_METHODS: Final = frozenset({"cd", "nonblocking", "with_output_path"})
_MAPPING_METHODS: Final = {"values": Kind.REFS, "copy": Kind.MAPPING, "get": Kind.REF, "pop": Kind.REF}
_SEQUENCE_METHODS: Final = {"copy": Kind.REFS, "pop": Kind.REF}
_SEVERAL: Final = {1: Kind.REFS, 2: Kind.MAPPING}
"""What ``*refs`` and ``**refs`` are."""
_TREE_BUILDERS: Final = frozenset({"list", "tuple", "sorted", "dict", "set", "reversed"})
_OWN: Final = frozenset({"output", "this_output_path"})
_REF_CALLS: Final = _OWN | {"ExecutorStep", "InputName", "output_path_of", "get_executor_step"}
_TRANSPARENT: Final = frozenset({"versioned", "ensure_versioned", "unwrap_versioned_value"})

# A marker for an expression whose value is being found out: it depends on itself.
_OPEN: Final = Kind.UNKNOWN


def kind_of(node: ast.expr, module: Module) -> Kind:
    """What an expression of a module is."""
    if "expected steps" not in module.memo:
        module.memo["expected steps"] = True
        _expect_steps(module)
    known: Kind | None = module.values.get(node)
    if known is not None:
        return known
    module.values[node] = _OPEN
    kind = _inferred(node, module)
    module.values[node] = kind
    return kind


def _expect_steps(module: Module) -> None:
    """Notes what ``executor_main`` is given: functions whose source cannot be read have made steps there."""
    for call in module.nodes(ast.Call):
        if module.framework_name(call.func) == "executor_main":
            given = [keyword.value for keyword in call.keywords if keyword.arg == "steps"] or call.args[:1]
            for value in given:
                _expect_step(value, module, depth=0)


def _expect_step(value: ast.expr, module: Module, depth: int) -> None:
    match value:
        case ast.List(elts=items) | ast.Tuple(elts=items) if depth < 4:
            for item in items:
                _expect_step(item, module, depth + 1)
        case ast.Name(id=name) if depth < 4:
            scope = module.place(value).scope.lookup(name)
            for binding in scope.bindings[name] if scope is not None else ():
                if isinstance(binding, Assigned):
                    _expect_step(binding.value, module, depth + 1)
        case ast.Call(func=function):
            is_unread = module.qualified(function) is not None and definition(function, module) is None
            if is_unread and module.framework_name(function) is None:
                module.values[value] = Kind.REF
        case _:
            pass


def kind_of_name(name: str, scope: Scope, module: Module) -> Kind:
    """What a name means that is read in a scope."""
    found = scope.lookup(name)
    if found is None:
        return Kind.UNKNOWN
    return _joined(kind_of_binding(binding, name, found, module) for binding in found.bindings[name])


def kind_of_binding(binding: Binding, name: str, scope: Scope, module: Module) -> Kind:
    """What one binding gives to its name."""
    match binding:
        case Assigned(value=value, annotation=annotation):
            kind = kind_of(value, module)
            return kind if kind is not Kind.UNKNOWN or annotation is None else kind_of_annotation(annotation, module)
        case Element(iterable=iterable, is_value=is_value):
            kind = kind_of(iterable, module)
            return item_kind(kind) if is_value else element_kind(kind)
        case Parameter(argument=argument, stars=stars):
            kind = Kind.UNKNOWN if argument.annotation is None else kind_of_annotation(argument.annotation, module)
            if not depends_on_steps(kind):
                return Kind.UNKNOWN
            return kind if not stars else _SEVERAL[stars] if kind is Kind.REF else Kind.HOLDER
        case Defined(node=node):
            return Kind.STEP if not isinstance(node, ast.ClassDef) and is_step(node, module) else Kind.UNKNOWN
        case Imported():
            return _imported_kind(binding, module)
        case Opaque(sources=sources):
            return Kind.HOLDER if any(depends_on_steps(kind_of(source, module)) for source in sources) else Kind.UNKNOWN


def is_step(node: FunctionNode, module: Module) -> bool:
    """Whether a function is decorated with the executor's ``@step``."""
    return step_decorator(node, module) is not None


def step_decorator(node: FunctionNode, module: Module) -> ast.expr | None:
    """The ``@step`` of a function."""
    for decorator in node.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        if module.framework_name(called) == "step":
            return decorator
    return None


def definition_of(node: ast.expr, module: Module) -> tuple[FunctionNode, Module] | None:
    """The function that an expression names, in whichever module it was defined."""
    found = definition(node, module)
    return None if found is None or isinstance(found[0], ast.ClassDef) else (found[0], found[1])


def definition(node: ast.expr, module: Module) -> tuple[FunctionNode | ast.ClassDef, Module] | None:
    """The function or class that an expression names, in whichever module it was defined."""
    if isinstance(node, ast.Attribute):
        qualified = module.qualified(node)
        owner = None if qualified is None else module.project.module_of(module, qualified.rpartition(".")[0])
        return None if owner is None else _definition(node.attr, owner.root, owner)
    return _definition(node.id, module.place(node).scope, module) if isinstance(node, ast.Name) else None


def _definition(
    name: str, scope: Scope, module: Module, depth: int = 0
) -> tuple[FunctionNode | ast.ClassDef, Module] | None:
    found = scope.lookup(name)
    bindings = found.bindings[name] if found is not None else []
    match bindings:
        case [Defined(node=node)]:
            return node, module
        # Names that are passed on from module to module: some steps, in case they go round in a circle.
        case [Imported(module=source, attribute=str(attribute))] if depth < 8:
            owner = module.project.module_of(module, module.absolute(source))
            return None if owner is None else _definition(attribute, owner.root, owner, depth + 1)
        case _:
            return None


def returned_kind(node: FunctionNode, module: Module) -> Kind:
    """What calling a function gives."""
    if isinstance(node, ast.AsyncFunctionDef):
        return Kind.UNKNOWN
    annotated = Kind.UNKNOWN if node.returns is None else kind_of_annotation(node.returns, module)
    if annotated is not Kind.UNKNOWN:
        return annotated
    lines = list(walk_body(node))
    if any(isinstance(line, ast.Yield | ast.YieldFrom) for line in lines):
        return Kind.UNKNOWN
    values = [line.value for line in lines if isinstance(line, ast.Return) and line.value is not None]
    if is_step(node, module):
        kinds = {kind_of(value, module) for value in values}
        return kinds.pop() if len(kinds) == 1 and kinds <= {Kind.REFS, Kind.MAPPING, Kind.HOLDER} else Kind.REF
    return _joined([kind_of(value, module) for value in values]) if values else Kind.UNKNOWN


def calls_steps(node: ast.Call, module: Module) -> bool:
    """Whether a call calls a step: itself, or in a function that makes and returns steps."""
    is_method = isinstance(node.func, ast.Attribute) and depends_on_steps(kind_of(node.func.value, module))
    if is_method or module.framework_name(node.func) is not None:
        return False
    if kind_of(node.func, module) is Kind.STEP:
        return True
    found = definition_of(node.func, module)
    if found is not None:
        return _makes_steps(*found, seen=set())
    return is_helper_name(node.func, module) or module.values.get(node) is Kind.REF


def _makes_steps(node: FunctionNode, module: Module, seen: set[FunctionNode]) -> bool:
    """Whether a plain function calls steps or constructs them, and does not just pass on what it was given."""
    if node in seen:
        return False
    seen.add(node)
    if is_step(node, module):
        return True
    for call in walk_body(node):
        if not isinstance(call, ast.Call):
            continue
        if module.framework_name(call.func) == "ExecutorStep" or kind_of(call.func, module) is Kind.STEP:
            return True
        found = definition_of(call.func, module)
        if found is not None and _makes_steps(*found, seen=seen):
            return True
        if found is None and is_helper_name(call.func, module):
            return True
    return False


def makes_older_steps(node: ast.Call, module: Module) -> bool:
    """Whether a call constructs steps in the older style, in the function that it calls or in those that that calls."""
    found = definition_of(node.func, module)
    return found is not None and _constructs_steps(*found, seen=set())


def _constructs_steps(node: FunctionNode, module: Module, seen: set[FunctionNode]) -> bool:
    if node in seen:
        return False
    seen.add(node)
    for call in walk_body(node):
        if not isinstance(call, ast.Call):
            continue
        found = definition_of(call.func, module)
        if module.framework_name(call.func) == "ExecutorStep" or (found and _constructs_steps(*found, seen=seen)):
            return True
    return False


def is_helper_name(node: ast.expr, module: Module) -> bool:
    """Whether a function of a module that cannot be read is called like one that makes steps."""
    return helper_kind(node, module) is not None


def helper_kind(node: ast.expr, module: Module) -> Kind | None:
    """What a function gives that is known by its name, as one that makes steps; None for any other."""
    if not isinstance(node, ast.Name | ast.Attribute):
        return None
    qualified = module.qualified(node)
    is_unbound = isinstance(node, ast.Name) and module.is_unbound(node)
    # Under another name it is what it is called where it is defined.
    source, _, name = ("", "", last_name(node)) if qualified is None else qualified.rpartition(".")
    if HELPER.fullmatch(name) is None or not (is_unbound or (qualified and definition_of(node, module) is None)):
        return None
    if name in HELPERS_FOR_SEVERAL:
        return Kind.REFS
    if name in HELPERS_FOR_MAPPINGS:
        return Kind.MAPPING
    is_own = is_unbound or bool({"experiments", "defaults"} & set(source.split(".")))
    return Kind.REF if name in HELPERS or is_own else None


def is_own_output(node: ast.expr, module: Module) -> bool:
    """Whether an expression is the own output path of a step."""
    called = node.func if isinstance(node, ast.Call) else node
    name = module.framework_name(called)
    return name == "THIS_OUTPUT_PATH" or (isinstance(node, ast.Call) and name in _OWN)


def _inferred(node: ast.expr, module: Module) -> Kind:  # noqa: PLR0912 (one branch for each kind of expression)
    match node:
        case ast.Name(id=name):
            framework = module.framework_name(node)
            if framework == "THIS_OUTPUT_PATH":
                return Kind.REF
            return Kind.UNKNOWN if framework else kind_of_name(name, module.place(node).scope, module)
        case ast.Constant(value=None):
            return Kind.NONE
        case ast.Constant() | ast.Lambda():
            return Kind.UNKNOWN
        case ast.Call():
            return _kind_of_call(node, module)
        case ast.Attribute(value=value, attr=attribute):
            return _kind_of_attribute(node, value, attribute, module)
        case ast.BinOp(left=left, op=ast.Div()) if kind_of(left, module) is Kind.REF:
            return Kind.REF
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            kinds = {kind_of(left, module), kind_of(right, module)}
            return Kind.REFS if kinds == {Kind.REFS} else _holding([left, right], module)
        case ast.Subscript(value=value, slice=index):
            base = kind_of(value, module)
            return base if isinstance(index, ast.Slice) else item_kind(base)
        case ast.IfExp(body=body, orelse=orelse):
            return _joined([kind_of(body, module), kind_of(orelse, module)])
        case ast.BoolOp(values=values):
            return _joined([kind_of(value, module) for value in values])
        case ast.NamedExpr(value=value) | ast.Starred(value=value):
            return kind_of(value, module)
        case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
            return _tree_of(items, module)
        case ast.Dict(keys=keys, values=values):
            wrapped = [ast.Starred(value) if key is None else value for key, value in zip(keys, values, strict=True)]
            return Kind.MAPPING if _tree_of(wrapped, module) is Kind.REFS else _holding(values, module)
        case ast.DictComp(value=item):
            return Kind.MAPPING if kind_of(item, module) is Kind.REF else _holding([item], module)
        case ast.ListComp(elt=item) | ast.SetComp(elt=item) | ast.GeneratorExp(elt=item):
            return Kind.REFS if kind_of(item, module) is Kind.REF else _holding([item], module)
        case _:
            return _holding([child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)], module)


def _tree_of(items: Iterable[ast.expr], module: Module) -> Kind:
    kinds: list[Kind] = []
    for item in items:
        kind = kind_of(item.value, module) if isinstance(item, ast.Starred) else kind_of(item, module)
        kinds.append(item_kind(kind) if isinstance(item, ast.Starred) else kind)
    if kinds and all(kind is Kind.REF for kind in kinds):
        return Kind.REFS
    return Kind.HOLDER if any(depends_on_steps(kind) for kind in kinds) else Kind.UNKNOWN


def _holding(parts: Iterable[ast.expr], module: Module) -> Kind:
    return Kind.HOLDER if any(depends_on_steps(kind_of(part, module)) for part in parts) else Kind.UNKNOWN


def _kind_of_attribute(node: ast.Attribute, value: ast.expr, attribute: str, module: Module) -> Kind:
    base = kind_of(value, module)
    if base is Kind.REF:
        return Kind.RESULT if attribute == "artifact" else Kind.HOLDER
    if depends_on_steps(base):
        return Kind.RESULT if base is Kind.RESULT else Kind.HOLDER
    qualified = module.qualified(node)
    if qualified is None or module.framework_name(node) is not None:
        return Kind.UNKNOWN
    owner = module.project.module_of(module, qualified.rpartition(".")[0])
    return Kind.UNKNOWN if owner is None else kind_of_name(attribute, owner.root, owner)


def _kind_of_call(node: ast.Call, module: Module) -> Kind:  # noqa: PLR0912 (one guard for each kind of callee)
    function = node.func
    name = module.framework_name(function)
    if name == "deferred":
        return Kind.DEFERRED
    if name == "step":
        return Kind.STEP
    if name in _REF_CALLS or name == "hardcoded":
        return Kind.REF
    if name in _TRANSPARENT:
        return kind_of(node.args[0], module) if node.args else Kind.UNKNOWN
    if name is not None:
        return _holding(_given(node), module)
    if isinstance(function, ast.Attribute):
        method = _kind_of_method(node, function, module)
        if method is not None:
            return method
    if isinstance(function, ast.Name) and function.id in _TREE_BUILDERS and module.qualified(function) is None:
        kinds = {kind_of(argument, module) for argument in _given(node)}
        if function.id == "dict" and node.keywords and kinds <= {Kind.REF}:
            return Kind.MAPPING
        return kinds.pop() if kinds in ({Kind.REFS}, {Kind.MAPPING}) else _holding(_given(node), module)
    called = kind_of(function, module)
    if called is Kind.DEFERRED:
        return Kind.RESULT
    found = definition_of(function, module)
    if found is not None:
        kind = returned_kind(*found)
        return kind if depends_on_steps(kind) else _holding(_given(node), module)
    if called is Kind.STEP:
        return Kind.REF
    helper = helper_kind(function, module)
    if helper is not None:
        return helper
    if module.qualified(function) == "dataclasses.replace" and node.args:
        return Kind.REF if kind_of(node.args[0], module) is Kind.REF else _holding(_given(node), module)
    return _holding(_given(node), module)


def _kind_of_method(node: ast.Call, function: ast.Attribute, module: Module) -> Kind | None:
    base = kind_of(function.value, module)
    if base is Kind.REF:
        return Kind.REF if function.attr in _REF_METHODS else Kind.HOLDER
    if base is Kind.REFS:
        return _SEQUENCE_METHODS.get(function.attr, Kind.HOLDER)
    if base is Kind.MAPPING:
        return _MAPPING_METHODS.get(function.attr, Kind.HOLDER)
    if base is Kind.STEP and function.attr == "with_options":
        return Kind.STEP
    return base if base in (Kind.RESULT, Kind.HOLDER) else None


def _given(node: ast.Call) -> list[ast.expr]:
    return [*node.args, *(keyword.value for keyword in node.keywords)]


def _imported_kind(binding: Imported, module: Module) -> Kind:
    source = module.absolute(binding.module)
    if binding.attribute is None or module.project.packages.is_framework(source):
        return Kind.UNKNOWN
    owner = module.project.module_of(module, source)
    if owner is None or binding.attribute not in owner.root.bindings:
        return Kind.UNKNOWN
    return kind_of_name(binding.attribute, owner.root, owner)


def _joined(kinds: Iterable[Kind]) -> Kind:
    found = set(kinds)
    if len(found) == 1:
        return found.pop()
    if found - {Kind.NONE} and len(found - {Kind.NONE}) == 1:
        return (found - {Kind.NONE}).pop()
    return Kind.HOLDER if any(depends_on_steps(kind) for kind in found) else Kind.UNKNOWN


def names_read(node: ast.AST) -> set[str]:
    """The names that a statement or expression reads, those in functions and classes in it included."""
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Load)}


def own_output_in(node: ast.AST, module: Module) -> bool:
    """Whether a statement or expression holds an own output, other than in the functions and constructors in it.

    Names are followed to what they were assigned, in this module and in those that it imports from.
    """
    pending = [node]
    while pending:
        current = pending.pop()
        if isinstance(current, ast.expr) and is_own_output(current, module):
            return True
        if isinstance(current, ast.Name) and isinstance(current.ctx, ast.Load) and _is_own_name(current, module):
            return True
        is_constructor = isinstance(current, ast.Call) and module.framework_name(current.func) == "ExecutorStep"
        is_function = isinstance(current, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef)
        if not is_constructor and (current is node or not is_function):
            pending.extend(ast.iter_child_nodes(current))
    return False


def _is_own_name(node: ast.Name, module: Module) -> bool:
    place = module.place(node) if module.has_place(node) else None
    scope = None if place is None else place.scope.lookup(node.id)
    return scope is not None and _is_own_binding(node.id, scope, module)


def _is_own_binding(name: str, scope: Scope, module: Module) -> bool:
    known: dict[tuple[Scope, str], bool] = module.memo.setdefault("own names", {})
    key = (scope, name)
    if key not in known:
        known[key] = False
        known[key] = any(_binds_own(binding, module) for binding in scope.bindings.get(name, []))
    return known[key]


def _binds_own(binding: Binding, module: Module) -> bool:
    match binding:
        case Assigned(value=value):
            return own_output_in(value, module)
        case Imported(module=source, attribute=str(attribute)):
            owner = module.project.module_of(module, module.absolute(source))
            return owner is not None and _is_own_binding(attribute, owner.root, owner)
        case _:
            return False
