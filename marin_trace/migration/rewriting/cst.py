"""Concrete syntax: reading it, finding the nodes that an analysis has named, and building new ones."""

import functools
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, auto
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import libcst as cst
from libcst.metadata import CodeRange, PositionProvider

from marin_trace.migration.module import Span

_Node = TypeVar("_Node", bound=cst.CSTNode)

BLANK: Final = cst.EmptyLine(indent=False)


class _Positions(PositionProvider):
    """Where nodes stand, without the second walk over the tree that a wrapper of it takes."""

    def of(self, tree: cst.Module) -> Mapping[cst.CSTNode, CodeRange]:
        self._gen_impl(tree)
        return cast("Any", self._computed)  # pyright: ignore[reportUnknownMemberType]


class Document:
    """The concrete syntax tree of a text, and where its nodes stand.

    Raises:
        SyntaxError: The text is no Python.
    """

    def __init__(self, text: str, path: Path) -> None:
        try:
            tree = cst.parse_module(text)
        except cst.ParserSyntaxError as error:
            raise SyntaxError(error.message, (str(path), error.raw_line, error.raw_column + 1, "")) from error
        self.tree: Final = tree

    @cached_property
    def _positions(self) -> Mapping[cst.CSTNode, CodeRange]:
        """Found when they are first asked for: that takes longer than reading the text."""
        return _Positions().of(self.tree)

    def span(self, node: cst.CSTNode) -> Span:
        """Where a node of the tree as it was read stands."""
        place = self._positions[node]
        return Span(place.start.line, place.start.column, place.end.line, place.end.column)

    def start(self, node: cst.CSTNode) -> tuple[int, int]:
        """Where a node begins; a decorated function where its ``def`` does."""
        place = self._positions[node]
        return place.start.line, place.start.column

    def holds_any(self, node: cst.CSTNode, lines: Sequence[int]) -> bool:
        """Whether one of some lines, which are sorted, is one of a node; its decorators belong to it."""
        place = self._positions[node]
        above: Sequence[cst.Decorator] = getattr(node, "decorators", ())
        first = self._positions[above[0]].start.line if above else place.start.line
        index = bisect_left(lines, first)
        return index < len(lines) and lines[index] <= place.end.line

    def code(self, node: cst.CSTNode) -> str:
        """The text of a node."""
        return self.tree.code_for_node(node)


class LinesTransformer(cst.CSTTransformer):
    """Changes some lines of a document: it does not look into statements that have none of them.

    Args:
        document: What is changed.
        lines: Where something of what changes begins.
    """

    def __init__(self, document: Document, lines: Iterable[int]) -> None:
        super().__init__()
        self._document = document
        self._touched: Final = frozenset(lines)
        self._in_order: Final = sorted(self._touched)

    def on_visit(self, node: cst.CSTNode) -> bool:
        match _part_of(type(node)):
            case _Part.STATEMENT:
                return self._document.holds_any(node, self._in_order)
            case _Part.BLOCK:
                return super().on_visit(node)
            case _:
                return True

    def on_leave(self, original_node: cst.CSTNodeT, updated_node: cst.CSTNodeT) -> Any:
        part = _part_of(type(original_node))
        is_elsewhere = part is _Part.EXPRESSION and self._document.start(original_node)[0] not in self._touched
        return updated_node if part is _Part.REST or is_elsewhere else self.left(original_node, updated_node)

    def left(self, original_node: cst.CSTNodeT, updated_node: cst.CSTNodeT) -> Any:
        """What becomes of a statement, of a block of them, or of an expression that begins in one of the lines."""
        return super().on_leave(original_node, updated_node)


class _Part(Enum):
    """What a node is to those who change lines."""

    STATEMENT = auto()
    BLOCK = auto()
    EXPRESSION = auto()
    REST = auto()


# Classes of libcst are abstract: to ask each node what it is takes longer than to visit it.
@functools.cache
def _part_of(kind: type[cst.CSTNode]) -> _Part:
    if issubclass(kind, cst.BaseStatement):
        return _Part.STATEMENT
    if issubclass(kind, cst.Module | cst.BaseSuite):
        return _Part.BLOCK
    return _Part.EXPRESSION if issubclass(kind, cst.BaseExpression) else _Part.REST


def expression(text: str) -> cst.BaseExpression:
    """An expression from its text."""
    return cst.parse_expression(text)


def called(function: str, arguments: Sequence[cst.BaseExpression] = ()) -> cst.Call:
    """A call with positional arguments."""
    return cst.Call(expression(function), [cst.Arg(argument) for argument in arguments])


def below(base: cst.BaseExpression, subpath: cst.BaseExpression, *, is_operand: bool) -> cst.BinaryOperation:
    """``base / subpath``, in parentheses where more follows."""
    simple = isinstance(base, cst.Name | cst.Attribute | cst.Call | cst.Subscript) or bool(base.lpar)
    left = base if simple else parenthesised(base)
    operation = cst.BinaryOperation(left, cst.Divide(), subpath)
    return parenthesised(operation) if is_operand else operation


def parenthesised(node: _Node) -> _Node:
    """A node in parentheses."""
    return node.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])


