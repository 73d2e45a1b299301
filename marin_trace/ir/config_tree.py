"""Config trees: what a step's calls receive, as an immutable snapshot.

The one walker over containers. :func:`flatten` turns any value into a tree (dataclasses, pydantic models, attrs
classes, dicts and their keys, lists, tuples, named tuples, sets, partials and bound methods, nested); everything else
that needs to look inside a config works on that tree:

- fingerprints and memo keys: :mod:`marin_trace.ir.canonical`
- type checks: :mod:`marin_trace.ir.typecheck`
- printing: :mod:`marin_trace.ir.printer`
- substitution: :func:`substitute` (tree to tree) and :func:`materialise` (tree to fresh Python objects, run time)

A tree is either a *leaf*, kept as it is (an immutable plain value, a ref or a projection), or one of the node classes
below. No node holds an object that user code can still change, except :class:`Opaque` values without an encoding.
"""

import copy
import dataclasses
import datetime
import enum
import functools
import inspect
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Mapping as MappingABC
from pathlib import PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any, ClassVar, Final, NamedTuple, TypeVar, cast, final

from marin_trace.errors import ConfigError, UnstableValueError, explain
from marin_trace.ir.encoders import known_encoding, lazy_leaf_base
from marin_trace.ir.functions import unwrapped
from marin_trace.ir.location import user_location
from marin_trace.ir.markers import KeptMarkers, Marker
from marin_trace.ir.records import ABSENT, Absent, Plan, built_record, class_of, plan_of, reader_of
from marin_trace.ir.refs import (
    DeferredResult,
    HardcodedPath,
    OwnOutput,
    Projection,
    StepArtifact,
    StepOutput,
    StepRef,
    TracedValue,
)

T = TypeVar("T")

Tree = Any
"""A leaf or a node; see the module's docstring."""

ATOMS: Final = frozenset(
    {
        *(type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented), range, slice),
        *(PurePath, PurePosixPath, PureWindowsPath, PosixPath, WindowsPath),
        *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone),
        re.Pattern,
        *(OwnOutput, StepOutput, HardcodedPath),
    }
)
"""Types whose values are immutable leaves. ``slice`` and ``range`` of plain integers."""

TRACED: Final = frozenset({OwnOutput, StepOutput, HardcodedPath, DeferredResult, StepArtifact})
"""Types of the leaves that stand for something known later."""

PLAIN: Final = ATOMS - TRACED
"""Types whose values are their own snapshot."""


@final
class UnversionedValue(TracedValue):
    """What :func:`unversioned` returns: a value that is carried to the function and left out of the identity."""

    __slots__ = ("value",)
    lacks = "it is carried to a deferred function as it is"
    hint_by_operation: ClassVar[dict[str, str]] = {"*": "compute first, and wrap the result: unversioned(2 * workers)"}
    value: Any

    def __init__(self, value: object) -> None:
        object.__setattr__(self, "value", value)

    def __repr__(self) -> str:
        return f"unversioned({self.value!r})"


def unversioned(value: T) -> T:
    """Takes a value out of the identity of the step that receives it.

    **Phase**: trace time. A field or dict entry is left out of the fingerprint; an item of a list keeps its place. The
    function gets ``value`` itself. ``unversioned(ref)`` still waits for the ref's step.

    Example:
        >>> from marin_trace import unversioned
        >>> unversioned(8)
        unversioned(8)
    """
    return typing.cast("T", UnversionedValue(value))


def versioned(value: T) -> T:
    """Returns ``value``: everything is part of the identity by default. Accepted for older code."""
    return value


@final
class Record:
    """An object with named fields: a dataclass, pydantic model, attrs object or named tuple."""

    __slots__ = ("extras", "plan", "values")

    def __init__(self, plan: Plan, values: tuple[Tree, ...], extras: Tree = None) -> None:
        self.plan = plan
        self.values = values
        self.extras = extras
        """What the object holds beside its fields, as a tree or None; ``plan.counts_extras``: part of the identity."""


