"""What a value can be, and what annotations say of it."""

import ast
from enum import StrEnum
from typing import Final

from marin_trace.migration.module import Module, parsed
from marin_trace.migration.scopes import Assigned, Imported, Scope


class Kind(StrEnum):
    """What a value is."""

    UNKNOWN = "unknown"
    """Nothing that depends on a step, as far as can be seen."""
    NONE = "none"
    REF = "ref"
    """A StepRef, an ExecutorStep or an InputName."""
    REFS = "refs"
    """A list, tuple or set of refs."""
    MAPPING = "mapping"
    """A mapping whose values are refs."""
    HOLDER = "holder"
    """Something else that was computed from refs, or holds one."""
    RESULT = "result"
    """What a deferred call or ``.artifact`` stands for."""
    STEP = "step function"
    DEFERRED = "deferred function"


_DEPENDENT: Final = frozenset({Kind.REF, Kind.REFS, Kind.MAPPING, Kind.HOLDER, Kind.RESULT})


_REF_TYPES: Final = frozenset({"StepRef", "ExecutorStep", "InputName"})

_MOST_ALIASES: Final = 8
"""How many names that stand for types are followed to one."""


def depends_on_steps(kind: Kind) -> bool:
    """Whether a value cannot be had without calling a step."""
    return kind in _DEPENDENT


def element_kind(kind: Kind) -> Kind:
    """What iterating over a value gives: of a mapping its keys."""
    return Kind.UNKNOWN if kind is Kind.MAPPING else item_kind(kind)


def item_kind(kind: Kind) -> Kind:
    """What an item of a value is."""
    match kind:
        case Kind.MAPPING:
            return Kind.REF
        case Kind.REFS:
            return Kind.REF
        case Kind.RESULT | Kind.HOLDER:
            return kind
        case _:
            return Kind.UNKNOWN


def kind_of_annotation(node: ast.expr, module: Module, depth: int = 0) -> Kind:
    """What a value of an annotated type is; names that stand for a type are followed."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _kind_of_quoted(node.value, module, depth)
    if module.framework_name(node) in _REF_TYPES:
        return Kind.REF
    match node:
        case ast.BinOp(op=ast.BitOr()):
            parts = _union_parts(node)
            kinds = {kind_of_annotation(part, module, depth) for part in parts if not _is_none(part)}
            return kinds.pop() if len(kinds) == 1 else Kind.UNKNOWN
        case ast.Subscript(value=value, slice=inner):
            is_optional = isinstance(value, ast.Name | ast.Attribute) and last_name(value) in ("Optional", "Union")
            items = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            kinds = [kind_of_annotation(item, module, depth) for item in items if not _is_none(item)]
            if is_optional:
                return kinds[0] if len(set(kinds)) == 1 else Kind.UNKNOWN
            return _container(value) if kinds and kinds[-1] is Kind.REF else Kind.UNKNOWN
        case ast.Name(id=name):
            place = module.place(node) if module.has_place(node) else None
            return _kind_of_alias(name, module.root if place is None else place.scope, module, depth)
        case _:
            return Kind.UNKNOWN


def _kind_of_alias(name: str, scope: Scope, module: Module, depth: int) -> Kind:
    """What a value is whose type is a name for another type, in whichever module that was given."""
    found = scope.lookup(name)
    bindings = found.bindings[name] if found is not None else []
    # Some steps: names may stand for each other in a circle.
    match bindings:
        case [Assigned(value=value)] if depth < _MOST_ALIASES:
            return kind_of_annotation(value, module, depth + 1)
        case [Imported(module=source, attribute=str(attribute))] if depth < _MOST_ALIASES:
            owner = module.project.module_of(module, module.absolute(source))
            return Kind.UNKNOWN if owner is None else _kind_of_alias(attribute, owner.root, owner, depth + 1)
        case _:
            return Kind.UNKNOWN


def _union_parts(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [*_union_parts(node.left), *_union_parts(node.right)]
    return [node]


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


_CONTAINERS: Final = {
    **dict.fromkeys(("list", "tuple", "set", "frozenset", "sequence", "iterable", "collection"), Kind.REFS),
    **dict.fromkeys(("dict", "mapping", "mutablemapping", "ordereddict", "defaultdict"), Kind.MAPPING),
}


def _container(node: ast.expr) -> Kind:
    """What a container type of refs is."""
    return (
        _CONTAINERS.get(last_name(node).lower(), Kind.UNKNOWN)
        if isinstance(node, ast.Name | ast.Attribute)
        else Kind.UNKNOWN
    )


def last_name(node: ast.Name | ast.Attribute) -> str:
    """``c`` of ``a.b.c``."""
    return node.id if isinstance(node, ast.Name) else node.attr


def _kind_of_quoted(text: str, module: Module, depth: int) -> Kind:
    try:
        lines = parsed(text.strip(), module.path).body
    except SyntaxError:
        return Kind.UNKNOWN
    match lines:
        case [ast.Expr(value=value)] if depth < _MOST_ALIASES:
            return kind_of_annotation(value, module, depth + 1)
        case _:
            return Kind.UNKNOWN