class _Shift(cst.CSTTransformer):
    """Moves continuation lines to the left."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self._columns = columns

    def leave_ParenthesizedWhitespace(
        self, original_node: cst.ParenthesizedWhitespace, updated_node: cst.ParenthesizedWhitespace
    ) -> cst.ParenthesizedWhitespace:
        if not updated_node.indent:
            return updated_node
        return updated_node.with_changes(last_line=self._shifted(updated_node.last_line))

    def leave_EmptyLine(self, original_node: cst.EmptyLine, updated_node: cst.EmptyLine) -> cst.EmptyLine:
        return updated_node.with_changes(whitespace=self._shifted(updated_node.whitespace))

    def _shifted(self, space: cst.SimpleWhitespace) -> cst.SimpleWhitespace:
        value = space.value
        return cst.SimpleWhitespace(value[min(self._columns, len(value) - len(value.lstrip(" "))) :])


def shifted(node: _Node, columns: int) -> _Node:
    """A node whose continuation lines stand some columns further to the left."""
    return cast("_Node", node.visit(_Shift(columns))) if columns else node


def indentation_of(call: cst.Call, argument: cst.Arg) -> int:
    """How far the line of an argument is indented below the statement that it belongs to; 0 on the same line."""
    index = next(index for index, other in enumerate(call.args) if other is argument)
    space: Any = call.whitespace_before_args if index == 0 else cst.SimpleWhitespace("")
    if index:
        comma = call.args[index - 1].comma
        space = comma.whitespace_after if isinstance(comma, cst.Comma) else space
    return len(space.last_line.value) if isinstance(space, cst.ParenthesizedWhitespace) else 0


class _Comments(cst.CSTVisitor):
    def __init__(self, kept: Iterable[cst.CSTNode]) -> None:
        super().__init__()
        self._kept = list(kept)
        self.found: list[str] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.Comment):
            self.found.append(node.value)
        return not any(node is kept for kept in self._kept)


def comments_outside(node: cst.CSTNode, kept: Iterable[cst.CSTNode]) -> list[cst.EmptyLine]:
    """The comments of a node that would be lost where only some of its parts are kept, as lines of their own."""
    visitor = _Comments(kept)
    node.visit(visitor)
    return [cst.EmptyLine(comment=cst.Comment(text)) for text in visitor.found]


def comments_of_items(value: cst.BaseExpression) -> dict[str, list[cst.EmptyLine]]:
    """The comments above and behind the items of a list that are names, or ``*names``."""
    found: dict[str, list[cst.EmptyLine]] = {}
    if not isinstance(value, cst.List):
        return found
    before: cst.BaseParenthesizableWhitespace = value.lbracket.whitespace_after
    for item in value.elements:
        after = item.comma.whitespace_after if isinstance(item.comma, cst.Comma) else value.rbracket.whitespace_before
        above = [line.comment for line in before.empty_lines] if isinstance(before, cst.ParenthesizedWhitespace) else []
        behind = [after.first_line.comment] if isinstance(after, cst.ParenthesizedWhitespace) else []
        comments = [cst.EmptyLine(comment=comment) for comment in (*above, *behind) if comment is not None]
        if isinstance(item.value, cst.Name) and comments:
            found.setdefault(item.value.value, []).extend(comments)
        before = after
    return found


def function(header: str, body: Sequence[cst.BaseStatement], footer: Sequence[cst.EmptyLine] = ()) -> cst.FunctionDef:
    """A function from its decorators and ``def`` line, as text, the statements of its body, and comments after them."""
    parsed = cst.parse_statement(f"{header}\n    pass\n")
    assert isinstance(parsed, cst.FunctionDef)
    return parsed.with_changes(body=cst.IndentedBlock(list(body), footer=list(footer)))


def returned(value: cst.BaseExpression, comments: Sequence[cst.EmptyLine] = ()) -> cst.SimpleStatementLine:
    """``return value``."""
    return cst.SimpleStatementLine([cst.Return(value)], leading_lines=list(comments))


def spaced(body: Sequence[cst.BaseStatement], created: set[str]) -> list[cst.BaseStatement]:
    """Statements of a module with two blank lines around the functions that were created."""
    result: list[cst.BaseStatement] = []
    was_created = False
    for index, statement in enumerate(body):
        is_created = isinstance(statement, cst.FunctionDef) and statement.name.value in created
        result.append(separated(statement, 2) if index and (is_created or was_created) else statement)
        was_created = is_created
    return result


def separated(statement: cst.BaseStatement, lines: int) -> cst.BaseStatement:
    """A statement with at least so many blank lines before it and its comments."""
    leading: list[cst.EmptyLine] = list(cast("Any", statement).leading_lines)
    present = next((index for index, line in enumerate(leading) if line.comment is not None), len(leading))
    missing = [BLANK] * max(0, lines - present)
    return cast("Any", statement).with_changes(leading_lines=[*missing, *leading])


class Carry:
    """Keeps the blank lines between what stands before and after a statement that goes away."""

    def __init__(self) -> None:
        self._lines = 0

    def passed_on(self, original: cst.CSTNode, updated: Any) -> Any:
        """A statement of a module as it stays, with the blank lines of those that went away before it."""
        leading: Sequence[cst.EmptyLine] = getattr(original, "leading_lines", ())
        if updated is cst.RemoveFromParent():
            blank = next((index for index, line in enumerate(leading) if line.comment is not None), len(leading))
            self._lines = max(self._lines, blank)
            return updated
        lines, self._lines = self._lines, 0
        if not lines:
            return updated
        if isinstance(updated, cst.FlattenSentinel):
            first, *others = cast("cst.FlattenSentinel[cst.BaseStatement]", updated)
            return cst.FlattenSentinel([separated(first, lines), *others])
        return separated(updated, lines)


def without_blank_lines(statement: cst.BaseStatement) -> cst.BaseStatement:
    """A statement that directly follows what stands before it; its comments stay."""
    leading: list[cst.EmptyLine] = list(cast("Any", statement).leading_lines)
    while leading and leading[0].comment is None:
        del leading[0]
    return cast("Any", statement).with_changes(leading_lines=leading)
