"""Which name means what: the scopes of a module, what binds the names in each, and where every node stands."""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, final

FunctionNode: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
ScopeNode: TypeAlias = (
    ast.Module | FunctionNode | ast.Lambda | ast.ClassDef | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
)

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
# ``type Name = …``, which Python 3.11 does not have.
_TYPE_ALIAS: Any = getattr(ast, "TypeAlias", ())


@final
@dataclass(frozen=True, slots=True, eq=False)
class Assigned:
    """``name = value``."""

    value: ast.expr
    annotation: ast.expr | None = None


@final
@dataclass(frozen=True, slots=True, eq=False)
class Element:
    """``for name in iterable``."""

    iterable: ast.expr
    is_value: bool = False
    """The iterable is a mapping, and the name is one of its values."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Parameter:
    """A parameter of a function."""

    argument: ast.arg
    stars: int = 0
    """1 for ``*args``, 2 for ``**kwargs``: its annotation is that of each value."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Defined:
    """``def name`` or ``class name``."""

    node: FunctionNode | ast.ClassDef


@final
@dataclass(frozen=True, slots=True, eq=False)
class Imported:
    """``from module import attribute as name``, or ``import module as name`` where the attribute is None."""

    module: str
    attribute: str | None


@final
@dataclass(frozen=True, slots=True, eq=False)
class Opaque:
    """Anything else that binds a name; what is known of it are the expressions that it came from."""

    sources: tuple[ast.expr, ...] = ()


Binding: TypeAlias = Assigned | Element | Parameter | Defined | Imported | Opaque


@final
@dataclass(slots=True, eq=False)
class Scope:
    """Where names live: a module, function, class or comprehension."""

    node: ScopeNode
    parent: "Scope | None"
    bindings: dict[str, list[Binding]] = field(default_factory=dict[str, list[Binding]])
    outer_names: set[str] = field(default_factory=set[str])
    """Declared ``global`` or ``nonlocal``."""

    def lookup(self, name: str) -> "Scope | None":
        """The scope in which a name that is read here is bound; None for builtins and names from elsewhere."""
        scope: Scope | None = self
        is_first = True
        while scope is not None:
            # A class's own names are not seen from the functions in it.
            is_seen = is_first or not isinstance(scope.node, ast.ClassDef)
            if is_seen and name in scope.bindings and name not in scope.outer_names:
                return scope
            scope, is_first = scope.parent, False
        return None

    @property
    def is_module(self) -> bool:
        """Whether this is the module's own scope."""
        return self.parent is None


