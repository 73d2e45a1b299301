"""Library code without the executor: fields that have their path from outside, and types that are plain."""

import ast
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import libcst as cst

from marin_trace.migration.inference import definition
from marin_trace.migration.module import Module
from marin_trace.migration.rewriting.cst import Document, LinesTransformer, separated, without_blank_lines
from marin_trace.migration.rules.layers import defaults_of, is_own_path_default
from marin_trace.migration.scopes import FunctionNode

_DATACLASS_DECORATORS = frozenset({"dataclasses.dataclass", "draccus.wrap"})


def rewrite_defaults(module: Module, positional: Mapping[str, int]) -> str:
    """The text with fields instead of defaults that are a step's own output path.

    Args:
        module: As it was read.
        positional: By name of a class, the most positional arguments that any call gives it: its fields keep their
            order where one of them would get another value.
    """
    classes = {node.lineno: node for node in module.nodes(ast.ClassDef) if _is_changed(node, module, positional)}
    functions = {node.lineno: node for node in module.nodes(ast.FunctionDef) if _loses_default(node, module)}
    if not classes and not functions:
        return module.text
    document = Document(module.text, module.path)
    return document.tree.visit(_Defaults(document, module, classes, functions)).code


def _own_fields(node: ast.ClassDef, module: Module) -> list[str]:
    return [
        line.target.id
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value is not None
        if is_own_path_default(line.value, module)
    ]


def _is_changed(node: ast.ClassDef, module: Module, positional: Mapping[str, int]) -> bool:
    """Whether the fields of a class can lose their defaults, and be reordered for it."""
    own = _own_fields(node, module)
    if not own or not _is_dataclass(node, module) or not _are_known(own_paths_of(node, module)):
        return False
    if _is_keyword_only(node):
        return True
    inherited = _inherited_fields(node, module)
    if inherited is None or not all(_has_no_defaults(base, module) for base in node.bases):
        return False
    fields = [line for line in node.body if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)]
    names = [ast.unparse(line.target) for line in fields]
    required = [name for name, line in zip(names, fields, strict=True) if line.value is None or name in own]
    order = [*required, *(name for name in names if name not in required)]
    unchanged = next((i for i, (a, b) in enumerate(zip(names, order, strict=True)) if a != b), len(names))
    return positional.get(node.name, 0) <= len(inherited) + unchanged


def _is_dataclass(node: ast.ClassDef, module: Module) -> bool:
    for decorator in node.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        if module.qualified(called) in _DATACLASS_DECORATORS:
            return True
    return False


def _is_keyword_only(node: ast.ClassDef) -> bool:
    return any(
        keyword.arg == "kw_only" and isinstance(keyword.value, ast.Constant) and keyword.value.value is True
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call)
        for keyword in decorator.keywords
    )


def _has_no_defaults(base: ast.expr, module: Module) -> bool:
    """Whether a base class brings no field with a default along, before which a field without one cannot stand."""
    text = ast.unparse(base)
    if text.partition("[")[0].rpartition(".")[2] in ("object", "Generic", "Protocol", "ABC"):
        return True
    found = _class_of(base, module)
    if found is None:
        return False
    cls, owner = found
    fields = [line for line in cls.body if isinstance(line, ast.AnnAssign)]
    is_plain = all(line.value is None or is_own_path_default(line.value, owner) for line in fields)
    return is_plain and all(_has_no_defaults(inner, owner) for inner in cls.bases)


def _class_of(base: ast.expr, module: Module) -> tuple[ast.ClassDef, Module] | None:
    """The class that a base is, its type arguments left out."""
    found = definition(base.value if isinstance(base, ast.Subscript) else base, module)
    if found is None or not isinstance(found[0], ast.ClassDef):
        return None
    # Read in a circle it would be its own base.
    return None if _is_its_own_base(found[0], found[1]) else (found[0], found[1])


