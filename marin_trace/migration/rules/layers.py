"""Library code knows nothing of the executor, and wiring defers what library code does."""

import ast
from collections.abc import Iterator

from marin_trace.migration.findings import Finding
from marin_trace.migration.inference import definition_of, is_own_output, is_step, kind_of, own_output_in
from marin_trace.migration.kinds import Kind
from marin_trace.migration.module import Layer, Module, is_library_import
from marin_trace.migration.names import OWN_PATH_NAMES
from marin_trace.migration.scopes import is_type_checking


def output_path_defaults(module: Module) -> Iterator[Finding]:
    """Fields and parameters whose default is the path of the step that uses them."""
    for name, default in own_path_defaults(module):
        yield module.finding(
            "MT001",
            default,
            f"{name} has a step's own output path as its default",
            f"{name}: str, without a default; wiring passes output()",
        )


def own_path_defaults(module: Module) -> Iterator[tuple[str, ast.expr]]:
    """Each field of a class and parameter of a function that defaults to an own output, with the default."""
    for field in module.nodes(ast.AnnAssign):
        scope = module.place(field).scope.node
        if not isinstance(scope, ast.ClassDef) or not isinstance(field.target, ast.Name) or field.value is None:
            continue
        if is_own_path_default(field.value, module):
            yield f"{scope.name}.{field.target.id}", field.value
    for function in [*module.nodes(ast.FunctionDef), *module.nodes(ast.AsyncFunctionDef)]:
        for argument, default in defaults_of(function.args):
            if is_own_path_default(default, module):
                yield f"{function.name}({argument.arg})", default


def is_own_path_default(value: ast.expr, module: Module) -> bool:
    """Whether a default is an own output, or ``field(...)`` with one."""
    if is_own_output(value, module):
        return True
    if not isinstance(value, ast.Call):
        return False
    for factory in (keyword.value for keyword in value.keywords if keyword.arg == "default_factory"):
        made = factory.body if isinstance(factory, ast.Lambda) else factory
        if is_own_output(made, module) or module.framework_name(made) in OWN_PATH_NAMES | {"output"}:
            return True
    return any(is_own_output(keyword.value, module) for keyword in value.keywords if keyword.arg == "default")


def defaults_of(arguments: ast.arguments) -> Iterator[tuple[ast.arg, ast.expr]]:
    """The parameters with a default, each with it."""
    positional = [*arguments.posonlyargs, *arguments.args]
    yield from zip(positional[len(positional) - len(arguments.defaults) :], arguments.defaults, strict=True)
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if default is not None:
            yield argument, default


def library_imports(module: Module) -> Iterator[Finding]:
    """Library code that imports the executor."""
    packages = module.project.packages
    if module.layer is not Layer.LIBRARY or packages.is_framework(module.dotted):
        return
    for node in [*module.nodes(ast.ImportFrom), *module.nodes(ast.Import)]:
        if any(isinstance(outer, ast.If) and is_type_checking(outer.test) for outer in module.ancestors(node)):
            continue
        imported = [name for name in _imported_names(node, module) if packages.is_framework(name)]
        unwanted = [name for name in imported if not is_library_import(name, packages)]
        if unwanted:
            yield module.finding(
                "MT002",
                node,
                f"library code imports {', '.join(unwanted)}",
                "take plain paths and values; what knows steps belongs into wiring (experiments/steps)",
            )


def _imported_names(node: ast.ImportFrom | ast.Import, module: Module) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    source = module.absolute("." * node.level + (node.module or ""))
    return [f"{source}.{alias.name}" for alias in node.names]


def undeferred_calls(module: Module) -> Iterator[Finding]:
    """Library functions that a step's body calls as they are: they would work while the pipeline is traced."""
    for call in module.nodes(ast.Call):
        function = module.function(call)
        if not isinstance(function, ast.FunctionDef) or not is_step(function, module):
            continue
        if _is_library_function(call.func, module) and own_output_in(call, module):
            name = ast.unparse(call.func)
            yield module.finding(
                "MT014",
                call,
                f"{name} is called while the step is traced, not when it runs",
                f"{name} = deferred(_{name.rpartition('.')[2]}) at module level, and call that",
            )


def _is_library_function(node: ast.expr, module: Module) -> bool:
    qualified = module.qualified(node)
    if qualified is None or kind_of(node, module) is not Kind.UNKNOWN or module.framework_name(node) is not None:
        return False
    source, _, name = qualified.rpartition(".")
    if not name[:1].islower() and not name.startswith("_"):
        return False
    found = definition_of(node, module)
    if found is not None:
        return found[1].layer is Layer.LIBRARY
    return "lib" in source.split(".")
