"""From statements that build steps at import to an entry step, and to functions that are called."""

import ast
import re
from collections.abc import Iterable, Sequence
from typing import Any, cast

import libcst as cst

from marin_trace.migration.kinds import Kind
from marin_trace.migration.module import Module, Span
from marin_trace.migration.rewriting.cst import (
    BLANK,
    Carry,
    Document,
    LinesTransformer,
    comments_of_items,
    comments_outside,
    function,
    returned,
    without_blank_lines,
)
from marin_trace.migration.rewriting.fates import Entry, HoistPlan, Surroundings
from marin_trace.migration.rewriting.hoisting_plans import (
    attribute_fates,
    imported_fates,
    is_group,
    kind_of_built,
    plan_hoisting,
    step_path,
    wanted_entry_name,
)
from marin_trace.migration.rewriting.imports import LocalNames
from marin_trace.migration.rewriting.lines import Line
from marin_trace.migration.rewriting.makers import Use, calls_of, used, uses_of_makers, with_makers

_Start = tuple[int, int]


def rewrite_imports_of_steps(module: Module, names: LocalNames, surroundings: Surroundings) -> tuple[str, set[str]]:
    """The text of a module that builds nothing when it is imported.

    Args:
        module: Its constructors are step functions already.
        names: How the package's names are called in it.
        surroundings: What the other files import from it, and which of them are migrated as well.

    Returns:
        The text, and the names of the functions that are new at its top level.
    """
    plan = plan_hoisting(module, surroundings)
    plan.imported = imported_fates(module, surroundings)
    plan.attributes = attribute_fates(module, surroundings)
    if not (plan.functions() or plan.makers() or plan.entry or plan.imported or plan.attributes):
        return module.text, set()
    document = Document(module.text, module.path)
    work = _Hoisting(document, module, names, plan)
    text = document.tree.visit(work).code
    return text, {*plan.functions(), *([plan.entry_name] if plan.entry is not None else [])}


