"""References and own paths in the old style, expression by expression."""

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast, final

import libcst as cst

from marin_trace.migration.inference import definition, kind_of
from marin_trace.migration.kinds import Kind, last_name
from marin_trace.migration.module import Layer, Module, Span
from marin_trace.migration.names import ROOT_NAMES
from marin_trace.migration.rewriting.cst import Document, LinesTransformer, below, called, expression, parenthesised
from marin_trace.migration.rewriting.imports import LocalNames
from marin_trace.migration.rewriting.library import UNKNOWN_SUBPATH, own_paths_of, positional_names
from marin_trace.migration.rules.entry import uncalled_steps
from marin_trace.migration.rules.layers import own_path_defaults
from marin_trace.migration.rules.legacy import is_redirection

Edit: TypeAlias = Callable[[cst.BaseExpression], cst.BaseExpression]

_TYPES = frozenset({"ExecutorStep", "InputName", "OutputName"})
_GENERIC_TYPES = frozenset(
    {"callable", "collection", "dict", "iterable", "iterator", "list", "mapping", "optional", "sequence", "set"}
    | {"tuple", "type", "union"}
)
_QUOTED_TYPE = re.compile(r"\b(?:ExecutorStep|InputName|OutputName)\b")


@final
@dataclass(slots=True)
class _Edits:
    """What becomes of the expressions of a module, by where they stand."""

    module: Module
    names: LocalNames
    kept: set[ast.AST]
    told_apart: set[ast.AST]
    """Names of types that stay, since refs are of one type."""
    by_span: dict[Span, Edit] = field(default_factory=dict[Span, Edit])
    unions: set[Span] = field(default_factory=set[Span])
    tuples: dict[tuple[int, int], bool] = field(default_factory=dict[tuple[int, int], bool])
    """Where tuples of types begin, and whether the one type that may be left of one says the same."""

    def add(self, node: ast.AST, edit: Edit) -> None:
        self.by_span[self.module.span(node)] = edit


def rewrite_expressions(module: Module, names: LocalNames, kept: set[ast.AST]) -> str:
    """The text with references and own paths as the root package has them.

    Args:
        module: As it was read.
        names: How the package's names are called in it.
        kept: Nodes whose own-path markers stay, since the constructor that they belong to does.
    """
    defaults = {part for _, default in own_path_defaults(module) for part in ast.walk(default)}
    edits = _Edits(module, names, kept | defaults, _told_apart(module))
    for call in module.nodes(ast.Call):
        _edit_call(call, edits)
        if module.layer is not Layer.LIBRARY and call not in kept:
            _add_own_paths(call, edits)
    for node in [*module.nodes(ast.Name), *module.nodes(ast.Attribute)]:
        _edit_name(node, edits)
    for constant in module.nodes(ast.Constant):
        if isinstance(constant.value, str) and _is_type_text(constant, module):
            _edit_quoted(constant, edits)
        _edit_subpath(constant, edits)
    for finding in uncalled_steps(module):
        span = Span(finding.line, finding.column - 1, finding.end_line, finding.end_column - 1)
        edits.by_span.setdefault(span, cst.Call)
    if not edits.by_span:
        return module.text
    _find_unions(edits)
    document = Document(module.text, module.path)
    return document.tree.visit(_Expressions(document, edits)).code


def _edit_call(call: ast.Call, edits: _Edits) -> None:
    names, is_operand = edits.names, _is_operand(call, edits.module)
    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
    if any(isinstance(argument, ast.Starred) for argument in arguments):
        return
    match edits.module.framework_name(call.func):
        case "this_output_path" if call not in edits.kept:
            edits.add(call, lambda node: _own_path(node, names, is_operand=is_operand))
        case "output_path_of" if arguments:
            edits.add(call, lambda node: _path_of(node, is_operand=is_operand))
        case "InputName" if arguments:
            edits.add(call, lambda node: _input_name(node, names, is_operand=is_operand))
        case "ensure_versioned" if len(arguments) == 1:
            edits.add(call, lambda node: called(names["versioned"], _arguments(node)))
        case "unwrap_versioned_value" if len(arguments) == 1:
            edits.add(call, lambda node: _operand(_arguments(node)[0], is_operand=is_operand))
        case _:
            if is_redirection(call, edits.module):
                edits.add(call, _redirected)