@final
@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where a node stands."""

    scope: Scope
    parent: ast.AST | None
    at_import: bool
    """Evaluated when the module is imported; what only runs under ``if __name__ == "__main__"`` is not."""
    is_annotation: bool


class ScopeTree:
    """The scopes of a module, and the place of each of its nodes."""

    def __init__(self, tree: ast.Module) -> None:
        self.root = Scope(tree, None)
        self.places: dict[ast.AST, Place] = {}
        self.scopes: dict[ast.AST, Scope] = {tree: self.root}
        self._visit_all(tree.body, self.root, tree, at_import=True)

    def _visit_all(self, nodes: Sequence[ast.AST], scope: Scope, parent: ast.AST, *, at_import: bool) -> None:
        for node in nodes:
            self._visit(node, scope, parent, at_import=at_import)

    def _visit(
        self, node: ast.AST, scope: Scope, parent: ast.AST, *, at_import: bool, is_annotation: bool = False
    ) -> None:
        self.places[node] = Place(scope, parent, at_import, is_annotation)
        _bind(node, scope)
        if isinstance(node, _TYPE_ALIAS):
            _bind_type(node, scope)
        # From Python 3.12 on: def f[T: Bound](…), class A[T: Bound].
        for parameter in getattr(node, "type_params", ()):
            self._visit(parameter, scope, node, at_import=False, is_annotation=True)
        if isinstance(node, _FUNCTIONS):
            self._visit_function(node, scope, at_import=at_import)
        elif isinstance(node, ast.Lambda):
            self._visit_defaults(node.args, scope, node, at_import=at_import)
            self._visit(node.body, self._inner(node, scope), node, at_import=False)
        elif isinstance(node, ast.ClassDef):
            outer = [*node.decorator_list, *node.bases, *node.keywords]
            self._visit_all(outer, scope, node, at_import=at_import)
            self._visit_all(node.body, self._inner(node, scope), node, at_import=at_import)
        elif isinstance(node, _COMPREHENSIONS):
            self._visit_comprehension(node, scope, at_import=at_import)
        elif isinstance(node, ast.If) and is_guard(node.test):
            self._visit(node.test, scope, node, at_import=False)
            self._visit_all(node.body, scope, node, at_import=False)
            self._visit_all(node.orelse, scope, node, at_import=at_import)
        else:
            for name, child in _children(node):
                annotation = is_annotation or (name == "annotation")
                self._visit(child, scope, node, at_import=at_import, is_annotation=annotation)

    def _inner(self, node: ScopeNode, scope: Scope) -> Scope:
        inner = Scope(node, scope)
        self.scopes[node] = inner
        if isinstance(node, (*_FUNCTIONS, ast.Lambda)):
            for argument in _arguments(node.args):
                stars = 1 if argument is node.args.vararg else 2 if argument is node.args.kwarg else 0
                inner.bindings.setdefault(argument.arg, []).append(Parameter(argument, stars))
        return inner

    def _visit_function(self, node: FunctionNode, scope: Scope, *, at_import: bool) -> None:
        self._visit_all(node.decorator_list, scope, node, at_import=at_import)
        self._visit_defaults(node.args, scope, node, at_import=at_import)
        annotations = [argument.annotation for argument in _arguments(node.args)] + [node.returns]
        for annotation in annotations:
            if annotation is not None:
                self._visit(annotation, scope, node, at_import=at_import, is_annotation=True)
        inner = self._inner(node, scope)
        inner.outer_names = {
            name for line in walk_body(node) if isinstance(line, ast.Global | ast.Nonlocal) for name in line.names
        }
        self._visit_all(node.body, inner, node, at_import=False)

    def _visit_defaults(self, arguments: ast.arguments, scope: Scope, node: ast.AST, *, at_import: bool) -> None:
        defaults = [*arguments.defaults, *(default for default in arguments.kw_defaults if default is not None)]
        self._visit_all(defaults, scope, node, at_import=at_import)

    def _visit_comprehension(self, node: ScopeNode, scope: Scope, *, at_import: bool) -> None:
        assert isinstance(node, _COMPREHENSIONS)
        inner = self._inner(node, scope)
        for index, generator in enumerate(node.generators):
            self.places[generator] = Place(inner, node, at_import, is_annotation=False)
            # The first iterable is evaluated outside.
            self._visit(generator.iter, inner if index else scope, generator, at_import=at_import)
            _bind_loop(generator.target, generator.iter, inner)
            self._visit_all([generator.target, *generator.ifs], inner, generator, at_import=at_import)
        parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        self._visit_all(parts, inner, node, at_import=at_import)


def is_guard(test: ast.expr) -> bool:
    """Whether a condition is false when the module is imported: ``__name__ == "__main__"``, ``TYPE_CHECKING``."""
    return is_main_test(test) or is_type_checking(test)


def is_main_test(test: ast.expr) -> bool:
    """Whether a condition is ``__name__ == "__main__"``."""
    if not (isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq)):
        return False
    sides = [test.left, test.comparators[0]]
    names = [side.id for side in sides if isinstance(side, ast.Name)]
    texts = [side.value for side in sides if isinstance(side, ast.Constant)]
    return names == ["__name__"] and texts == ["__main__"]


def is_type_checking(test: ast.expr) -> bool:
    """Whether a condition is ``TYPE_CHECKING``."""
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def walk_body(node: FunctionNode | ast.Lambda) -> Iterator[ast.AST]:
    """The nodes of a function's own body, in order: not those of functions and classes in it."""
    body = node.body if isinstance(node.body, list) else [node.body]
    for line in body:
        yield from walk_own(line)


def walk_own(node: ast.AST) -> Iterator[ast.AST]:
    """A node and those below it, in order; a function, lambda or class in it is given, and not entered."""
    pending = [node]
    while pending:
        current = pending.pop()
        yield current
        if current is node or not isinstance(current, (*_FUNCTIONS, ast.Lambda, ast.ClassDef)):
            pending.extend(reversed(list(ast.iter_child_nodes(current))))