@final
class Sequence:
    """A list, tuple, set or frozenset (or a subclass). Sets keep an order that does not depend on the hash seed."""

    __slots__ = ("cls", "items")

    def __init__(self, cls: type[Any], items: tuple[Tree, ...]) -> None:
        self.cls = cls
        self.items = items

    @property
    def is_unordered(self) -> bool:
        """Whether it is a set or frozenset."""
        return issubclass(self.cls, set | frozenset)


@final
class Mapping:
    """A dict or a subclass; ``empty`` makes an empty one of the same kind, where its class alone does not say how."""

    __slots__ = ("cls", "empty", "keys", "values")

    def __init__(self, cls: type[Any], keys: tuple[Tree, ...], values: tuple[Tree, ...], empty: Any = None) -> None:
        self.cls = cls
        self.keys = keys
        self.values = values
        self.empty = empty


@final
class Unversioned:
    """A part that is no part of the identity."""

    __slots__ = ("tree",)

    def __init__(self, tree: Tree) -> None:
        self.tree = tree


@final
class BoundFunction:
    """A function given as a value: plain, a partial, or a bound method (whose ``self`` is a config)."""

    __slots__ = ("args", "function", "keywords", "kind")

    def __init__(
        self, kind: str, function: Callable[..., Any], args: tuple[Tree, ...], keywords: dict[str, Tree]
    ) -> None:
        self.kind = kind
        self.function = function
        self.args = args
        self.keywords = keywords


@final
class Opaque:
    """A value that the walker does not look into.

    ``encoding`` is its identity as text, or None where it has none: then it can only be carried unversioned.
    """

    __slots__ = ("encoding", "value")

    def __init__(self, value: Any, encoding: str | None) -> None:
        self.value = value
        self.encoding = encoding


class StandIn:
    """Base of what lowering puts in the place of refs and projections: small, without the graph, and picklable."""

    __slots__ = ()


NODES: Final = (StandIn, Record, Sequence, Mapping, Unversioned, BoundFunction, Opaque, Absent)


class Path(NamedTuple):
    """Where a part lies in a tree, from the inside out."""

    parent: "Path | None"
    key: Any
    kind: str
    """``field`` (of a record), ``item`` (of a sequence or mapping), or ``key`` (a mapping's key itself)."""
    plan: Plan | None = None
    """The record's, for a field."""

    def __str__(self) -> str:
        parts: list[str] = []
        path: Path | None = self
        while path is not None:
            parts.append({"field": f".{path.key}", "item": f"[{path.key!r}]", "key": ".keys()"}[path.kind])
            path = path.parent
        return "".join(reversed(parts)).lstrip(".")


_new_path: Callable[[type[Path], tuple[Any, ...]], Path] = cast("Any", tuple).__new__
"""A third of the time that the class's own constructor takes, some 50,000 times in a trace of 10,000 steps."""


class Found(NamedTuple):
    """A ref or projection inside a tree."""

    leaf: Any
    path: Path | None
    versioned: bool


_new_found: Callable[[type[Found], tuple[Any, ...]], Found] = cast("Any", tuple).__new__
_Handler = Callable[[Any, "list[Found]", "Path | None", bool], Tree]


def flatten(
    value: Any,
    found: list[Found],
    path: Path | None = None,
    versioned: bool = True,  # noqa: FBT001, FBT002 (hot)
) -> Tree:
    """The snapshot of a value.

    **Phase**: trace time. Idempotent for leaves; never calls user code but attribute access and registered encoders.

    Args:
        value: Anything.
        found: Gets an entry for each ref and projection, in order of appearance.
        path: Where ``value`` lies, for messages.
        versioned: Whether the part counts for the identity (False below ``unversioned``).

    Returns:
        The tree.

    Raises:
        ConfigError: The value contains itself, or is something that no config may hold.
    """
    kind = class_of(value)
    if kind in ATOMS:
        if kind in TRACED:
            found.append(_new_found(Found, (value, path, versioned)))
        return value
    return _handler_for(kind)(value, found, path, versioned)


_ENVIRONMENT: Final = cast("type[Any]", type(os.environ))
"""A mapping that is no config: whatever is done to a copy of it is done to the process's environment."""


