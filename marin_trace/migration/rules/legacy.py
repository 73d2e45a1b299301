"""What is left of the older executor: constructors, own-path markers, references, and where names are imported from."""

import ast
from collections.abc import Iterator

from marin_trace.migration.findings import Finding
from marin_trace.migration.inference import is_own_output, kind_of
from marin_trace.migration.kinds import Kind
from marin_trace.migration.module import Layer, Module
from marin_trace.migration.names import OLD_PACKAGE, OWN_PATH_NAMES, REFERENCE_NAMES, ROOT_NAMES
from marin_trace.migration.rules.layers import own_path_defaults

_FIX_BY_NAME = {
    "InputName": "StepRef.hardcoded(path), or the ref that calling a step returned",
    "OutputName": "output()",
    "VersionedValue": "the value itself: everything counts, unless it is unversioned(...)",
    "output_path_of": "the ref that calling the step returned: ref, or ref / 'sub'",
    "get_executor_step": "the ref itself",
    "ensure_versioned": "the value itself: everything counts, unless it is unversioned(...)",
    "unwrap_versioned_value": "the value itself: versioned(x) is x",
    "ExecutorStep": "StepRef",
}

_FIX_BY_ATTRIBUTE = {
    "config": "keep the config under a name of its own, and use that",
    "fn": "keep the function under a name of its own, and use that",
    "step": "the ref that calling the step returned",
    "override_output_path": "keep the path under a name of its own, and use that",
}
_COPIES = frozenset({"dataclasses.replace", "copy.replace"})
_FIX_OF_COPY = "another function under @step, or ref.with_output_path(path)"


def constructors(module: Module) -> Iterator[Finding]:
    """``ExecutorStep(...)``, wherever it stands."""
    for call in module.nodes(ast.Call):
        if module.framework_name(call.func) == "ExecutorStep":
            yield module.finding(
                "MT005",
                call,
                f"{_step_name(call)} is made by the constructor ExecutorStep",
                "a function under @step(name=...) that returns deferred(fn)(Config(..., output()))",
            )


def _step_name(call: ast.Call) -> str:
    names = [keyword.value for keyword in call.keywords if keyword.arg == "name"] or call.args[:1]
    match names:
        case [ast.Constant(value=str(name))]:
            return f"step {name!r}"
        case _:
            return "a step"


def own_path_markers(module: Module) -> Iterator[Finding]:
    """``this_output_path()`` and ``THIS_OUTPUT_PATH``, other than as the default of a field."""
    defaults = {id(part) for _, default in own_path_defaults(module) for part in ast.walk(default)}
    for node in [*module.nodes(ast.Name), *module.nodes(ast.Attribute)]:
        name = module.framework_name(node)
        if name in OWN_PATH_NAMES and id(node) not in defaults:
            parent = module.parent(node)
            called = parent if isinstance(parent, ast.Call) and parent.func is node else node
            yield module.finding("MT012", called, f"{name} stands for a step's own output path", "output()")


def references(module: Module) -> Iterator[Finding]:
    """Names that made references, and attributes that a ref does not have."""
    if module.layer is not Layer.LIBRARY:
        for node in [*module.nodes(ast.Name), *module.nodes(ast.Attribute)]:
            name = module.framework_name(node)
            if name in REFERENCE_NAMES or (name == "ExecutorStep" and not _is_called(node, module)):
                yield module.finding("MT013", node, f"{name} belongs to the older executor", _FIX_BY_NAME[name])
    for node in module.nodes(ast.Attribute):
        if node.attr in _FIX_BY_ATTRIBUTE and isinstance(node.ctx, ast.Load) and _is_ref(node.value, module):
            yield module.finding("MT013", node, f"a step's ref has no {node.attr}", _FIX_BY_ATTRIBUTE[node.attr])
    for call in module.nodes(ast.Call):
        if is_copy_of_step(call, module):
            copied = f"{ast.unparse(call.func)}({ast.unparse(call.args[0])})"
            yield module.finding("MT013", call, f"{copied} copies a step's ref, which has no fields", _FIX_OF_COPY)


def is_copy_of_step(call: ast.Call, module: Module) -> bool:
    """Whether a call makes another step of one by changing fields that a ref does not have."""
    return module.qualified(call.func) in _COPIES and bool(call.args) and _is_ref(call.args[0], module)


def is_redirection(call: ast.Call, module: Module) -> bool:
    """Whether a call is ``replace(step, override_output_path=path)``, which ``with_output_path`` does for a ref."""
    match call.keywords:
        case [ast.keyword(arg="override_output_path")]:
            return is_copy_of_step(call, module) and len(call.args) == 1
        case _:
            return False


def _is_called(node: ast.expr, module: Module) -> bool:
    """Whether a class is called, as it is or with its type arguments."""
    parent = module.parent(node)
    if isinstance(parent, ast.Subscript) and parent.value is node:
        return _is_called(parent, module)
    return isinstance(parent, ast.Call) and parent.func is node


def _is_ref(node: ast.expr, module: Module) -> bool:
    return kind_of(node, module) is Kind.REF and not is_own_output(node, module)


def submodule_imports(module: Module) -> Iterator[Finding]:
    """Names imported from a module of the package that its root exports."""
    if module.project.packages.is_framework(module.dotted):
        return
    for node in module.nodes(ast.ImportFrom):
        source = node.module or ""
        root = _root_of(source, module)
        if node.level or root is None:
            continue
        is_old = source.startswith(f"{OLD_PACKAGE}.")
        names = [alias.name for alias in node.names if is_old or alias.name in ROOT_NAMES]
        if names:
            yield module.finding(
                "MT006",
                node,
                f"{', '.join(names)} imported from {source} instead of {root}",
                f"from {root} import {', '.join(names)}",
            )


def _root_of(source: str, module: Module) -> str | None:
    """The package whose root should be imported from, for a module below it."""
    packages = module.project.packages
    for root in (packages.old, packages.new, OLD_PACKAGE, "marin_trace"):
        if source.startswith(f"{root}.") and not source.startswith(f"{packages.legacy}"):
            return root
    return None
