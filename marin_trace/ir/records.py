"""Objects with named fields: how to read and rebuild dataclasses, pydantic models, attrs objects and named tuples.

One :class:`Plan` per class says which fields count. Rebuilding never runs ``__init__`` or ``__post_init__``.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any, Final, cast, final

class_of: Final = cast("Callable[[Any], type[Any]]", type)
"""``type`` of one argument, as the type checker should see it."""


class Plan:
    """What is known of a class (or of a function's parameters) once: its field names, in order and sorted."""

    __slots__ = ("cls", "header", "kind", "names", "sorted_fields")

    def __init__(self, cls: Any, kind: str, identity: str, names: tuple[str, ...]) -> None:
        self.cls = cls
        self.kind = kind
        self.names = names
        self.header = _encoded(b"R", identity)
        """How an encoding of such a record begins."""
        self.sorted_fields = tuple((_encoded(b"s", name), names.index(name)) for name in sorted(names))
        """Encoded name and index of each field, in the order of an encoding."""

    @property
    def counts_extras(self) -> bool:
        """Whether what an object holds beside its fields is part of the identity. Not pydantic's private attributes."""
        return self.kind != "pydantic"

    def __reduce__(self) -> tuple[Any, ...]:
        return (plan_of, (self.cls,))


def _encoded(tag: bytes, text: str) -> bytes:
    data = text.encode()
    return b"%b%d:%b" % (tag, len(data), data)


@final
class Absent:
    """The place of a field without a value, or (with a tree as ``value``) of one that ``omit_when`` leaves out."""

    __slots__ = ("value",)

    def __init__(self, value: Any = dataclasses.MISSING) -> None:
        self.value = value

    @property
    def holds_value(self) -> bool:
        """Whether the field has a value, which is merely no part of the identity."""
        return self.value is not dataclasses.MISSING


ABSENT: Final = Absent()


_PYDANTIC_EXTRA: Final = "__pydantic_extra__"


@functools.cache
def plan_of(cls: type[Any]) -> Plan | None:
    """The plan of a class, or None where its objects have no named fields that count."""
    identity: str = vars(cls).get("__marin_trace_identity__", cls.__qualname__)
    if dataclasses.is_dataclass(cls):
        return Plan(cls, "dataclass", identity, tuple(field.name for field in dataclasses.fields(cls)))
    pydantic_fields: Any = getattr(cls, "__pydantic_fields__", None)
    if pydantic_fields is not None and hasattr(cls, "model_construct"):
        # Undeclared fields are kept apart from the declared ones: all of them count as one more field.
        extra = (_PYDANTIC_EXTRA,) if cls.model_config.get("extra") == "allow" else ()
        return Plan(cls, "pydantic", identity, (*pydantic_fields, *extra))
    attrs_fields: Any = getattr(cls, "__attrs_attrs__", None)
    if attrs_fields is not None:
        return Plan(cls, "attrs", identity, tuple(field.name for field in cast("tuple[Any, ...]", attrs_fields)))
    tuple_fields: Any = getattr(cls, "_fields", None)
    if tuple_fields is not None and issubclass(cls, tuple):
        return Plan(cls, "namedtuple", identity, tuple(tuple_fields))
    return None


def reader_of(plan: Plan) -> Callable[[Any], tuple[Iterable[Any], Any]]:
    """How to read the field values of an object, and what it holds beside them."""
    names, known = plan.names, frozenset(plan.names)
    if plan.kind == "namedtuple":
        return lambda value: (value, None)
    if plan.kind == "pydantic":
        return lambda value: ([getattr(value, name) for name in names], _pydantic_extras(value))

    def read(value: Any) -> tuple[Iterable[Any], Any]:
        state = getattr(value, "__dict__", None)
        if state is None:
            return [getattr(value, name, ABSENT) for name in names], None
        if len(state) == len(names):
            try:
                return [state[name] for name in names], None
            except KeyError:
                state = dict(state)
        cls = class_of(value)
        extras = {key: item for key, item in state.items() if key not in known and not _is_cached(cls, key)}
        return [state[name] if name in state else getattr(value, name, ABSENT) for name in names], extras

    return read


def _is_cached(cls: type[Any], name: str) -> bool:
    """Whether an attribute is a computed one that is kept once it was asked for: it follows from the others."""
    return isinstance(getattr(cls, name, None), functools.cached_property)


def _pydantic_extras(value: Any) -> dict[str, Any]:
    return {
        "fields_set": set(value.__pydantic_fields_set__),
        "private": value.__pydantic_private__,
    }


def built_record(plan: Plan, values: list[Any], extras: Any) -> Any:
    """A new object of the plan's class, without running ``__init__`` or ``__post_init__``.

    Args:
        plan: The class.
        values: One per field, in the plan's order; :data:`ABSENT` leaves a field unset.
        extras: What :func:`reader_of` gave beside the fields.
    """
    cls = plan.cls
    if plan.kind == "namedtuple":
        return cast("Any", tuple).__new__(cls, values)
    new = cls.__new__(cls)
    if plan.kind == "pydantic":
        fields = dict(zip(plan.names, values, strict=True))
        object.__setattr__(new, _PYDANTIC_EXTRA, fields.pop(_PYDANTIC_EXTRA, None))
        object.__setattr__(new, "__dict__", fields)
        object.__setattr__(new, "__pydantic_fields_set__", extras["fields_set"])
        object.__setattr__(new, "__pydantic_private__", extras["private"])
        return new
    state: dict[str, Any] = {**(extras or {}), **dict(zip(plan.names, values, strict=True))}
    for name, value in state.items():
        if value is not ABSENT:
            object.__setattr__(new, name, value)
    return new
