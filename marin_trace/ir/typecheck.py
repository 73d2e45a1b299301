"""The type check of a graph, at trace time: does each ref and artifact go where a path or such a value is expected?

Lenient where it cannot know: a missing, unresolvable, ``Any`` or ``object`` annotation, a type variable or a protocol
accepts everything. Only refs, artifacts and deferred results are checked; plain values are the library's own business.
"""

import dataclasses
import functools
import inspect
import os
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import Any

from marin_trace.ir.config_tree import Found, Path
from marin_trace.ir.findings import Finding
from marin_trace.ir.graph import Call, Node
from marin_trace.ir.records import Plan
from marin_trace.ir.refs import DeferredResult, ProjectionStep, StepArtifact, StepRef, projection_steps, source_of
from marin_trace.ir.signatures import CallPlan

UNKNOWN = Any


def type_findings(nodes: Iterable[Node]) -> Iterator[Finding]:
    """Complaints about refs, artifacts and results that do not fit the annotation of what they are passed to."""
    for node in nodes:
        for call in node.calls:
            for found in call.found:
                path = found.path
                if path is None:
                    continue
                if (
                    path.plan is not None
                    and isinstance(found.leaf, StepRef)
                    and _field_accepts_path(path.plan, path.key)
                ):
                    continue
                yield from _findings_of_leaf(node, call, found, path)


def _findings_of_leaf(node: Node, call: Call, found: Found, path: Path) -> Iterator[Finding]:
    leaf = found.leaf
    if isinstance(leaf, StepRef):
        annotation = annotation_at(path)
        if not accepts_path(annotation):
            yield Finding(
                f"{call.function.label}({path}) was given {leaf!r}, and is annotated {_text(annotation)}: "
                "a ref becomes a str",
                node.name,
                call.location,
                hint=_hint_for_path(annotation),
            )
    elif isinstance(leaf, StepArtifact | DeferredResult):
        annotation = annotation_at(path)
        source = _source_annotation(node, leaf)
        missing = missing_projection(source, projection_steps(leaf))
        if missing is not None:
            yield Finding(
                f"{call.function.label}({path}) was given {leaf!r}: {missing}",
                node.name,
                call.location,
            )
            return
        given = projected_annotation(source, projection_steps(leaf))
        if not is_assignable(given, annotation):
            yield Finding(
                f"{call.function.label}({path}) was given {leaf!r}, which is {_text(given)}, "
                f"and is annotated {_text(annotation)}",
                node.name,
                call.location,
                hint="pass a part of it (ref.artifact.field), or fix the annotation of the one or the other",
            )


def _source_annotation(node: Node, leaf: StepArtifact | DeferredResult) -> Any:
    if isinstance(leaf, StepArtifact):
        return source_of(leaf).step_node().artifact_type
    index: int = source_of(leaf).index
    return node.calls[index].function.return_annotation


def _hint_for_path(annotation: Any) -> str:
    if any(typing.get_origin(option) in {list, tuple, set, frozenset} for option in _options_of(annotation)):
        return "put it in a list: [ref]"
    return "for the value that the step returned write ref.artifact; for its path annotate the field as str"


def _text(annotation: Any) -> str:
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    return str(annotation).replace("typing.", "")


def annotation_at(path: Path) -> Any:
    """The annotation of the field and of the containers around a place; Any where unknown."""
    if path.kind == "field" and path.plan is not None:
        return _field_annotation(path.plan, path.key)
    items: list[Path] = []
    place: Path | None = path
    while place is not None and place.kind != "field":
        items.append(place)
        place = place.parent
    if place is None or place.plan is None:
        return UNKNOWN
    annotation = _field_annotation(place.plan, place.key)
    if isinstance(place.plan, CallPlan) and items and _is_variable(place.plan, place.key):
        items.pop()
    for item in reversed(items):
        annotation = UNKNOWN if item.kind == "key" else item_annotation(annotation, item.key)
    return annotation


def _is_variable(plan: CallPlan, name: str) -> bool:
    return plan.signature.parameters[name].kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@functools.cache
def _field_accepts_path(plan: Plan | None, name: str) -> bool:
    return plan is not None and accepts_path(_field_annotation(plan, name))


def _field_annotation(plan: Plan, name: str) -> Any:
    return _annotations_of(plan.cls).get(name, UNKNOWN)


@functools.cache
def _annotations_of(owner: Any) -> dict[str, Any]:
    """The annotations of a function's parameters or a class's fields; none where one cannot be resolved."""
    target = owner.__init__ if isinstance(owner, type) and not _has_fields(owner) else owner
    try:
        return typing.get_type_hints(target)
    except Exception:  # noqa: BLE001 (annotations are arbitrary expressions; one that cannot be evaluated accepts everything)
        return {}


def _has_fields(cls: type[Any]) -> bool:
    return (
        dataclasses.is_dataclass(cls)
        or typing.is_typeddict(cls)
        or any(hasattr(cls, mark) for mark in ("__pydantic_fields__", "__attrs_attrs__", "_fields"))
    )