class _Hoisting(LinesTransformer):
    def __init__(self, document: Document, module: Module, names: LocalNames, plan: HoistPlan) -> None:
        self._calls = calls_of(module, plan)
        self._uses = uses_of_makers(module, plan)
        made = plan.functions() | plan.makers()
        nodes = [line.node for line in plan.lines if line in plan.moved or line.binds & made] + plan.emitted
        nodes += [] if plan.entry is None else [plan.entry.call, plan.entry.holder]
        spans = {*self._calls, *self._uses, *map(module.span, nodes)}
        super().__init__(document, [span.line for span in spans])
        self._module = module
        self._names = names
        self._plan = plan
        self._base = step_path(module.path)
        self._makers = {
            self._start(line.node): name for name in plan.makers() for line in plan.lines if name in line.binds
        }
        self._moved = {self._start(line.node): line for line in plan.moved}
        self._dead = _dead_lines(plan)
        self._builders: dict[_Start, str] = {}
        self._lines: dict[str, list[Line]] = {}
        for name in sorted(plan.functions()):
            lines = [line for line in plan.lines if name in line.binds and line.depends]
            self._lines[name] = lines
            self._builders |= {self._start(line.node): name for line in lines}
        self._built: dict[str, list[cst.BaseStatement]] = {}
        self._entry_body: dict[_Start, cst.BaseStatement] = {}
        self._emitted_spans = {module.span(node) for node in plan.emitted}
        self._emitted: dict[Span, cst.BaseExpression] = {}
        self._comments: list[cst.EmptyLine] = []
        self._comments_by_name: dict[str, list[cst.EmptyLine]] = {}
        """Of what ``executor_main`` was given: those of its items, by their names, and the others."""
        self._body: set[int] = set()
        self._carry = Carry()

    def _start(self, node: ast.stmt) -> _Start:
        return node.lineno, self._module.span(node).column

    def visit_Module(self, node: cst.Module) -> None:
        self._body = {id(statement) for statement in node.body}

    def left(self, original_node: cst.CSTNodeT, updated_node: cst.CSTNodeT) -> Any:
        updated = self._left(original_node, updated_node)
        return self._carry.passed_on(original_node, updated) if id(original_node) in self._body else updated

    def _left(self, original_node: cst.CSTNodeT, updated_node: cst.CSTNodeT) -> Any:
        updated: Any = super().left(original_node, updated_node)
        if isinstance(original_node, cst.BaseExpression):
            return self._expression(original_node, updated)
        if not isinstance(original_node, cst.SimpleStatementLine | cst.BaseCompoundStatement):
            return updated
        start = self._document.start(original_node)
        if start in self._moved:
            self._entry_body[start] = self._as_entry_line(self._moved[start], updated)
            return cst.RemoveFromParent()
        if start in self._makers:
            return with_makers(updated, self._module, self._plan, self._makers[start])
        name = self._builders.get(start)
        if name is not None:
            updated = self._function_line(name, updated)
        return updated

    def _expression(self, original: cst.BaseExpression, updated: cst.BaseExpression) -> cst.BaseExpression:
        kinds = cst.Name | cst.Attribute | cst.Call | cst.Subscript | cst.ListComp | cst.GeneratorExp
        if not isinstance(original, kinds):
            return updated
        span = self._document.span(original)
        if span in self._calls and isinstance(original, cst.Name | cst.Attribute):
            updated = cst.Call(updated)
        elif span in self._uses and not (isinstance(original, cst.Name) and self._uses[span] is Use.ITEM):
            updated = used(updated, self._uses[span])
        if span in self._emitted_spans:
            self._emitted[span] = updated
        return updated

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.BaseExpression:
        entry = self._plan.entry
        if entry is None or self._document.span(original_node) != self._module.span(entry.call):
            return updated_node
        arguments = ", ".join(self._plan.parameters)
        steps = cst.parse_expression(f"[{self._plan.entry_name}({arguments})]")
        index = _steps_index(updated_node)
        given = updated_node.args[index]
        self._comments_by_name = comments_of_items(given.value)
        told = [line.comment.value for lines in self._comments_by_name.values() for line in lines if line.comment]
        self._comments = [
            line for line in comments_outside(given, []) if line.comment and line.comment.value not in told
        ]
        changed = [*updated_node.args[:index], given.with_changes(value=steps), *updated_node.args[index + 1 :]]
        return updated_node.with_changes(args=changed)

    def _as_entry_line(self, line: Line, statement: cst.BaseStatement) -> cst.BaseStatement:
        """A statement of the entry step: a value that nothing there reads is not given a name."""
        if not isinstance(statement, cst.SimpleStatementLine) or len(line.binds) != 1:
            return statement
        [name] = line.binds
        others = [other for other in self._plan.moved if other is not line and other not in self._dead]
        is_read = any(name in other.reads | other.binds for other in others)
        is_read = is_read or any(name in _names_in(node) for node in self._plan.emitted)
        match statement.body:
            case [cst.Assign(value=value) | cst.AnnAssign(value=cst.BaseExpression() as value)] if not is_read:
                made = _as_statement(value)
                if isinstance(made, cst.SimpleStatementLine) and not isinstance(value, cst.Call):
                    return statement
                return cast("Any", made).with_changes(leading_lines=statement.leading_lines)
            case _:
                return statement

    def _function_line(self, name: str, statement: Any) -> Any:
        """A statement of a name that becomes a function: the function in the place of the last of them."""
        lines = self._lines[name]
        body = self._built.setdefault(name, [])
        body.append(statement)
        if len(body) < len(lines):
            return cst.RemoveFromParent()
        kind = kind_of_built(name, lines, self._module)
        annotation = self._annotation(kind)
        first: Any = body[0]
        if len(lines) == 1:
            [small] = first.body
            if isinstance(small, cst.AnnAssign):
                annotation = self._document.code(small.annotation.annotation)
            comment = first.trailing_whitespace.comment
            remark = [] if comment is None else [cst.EmptyLine(comment=comment)]
            inner = [returned(cast("cst.BaseExpression", small.value), remark)]
        else:
            inner = [without_blank_lines(body[0]), *body[1:], returned(cst.Name(name))]
        decorator = ""
        if is_group(name, lines, self._module):
            decorator = f'@{self._names["step"]}(name="{self._base}/{name}")\n'
        made = function(f"{decorator}def {name}(){annotation and f' -> {annotation}'}:", inner)
        return made.with_changes(leading_lines=first.leading_lines)

    def _annotation(self, kind: Kind) -> str:
        ref = self._names["StepRef"]
        return {Kind.REF: ref, Kind.REFS: f"list[{ref}]", Kind.MAPPING: f"dict[str, {ref}]"}.get(kind, "")

    def leave_IndentedBlock(
        self, original_node: cst.IndentedBlock, updated_node: cst.IndentedBlock
    ) -> cst.IndentedBlock:
        """A block whose first statements have gone begins without the blank line that stood after them."""
        starts = [self._document.start(line) for line in original_node.body]
        if not updated_node.body or not starts or starts[0] not in self._moved:
            return updated_node
        first = updated_node.body[0]
        return updated_node.with_changes(body=[without_blank_lines(first), *updated_node.body[1:]])

    def leave_Module(self, original_node: cst.Module, updated_node: cst.Module) -> cst.Module:
        entry = self._plan.entry
        if entry is None:
            return updated_node
        holder = self._start(entry.holder)
        made = self._entry(entry)
        kept = [node for node in original_node.body if not self._is_removed(node)]
        index = next(i for i, node in enumerate(kept) if self._document.start(node) == holder)
        # Builders give one statement for each that they replace, so the counts agree.
        return updated_node.with_changes(body=[*updated_node.body[:index], made, *updated_node.body[index:]])

    def _is_removed(self, node: cst.CSTNode) -> bool:
        start = self._document.start(node)
        name = self._builders.get(start)
        is_part = name is not None and start != self._start(self._lines[name][-1].node)
        return start in self._moved or is_part

    def _explained(self, statement: cst.BaseStatement, names: Iterable[str]) -> cst.BaseStatement:
        """A statement with the comments that stood beside what it makes, where that was listed."""
        comments = [line for name in sorted(names) for line in self._comments_by_name.pop(name, [])]
        return _led_by(comments, statement)

    def _entry(self, entry: Entry) -> cst.FunctionDef:
        body: list[cst.BaseStatement] = [
            self._explained(self._entry_body[self._start(line.node)], line.binds)
            for line in self._plan.moved
            if line not in self._dead
        ]
        emitted = [
            self._explained(_as_statement(self._emitted[self._module.span(node)]), _names_in(node))
            for node in self._plan.emitted
        ]
        self._comments += [line for lines in self._comments_by_name.values() for line in lines]
        if emitted and self._comments:
            emitted[0] = _led_by(self._comments, emitted[0])
        footer = [] if emitted else self._comments
        body = [_with_one_blank_line(line) for line in [*body, *emitted]]
        body[0] = without_blank_lines(body[0])
        parameters = ", ".join(self._plan.parameters)
        again = re.search(r"_\d+$", self._plan.entry_name.removeprefix(wanted_entry_name(self._module)))
        name = f"{self._base}/all{again.group() if again else ''}"
        header = f'@{self._names["step"]}(name="{name}")\ndef {self._plan.entry_name}({parameters}):'
        docstring = cst.parse_statement(f'"""{_summary(entry, self._base)}"""\n')
        return function(header, [docstring, *body], footer)