@functools.cache
def _handler_for(kind: type[Any]) -> _Handler:
    """How values of one class are flattened; decided once per class."""
    if any(base in _encoder_by_type for base in kind.__mro__):
        return _flatten_opaque
    if issubclass(kind, Marker):
        return _flatten_marker
    if issubclass(kind, Projection | StepRef):
        return _flatten_traced
    if issubclass(kind, NODES):
        return lambda value, found, path, versioned: value
    if kind is UnversionedValue:
        return _flatten_unversioned
    if issubclass(kind, enum.Enum) or lazy_leaf_base(kind) is kind:
        return lambda value, found, path, versioned: value
    plan = plan_of(kind)
    if plan is not None and plan.kind != "namedtuple" and issubclass(kind, list | tuple | set | frozenset | dict):
        return _flatten_opaque  # Fields and items at once: one of them would be lost.
    if plan is not None:
        return _record_handler(plan)
    if issubclass(kind, list | tuple | set | frozenset):
        return _flatten_set if issubclass(kind, set | frozenset) else _flatten_sequence
    if kind is _ENVIRONMENT:
        return _flatten_opaque
    if issubclass(kind, MappingABC):
        return _flatten_mapping
    if issubclass(kind, functools.partial | types.MethodType | types.FunctionType) or hasattr(
        kind, "__marin_trace_function__"
    ):
        return _flatten_function
    return _flatten_opaque


def flatten_arguments(plan: Plan, bound: dict[str, Any], found: list[Found]) -> Record:
    """The snapshot of the bound arguments of a call, as a record of the function's parameters; see :func:`flatten`."""
    return Record(
        plan,
        tuple(
            [
                value if type(value) in PLAIN else flatten(value, found, _new_path(Path, (None, name, "field", plan)))
                for name, value in bound.items()
            ]
        ),
    )


def _flatten_traced(value: Any, found: list[Found], path: Path | None, versioned: bool) -> Tree:  # noqa: FBT001
    found.append(Found(value, path, versioned))
    return value


def _flatten_marker(value: Marker, found: list[Found], path: Path | None, versioned: bool) -> Tree:  # noqa: FBT001
    if not isinstance(found, KeptMarkers):
        return flatten(value.__marin_trace_value__(), found, path, versioned)
    found.append(Found(value, path, versioned))
    return value


def _flatten_unversioned(value: UnversionedValue, found: list[Found], path: Path | None, versioned: bool) -> Tree:  # noqa: FBT001
    return Unversioned(flatten(value.value, found, path, False))  # noqa: FBT003


def _record_handler(plan: Plan) -> _Handler:
    names = plan.names
    read = reader_of(plan)

    def handle(value: Any, found: list[Found], path: Path | None, versioned: bool) -> Tree:  # noqa: FBT001
        fields, extras = read(value)
        values: list[Tree] = []
        for name, item in zip(names, fields, strict=True):
            if type(item) in PLAIN:
                values.append(item)
            else:
                values.append(flatten(item, found, _new_path(Path, (path, name, "field", plan)), versioned))
        beside = flatten(extras, found, path, versioned and plan.counts_extras) if extras else None
        return Record(plan, tuple(values), beside)

    return handle


def _flatten_sequence(value: Any, found: list[Found], path: Path | None, versioned: bool) -> Tree:  # noqa: FBT001
    items = [
        item if type(item) in PLAIN else flatten(item, found, Path(path, index, "item"), versioned)
        for index, item in enumerate(value)
    ]
    return Sequence(class_of(value), tuple(items))


def _flatten_set(value: Any, found: list[Found], path: Path | None, versioned: bool) -> Tree:  # noqa: FBT001
    from marin_trace.ir.canonical import sort_keys

    inside: list[tuple[Tree, list[Found]]] = []
    for item in value:
        own: list[Found] = type(found)()
        inside.append((flatten(item, own, Path(path, "{}", "item"), versioned), own))
    keys = sort_keys([tree for tree, _ in inside])
    inside = [entry for _, entry in sorted(zip(keys, inside, strict=True), key=lambda pair: pair[0])]
    for _, own in inside:
        found.extend(own)
    return Sequence(class_of(value), tuple(tree for tree, _ in inside))