def _options_of(annotation: Any) -> list[Any]:
    """The members of a union, without ``Annotated``, new types and type aliases around them."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated or origin in {typing.Final, typing.ClassVar, dataclasses.InitVar}:
        return _options_of(typing.get_args(annotation)[0])
    if isinstance(annotation, dataclasses.InitVar):
        return _options_of(typing.cast("Any", annotation).type)
    if origin in {typing.Union, types.UnionType}:
        return [option for member in typing.get_args(annotation) for option in _options_of(member)]
    if isinstance(annotation, typing.NewType):
        return _options_of(annotation.__supertype__)
    if type(annotation).__name__ == "TypeAliasType":
        return _options_of(annotation.__value__)
    return [annotation]


def _accepts_everything(annotation: Any) -> bool:
    return (
        annotation in (Any, object, inspect.Parameter.empty)
        or isinstance(annotation, typing.TypeVar | str | typing.ForwardRef)
        or getattr(annotation, "_is_protocol", False)
    )


def accepts_path(annotation: Any) -> bool:
    """Whether a ``str`` or ``PathLike`` may go there."""
    return any(
        _accepts_everything(option) or _accepts_text(option) or _accepts_pathlike(option)
        for option in _options_of(annotation)
    )


def becomes_path_object(path: Path) -> bool:
    """Whether a ref at this place becomes a ``pathlib.Path``, since its annotation does not accept a ``str``."""
    if path.kind == "field" and path.plan is not None:
        return _field_wants_path_object(path.plan, path.key)
    return wants_path_object(annotation_at(path))


@functools.cache
def _field_wants_path_object(plan: Plan, name: str) -> bool:
    return wants_path_object(_field_annotation(plan, name))


def wants_path_object(annotation: Any) -> bool:
    """Whether a ``pathlib.Path`` may go there and a ``str`` may not."""
    options = _options_of(annotation)
    if any(_accepts_everything(option) or _accepts_text(option) for option in options):
        return False
    return any(_accepts_pathlike(option) for option in options)


def _accepts_text(option: Any) -> bool:
    cls = typing.get_origin(option) or option
    try:
        return isinstance(cls, type) and (issubclass(str, cls) or (issubclass(cls, StepRef)))
    except TypeError:
        return True


def _accepts_pathlike(option: Any) -> bool:
    cls = typing.get_origin(option) or option
    return isinstance(cls, type) and (cls is os.PathLike or issubclass(cls, PurePath))


def item_annotation(annotation: Any, key: Any) -> Any:
    """The annotation of ``x[key]`` where ``x`` has ``annotation``; Any where that cannot be said."""
    results = [_item_of_option(option, key) for option in _options_of(annotation) if option is not type(None)]
    return results[0] if len(results) == 1 else UNKNOWN


def _item_of_option(option: Any, key: Any) -> Any:
    origin, args = typing.get_origin(option), typing.get_args(option)
    if typing.is_typeddict(option):
        return _annotations_of(option).get(key, UNKNOWN)
    if not isinstance(origin, type) or not args:
        return UNKNOWN
    if issubclass(origin, tuple):
        if len(args) == 2 and args[1] is ...:
            return args[0]
        return args[key] if isinstance(key, int) and -len(args) <= key < len(args) else UNKNOWN
    is_mapping = issubclass(origin, typing.cast("type", typing.get_origin(typing.Mapping[str, str])))
    if is_mapping:
        return args[1] if len(args) == 2 else UNKNOWN
    return args[0] if len(args) == 1 and issubclass(origin, Iterable) else UNKNOWN


def projected_annotation(annotation: Any, steps: tuple[ProjectionStep, ...]) -> Any:
    """The annotation of what projection steps lead to, or Any."""
    for kind, key in steps:
        if kind == "[]":
            annotation = UNKNOWN if isinstance(key, slice) else item_annotation(annotation, key)
            continue
        options = [option for option in _options_of(annotation) if option is not type(None)]
        cls = options[0] if len(options) == 1 else None
        annotation = _annotations_of(cls).get(key, UNKNOWN) if isinstance(cls, type) and _has_fields(cls) else UNKNOWN
    return annotation


def missing_projection(annotation: Any, steps: tuple[ProjectionStep, ...]) -> str | None:
    """What is wrong with projection steps, where the annotation shows it: ``Stats has no 'linez' (did you mean …)``."""
    for index, (kind, key) in enumerate(steps):
        options = [option for option in _options_of(projected_annotation(annotation, steps[:index])) if option]
        cls = options[0] if len(options) == 1 else None
        if not isinstance(cls, type) or not _has_fields(cls) or typing.is_typeddict(cls):
            continue
        if kind == "[]" and not hasattr(cls, "__getitem__"):
            return f"{cls.__name__} has no items; write .{key} for a field"
        if kind == "." and key not in _annotations_of(cls) and not hasattr(cls, key) and _annotations_of(cls):
            return f"{cls.__name__} has no {key!r}; it has {', '.join(_annotations_of(cls))}"
    return None


def is_assignable(given: Any, wanted: Any) -> bool:
    """Whether a value annotated ``given`` may go where ``wanted`` is expected, as far as that can be said."""
    targets = _options_of(wanted)
    if any(_accepts_everything(target) for target in targets):
        return True
    return all(
        _accepts_everything(source) or any(_is_assignable_option(source, target) for target in targets)
        for source in _options_of(given)
    )


def _is_assignable_option(source: Any, target: Any) -> bool:
    source, target = type(None) if source is None else source, type(None) if target is None else target
    if source == target:
        return True
    source_class, target_class = typing.get_origin(source) or source, typing.get_origin(target) or target
    if target_class is typing.Literal or source_class is typing.Literal:
        return (
            source_class is not typing.Literal
            or type(typing.get_args(source)[0]) is target_class
            or target_class is typing.Literal
        )
    if not isinstance(source_class, type) or not isinstance(target_class, type):
        return True
    source_class = dict if typing.is_typeddict(source) else source_class
    target_class = dict if typing.is_typeddict(target) else target_class
    try:
        fits = issubclass(source_class, target_class)
    except TypeError:
        return True
    return fits or (source_class, target_class) in {(int, float), (int, complex), (float, complex), (bool, float)}
