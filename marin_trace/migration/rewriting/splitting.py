"""One statement on each line: the other passes move and replace whole lines."""

import ast
from typing import Any

import libcst as cst

from marin_trace.migration.inference import kind_of
from marin_trace.migration.kinds import depends_on_steps
from marin_trace.migration.module import Module
from marin_trace.migration.rewriting.cst import Document, LinesTransformer


def split_lines(module: Module) -> str:
    """The text with a line for each statement about steps that shared one, or stood behind a colon."""
    starts: set[tuple[int, int]] = set()
    kinds = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Expr, ast.Return)
    for node in [node for kind in kinds for node in module.nodes(kind)]:
        line = module.line_of(node)
        parent = module.parent(node)
        is_suite = parent is not None and getattr(parent, "lineno", 0) == node.lineno
        if (len(line) > 1 or is_suite) and any(_is_about_steps(one, module) for one in line):
            span = module.span(line[0])
            starts.add((span.line, span.column))
    if not starts:
        return module.text
    document = Document(module.text, module.path)
    return document.tree.visit(_Splitting(document, starts)).code


def _is_about_steps(statement: ast.stmt, module: Module) -> bool:
    values = [node for node in ast.walk(statement) if isinstance(node, ast.Name | ast.Call) and module.has_place(node)]
    return any(
        depends_on_steps(kind_of(value, module))
        or (isinstance(value, ast.Call) and module.framework_name(value.func) == "executor_main")
        for value in values
    )


class _Splitting(LinesTransformer):
    def __init__(self, document: Document, starts: set[tuple[int, int]]) -> None:
        super().__init__(document, [line for line, _ in starts])
        self._starts = starts

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> Any:
        if len(original_node.body) == 1 or self._document.start(original_node) not in self._starts:
            return updated_node
        lines = [cst.SimpleStatementLine([_alone(small)]) for small in updated_node.body]
        lines[0] = lines[0].with_changes(leading_lines=updated_node.leading_lines)
        lines[-1] = lines[-1].with_changes(trailing_whitespace=updated_node.trailing_whitespace)
        return cst.FlattenSentinel(lines)

    def leave_SimpleStatementSuite(
        self, original_node: cst.SimpleStatementSuite, updated_node: cst.SimpleStatementSuite
    ) -> cst.BaseSuite:
        if not original_node.body or self._document.start(original_node.body[0]) not in self._starts:
            return updated_node
        lines = [cst.SimpleStatementLine([_alone(small)]) for small in updated_node.body]
        lines[-1] = lines[-1].with_changes(trailing_whitespace=updated_node.trailing_whitespace)
        return cst.IndentedBlock(lines)


def _alone(statement: cst.BaseSmallStatement) -> cst.BaseSmallStatement:
    return statement.with_changes(semicolon=cst.MaybeSentinel.DEFAULT)