def _is_its_own_base(cls: ast.ClassDef, module: Module) -> bool:
    pending, seen = [(cls, module)], set[ast.ClassDef]()
    while pending:
        current, owner = pending.pop()
        for base in current.bases:
            found = definition(base.value if isinstance(base, ast.Subscript) else base, owner)
            if found is None or not isinstance(found[0], ast.ClassDef):
                continue
            if found[0] is cls:
                return True
            if found[0] not in seen:
                seen.add(found[0])
                pending.append((found[0], found[1]))
    return False


def _inherited_fields(node: ast.ClassDef, module: Module) -> list[str] | None:
    """The fields that come before a class's own; None where a base cannot be read."""
    fields: list[str] = []
    for base in node.bases:
        if ast.unparse(base).partition("[")[0].rpartition(".")[2] in ("object", "Generic", "Protocol", "ABC"):
            continue
        found = _class_of(base, module)
        further = None if found is None else positional_names(*found)
        if further is None:
            return None
        fields += [name for name in further if name not in fields]
    return fields


def positional_names(node: FunctionNode | ast.ClassDef, module: Module) -> list[str] | None:
    """What the positional arguments of a class or function are called; None where a base cannot be read."""
    if not isinstance(node, ast.ClassDef):
        return [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    inherited = _inherited_fields(node, module)
    own = [
        line.target.id
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
        if "ClassVar" not in ast.unparse(line.annotation)
    ]
    return None if inherited is None else [*inherited, *(name for name in own if name not in inherited)]


UNKNOWN_SUBPATH: Final = "?"
"""Stands for a path below an own path that is computed: such a default stays."""


def own_paths_of(node: FunctionNode | ast.ClassDef, module: Module) -> dict[str, str | None]:
    """The fields or parameters that default to an own path, each with the source of what comes below it."""
    if not isinstance(node, ast.ClassDef):
        pairs = [(argument.arg, default) for argument, default in defaults_of(node.args)]
        return {name: _subpath(default) for name, default in pairs if is_own_path_default(default, module)}
    found: dict[str, str | None] = {}
    for base in node.bases:
        inherited = _class_of(base, module)
        found |= {} if inherited is None else own_paths_of(*inherited)
    lines = [line for line in node.body if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)]
    own = set(_own_fields(node, module))
    for line in lines:
        name = ast.unparse(line.target)
        if name in own and line.value is not None:
            found[name] = _subpath(line.value)
        else:
            found.pop(name, None)
    return found


def _subpath(default: ast.expr) -> str | None:
    """``"x"`` of ``this_output_path("x")``, wherever that stands in a default."""
    for node in ast.walk(default):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "this_output_path" and node.args:
            text = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
            return f'"{text}"' if isinstance(text, str) and text.isprintable() and '"' not in text else UNKNOWN_SUBPATH
    return None


def _are_known(subpaths: Mapping[str, str | None]) -> bool:
    return UNKNOWN_SUBPATH not in subpaths.values()


def _loses_default(node: ast.FunctionDef, module: Module) -> bool:
    """Whether a function's own-path parameters can be required where they stand: none before them has a default.

    Of a method nobody can tell who calls it.
    """
    if not _are_known(own_paths_of(node, module)) or isinstance(module.place(node).scope.node, ast.ClassDef):
        return False
    pairs = list(defaults_of(node.args))
    own = [argument.arg for argument, default in pairs if is_own_path_default(default, module)]
    keyword_only = {argument.arg for argument in node.args.kwonlyargs}
    positional = [argument.arg for argument, _ in pairs if argument.arg not in keyword_only]
    first = [name for name in own if name not in keyword_only]
    return bool(own) and positional[: len(first)] == first


