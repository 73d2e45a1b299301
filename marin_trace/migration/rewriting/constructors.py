"""From ``ExecutorStep(...)`` to functions under ``@step``."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never, cast, final

import libcst as cst

from marin_trace.migration.inference import kind_of
from marin_trace.migration.kinds import Kind
from marin_trace.migration.module import Module, Span
from marin_trace.migration.rewriting.constructor_plans import (
    Assignment,
    Left,
    Lifted,
    Plans,
    Rewritten,
    WholeFunction,
    imported_assignment,
    is_global,
    plan_constructors,
)
from marin_trace.migration.rewriting.cst import (
    Document,
    LinesTransformer,
    called,
    comments_outside,
    expression,
    function,
    indentation_of,
    returned,
    separated,
    shifted,
)
from marin_trace.migration.rewriting.given import Given
from marin_trace.migration.rewriting.imports import LocalNames, names_used
from marin_trace.migration.rewriting.templates import template_of
from marin_trace.migration.scopes import Imported

_WRAPPER_OPTIONS = ("resources", "env_vars", "pip_dependency_groups")
_LINE_LENGTH = 100


@final
@dataclass(slots=True)
class _Work:
    """What a pass over a module's constructors does, and what it has made."""

    module: Module
    names: LocalNames
    plans: Plans
    deferred_names: dict[str, str] = field(default_factory=dict[str, str])
    """Library functions that are deferred once for the module: their names, and what their import is called now."""
    calls: dict[Span, str] = field(default_factory=dict[Span, str])
    """Expressions that become calls of a step function, and its name."""
    created: set[str] = field(default_factory=set[str])


def rewrite_constructors(module: Module, names: LocalNames, chosen: set[str]) -> tuple[str, set[str]]:
    """The text with step functions instead of constructors.

    Args:
        module: Its other expressions are in the new style already.
        names: How the package's names are called in it.
        chosen: The files that are migrated together, as resolved paths: what they construct is called as well.

    Returns:
        The text, and the names of the functions that are new at its top level.
    """
    plans = plan_constructors(module)
    work = _Work(module, names, plans)
    _find_calls(work, chosen)
    active = [plan for plan in plans.plans if not isinstance(plan, Left)]
    if not active and not work.calls:
        return module.text, set()
    _find_deferred_names(work, active)
    document = Document(module.text, module.path)
    return document.tree.visit(_Constructors(document, work, active)).code, work.created


def _find_calls(work: _Work, chosen: set[str]) -> None:
    """The places where a step's name stood for the step, which calling it returns now."""
    module = work.module
    own = {plan.name: plan for plan in work.plans.plans if isinstance(plan, Assignment)}
    for node in module.nodes(ast.Name):
        plan = own.get(node.id)
        if not isinstance(node.ctx, ast.Load):
            continue
        if plan is None or not is_global(node, node.id, module):
            binding = module.root.bindings.get(node.id, [])
            match binding:
                case [Imported() as imported] if is_global(node, node.id, module):
                    if imported_assignment(imported, module, chosen):
                        work.calls[module.span(node)] = node.id
                case _:
                    pass
            continue
        parent = module.parent(node)
        if isinstance(parent, ast.Attribute) and parent.attr == "config" and plan.config_name is not None:
            work.calls[module.span(parent)] = plan.config_name
        elif isinstance(parent, ast.Attribute) and parent.attr == "fn" and _is_name(plan.given.by_name["fn"]):
            continue
        else:
            work.calls[module.span(node)] = node.id
    for node in module.nodes(ast.Attribute):
        qualified = module.qualified(node)
        if qualified is None or not isinstance(node.ctx, ast.Load):
            continue
        imported = Imported(qualified.rpartition(".")[0], node.attr)
        is_module = isinstance(node.value, ast.Name | ast.Attribute) and kind_of(node.value, module) is Kind.UNKNOWN
        if is_module and imported_assignment(imported, module, chosen):
            work.calls[module.span(node)] = ast.unparse(node)


def _is_name(node: ast.expr) -> bool:
    return isinstance(node, ast.Name)


