"""A ref has no path until its step is lowered: what must not be done with one while tracing."""

import ast
from collections.abc import Iterator

from marin_trace.migration.findings import Finding
from marin_trace.migration.inference import is_step, kind_of
from marin_trace.migration.kinds import Kind
from marin_trace.migration.module import Module

_TEXTS = (ast.JoinedStr, ast.Constant)
_PATH_FUNCTIONS = frozenset({"pathlib.Path", "pathlib.PurePath", "fsspec.open", "fsspec.core.url_to_fs", "os.listdir"})
_SIZES = frozenset({"len", "int", "float", "bool", "iter", "list", "sorted"})


def _is_valueless(node: ast.expr, module: Module) -> bool:
    """Whether an expression is a ref, or what stands for a result; outside steps a deferred function gives values."""
    kind = kind_of(node, module)
    function = module.function(node)
    is_body = isinstance(function, ast.FunctionDef) and is_step(function, module)
    return kind is Kind.REF or (kind is Kind.RESULT and is_body)


def texts(module: Module) -> Iterator[Finding]:
    """Refs in f-strings and other text."""
    for node, culprit in _texts_with_refs(module):
        name = ast.unparse(culprit)
        yield module.finding(
            "MT010", node, f"{name} is a ref, which has no text before its step runs", f"{name} / 'sub'"
        )


def _texts_with_refs(module: Module) -> Iterator[tuple[ast.AST, ast.expr]]:
    for value in module.nodes(ast.FormattedValue):
        if value.conversion != ord("r") and _is_valueless(value.value, module):
            # Before 3.12 the nodes in an f-string do not know where they stand.
            yield _outermost_text(value, module), value.value
    for call in module.nodes(ast.Call):
        for argument in [*call.args, *(keyword.value for keyword in call.keywords)]:
            if _makes_text(call, module) and _is_valueless(argument, module):
                yield call, argument
    for sum_ in module.nodes(ast.BinOp):
        sides = (sum_.left, sum_.right)
        is_text = isinstance(sum_.op, ast.Add | ast.Mod) and any(_is_text(side) for side in sides)
        for side in sides if is_text else ():
            parts = side.elts if isinstance(side, ast.Tuple) else [side]
            yield from ((sum_, part) for part in parts if _is_valueless(part, module))


def _outermost_text(value: ast.FormattedValue, module: Module) -> ast.AST:
    return next((node for node in module.ancestors(value) if isinstance(node, ast.JoinedStr)), value)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _makes_text(call: ast.Call, module: Module) -> bool:
    match call.func:
        case ast.Name(id="str"):
            return module.place(call).scope.lookup("str") is None
        case ast.Attribute(value=ast.Constant(value=str()), attr="format" | "join"):
            return True
        case _:
            return False


def path_functions(module: Module) -> Iterator[Finding]:
    """``os.path.join``, ``Path``, ``open`` … of a ref."""
    for call in module.nodes(ast.Call):
        if not _is_path_function(call.func, module):
            continue
        for argument in call.args:
            if _is_valueless(argument, module):
                name = ast.unparse(argument)
                yield module.finding(
                    "MT011",
                    call,
                    f"{ast.unparse(call.func)} needs a path, and {name} is a ref, which has none before its step runs",
                    f"{name} / 'sub', in the config of a deferred call",
                )
                break


def _is_path_function(node: ast.expr, module: Module) -> bool:
    if isinstance(node, ast.Name) and node.id == "open":
        return module.place(node).scope.lookup("open") is None
    qualified = module.qualified(node) or ""
    return qualified.startswith(("os.path.", "posixpath.")) or qualified in _PATH_FUNCTIONS


def decisions(module: Module) -> Iterator[Finding]:
    """Conditions, comparisons, lengths and loops over what has no value yet."""
    for node, culprit in _decisions(module):
        if _is_valueless(culprit, module):
            name = ast.unparse(culprit)
            yield module.finding(
                "MT015",
                node,
                f"{name} has no value while the pipeline is traced, so nothing can depend on it",
                f"{name} is not None, for whether there is one; else decide in a function wrapped by deferred()",
            )


def _decisions(module: Module) -> Iterator[tuple[ast.AST, ast.expr]]:
    tests = [node.test for kind in (ast.If, ast.While, ast.IfExp, ast.Assert) for node in module.nodes(kind)]
    tests += [node.operand for node in module.nodes(ast.UnaryOp) if isinstance(node.op, ast.Not)]
    tests += [value for node in module.nodes(ast.BoolOp) for value in node.values[:-1]]
    yield from ((test, test) for test in tests)
    for loop in [*module.nodes(ast.For), *module.nodes(ast.comprehension)]:
        yield loop.iter, loop.iter
    for compare in module.nodes(ast.Compare):
        yield from _compared(compare)
    for call in module.nodes(ast.Call):
        is_size = isinstance(call.func, ast.Name) and call.func.id in _SIZES
        if is_size and call.args and module.place(call).scope.lookup(ast.unparse(call.func)) is None:
            yield call, call.args[0]


def _compared(compare: ast.Compare) -> Iterator[tuple[ast.AST, ast.expr]]:
    sides = [compare.left, *compare.comparators]
    for operator, left, right in zip(compare.ops, sides, sides[1:], strict=False):
        if isinstance(operator, ast.In | ast.NotIn):
            yield compare, right
        elif isinstance(operator, ast.Eq | ast.NotEq):
            if isinstance(left, _TEXTS) or isinstance(right, _TEXTS):
                yield compare, right if isinstance(left, _TEXTS) else left
        elif not isinstance(operator, ast.Is | ast.IsNot):
            yield compare, left
            yield compare, right