def _flatten_mapping(value: Any, found: list[Found], path: Path | None, versioned: bool) -> Tree:  # noqa: FBT001
    keys = tuple(flatten(key, found, Path(path, None, "key"), versioned) for key in value)
    values = tuple(flatten(item, found, Path(path, key, "item"), versioned) for key, item in value.items())
    kind = class_of(value)
    return Mapping(kind, keys, values, None if kind is dict else _empty_like(value, path))


def _empty_like(value: Any, path: Path | None) -> Any:
    """An empty mapping of the same kind (a ``defaultdict`` keeps its factory), or None for read-only ones."""
    if not hasattr(value, "clear"):
        return None
    # A shallow copy of a class that wraps a dict shares it: clearing the copy would empty the user's own.
    empty = copy.copy(value) if issubclass(class_of(value), dict) else _deep_copy(value, path)
    empty.clear()
    return empty


_BOUND_KINDS: Final[dict[str, type[Any]]] = {"partial": functools.partial, "method": types.MethodType}


def _flatten_function(value: Any, found: list[Found], path: Path | None, versioned: bool) -> Tree:  # noqa: FBT001
    kind = next((name for name, cls in _BOUND_KINDS.items() if isinstance(value, cls)), "plain")
    if kind == "plain":
        leaf = BoundFunction(kind, value, (), {})
        found.append(Found(leaf, path, versioned))
        return leaf
    plain = unwrapped(value)
    args = tuple(flatten(item, found, Path(path, index, "item"), versioned) for index, item in enumerate(plain.args))
    keywords = {key: flatten(item, found, Path(path, key, "item"), versioned) for key, item in plain.keywords.items()}
    bound = BoundFunction(kind, plain.function, args, keywords)
    found.append(Found(bound, path, versioned))
    return bound


def _flatten_opaque(value: Any, found: list[Found], path: Path | None, versioned: bool) -> Tree:  # noqa: FBT001
    encoding = _encoding_of(value) if versioned else _encoding_or_none(value)
    if encoding is None:
        leaf = Opaque(value, None)
        found.append(Found(leaf, path, versioned))
        return leaf
    if isinstance(value, type | types.ModuleType) or inspect.isroutine(value):
        return Opaque(value, encoding)
    return Opaque(_deep_copy(value, path), encoding)


def _deep_copy(value: Any, path: Path | None) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception as error:
        raise ConfigError(
            explain(
                f"cannot take a snapshot of {path or 'a value'}: copying {type(value).__name__} failed with {error!r}",
                at=user_location(),
                facts={"value": short_repr(value)},
                hint="pass what it is made from, and build it in a function wrapped by deferred()",
            )
        ) from error


def _encoding_or_none(value: Any) -> str | None:
    try:
        return _encoding_of(value)
    except UnstableValueError:
        return None


_encoder_by_type: dict[type, Callable[[Any], Any]] = {}


def register_encoder(cls: type[T], encoder: Callable[[T], object]) -> None:
    """Says what identifies the values of a class that marin_trace does not know.

    **Phase**: import time of the module that defines or uses ``cls``. Applies to subclasses too; registering a class
    again replaces its encoder.

    Args:
        cls: The class.
        encoder: From a value to plain data (text, numbers, lists, dicts) that is equal for equal values in every
            process.

    Example:
        >>> from marin_trace import register_encoder
        >>> class Temperature:
        ...     def __init__(self, kelvin): self.kelvin = kelvin
        >>> register_encoder(Temperature, lambda t: t.kelvin)
    """
    _encoder_by_type[cls] = encoder
    _handler_for.cache_clear()


def _encoding_of(value: Any) -> str | None:
    from marin_trace.ir.canonical import identity_bytes

    kind = class_of(value)
    base = next((base for base in kind.__mro__ if base in _encoder_by_type), None)
    if base is None:
        return known_encoding(value)
    encoded, found = _encoder_by_type[base](value), list[Found]()
    tree = flatten(encoded, found)
    if found:
        raise UnstableValueError(
            explain(
                f"the encoder registered for {base.__qualname__} returned a value without a stable identity",
                at=user_location(),
                facts={"returned": short_repr(encoded)},
                hint="return text, numbers, lists or dicts of them",
            )
        )
    return f"{kind.__qualname__} {identity_bytes(tree).hex()}"