def _find_deferred_names(work: _Work, active: list[Rewritten]) -> None:
    """Imported functions that only constructors use: they are deferred once, under the name that they had."""
    module = work.module
    functions = [plan.given.by_name["fn"] for plan in active]
    inner = [_unwrapped(node, module)[0] for node in functions]
    used = names_used(module)
    for node in inner:
        if not isinstance(node, ast.Name) or node.id in work.deferred_names or node.id.startswith("_"):
            continue
        match module.root.bindings.get(node.id, []):
            case [Imported(module=source, attribute=str())] if is_global(node, node.id, module):
                pass
            case _:
                continue
        reads = [name for name in module.nodes(ast.Name) if name.id == node.id and isinstance(name.ctx, ast.Load)]
        is_taken = f"_{node.id}" in used or f"_{node.id}" in module.root.bindings
        is_known = kind_of(node, module) is Kind.UNKNOWN and not module.project.packages.is_framework(source)
        if all(any(read is other for other in inner) for read in reads) and not is_taken and is_known:
            work.deferred_names[node.id] = f"_{node.id}"


def _unwrapped(node: ast.expr, module: Module) -> tuple[ast.expr, dict[str, ast.expr]]:
    """The function in ``remote(fn, resources=…)``, and the options that it was wrapped with.

    ``step.fn`` is the function of that step, where it is constructed in the same module.
    """
    if isinstance(node, ast.Attribute) and node.attr == "fn" and isinstance(node.value, ast.Name):
        for plan in plan_constructors(module).plans:
            if isinstance(plan, Assignment) and is_global(node.value, plan.name, module):
                return _unwrapped(plan.given.by_name["fn"], module)
    if isinstance(node, ast.Call) and module.framework_name(node.func) == "remote" and len(node.args) == 1:
        options = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg is not None}
        if options.keys() <= set(_WRAPPER_OPTIONS) and len(options) == len(node.keywords):
            return node.args[0], options
    return node, {}


