"""From values to JSON trees: the writing half of `Artifact`.

A tree is JSON with a few marked objects, each with one key that begins with ``$``:

- ``{"$float": "nan" | "inf" | "-inf"}``
- ``{"$bytes": base64}``
- ``{"$items": [[key, value], …]}``: a mapping whose keys are not plain strings
- ``{"$enum": name}``: a member of an enum whose value is no JSON scalar
- ``{"$array": file, "dtype": …}``: an array in a file beside the JSON

Objects made from a class carry ``"$type": qualname`` beside their fields: it tells the members of a union apart.
"""

import base64
import dataclasses
import datetime
import enum
import hashlib
import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, cast, final

from marin_trace.errors import ArtifactError, explain
from marin_trace.runtime.artifact_annotations import loaded_class

__all__ = ["TYPE_MARK", "Encoder", "type_tag"]

TYPE_MARK: Final = "$type"

_ISO_TYPES: Final = (datetime.datetime, datetime.date, datetime.time)


@final
class Encoder:
    """Encodes one value; collects the arrays in it."""

    def __init__(self) -> None:
        self.arrays: dict[str, bytes] = {}
        """Content of each array's file, by name."""
        self._open: set[int] = set()

    def encode(self, value: Any, path: str = "artifact") -> Any:
        """The tree of a value.

        Args:
            value: What to encode.
            path: Where it stands, for messages.

        Raises:
            ArtifactError: A part of it cannot be stored.
        """
        if value is None or type(value) in (bool, int, str):
            return value
        encode = self._encoder_of(value)
        if encode is None:
            return _encode_scalar(value, path)
        if id(value) in self._open:
            raise ArtifactError(explain(f"{path} contains itself: it cannot be stored as JSON"))
        self._open.add(id(value))
        try:
            return encode(value, path)
        finally:
            self._open.discard(id(value))

    def _encoder_of(self, value: Any) -> Callable[[Any, str], Any] | None:
        """The encoder of a value that has parts, or is stored beside the JSON; None for scalars."""
        if isinstance(value, enum.Enum):
            return None
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._encode_dataclass
        if _is_pydantic_model(value):
            return self._encode_model
        if is_array(value):
            return self._encode_array
        if isinstance(value, Mapping):
            return self._encode_mapping
        if _is_named_tuple(value):
            return self._encode_named_tuple
        if isinstance(value, (list, tuple)):
            return self._encode_sequence
        if isinstance(value, AbstractSet):
            return self._encode_set
        return None

    def _encode_dataclass(self, value: Any, path: str) -> dict[str, Any]:
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return self._encode_fields(_class_of(value), fields, path)

    def _encode_named_tuple(self, value: Any, path: str) -> dict[str, Any]:
        return self._encode_fields(_class_of(value), value._asdict(), path)

    def _encode_fields(self, kind: type, fields: Mapping[str, Any], path: str) -> dict[str, Any]:
        tree: dict[str, Any] = {TYPE_MARK: type_tag(kind)}
        for name, item in fields.items():
            tree[name] = self.encode(item, f"{path}.{name}")
        return tree

    def _encode_model(self, value: Any, path: str) -> Any:
        from pydantic_core import PydanticSerializationError

        try:
            dumped = value.model_dump(mode="python", round_trip=True, by_alias=True, warnings="error")
        except PydanticSerializationError as error:
            raise ArtifactError(explain(f"{path} cannot be stored: {error}")) from error
        tree = self.encode(dumped, path)
        return {TYPE_MARK: type_tag(_class_of(value)), **tree} if isinstance(dumped, dict) else tree

    def _encode_mapping(self, value: Mapping[Any, Any], path: str) -> dict[str, Any]:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: self.encode(item, f"{path}[{key!r}]") for key, item in value.items()}
        items = [
            [self.encode(key, f"{path} (a key)"), self.encode(item, f"{path}[{key!r}]")] for key, item in value.items()
        ]
        return {"$items": items}

    def _encode_sequence(self, value: Sequence[Any], path: str) -> list[Any]:
        return [self.encode(item, f"{path}[{index}]") for index, item in enumerate(value)]

    def _encode_set(self, value: AbstractSet[Any], path: str) -> list[Any]:
        # Sorted by their text: a set has no order of its own, and the file should be the same every time.
        return sorted((self.encode(item, f"{path} (a member)") for item in value), key=repr)

    def _encode_array(self, value: Any, path: str) -> dict[str, Any]:
        import numpy as np

        try:
            array = np.asarray(value)
        except (TypeError, RuntimeError) as error:  # a JAX key; a buffer that was donated; a shard of another process
            raise ArtifactError(explain(f"{path} cannot be stored: {error}")) from error
        if array.dtype.hasobject:
            raise ArtifactError(explain(f"{path} is an array of Python objects: it could only be pickled"))
        stored = array
        if array.dtype.kind == "V" and array.dtype.fields is None:
            # bfloat16 and its like: .npy knows them only as raw bytes; their name is kept in the JSON.
            stored = array.view(f"u{array.dtype.itemsize}")
        buffer = io.BytesIO()
        np.save(buffer, stored, allow_pickle=False)  # pyright: ignore[reportUnknownMemberType]
        content = buffer.getvalue()
        name = f".artifact-{hashlib.sha256(content).hexdigest()[:16]}.npy"
        self.arrays[name] = content
        return {"$array": name, "dtype": str(array.dtype), "shape": list(array.shape)}