def _redirected(node: cst.BaseExpression) -> cst.BaseExpression:
    step, path = _arguments(node)
    return cst.Call(cst.Attribute(_operand(step, is_operand=True), cst.Name("with_output_path")), [cst.Arg(path)])


def _add_own_paths(call: ast.Call, edits: _Edits) -> None:
    """Gives a config, or a function, the own paths that it has had as defaults."""
    found = definition(call.func, edits.module)
    if found is None or any(keyword.arg is None for keyword in call.keywords):
        return
    fields = positional_names(*found)
    if fields is None:
        return
    own = own_paths_of(*found)
    given = {*fields[: len(call.args)], *(keyword.arg for keyword in call.keywords)}
    missing = {name: subpath for name, subpath in own.items() if name not in given and subpath != UNKNOWN_SUBPATH}
    if missing:
        output = edits.names["output"]
        edits.add(call, lambda node: _with_keywords(cst.ensure_type(node, cst.Call), missing, output))


def _with_keywords(call: cst.Call, missing: Mapping[str, str | None], output: str) -> cst.Call:
    equal = cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))
    added: list[cst.Arg] = []
    for name, subpath in missing.items():
        own: cst.BaseExpression = called(output)
        path = own if subpath is None else below(own, expression(subpath), is_operand=False)
        added.append(cst.Arg(path, cst.Name(name), equal))
    last = call.args[-1] if call.args else None
    # Where each argument has a line of its own, so have the added ones.
    is_spread = (
        last is not None
        and isinstance(last.comma, cst.Comma)
        and isinstance(call.whitespace_before_args, cst.ParenthesizedWhitespace)
    )
    if last is None or not is_spread:
        return call.with_changes(
            args=[*(argument.with_changes(comma=cst.MaybeSentinel.DEFAULT) for argument in call.args), *added]
        )
    comma = cst.Comma(whitespace_after=call.whitespace_before_args)
    before = [
        *call.args[:-1],
        last.with_changes(comma=comma),
        *(argument.with_changes(comma=comma) for argument in added[:-1]),
    ]
    return call.with_changes(args=[*before, added[-1].with_changes(comma=last.comma)])


def _edit_name(node: ast.Name | ast.Attribute, edits: _Edits) -> None:
    module, names = edits.module, edits.names
    name = module.framework_name(node)
    parent = module.parent(node)
    if name is None or isinstance(parent, ast.alias):
        return
    if name == "THIS_OUTPUT_PATH" and node not in edits.kept:
        edits.add(node, lambda _: called(names["output"]))
    elif name in _TYPES:
        _edit_type(node, name, edits)
    elif isinstance(node, ast.Attribute) and name in ROOT_NAMES:
        edits.add(node, lambda _: expression(names[name]))


def _edit_type(node: ast.Name | ast.Attribute, name: str, edits: _Edits) -> None:
    """A type becomes that of refs, which has no type arguments; what looks for the parts of an older step stays."""
    module = edits.module
    parent = module.parent(node)
    whole = parent if isinstance(parent, ast.Subscript) and parent.value is node else node
    user = module.parent(whole)
    is_called = isinstance(user, ast.Call) and user.func is whole
    is_pattern = isinstance(user, ast.MatchClass) and bool(user.patterns or user.kwd_patterns)
    is_library = module.layer is Layer.LIBRARY
    if is_called or is_pattern or node in edits.told_apart or (is_library and not module.place(node).is_annotation):
        return
    text = "str" if is_library else edits.names["StepRef"]
    edits.add(whole, lambda _: expression(text))


def _told_apart(module: Module) -> set[ast.AST]:
    """The types in tests that tell steps from references to them: both are refs now, so a test would lose a case."""
    tests: dict[tuple[ast.AST | None, str], list[tuple[set[str], ast.expr]]] = {}
    for call in module.nodes(ast.Call):
        match call:
            case ast.Call(func=ast.Name(id="isinstance"), args=[subject, types]):
                nodes = [node for node in ast.walk(types) if isinstance(node, ast.Name | ast.Attribute)]
                named = {name for node in nodes if (name := module.framework_name(node) or "") in _TYPES}
                tests.setdefault((module.function(call), ast.unparse(subject)), []).append((named, types))
            case _:
                pass
    kept: set[ast.AST] = set()
    for asked in tests.values():
        steps = any("ExecutorStep" in named and "InputName" not in named for named, _ in asked)
        references = any("InputName" in named and "ExecutorStep" not in named for named, _ in asked)
        if steps and references:
            kept.update(node for _, types in asked for node in ast.walk(types))
    return kept


