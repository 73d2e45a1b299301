"""Defaults that are steps: made when their function is called without them, not when its module is imported."""

import ast
from typing import Any

import libcst as cst

from marin_trace.migration.inference import calls_steps, is_step, names_read
from marin_trace.migration.module import Module
from marin_trace.migration.rewriting.cst import Document, LinesTransformer
from marin_trace.migration.rules.layers import defaults_of
from marin_trace.migration.scopes import FunctionNode


def rewrite_parameters(module: Module) -> str:
    """The text with ``data=None`` instead of ``data=tokens()``, and ``tokens()`` in the body where ``data is None``."""
    functions = [*module.nodes(ast.FunctionDef), *module.nodes(ast.AsyncFunctionDef)]
    lazy = {module.span(function).line: names for function in functions if (names := _lazy_names(function, module))}
    if not lazy:
        return module.text
    document = Document(module.text, module.path)
    return document.tree.visit(_Parameters(document, lazy)).code


def _lazy_names(function: FunctionNode, module: Module) -> set[str]:
    """The parameters whose default calls steps, and that may be None without meaning anything by it."""
    own = module.scope_in(function).bindings
    return {
        argument.arg
        for argument, default in defaults_of(function.args)
        if module.place(default).at_import
        and not names_read(default) & own.keys()
        and any(isinstance(node, ast.Call) and calls_steps(node, module) for node in ast.walk(default))
        and not _means_something_as_none(argument.arg, function, module)
    }


def _means_something_as_none(name: str, function: FunctionNode, module: Module) -> bool:
    """Whether a function looks at whether a parameter is None, or is a step that is named after it."""
    if is_step(function, module):
        texts = [
            node.value for part in function.decorator_list for node in ast.walk(part) if isinstance(node, ast.Constant)
        ]
        return any(f"{{{name}" in text for text in texts if isinstance(text, str))
    for line in function.body:
        for node in ast.walk(line):
            if isinstance(node, ast.Compare) and name in {
                part.id for part in ast.walk(node) if isinstance(part, ast.Name)
            }:
                return True
    return False


class _Parameters(LinesTransformer):
    def __init__(self, document: Document, lazy: dict[int, set[str]]) -> None:
        super().__init__(document, lazy)
        self._lazy = lazy

    def leave_FunctionDef(self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef) -> cst.FunctionDef:
        names = self._lazy.get(self._document.start(original_node)[0])
        if names is None or not isinstance(updated_node.body, cst.IndentedBlock):
            return updated_node
        parameters = updated_node.params
        given = [*parameters.posonly_params, *parameters.params, *parameters.kwonly_params]
        made = [_made_in_body(parameter) for parameter in given if parameter.name.value in names]
        changed = parameters.with_changes(
            posonly_params=[_optional(parameter, names) for parameter in parameters.posonly_params],
            params=[_optional(parameter, names) for parameter in parameters.params],
            kwonly_params=[_optional(parameter, names) for parameter in parameters.kwonly_params],
        )
        lines = list(updated_node.body.body)
        start = 1 if updated_node.get_docstring() is not None else 0
        body = updated_node.body.with_changes(body=[*lines[:start], *made, *lines[start:]])
        return updated_node.with_changes(params=changed, body=body)


def _made_in_body(parameter: cst.Param) -> cst.If:
    name = parameter.name
    default: Any = parameter.default
    test = cst.Comparison(name, [cst.ComparisonTarget(cst.Is(), cst.Name("None"))])
    line = cst.SimpleStatementLine([cst.Assign([cst.AssignTarget(name)], default)])
    return cst.If(test, cst.IndentedBlock([line]))


def _optional(parameter: cst.Param, names: set[str]) -> cst.Param:
    if parameter.name.value not in names:
        return parameter
    none = cst.Name("None")
    annotation = parameter.annotation
    text = "" if annotation is None else cst.Module([]).code_for_node(annotation.annotation)
    if annotation is not None and not isinstance(annotation.annotation, cst.SimpleString) and "None" not in text:
        whole = cst.BinaryOperation(annotation.annotation, cst.BitOr(), none)
        annotation = annotation.with_changes(annotation=whole)
    return parameter.with_changes(default=none, annotation=annotation)