def short_repr(value: object) -> str:
    """The repr, cut to one line of a message."""
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."


def children(tree: Tree) -> list[tuple[Path, Tree]]:
    """The direct parts of a tree, each with its last path segment; a leaf has none."""
    match tree:
        case Record():
            plan = tree.plan
            fields = [
                (Path(None, name, "field", plan), item) for name, item in zip(plan.names, tree.values, strict=True)
            ]
            beside = tree.extras if plan.counts_extras and isinstance(tree.extras, Mapping) else None
            return fields if beside is None else fields + children(beside)
        case Sequence():
            unordered = tree.is_unordered
            return [(Path(None, "{}" if unordered else i, "item"), item) for i, item in enumerate(tree.items)]
        case Mapping():
            keys = [(Path(None, None, "key"), key) for key in tree.keys]
            pairs = zip(tree.keys, tree.values, strict=True)
            return keys + [(Path(None, key_text(key), "item"), item) for key, item in pairs]
        case BoundFunction():
            args = [(Path(None, i, "item"), item) for i, item in enumerate(tree.args)]
            return args + [(Path(None, key, "item"), item) for key, item in tree.keywords.items()]
        case _:
            return []


def key_text(key: Tree) -> Any:
    """A mapping's key as a path segment: itself where it is plain."""
    return key if isinstance(key, str | int | float | bool | bytes | None) else render_leaf(key)


def render_leaf(leaf: Tree) -> str:
    """A leaf or key as short text, without parts that differ between processes."""
    if isinstance(leaf, Sequence):
        return f"({', '.join(render_leaf(item) for item in leaf.items)})"
    return type(leaf).__name__ if isinstance(leaf, NODES) else repr(leaf)


def leaves(tree: Tree, path: Path | None = None, *, versioned_only: bool = False) -> Iterator[tuple[Path | None, Tree]]:
    """All leaves, depth first, each with its path; :class:`Opaque` and plain functions count as leaves.

    Args:
        tree: What to walk.
        path: Where it lies.
        versioned_only: Whether to leave out what is no part of the identity.
    """
    if isinstance(tree, Unversioned | Absent):
        inner = tree.tree if isinstance(tree, Unversioned) else tree.value
        if not versioned_only and inner is not dataclasses.MISSING:
            yield from leaves(inner, path)
        return
    parts = children(tree)
    if not parts and not (isinstance(tree, Record | Sequence | Mapping)):
        yield path, tree
    for last, part in parts:
        yield from leaves(part, last._replace(parent=path), versioned_only=versioned_only)


def unversioned_parts(tree: Tree, *, omitted: bool = True) -> list[Tree]:
    """The parts of a tree that are no part of the identity, outermost only.

    Args:
        tree: Any.
        omitted: Also those that are left out because they have a certain value.
    """
    kind = class_of(tree)
    if kind is Unversioned:
        return [tree.tree]
    if kind is Absent:
        return [tree.value] if omitted and tree.holds_value else []
    if kind not in _CONTAINERS:
        return []
    found: list[Tree] = []
    for part in _parts(tree):
        if type(part) not in PLAIN:
            found += unversioned_parts(part, omitted=omitted)
    return found


_CONTAINERS: Final = frozenset({Record, Sequence, Mapping, BoundFunction})


def _parts(tree: Tree) -> Iterable[Tree]:
    """The direct parts of a tree, without their paths."""
    match tree:
        case Record():
            beside = tree.plan.counts_extras and isinstance(tree.extras, Mapping)
            return (*tree.values, tree.extras) if beside else tree.values
        case Sequence():
            return tree.items
        case Mapping():
            return (*tree.keys, *tree.values)
        case _:
            return (part for _, part in children(tree))