def _is_type_text(constant: ast.Constant, module: Module) -> bool:
    """Whether a text is a type: in an annotation, in ``cast``, or an argument of a generic type."""
    if module.place(constant).is_annotation:
        return True
    parent = module.parent(constant)
    if isinstance(parent, ast.Call) and module.qualified(parent.func) == "typing.cast":
        return parent.args[:1] == [constant]
    outer = next((node for node in module.ancestors(constant) if isinstance(node, ast.Subscript)), None)
    base = None if outer is None else outer.value
    return isinstance(base, ast.Name | ast.Attribute) and last_name(base).lower() in _GENERIC_TYPES


def _edit_quoted(constant: ast.Constant, edits: _Edits) -> None:
    text = cast("str", constant.value)
    if _QUOTED_TYPE.search(text) is None:
        return
    replacement = "str" if edits.module.layer is Layer.LIBRARY else edits.names["StepRef"]
    replaced = _QUOTED_TYPE.sub(replacement, _without_type_arguments(text))
    joined = re.sub(rf"\b{replacement}(?:\s*\|\s*{replacement}\b)+", replacement, replaced)
    is_plain = joined == replacement
    edits.add(constant, lambda _: expression(joined) if is_plain else cst.SimpleString(f'"{joined}"'))


def _without_type_arguments(text: str) -> str:
    """``ExecutorStep | None`` of ``ExecutorStep[Config] | None``."""
    for match in reversed(list(_QUOTED_TYPE.finditer(text))):
        start = end = match.end()
        depth = 0
        while end < len(text) and (depth or text[end] == "["):
            depth += {"[": 1, "]": -1}.get(text[end], 0)
            end += 1
        text = text[:start] + text[end:] if not depth else text
    return text


def _edit_subpath(constant: ast.Constant, edits: _Edits) -> None:
    """Takes slashes away that name nothing: a path below a ref has no empty parts."""
    text = constant.value
    if not isinstance(text, str) or not _is_subpath(constant, edits.module):
        return
    cleaned = "/".join(part for part in text.split("/") if part)
    if cleaned != text and cleaned and not text.startswith("/") and "://" not in text:
        edits.add(constant, lambda node: _with_text(cst.ensure_type(node, cst.SimpleString), text, cleaned))


def _is_subpath(constant: ast.Constant, module: Module) -> bool:
    match module.parent(constant):
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return right is constant and kind_of(left, module) is Kind.REF
        case ast.Call(func=ast.Attribute(value=value, attr="cd"), args=[argument]):
            return argument is constant and kind_of(value, module) is Kind.REF
        case ast.Call(func=function) | ast.keyword(arg="name", value=ast.expr() as function):
            return module.framework_name(function) in ("output_path_of", "this_output_path")
        case _:
            return False


def _with_text(node: cst.SimpleString, text: str, cleaned: str) -> cst.SimpleString:
    return node.with_changes(value=node.value.replace(text, cleaned)) if text in node.value else node


def _find_unions(edits: _Edits) -> None:
    """Unions and tuples of types in which one type may now stand twice."""
    module = edits.module
    for node in [*module.nodes(ast.BinOp), *module.nodes(ast.Tuple)]:
        if isinstance(node, ast.BinOp) and not isinstance(node.op, ast.BitOr):
            continue
        inner = [part for part in ast.walk(node) if isinstance(part, ast.Name | ast.Attribute)]
        if any(module.framework_name(part) in _TYPES | {"VersionedValue"} for part in inner):
            span = module.span(node)
            if isinstance(node, ast.Tuple) and node.elts:
                # Of a tuple in parentheses the concrete syntax counts what is between them.
                first = module.span(node.elts[0])
                edits.tuples[first.line, first.column] = isinstance(module.parent(node), ast.Call)
            else:
                edits.unions.add(span)


def _is_operand(node: ast.expr, module: Module) -> bool:
    """Whether a quotient in the place of a node needs parentheses."""
    match module.parent(node):
        case ast.Attribute() | ast.Subscript() | ast.UnaryOp() | ast.Await():
            return True
        case ast.BinOp(left=left, op=ast.Div()):
            return left is not node
        case ast.BinOp():
            return True
        case ast.Call(func=function):
            return function is node
        case _:
            return False