class _Defaults(LinesTransformer):
    def __init__(
        self,
        document: Document,
        module: Module,
        classes: dict[int, ast.ClassDef],
        functions: dict[int, ast.FunctionDef],
    ) -> None:
        super().__init__(document, [*classes, *functions])
        self._module = module
        self._classes = classes
        self._functions = functions

    def leave_ClassDef(self, original_node: cst.ClassDef, updated_node: cst.ClassDef) -> cst.ClassDef:
        node = self._classes.get(self._document.start(original_node)[0])
        if node is None or not isinstance(updated_node.body, cst.IndentedBlock):
            return updated_node
        own = set(_own_fields(node, self._module))
        body = [_without_default(line, own) for line in updated_node.body.body]
        if not _is_keyword_only(node):
            body = _required_first(body)
        return updated_node.with_changes(body=updated_node.body.with_changes(body=body))

    def leave_FunctionDef(self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef) -> cst.FunctionDef:
        node = self._functions.get(self._document.start(original_node)[0])
        if node is None or node.name != original_node.name.value:
            return updated_node
        own = {arg.arg for arg, default in defaults_of(node.args) if is_own_path_default(default, self._module)}
        parameters = updated_node.params

        def required(given: Sequence[cst.Param]) -> list[cst.Param]:
            return [
                param.with_changes(default=None, equal=cst.MaybeSentinel.DEFAULT) if param.name.value in own else param
                for param in given
            ]

        changed = parameters.with_changes(
            params=required(parameters.params), kwonly_params=required(parameters.kwonly_params)
        )
        return updated_node.with_changes(params=changed)


def _field_name(statement: cst.BaseStatement) -> str | None:
    match statement:
        case cst.SimpleStatementLine(body=[cst.AnnAssign(target=cst.Name(value=name))]):
            return name
        case _:
            return None


def _without_default(statement: cst.BaseStatement, own: set[str]) -> cst.BaseStatement:
    if _field_name(statement) not in own:
        return statement
    line = cst.ensure_type(statement, cst.SimpleStatementLine)
    field = cst.ensure_type(line.body[0], cst.AnnAssign)
    return line.with_changes(body=[field.with_changes(value=None, equal=cst.MaybeSentinel.DEFAULT)])


def _required_first(body: Sequence[cst.BaseStatement]) -> list[cst.BaseStatement]:
    """The statements of a class with its required fields first, each with the string below that describes it."""
    groups: list[list[cst.BaseStatement]] = []
    for statement in body:
        describes = _is_string(statement) and bool(groups) and _field_name(groups[-1][0]) is not None
        if describes:
            groups[-1].append(statement)
        else:
            groups.append([statement])
    fields = [group for group in groups if _field_name(group[0]) is not None]
    ordered = iter(sorted(fields, key=_has_default))
    placed = [_spaced_as(next(ordered), group) if _field_name(group[0]) is not None else group for group in groups]
    return [statement for group in placed for statement in group]


def _spaced_as(group: list[cst.BaseStatement], before: list[cst.BaseStatement]) -> list[cst.BaseStatement]:
    """A field with as many blank lines before it as the one has had in whose place it comes."""
    lines: list[cst.EmptyLine] = list(cast("Any", before[0]).leading_lines)
    blank = next((index for index, line in enumerate(lines) if line.comment is not None), len(lines))
    return [separated(without_blank_lines(group[0]), blank), *group[1:]]


def _has_default(group: list[cst.BaseStatement]) -> bool:
    line = cst.ensure_type(group[0], cst.SimpleStatementLine)
    field = cst.ensure_type(line.body[0], cst.AnnAssign)
    is_class_variable = "ClassVar" in cst.Module([]).code_for_node(field.annotation.annotation)
    return field.value is not None and not is_class_variable


def _is_string(statement: cst.BaseStatement) -> bool:
    match statement:
        case cst.SimpleStatementLine(body=[cst.Expr(value=cst.SimpleString() | cst.ConcatenatedString())]):
            return True
        case _:
            return False


def positional_arguments(tree: ast.Module) -> dict[str, int]:
    """By name of what is called, the most positional arguments that a call in a module gives."""
    most: dict[str, int] = {}
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name | ast.Attribute):
            name = call.func.id if isinstance(call.func, ast.Name) else call.func.attr
            most[name] = max(most.get(name, 0), len(call.args))
    return most