def substitute(tree: Tree, replace: Callable[[Any, Path | None], Any], path: Path | None = None) -> Tree:
    """The tree with every ref and projection replaced; parts without any are shared with the original.

    Args:
        tree: What to copy.
        replace: From a traced leaf and its path to what takes its place (itself, to keep it).
        path: Where ``tree`` lies.
    """
    if type(tree) in TRACED:
        return replace(tree, path)
    match tree:
        case Record():
            fields = zip(tree.plan.names, tree.values, strict=True)
            values = tuple([substitute(item, replace, Path(path, name, "field", tree.plan)) for name, item in fields])
            extras = substitute(tree.extras, replace, path)
            same = extras is tree.extras and _same_items(values, tree.values)
            return tree if same else Record(tree.plan, values, extras)
        case Sequence():
            items = tuple([substitute(item, replace, Path(path, i, "item")) for i, item in enumerate(tree.items)])
            return tree if _same_items(items, tree.items) else Sequence(tree.cls, items)
        case Mapping():
            keys = tuple([substitute(key, replace, Path(path, None, "key")) for key in tree.keys])
            pairs = zip(tree.keys, tree.values, strict=True)
            values = tuple([substitute(item, replace, Path(path, key_text(key), "item")) for key, item in pairs])
            same = _same_items(keys, tree.keys) and _same_items(values, tree.values)
            return tree if same else Mapping(tree.cls, keys, values, tree.empty)
        case Unversioned():
            inner = substitute(tree.tree, replace, path)
            return tree if inner is tree.tree else Unversioned(inner)
        case Absent():
            inner = substitute(tree.value, replace, path)
            return tree if inner is tree.value else Absent(inner)
        case BoundFunction() if tree.kind != "plain":
            args = tuple([substitute(item, replace, Path(path, i, "item")) for i, item in enumerate(tree.args)])
            keywords = {k: substitute(item, replace, Path(path, k, "item")) for k, item in tree.keywords.items()}
            same = _same_items(args, tree.args) and _same_items(keywords.values(), tree.keywords.values())
            return tree if same else BoundFunction(tree.kind, tree.function, args, keywords)
        case _:
            return tree


def _same_items(new: Iterable[Any], old: Iterable[Any]) -> bool:
    return all(a is b for a, b in zip(new, old, strict=True))


def materialise(tree: Tree, value_of: Callable[[Any], Any]) -> Any:
    """Fresh Python objects from a tree, with every ref, projection or stand-in replaced by its value.

    **Phase**: run time. Records are built without ``__init__`` or ``__post_init__``. Each call makes new containers, so
    what a function does to its arguments is seen by nobody else.

    Args:
        tree: The tree.
        value_of: From a ref, projection, :class:`StandIn` or kept marker to its value.
    """
    match tree:
        case Record():
            values = [materialise(item, value_of) for item in tree.values]
            return built_record(tree.plan, values, materialise(tree.extras, value_of))
        case Sequence():
            return _built_sequence(tree.cls, [materialise(item, value_of) for item in tree.items])
        case Mapping():
            pairs = zip(tree.keys, tree.values, strict=True)
            return _built_mapping(tree, [(materialise(k, value_of), materialise(v, value_of)) for k, v in pairs])
        case Unversioned():
            return materialise(tree.tree, value_of)
        case Absent():
            return ABSENT if tree.value is dataclasses.MISSING else materialise(tree.value, value_of)
        case BoundFunction():
            args = [materialise(item, value_of) for item in tree.args]
            return _built_function(tree, args, {k: materialise(v, value_of) for k, v in tree.keywords.items()})
        case Opaque():
            shared = tree.encoding is None or isinstance(tree.value, type | types.ModuleType)
            return tree.value if shared else copy.deepcopy(tree.value)
        case _:
            return value_of(tree) if type(tree) in TRACED or isinstance(tree, StandIn | Marker) else tree


def _built_sequence(cls: type[Any], items: list[Any]) -> Any:
    return items if cls is list else cls(items)


def _built_mapping(mapping: Mapping, pairs: list[tuple[Any, Any]]) -> Any:
    if mapping.empty is None:
        return dict(pairs) if mapping.cls is dict else typing.cast("Any", mapping.cls)(dict(pairs))
    new = copy.copy(mapping.empty) if issubclass(mapping.cls, dict) else copy.deepcopy(mapping.empty)
    new.update(pairs)
    return new


def _built_function(tree: BoundFunction, args: list[Any], keywords: dict[str, Any]) -> Any:
    match tree.kind:
        case "partial":
            return functools.partial(tree.function, *args, **keywords)
        case "method":
            return types.MethodType(tree.function, args[0])
        case _:
            return tree.function
