"""Importing a module makes nothing: no step, no work, no path."""

import ast
from collections.abc import Iterator

from marin_trace.migration.findings import Finding
from marin_trace.migration.inference import calls_steps, kind_of
from marin_trace.migration.kinds import Kind
from marin_trace.migration.module import Module
from marin_trace.migration.rules.layers import own_path_defaults


def step_calls(module: Module) -> Iterator[Finding]:
    """Steps that are called when the module is imported."""
    for call in module.nodes(ast.Call):
        if module.place(call).at_import and not _is_decorator(call, module) and calls_steps(call, module):
            yield module.finding(
                "MT003",
                call,
                f"{_called(call)}(...) makes a step when the module is imported",
                "call it in the body of an entry step: @step(name='.../all') def run_...(): ...",
            )


def deferred_calls(module: Module) -> Iterator[Finding]:
    """Deferred functions that are called when the module is imported: outside a step they do their work at once."""
    for call in module.nodes(ast.Call):
        if module.place(call).at_import and kind_of(call.func, module) is Kind.DEFERRED:
            yield module.finding(
                "MT008",
                call,
                f"{_called(call)}(...) does its work when the module is imported",
                "call it in the body of a @step function",
            )


def outputs_outside_steps(module: Module) -> Iterator[Finding]:
    """``output()`` where no step is traced."""
    defaults = {id(part) for _, default in own_path_defaults(module) for part in ast.walk(default)}
    for call in module.nodes(ast.Call):
        place = module.place(call)
        is_outside = place.at_import or place.scope.is_module
        if is_outside and id(call) not in defaults and module.framework_name(call.func) == "output":
            yield module.finding(
                "MT009", call, "output() is called outside a step", "call it in the body of a @step function"
            )


def _is_decorator(call: ast.Call, module: Module) -> bool:
    parent = module.parent(call) or module.tree
    return isinstance(parent, ast.FunctionDef | ast.AsyncFunctionDef) and call in parent.decorator_list


def _called(call: ast.Call) -> str:
    text = ast.unparse(call.func)
    return text if len(text) <= 60 else f"{text[:57]}..."
