"""Names of steps: from the expression that computes one to a template over the parameters of a step function."""

import ast
from collections.abc import Iterable

from marin_trace.migration.module import Module

_JOINS = frozenset({"os.path.join", "posixpath.join"})


def template_of(node: ast.expr, parameters: Iterable[str], module: Module) -> str | None:
    """The source of a template that gives what an expression does, or None where no template can.

    What depends on parameters becomes a field, ``{name}``; the rest is computed when the step is decorated.

    Example:
        ``f"{ROOT}/{name}"`` with the parameter ``name`` is ``f"{ROOT}/{{name}}"``.
    """
    parts = _parts(node, frozenset(parameters), module)
    if parts is None:
        return None
    is_formatted = any(kind == "code" for kind, _ in parts)
    text = ""
    for kind, part in parts:
        if kind == "text":
            escaped = part.replace("{", "{{").replace("}", "}}")
            # Twice: once for the f-string, once for the template that it makes.
            text += escaped.replace("{", "{{").replace("}", "}}") if is_formatted else escaped
        elif kind == "field":
            text += f"{{{{{part}}}}}" if is_formatted else f"{{{part}}}"
        else:
            text += f"{{{part}}}"
    quoted = _quoted(text)
    if quoted is None:
        return None if is_formatted else repr(text)
    return f"f{quoted}" if is_formatted else quoted


def _quoted(text: str) -> str | None:
    """A text between quotes, or None where it needs more than that."""
    if any(character in text for character in "\n\r\\") or not text.isprintable():
        return None
    return f'"{text}"' if '"' not in text else f"'{text}'" if "'" not in text else None


_Part = tuple[str, str]


def _parts(node: ast.expr, parameters: frozenset[str], module: Module) -> list[_Part] | None:
    match node:
        case ast.Constant(value=str(text)):
            return [("text", text)]
        case ast.JoinedStr(values=values):
            return _joined([_parts(value, parameters, module) for value in values])
        case ast.FormattedValue(value=value, conversion=conversion, format_spec=spec):
            return _field(value, conversion, spec, parameters)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            sides = [_parts(side, parameters, module) for side in (left, right)]
            return _joined(sides) if _is_text(left) or _is_text(right) else None
        case ast.Call(func=function, args=arguments, keywords=[]) if module.qualified(function) in _JOINS:
            return _path(arguments, parameters, module)
        case _:
            return _field(node, -1, None, parameters)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _joined(parts: list[list[_Part] | None]) -> list[_Part] | None:
    joined: list[_Part] = []
    for part in parts:
        if part is None:
            return None
        joined += part
    return joined


def _path(arguments: list[ast.expr], parameters: frozenset[str], module: Module) -> list[_Part] | None:
    joined: list[_Part] = []
    for argument in arguments:
        part = None if isinstance(argument, ast.Starred) else _parts(argument, parameters, module)
        if part is None or (joined and joined[-1][0] != "text"):
            # Whether a slash comes behind what is computed depends on whether it ends in one.
            return None
        is_below = joined and not joined[-1][1].endswith("/")
        joined += [("text", "/"), *part] if is_below else part
    return joined


def _field(value: ast.expr, conversion: int, spec: ast.expr | None, parameters: frozenset[str]) -> list[_Part] | None:
    names = {name.id for name in ast.walk(value) if isinstance(name, ast.Name)}
    code = ast.unparse(value)
    if conversion != -1:
        code += f"!{chr(conversion)}"
    if spec is not None:
        values = spec.values if isinstance(spec, ast.JoinedStr) else []
        if not all(isinstance(part, ast.Constant) for part in values):
            return None
        code += ":" + "".join(str(part.value) for part in values if isinstance(part, ast.Constant))
    if not names & parameters:
        return None if any(character in code for character in "\"'\\{}") else [("code", code)]
    is_plain = _is_access_path(value) and names <= parameters
    return [("field", code)] if is_plain else None


def _is_access_path(node: ast.expr) -> bool:
    """Whether a template can hold an expression: a parameter, or attributes of one."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name)