def type_tag(kind: type) -> str:
    """How a class is named in a tree."""
    return kind.__qualname__.rpartition("<locals>.")[2]


def _class_of(value: Any) -> type[Any]:
    kind: type[Any] = value.__class__
    return kind


def is_array(value: Any) -> bool:
    """Whether a value is a NumPy or JAX array (looked for only where the package is loaded)."""
    return isinstance(value, (*loaded_class("numpy", "ndarray"), *loaded_class("jax", "Array")))


def _is_named_tuple(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(cast("Any", value), "_fields")


def _is_pydantic_model(value: Any) -> bool:
    return isinstance(value, loaded_class("pydantic", "BaseModel"))


def _encode_scalar(value: Any, path: str) -> Any:
    if isinstance(value, enum.Enum):
        return _encode_enum(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": str(float(value))}
    if isinstance(value, bool | int | str):  # subclasses: what they add is not data
        return str.__str__(value) if isinstance(value, str) else int(value)
    if isinstance(value, bytes | bytearray):
        return {"$bytes": base64.b64encode(bytes(value)).decode()}
    if isinstance(value, os.PathLike):
        return os.fspath(cast("os.PathLike[str]", value))
    if isinstance(value, _ISO_TYPES):
        return value.isoformat()
    if isinstance(value, loaded_class("numpy", "generic")):
        return _encode_scalar(value.item(), path) if value.item() is not None else None
    return _encode_by_schema(value, path)


def _encode_enum(value: enum.Enum) -> Any:
    plain = value.value
    return plain if type(plain) in (bool, int, str) else {"$enum": value.name}


def _encode_by_schema(value: Any, path: str) -> Any:
    """The last resort: whatever pydantic can describe (Decimal, UUID, timedelta, URLs …)."""
    import pydantic
    from pydantic_core import PydanticSerializationError

    if isinstance(value, type) or callable(value) or isinstance(value, pydantic.SecretStr | pydantic.SecretBytes):
        raise _unstorable(value, path)
    try:
        adapter: Any = pydantic.TypeAdapter(_class_of(value))
        return adapter.dump_python(value, mode="json", warnings="error")
    except pydantic.errors.PydanticUserError:
        # Advice to authors of pydantic models: it says nothing about this value.
        raise _unstorable(value, path) from None
    except PydanticSerializationError as error:
        raise _unstorable(value, path) from error


def _unstorable(value: Any, path: str) -> ArtifactError:
    kind = _class_of(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return ArtifactError(
        explain(
            f"{path} cannot be stored: it is a {name}",
            hint="return a dataclass, a pydantic model, JSON values or arrays; write anything else below output()",
        )
    )