def dotted_name(node: ast.expr) -> str | None:
    """``a.b.c`` of an expression that is one."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None


def _arguments(arguments: ast.arguments) -> list[ast.arg]:
    several = [argument for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *several]


def _children(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    for name, value in ast.iter_fields(node):
        if isinstance(value, ast.AST):
            yield name, value
        elif isinstance(value, list):
            for item in value:  # pyright: ignore[reportUnknownVariableType]
                if isinstance(item, ast.AST):
                    yield name, item


def _bind_type(node: Any, scope: Scope) -> None:
    """``type Name = …``."""
    _add(scope, node.name.id, Assigned(node.value))


def _bind(node: ast.AST, scope: Scope) -> None:  # noqa: PLR0912 (one branch for each statement that binds)
    match node:
        case ast.Assign(targets=targets, value=value):
            for target in targets:
                _bind_target(target, value, scope)
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value, annotation=annotation):
            _add(scope, name, Assigned(value, annotation))
        case ast.AugAssign(target=ast.Name(id=name), value=value):
            _add(scope, name, Opaque((value,)))
        case ast.NamedExpr(target=ast.Name(id=name), value=value):
            _add(_function_scope(scope), name, Assigned(value))
        case ast.For(target=target, iter=iterable) | ast.AsyncFor(target=target, iter=iterable):
            _bind_loop(target, iterable, scope)
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            _add(scope, name, Defined(node))
        case ast.Import(names=aliases):
            for alias in aliases:
                module = alias.name if alias.asname else alias.name.partition(".")[0]
                _add(scope, alias.asname or module, Imported(module, None))
        case ast.ImportFrom(names=aliases, module=module, level=level):
            for alias in aliases:
                _add(scope, alias.asname or alias.name, Imported("." * level + (module or ""), alias.name))
        case ast.withitem(optional_vars=ast.expr() as target):
            _bind_target(target, None, scope)
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            _add(scope, name, Opaque())
        case ast.MatchMapping(rest=str(name)):
            _add(scope, name, Opaque())
        case _:
            pass


def _add(scope: Scope, name: str, binding: Binding) -> None:
    scope.bindings.setdefault(name, []).append(binding)


def _function_scope(scope: Scope) -> Scope:
    """The scope that ``:=`` binds in: comprehensions are passed through."""
    while isinstance(scope.node, _COMPREHENSIONS) and scope.parent is not None:
        scope = scope.parent
    return scope


def _bind_target(target: ast.expr, value: ast.expr | None, scope: Scope) -> None:
    sources = () if value is None else (value,)
    match target:
        case ast.Name(id=name):
            _add(scope, name, Opaque() if value is None else Assigned(value))
        case ast.Tuple(elts=targets) | ast.List(elts=targets):
            values = value.elts if isinstance(value, ast.Tuple | ast.List) else []
            is_parallel = len(values) == len(targets) and not any(isinstance(item, ast.Starred) for item in values)
            for index, item in enumerate(targets):
                if is_parallel and not isinstance(item, ast.Starred):
                    _bind_target(item, values[index], scope)
                else:
                    _bind_opaque(item, sources, scope)
        case _:
            _bind_opaque(target, sources, scope)


def _bind_loop(target: ast.expr, iterable: ast.expr, scope: Scope) -> None:
    """What ``for target in iterable`` binds; of ``d.items()`` the second name is one of the values."""
    match target, iterable:
        case ast.Name(id=name), _:
            _add(scope, name, Element(iterable))
        case ast.Tuple(elts=[first, ast.Name(id=name)]), ast.Call(func=ast.Attribute(attr="items", value=mapping)):
            _bind_opaque(first, (), scope)
            _add(scope, name, Element(mapping, is_value=True))
        case ast.Tuple(elts=[first, ast.Name(id=name)]), ast.Call(func=ast.Name(id="enumerate"), args=[inner, *_]):
            _bind_opaque(first, (), scope)
            _add(scope, name, Element(inner))
        case _:
            _bind_opaque(target, (iterable,), scope)


def _bind_opaque(target: ast.expr, sources: tuple[ast.expr, ...], scope: Scope) -> None:
    for node in ast.walk(target):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            _add(scope, node.id, Opaque(sources))
