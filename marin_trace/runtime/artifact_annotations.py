"""What an annotation says of the values that an artifact may hold, and the check of it before work starts."""

import collections.abc
import dataclasses
import enum
import inspect
import io
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any, Final, cast, get_args, get_origin

from marin_trace.errors import ArtifactError, explain

__all__ = [
    "accepts_anything",
    "annotation_text",
    "check_serialisable_annotation",
    "hints_of",
    "is_array_type",
    "loaded_class",
    "unwrapped",
]

LISTS: Final = (list, collections.abc.Sequence, collections.abc.MutableSequence, collections.abc.Collection)
ITERABLES: Final = (collections.abc.Iterable,)
SETS: Final = (set, frozenset, collections.abc.Set, collections.abc.MutableSet)
MAPPINGS: Final = (dict, collections.abc.Mapping, collections.abc.MutableMapping)

_FORMS: Final[tuple[Any, ...]] = (typing.Union, types.UnionType, typing.Annotated, typing.Literal)
_CALLABLES: Final[tuple[Any, ...]] = (collections.abc.Callable,)  # pyright: ignore[reportUnknownMemberType]
_ANYTHING: Final = (Any, object, inspect.Parameter.empty)
_NEVER_STORED: Final = (
    collections.abc.Iterator,
    collections.abc.AsyncIterator,
    collections.abc.Coroutine,
    io.IOBase,
    types.FunctionType,
    types.ModuleType,
)


def check_serialisable_annotation(annotation: Any, *, at: object = None) -> None:
    """Refuses a return annotation of which no value could be stored. Called before the work starts.

    What cannot be told (Any, a type variable, a name that does not resolve, an abstract class) is accepted.

    Args:
        annotation: Of the function whose result is the artifact.
        at: The user's ``file:line``.

    Raises:
        ArtifactError: It names the part of the annotation that cannot be stored.
    """
    culprit = _unserialisable_part(annotation)
    if culprit is not None:
        name: str = getattr(culprit, "__qualname__", None) or str(culprit)
        raise ArtifactError(
            explain(
                f"a step cannot return {annotation_text(annotation)}: {name} cannot be stored",
                at=at,
                hint="return a dataclass, a pydantic model, JSON values or arrays; write anything else below output()",
            )
        )


def annotation_text(annotation: Any) -> str:
    """An annotation as its author would write it."""
    return annotation.__qualname__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)


def is_class(annotation: Any) -> bool:
    """Whether it is a class (said without narrowing: what is known of it stays Any)."""
    return isinstance(annotation, type)


def unwrapped(annotation: Any) -> Any:
    """Without what changes neither value nor check here: NewType, type aliases, Required, ReadOnly, Final, ClassVar."""
    while True:
        if isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif hasattr(annotation, "__value__") and not isinstance(annotation, type):
            annotation = annotation.__value__
        elif get_origin(annotation) in (typing.Required, typing.NotRequired, typing.Final):
            (annotation,) = get_args(annotation)
        elif annotation is None:
            return type(None)
        else:
            return annotation


def accepts_anything(annotation: Any) -> bool:
    """Whether nothing can be told about the values of an annotation: what was stored is taken as it is."""
    return (
        any(annotation is anything for anything in _ANYTHING)
        or isinstance(annotation, typing.TypeVar | str | typing.ForwardRef)
        or (isinstance(annotation, type) and getattr(annotation, "_is_protocol", False))
    )


def hints_of(kind: Any) -> dict[str, Any]:
    """The annotations of a class's fields, by name; none where a name in them does not resolve."""
    try:
        return typing.get_type_hints(kind, include_extras=True)
    except (NameError, TypeError):  # names that exist for type checkers only: such fields accept what was stored
        return {}


def is_array_type(kind: type) -> bool:
    """Whether it is the array class of NumPy or JAX (looked for only where the package is loaded)."""
    return issubclass(kind, (*loaded_class("numpy", "ndarray"), *loaded_class("jax", "Array")))


def loaded_class(package: str, name: str) -> tuple[type[Any], ...]:
    """A class of a package that is not ours, as `isinstance` takes it; empty where the package is not loaded.

    Empty too where another thread is just importing the package and has not come to the class: no value of it can be
    an artifact yet.
    """
    found: type[Any] | None = getattr(sys.modules.get(package), name, None)
    return () if found is None else (found,)


def _unserialisable_part(annotation: Any) -> Any | None:
    """The first part of an annotation of which no value could be stored."""
    seen: set[int] = set()
    pending = [annotation]
    while pending:
        part = unwrapped(pending.pop(0))
        if id(part) in seen or accepts_anything(part):
            continue
        seen.add(id(part))
        if not _is_serialisable(get_origin(part) or part):
            return part
        pending.extend(_parts_of(part))
    return None


def _parts_of(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation) or annotation
    if origin is typing.Literal:
        return
    if origin is typing.Annotated:
        yield get_args(annotation)[0]
        return
    yield from (part for part in get_args(annotation) if part is not Ellipsis and not isinstance(part, list | tuple))
    if is_class(origin) and (dataclasses.is_dataclass(origin) or typing.is_typeddict(origin)):
        yield from hints_of(origin).values()


def _is_serialisable(kind: Any) -> bool:
    if kind in _FORMS:
        return True
    if kind in _CALLABLES:
        return False
    if not is_class(kind):
        return True
    if kind in (*LISTS, *ITERABLES, *SETS, *MAPPINGS, type(None), tuple):
        return True
    if issubclass(kind, _NEVER_STORED) or kind is type:
        return False
    if dataclasses.is_dataclass(kind) or typing.is_typeddict(kind) or issubclass(kind, enum.Enum | tuple):
        return True
    if inspect.isabstract(kind) or is_array_type(kind) or _is_numpy_scalar(kind):
        return True
    return _has_schema(kind)


def _is_numpy_scalar(kind: type) -> bool:
    return issubclass(kind, loaded_class("numpy", "generic"))


def _has_schema(kind: type) -> bool:
    if kind in (bool, int, float, str, bytes):
        return True
    import pydantic

    if issubclass(kind, pydantic.SecretStr | pydantic.SecretBytes):
        return False
    try:
        pydantic.TypeAdapter(cast("type[Any]", kind))
    except pydantic.errors.PydanticUserError:
        return False
    return True