def _arguments(node: cst.BaseExpression) -> list[cst.BaseExpression]:
    return [argument.value for argument in cst.ensure_type(node, cst.Call).args]


def _named(node: cst.BaseExpression) -> dict[str, cst.BaseExpression]:
    arguments = cst.ensure_type(node, cst.Call).args
    return {
        ("step", "name")[index] if argument.keyword is None else argument.keyword.value: argument.value
        for index, argument in enumerate(arguments[:2])
    }


def _own_path(node: cst.BaseExpression, names: LocalNames, *, is_operand: bool) -> cst.BaseExpression:
    arguments = _arguments(node)
    own = called(names["output"])
    return below(own, arguments[0], is_operand=is_operand) if arguments else own


def _path_of(node: cst.BaseExpression, *, is_operand: bool) -> cst.BaseExpression:
    base, *subpath = _arguments(node)
    if subpath and not _is_none(subpath[0]):
        return below(base, subpath[0], is_operand=is_operand)
    return _operand(base, is_operand=is_operand)


def _input_name(node: cst.BaseExpression, names: LocalNames, *, is_operand: bool) -> cst.BaseExpression:
    given = _named(node)
    base, subpath = given.get("step"), given.get("name")
    if base is None or _is_none(base):
        return called(f"{names['StepRef']}.hardcoded", [] if subpath is None else [subpath])
    if subpath is None or _is_none(subpath):
        return _operand(base, is_operand=is_operand)
    return below(base, subpath, is_operand=is_operand)


def _operand(node: cst.BaseExpression, *, is_operand: bool) -> cst.BaseExpression:
    is_simple = isinstance(node, cst.Name | cst.Attribute | cst.Call | cst.Subscript) or bool(node.lpar)
    return parenthesised(node) if is_operand and not is_simple else node


def _is_none(node: cst.BaseExpression) -> bool:
    return isinstance(node, cst.Name) and node.value == "None"


class _Expressions(LinesTransformer):
    def __init__(self, document: Document, edits: _Edits) -> None:
        spans = {*edits.by_span, *edits.unions}
        super().__init__(document, [*(span.line for span in spans), *(line for line, _ in edits.tuples)])
        self._edits = edits

    def left(self, original_node: cst.CSTNodeT, updated_node: cst.CSTNodeT) -> Any:
        updated: Any = updated_node
        span = self._document.span(original_node)
        edit = self._edits.by_span.get(span)
        kinds = cst.Name | cst.Attribute | cst.Subscript | cst.Call | cst.SimpleString
        if edit is not None and isinstance(original_node, kinds):
            updated = edit(updated)
        if isinstance(original_node, cst.Tuple) and (span.line, span.column) in self._edits.tuples:
            is_argument = self._edits.tuples[span.line, span.column]
            updated = _types_once(cst.ensure_type(updated, cst.Tuple), self._document, is_argument=is_argument)
        elif span in self._edits.unions:
            updated = _without_doubles(updated, self._document)
        return updated


def _types_once(node: cst.Tuple, document: Document, *, is_argument: bool) -> cst.BaseExpression:
    """A tuple without types that stand in it twice; for ``isinstance`` one type is as good as a tuple of it."""
    kept = list({document.code(item.value): item for item in node.elements}.values())
    if len(kept) == len(node.elements):
        return node
    if len(kept) > 1:
        return node.with_changes(elements=kept)
    [last] = kept
    return last.value if is_argument else node.with_changes(elements=[last.with_changes(comma=cst.Comma())])


def _without_doubles(node: cst.BaseExpression, document: Document) -> cst.BaseExpression:
    parts: dict[str, cst.BaseExpression] = {}
    for part in _union(node):
        code = document.code(part)
        if not code.startswith("VersionedValue"):
            parts[code] = part
    if not parts or len(parts) == len(_union(node)):
        return node
    first, *others = parts.values()
    for other in others:
        first = cst.BinaryOperation(first, cst.BitOr(), other)
    return first


def _union(node: cst.BaseExpression) -> list[cst.BaseExpression]:
    if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.BitOr):
        return [*_union(node.left), *_union(node.right)]
    return [node]