def _led_by(comments: Sequence[cst.EmptyLine], statement: cst.BaseStatement) -> cst.BaseStatement:
    leading: Sequence[cst.EmptyLine] = cast("Any", statement).leading_lines
    return cast("Any", statement).with_changes(leading_lines=[*leading, *comments])


def _dead_lines(plan: HoistPlan) -> list[Line]:
    """Statements that only listed steps for ``executor_main``: they call nothing, and nothing else reads them."""
    dead: list[Line] = []
    for line in reversed(plan.moved):
        is_list = isinstance(line.node, ast.Assign | ast.AnnAssign) and len(line.binds) == 1
        makes = any(isinstance(node, ast.Call) for node in ast.walk(line.node))
        read = {
            name
            for other in plan.moved
            if other is not line and other not in dead
            for name in other.reads | other.binds
        }
        read |= {name for node in plan.emitted for name in _names_in(node)}
        if is_list and not makes and not line.calls_steps and not line.binds & read:
            dead.append(line)
    return dead


def _names_in(node: ast.expr) -> set[str]:
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}


def _steps_index(call: cst.Call) -> int:
    named = [
        i for i, argument in enumerate(call.args) if argument.keyword is not None and argument.keyword.value == "steps"
    ]
    return named[0] if named else 0


def _as_statement(value: cst.BaseExpression) -> cst.BaseStatement:
    """What an element of a list of steps does, as a statement."""
    if (
        isinstance(value, cst.ListComp | cst.GeneratorExp | cst.SetComp | cst.DictComp)
        and not value.for_in.inner_for_in
    ):
        generator = value.for_in
        item = value.value if isinstance(value, cst.DictComp) else value.elt
        body: cst.BaseStatement = cst.SimpleStatementLine([cst.Expr(item)])
        for condition in reversed(generator.ifs):
            body = cst.If(condition.test, cst.IndentedBlock([body]))
        return cst.For(generator.target, generator.iter, cst.IndentedBlock([body]))
    return cst.SimpleStatementLine([cst.Expr(value)])


def _with_one_blank_line(statement: cst.BaseStatement) -> cst.BaseStatement:
    """A statement with at most one blank line before it and before its comments."""
    leading: Sequence[cst.EmptyLine] = cast("Any", statement).leading_lines
    kept = [
        line if line.comment is not None else BLANK
        for index, line in enumerate(leading)
        if line.comment is not None or index == 0 or leading[index - 1].comment is not None
    ]
    return cast("Any", statement).with_changes(leading_lines=kept)


def _summary(entry: Entry, base: str) -> str:
    for keyword in entry.call.keywords:
        match keyword:
            case ast.keyword(arg="description", value=ast.Constant(value=str(text))):
                if '"' not in text and "\\" not in text and text.isprintable() and text.strip():
                    return text.strip().rstrip(".") + "."
            case _:
                pass
    return f"Entry step of {base}."
