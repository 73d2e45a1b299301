"""What identifies a value that the config walker does not look into: types, arrays, and subclasses of plain types."""

import datetime
import re
import types
import typing
from pathlib import PurePath
from typing import Any, cast

from marin_trace.ir.functions import function_identity, main_module
from marin_trace.ir.records import class_of

_LEAF_BASES = (
    *(str, bytes, int, float, complex, PurePath),
    *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.tzinfo),
)

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""What a default repr holds, and no two processes agree on."""

_NAME_BY_MODULE = {"decimal": "Decimal", "fractions": "Fraction", "uuid": "UUID"}
"""Further immutable classes, by name: importing their modules takes longer than all of this package's tracing."""


def lazy_leaf_base(kind: type[Any]) -> type[Any] | None:
    """``Decimal``, ``Fraction`` or ``UUID``, where ``kind`` is or derives from it."""
    return next((base for base in kind.__mro__ if _NAME_BY_MODULE.get(base.__module__) == base.__qualname__), None)


def known_encoding(value: Any) -> str | None:
    """The identity of a value that the config walker does not look into, as text; None where it has none.

    Raises:
        UnstableValueError: A class that another process could not find.
    """
    kind = class_of(value)
    if isinstance(value, type | types.BuiltinFunctionType | types.MethodDescriptorType | types.WrapperDescriptorType):
        return f"type {function_identity(value)}"
    if isinstance(value, types.ModuleType):
        return f"module {value.__name__}"
    if isinstance(value, bytearray):
        return f"bytearray {value.hex()}"
    if _is_annotation(value):
        text = _annotation_text(value)
        return None if text is None else f"annotation {text}"
    if kind.__module__.partition(".")[0] in {"numpy", "ml_dtypes", "jaxlib", "jax"}:
        return _array_encoding(value)
    base = next((base for base in _LEAF_BASES if isinstance(value, base)), None) or lazy_leaf_base(kind)
    text = None if base is None else _leaf_text(value, base)
    return None if text is None or shows_address(text, value) else f"{kind.__qualname__} {text}"


def shows_address(text: str, value: object) -> bool:
    """Whether the text of a value with a time zone holds an object's address: a zone without a repr of its own."""
    zoned = isinstance(value, datetime.tzinfo | datetime.datetime | datetime.time)
    return zoned and _ADDRESS.search(text) is not None


def _leaf_text(value: Any, base: type) -> str:
    """The text of a value of a subclass of a plain type, as the plain type writes it."""
    return (
        str(value) if issubclass(base, PurePath | datetime.tzinfo) else cast("str", cast("Any", base).__repr__(value))
    )


def _is_annotation(value: object) -> bool:
    return typing.get_origin(value) is not None and not _ADDRESS.search(repr(value))


def _annotation_text(annotation: object) -> str | None:
    """The repr of an annotation, with the main script's classes under the name that they are imported by."""
    text = repr(annotation)
    if "__main__." not in text:
        return text
    module = main_module()
    return None if module is None else re.sub(r"\b__main__\.", f"{module}.", text)


def _array_encoding(value: Any) -> str | None:
    """Arrays by dtype, shape and content; dtypes by their text."""
    import hashlib

    if all(hasattr(value, name) for name in ("dtype", "shape", "tobytes")):
        if getattr(value.dtype, "hasobject", False):
            return None
        content = hashlib.sha256(value.tobytes()).hexdigest()
        return f"array {value.dtype} {tuple(value.shape)} {content}"
    return f"dtype {value}" if "dtype" in type(value).__name__.lower() else None