class _Constructors(LinesTransformer):
    def __init__(self, document: Document, work: _Work, active: list[Rewritten]) -> None:
        lines = [span.line for span in work.calls]
        for plan in active:
            lines += [plan.given.call.lineno]
            match plan:
                case Lifted():
                    lines += [plan.anchor.lineno, *(line.lineno for line in plan.moved)]
                case _:
                    lines.append(plan.statement.lineno)
        super().__init__(document, lines)
        self._work = work
        module = work.module
        self._plans: Mapping[Span, Rewritten] = {module.span(plan.given.call): plan for plan in active}
        self._statements = {
            (plan.statement.lineno, module.span(plan.statement).column): plan
            for plan in active
            if isinstance(plan, Assignment | WholeFunction)
        }
        self._functions = {
            (plan.function.lineno, plan.function.col_offset): plan for plan in active if isinstance(plan, WholeFunction)
        }
        self._moved = {
            (line.lineno, module.span(line).column)
            for plan in active
            if isinstance(plan, Lifted)
            for line in plan.moved
        }
        self._nested = {
            (plan.anchor.lineno, module.span(plan.anchor).column)
            for plan in active
            if isinstance(plan, Lifted) and module.parent(plan.anchor) is not None
        }
        self._first = {
            (body[0].lineno, module.span(body[0]).column)
            for body in (function.body for function in module.nodes(ast.FunctionDef))
        }
        self._moved_nodes: dict[tuple[int, int], cst.BaseStatement] = {}
        self._pending: dict[tuple[int, int], list[cst.BaseStatement]] = {}
        self._built: dict[Span, cst.Call] = {}

    def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.BaseExpression:
        return self._called(original_node, updated_node)

    def leave_Attribute(self, original_node: cst.Attribute, updated_node: cst.Attribute) -> cst.BaseExpression:
        return self._called(original_node, updated_node)

    def _called(self, original: cst.BaseExpression, updated: cst.BaseExpression) -> cst.BaseExpression:
        if not self._work.calls:
            return updated
        name = self._work.calls.get(self._document.span(original))
        return updated if name is None else called(name)

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.BaseExpression:
        plan = self._plans.get(self._document.span(original_node))
        if plan is None:
            return updated_node
        self._built[self._document.span(original_node)] = updated_node
        if not isinstance(plan, Lifted):
            return updated_node
        key = (plan.anchor.lineno, self._work.module.span(plan.anchor).column)
        self._pending.setdefault(key, []).append(self._lifted(plan, updated_node))
        arguments: list[cst.BaseExpression] = [cst.Name(name) for name in plan.parameters]
        if plan.is_named_outside:
            arguments.insert(0, self._given(updated_node, "name"))
        return called(plan.name, arguments)

    def left(self, original_node: cst.CSTNodeT, updated_node: cst.CSTNodeT) -> Any:
        updated: Any = super().left(original_node, updated_node)
        if not isinstance(original_node, cst.BaseStatement):
            return updated
        start = self._document.start(original_node)
        if (
            isinstance(original_node, cst.SimpleStatementLine)
            and self._work.deferred_names
            and _is_import(original_node)
        ):
            return self._import(updated)
        if isinstance(original_node, cst.SimpleStatementLine) and start in self._statements:
            updated = self._statement(self._statements[start], cast("cst.SimpleStatementLine", updated_node))
        elif isinstance(original_node, cst.FunctionDef) and start in self._functions:
            updated = self._whole(self._functions[start], cast("cst.FunctionDef", updated_node))
        if start in self._moved and isinstance(updated, cst.BaseStatement):
            self._moved_nodes[start] = updated
            return cst.RemoveFromParent()
        before = self._pending.pop(start, [])
        if not before:
            return updated
        if start in self._nested:
            first, *others = before
            is_first = start in self._first
            before = [first if is_first else separated(first, 1), *(separated(line, 1) for line in others)]
            updated = separated(updated, 1) if isinstance(updated, cst.BaseStatement) else updated
        is_several = isinstance(updated, cst.FlattenSentinel)
        following = list(cast("cst.FlattenSentinel[cst.BaseStatement]", updated)) if is_several else [updated]
        return cst.FlattenSentinel([*before, *following])

    def _import(self, statement: cst.SimpleStatementLine) -> Any:
        """An import whose functions that are deferred have got other names, each on a line of its own."""
        match statement.body:
            case [cst.ImportFrom(names=[*names]) as line]:
                pass
            case _:
                return statement
        renamed = {id(alias): self._work.deferred_names.get(_local_name(alias)) for alias in names}
        if not any(renamed.values()):
            return statement
        source = self._document.code(line)[: -len(self._document.code(line).partition("import")[2])].strip()
        kept = [alias for alias in names if renamed[id(alias)] is None]
        if kept and not line.lpar:
            kept[-1] = kept[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
        lines: list[Any] = [statement.with_changes(body=[line.with_changes(names=kept)])] if kept else []
        for alias in names:
            name = renamed[id(alias)]
            if name is not None:
                lines.append(cst.parse_statement(f"{source} {alias.evaluated_name} as {name}\n"))
        if not kept:
            lines[0] = lines[0].with_changes(leading_lines=statement.leading_lines)
        return cst.FlattenSentinel(lines)

    def leave_Module(self, original_node: cst.Module, updated_node: cst.Module) -> cst.Module:
        if not self._work.deferred_names:
            return updated_node
        names = self._work.deferred_names
        wrapper = self._work.names["deferred"]
        lines = [cst.parse_statement(f"{name} = {wrapper}({renamed})\n") for name, renamed in names.items()]
        lines[0] = cast("Any", lines[0]).with_changes(leading_lines=[cst.EmptyLine(indent=False)])
        index = 1 + max(index for index, line in enumerate(updated_node.body) if _is_import(line))
        return updated_node.with_changes(body=[*updated_node.body[:index], *lines, *updated_node.body[index:]])

    def _statement(self, plan: Assignment | WholeFunction, line: cst.SimpleStatementLine) -> Any:
        call = self._built[self._work.module.span(plan.given.call)]
        if isinstance(plan, WholeFunction):
            work, comments = self._work_of(plan.given, call)
            return returned(work, [*line.leading_lines, *comments])
        options = {} if plan.redirect is None else {"override_output_path": self._text(plan.redirect)}
        captured = tuple(f"{name}={name}" for name in plan.captured)
        header = self._header(plan.given, call, plan.name, captured, None, options)
        work, comments = self._work_of(plan.given, call, plan.config_name)
        made: list[cst.BaseStatement] = []
        if plan.config_name is not None:
            config = self._given(call, "config")
            made.append(function(f"def {plan.config_name}({', '.join(captured)}):", [returned(config)]))
            self._work.created.add(plan.config_name)
        trailing = line.trailing_whitespace.comment
        comments = [*comments, *([cst.EmptyLine(comment=trailing)] if trailing is not None else [])]
        made.append(function(header, [returned(work, comments)]))
        made[0] = cast("Any", made[0]).with_changes(leading_lines=line.leading_lines)
        self._work.created.add(plan.name)
        return cst.FlattenSentinel(made)

    def _template(self, value: ast.expr, visible: tuple[str, ...]) -> str | None:
        """A text option as a template; None for an expression that says by itself what its template would."""
        is_text = isinstance(value, ast.Constant | ast.JoinedStr | ast.BinOp | ast.Call)
        is_field = any(isinstance(name, ast.Name) and name.id in visible for name in ast.walk(value))
        return template_of(value, visible, self._work.module) if is_text or is_field else None

    def _text(self, node: ast.expr) -> str:
        return ast.get_source_segment(self._work.module.text, node) or ast.unparse(node)

    def _whole(self, plan: WholeFunction, node: cst.FunctionDef) -> cst.FunctionDef:
        call = self._built[self._work.module.span(plan.given.call)]
        extra = {} if plan.resources is None else {"resources": plan.resources}
        header = self._header(plan.given, call, node.name.value, (), plan, extra)
        made = function(header, [])
        returns = node.returns or cst.Annotation(expression(self._work.names["StepRef"]))
        return node.with_changes(decorators=made.decorators, returns=returns)

    def _lifted(self, plan: Lifted, call: cst.Call) -> cst.FunctionDef:
        header = self._header(plan.given, call, plan.name, plan.parameters, plan, {})
        work, comments = self._work_of(plan.given, call)
        module = self._work.module
        moved = [self._moved_nodes[line.lineno, module.span(line).column] for line in plan.moved]
        self._work.created.add(plan.name)
        return function(header, [*moved, returned(work, comments)])

    def _header(  # noqa: PLR0917 (the parts of one line of code)
        self,
        given: Given,
        call: cst.Call,
        name: str,
        parameters: tuple[str, ...],
        plan: Lifted | WholeFunction | None,
        extra: Mapping[str, str],
    ) -> str:
        """The decorator and ``def`` line of a step."""
        module = self._work.module
        visible = self._parameters_of(plan)
        template = self._template(given.by_name["name"], visible)
        if isinstance(plan, Lifted) and plan.is_named_outside:
            template, parameters = '"{step_name}"', ("step_name", *parameters)
        options = {"name": template or self._document.code(self._given(call, "name"))}
        wrapped = _unwrapped(given.by_name["fn"], module)[1]
        options |= {option: ast.unparse(value) for option, value in wrapped.items()}
        for option, value in given.options.items():
            text = self._template(value, visible) if option in ("description", "override_output_path") else None
            options[option] = text or self._document.code(self._given(call, option))
        options |= extra
        listed = [f"{option}={value}" for option, value in options.items()]
        decorator = f"@{self._work.names['step']}({', '.join(listed)})"
        if len(decorator) > _LINE_LENGTH:
            decorator = "\n".join([f"@{self._work.names['step']}(", *(f"    {part}," for part in listed), ")"])
        return f"{decorator}\ndef {name}({', '.join(parameters)}) -> {self._work.names['StepRef']}:"

    @staticmethod
    def _parameters_of(plan: Lifted | WholeFunction | None) -> tuple[str, ...]:
        match plan:
            case None:
                return ()
            case Lifted():
                return plan.parameters
            case WholeFunction():
                arguments = plan.function.args
                return tuple(a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs))
            case _:
                assert_never(plan)

    def _work_of(
        self, given: Given, call: cst.Call, config_name: str | None = None
    ) -> tuple[cst.BaseExpression, list[cst.EmptyLine]]:
        """The deferred call that does the work of a step, and the comments that stood elsewhere in its constructor."""
        kept = [argument.value for argument in call.args]
        config = called(config_name) if config_name is not None else self._given(call, "config")
        inner, _ = _unwrapped(given.by_name["fn"], self._work.module)
        if isinstance(inner, ast.Name) and (
            inner.id in self._work.deferred_names or kind_of(inner, self._work.module) is Kind.DEFERRED
        ):
            work: cst.BaseExpression = called(inner.id, [config])
        else:
            wrapper = called(self._work.names["deferred"], [expression(ast.unparse(inner))])
            work = cst.Call(wrapper, [cst.Arg(config)])
        return work, comments_outside(call, kept)

    def _given(self, call: cst.Call, name: str) -> cst.BaseExpression:
        """An argument of a constructor, as it would stand on a line of its own."""
        order = ("name", "fn", "config", "description", "override_output_path", "pip_dependency_groups", "resources")
        for index, argument in enumerate(call.args):
            given = order[index] if argument.keyword is None else argument.keyword.value
            if given == name:
                return shifted(argument.value, indentation_of(call, argument))
        return cst.Name("None")


def _is_import(statement: cst.CSTNode) -> bool:
    return isinstance(statement, cst.SimpleStatementLine) and isinstance(statement.body[0], cst.Import | cst.ImportFrom)


def _local_name(alias: cst.ImportAlias) -> str:
    return alias.evaluated_alias or alias.evaluated_name
