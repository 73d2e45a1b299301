"""From JSON trees to typed values: the reading half of `Artifact`.

Containers and classes are walked here, so that a message names the field and unions of classes are told apart by the
name that was stored; what is left (numbers, dates, constrained types, pydantic models) is pydantic's.
"""

import base64
import dataclasses
import enum
import io
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Union, cast, final, get_args, get_origin

from marin_trace.errors import ArtifactError, explain
from marin_trace.runtime.artifact_annotations import (
    ITERABLES,
    LISTS,
    MAPPINGS,
    SETS,
    accepts_anything,
    annotation_text,
    hints_of,
    is_array_type,
    is_class,
    loaded_class,
    unwrapped,
)
from marin_trace.runtime.artifact_encoding import TYPE_MARK, type_tag
from marin_trace.storage.bounded import NO_LIMIT
from marin_trace.storage.files import join, read_bytes

__all__ = ["Decoder", "read_plain"]

_ANNOTATED: Final[Any] = typing.Annotated
_SCALARS: Final = (bool, int, float, str, bytes)
_LARGEST_HEADER: Final = 1 << 20
"""Bytes; of an array of a hundred fields it has some 3,000."""
_ARRAY_FILE: Final = re.compile(r"\.artifact-[0-9a-f]{16}\.npy")


@final
class Decoder:
    """Builds values from trees; arrays are read from beside one output."""

    def __init__(self, output_path: str) -> None:
        self._output_path = output_path

    def decode(self, annotation: Any, tree: Any, path: str = "artifact") -> Any:
        """Builds the value that an annotation describes.

        Args:
            annotation: A type, or anything that may stand in an annotation.
            tree: As read from the JSON.
            path: Where in the value this is, for messages.

        Raises:
            ArtifactError: The tree does not fit.
        """
        bare = unwrapped(annotation)
        if accepts_anything(bare):
            return read_plain(tree, self._output_path)
        return self._decoder_of(bare)(bare, tree, path)

    def _decoder_of(self, annotation: Any) -> Callable[[Any, Any, str], Any]:
        origin = get_origin(annotation) or annotation
        if origin in (Union, types.UnionType):
            return self._union
        if origin is typing.Annotated:
            return self._annotated
        if not is_class(origin):
            return self._leaf
        if origin in _SCALARS:
            return self._scalar
        if dataclasses.is_dataclass(origin):
            return self._dataclass
        if typing.is_typeddict(origin):
            return self._typed_dict
        if issubclass(origin, tuple):
            return self._named_tuple if hasattr(cast("Any", origin), "_fields") else self._tuple
        if origin in (*LISTS, *ITERABLES):
            return self._list
        if origin in SETS:
            return self._set
        if origin in MAPPINGS:
            return self._mapping
        if issubclass(origin, enum.Enum):
            return self._enum
        if is_array_type(origin):
            return self._array
        return self._leaf

    def _scalar(self, annotation: Any, tree: Any, path: str) -> Any:
        plain = read_plain(tree, self._output_path)
        if type(plain) is annotation:
            return plain
        if annotation is float and type(plain) is int:
            return _as_float(plain, path)
        raise _mismatch(path, annotation, tree)

    def _annotated(self, annotation: Any, tree: Any, path: str) -> Any:
        inner, *metadata = get_args(annotation)
        if self._decoder_of(unwrapped(inner)) == self._leaf:
            return self._leaf(annotation, tree, path)
        # The constraints alone: the value itself has been built here.
        constraints = _ANNOTATED[(Any, *metadata)]
        return self._validated(constraints, self.decode(inner, tree, path), path)

    def _union(self, annotation: Any, tree: Any, path: str) -> Any:
        members = get_args(annotation)
        if tree is None and type(None) in members:
            return None
        tag = cast("dict[str, Any]", tree).get(TYPE_MARK) if isinstance(tree, dict) else None
        named = [member for member in members if tag is not None and _tag_of(member) == tag]
        candidates = named or [member for member in members if member is not type(None)]
        exact = [member for member in candidates if _is_exactly(member, tree)]
        problems: list[str] = []
        for member in [*exact, *candidates]:
            try:
                return self.decode(member, tree, path)
            except ArtifactError as error:
                problems.append(str(error).partition("\n")[0])
        raise _mismatch(path, annotation, tree, dict.fromkeys(problems))

    def _dataclass(self, annotation: Any, tree: Any, path: str) -> Any:
        kind = get_origin(annotation) or annotation
        fields = {field.name: field for field in dataclasses.fields(kind)}
        optional = {
            name
            for name, field in fields.items()
            if not field.init
            or field.default is not dataclasses.MISSING
            or field.default_factory is not dataclasses.MISSING
        }
        hints = {name: hint for name, hint in hints_of(kind).items() if name in fields}
        values = self._fields(annotation, {**dict.fromkeys(fields, Any), **hints}, optional, tree, path)
        try:
            made = kind(**{name: value for name, value in values.items() if fields[name].init})
        except Exception as error:
            raise _refused(path, annotation, error) from error
        for name, value in values.items():
            if not fields[name].init:
                object.__setattr__(made, name, value)
        return made

    def _typed_dict(self, annotation: Any, tree: Any, path: str) -> Any:
        return self._fields(annotation, hints_of(annotation), set(annotation.__optional_keys__), tree, path)

    def _named_tuple(self, annotation: Any, tree: Any, path: str) -> Any:
        hints = dict.fromkeys(annotation._fields, Any) | hints_of(annotation)
        values = self._fields(annotation, hints, set(annotation._field_defaults), tree, path)
        return annotation(**values)

    def _fields(
        self, annotation: Any, hints: Mapping[str, Any], optional: set[str], tree: Any, path: str
    ) -> dict[str, Any]:
        if not isinstance(tree, dict):
            raise _mismatch(path, annotation, tree)
        stored = {key: item for key, item in cast("dict[str, Any]", tree).items() if key != TYPE_MARK}
        missing = [name for name in hints if name not in stored and name not in optional]
        unknown = [name for name in stored if name not in hints]
        if missing or unknown:
            raise _other_fields(annotation, path, missing, unknown)
        return {name: self.decode(hints[name], item, f"{path}.{name}") for name, item in stored.items()}

    def _tuple(self, annotation: Any, tree: Any, path: str) -> Any:
        items, members = _items_of(annotation, tree, path), get_args(annotation)
        if not members:
            return tuple(read_plain(item, self._output_path) for item in items)
        if len(members) == 2 and members[1] is Ellipsis:
            members = (members[0],) * len(items)
        if members == ((),):
            members = ()
        if len(items) != len(members):
            raise _mismatch(path, annotation, tree, [f"{len(items)} items, expected {len(members)}"])
        pairs = zip(members, items, strict=True)
        return tuple(self.decode(member, item, f"{path}[{n}]") for n, (member, item) in enumerate(pairs))

    def _list(self, annotation: Any, tree: Any, path: str) -> Any:
        (member,) = get_args(annotation) or (Any,)
        items = _items_of(annotation, tree, path)
        return [self.decode(member, item, f"{path}[{n}]") for n, item in enumerate(items)]

    def _set(self, annotation: Any, tree: Any, path: str) -> Any:
        (member,) = get_args(annotation) or (Any,)
        items = [self.decode(member, item, path) for item in _items_of(annotation, tree, path)]
        members = [_hashable(item) for item in items]
        return frozenset(members) if (get_origin(annotation) or annotation) is frozenset else set(members)

    def _mapping(self, annotation: Any, tree: Any, path: str) -> Any:
        key_type, item_type = get_args(annotation) or (Any, Any)
        if not isinstance(tree, dict):
            raise _mismatch(path, annotation, tree)
        marked = cast("dict[str, Any]", tree)
        pairs = _pairs_of(marked) if "$items" in marked else [item for item in marked.items() if item[0] != TYPE_MARK]
        return {
            _hashable(self.decode(key_type, key, f"{path} (a key)")): self.decode(item_type, item, f"{path}[{key!r}]")
            for key, item in pairs
        }

    def _enum(self, annotation: Any, tree: Any, path: str) -> Any:
        if isinstance(tree, dict) and "$enum" in tree:
            name = str(cast("dict[str, Any]", tree)["$enum"])
            if name in annotation.__members__:
                return annotation[name]
        try:
            return annotation(tree)
        except (ValueError, TypeError) as error:
            raise _mismatch(path, annotation, tree, [f"one of {', '.join(annotation.__members__)}"]) from error

    def _array(self, annotation: Any, tree: Any, path: str) -> Any:
        if not isinstance(tree, dict) or "$array" not in tree:
            raise _mismatch(path, annotation, tree)
        array = _read_array(cast("dict[str, Any]", tree), self._output_path)
        if issubclass(get_origin(annotation) or annotation, loaded_class("jax", "Array")):
            jax: Any = sys.modules["jax"]
            return jax.numpy.asarray(array)
        return array

    def _leaf(self, annotation: Any, tree: Any, path: str) -> Any:
        return self._validated(annotation, read_plain(tree, self._output_path), path)

    def _validated(self, annotation: Any, plain: Any, path: str) -> Any:
        import pydantic

        try:
            # Not strict: dates, paths and the like were stored as text.
            return pydantic.TypeAdapter(annotation).validate_python(plain, strict=False)
        except pydantic.ValidationError as error:
            raise _invalid(path, annotation, error) from error
        except pydantic.errors.PydanticUserError as error:
            raise ArtifactError(
                explain(f"{path} cannot be loaded as {annotation_text(annotation)}: {error}")
            ) from error


def _as_float(number: int, path: str) -> float:
    try:
        return float(number)
    except OverflowError as error:
        raise ArtifactError(explain(f"{path} is too large a number for a float")) from error


def read_plain(tree: Any, output_path: str) -> Any:
    """A tree as plain values: marks are read, class names dropped."""
    if isinstance(tree, list):
        return [read_plain(item, output_path) for item in cast("list[Any]", tree)]
    if not isinstance(tree, dict):
        return tree
    marked = cast("dict[str, Any]", tree)
    if "$items" in marked:
        pairs = [(read_plain(key, output_path), read_plain(item, output_path)) for key, item in _pairs_of(marked)]
        return {_hashable(key): item for key, item in pairs}
    if "$array" in marked:
        return _read_array(marked, output_path)
    if "$bytes" in marked:
        return _bytes_of(marked["$bytes"])
    if "$float" in marked:
        return _float_of(marked["$float"])
    if "$enum" in marked:
        return _text_of(marked, "$enum")
    return {key: read_plain(item, output_path) for key, item in marked.items() if key != TYPE_MARK}


def _tag_of(member: Any) -> str | None:
    kind = get_origin(unwrapped(member)) or unwrapped(member)
    return type_tag(kind) if isinstance(kind, type) else None


def _is_exactly(member: Any, tree: Any) -> bool:
    kind = unwrapped(member)
    marks = {float: "$float", bytes: "$bytes"}
    if isinstance(tree, dict):
        return isinstance(kind, type) and marks.get(kind, "") in tree
    return kind is type(tree)


def _items_of(annotation: Any, tree: Any, path: str) -> list[Any]:
    if not isinstance(tree, list):
        raise _mismatch(path, annotation, tree)
    return cast("list[Any]", tree)


def _hashable(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_hashable(item) for item in cast("list[Any]", value))
    try:
        hash(value)
    except TypeError as error:
        raise _corrupt("a key or a member of a set", value) from error
    return value


def _pairs_of(marked: Mapping[str, Any]) -> list[list[Any]]:
    pairs = marked["$items"]
    if not isinstance(pairs, list):
        raise _corrupt("$items", pairs)
    for pair in cast("list[Any]", pairs):
        if not isinstance(pair, list) or len(cast("list[Any]", pair)) != 2:
            raise _corrupt("$items", pair)
    return cast("list[list[Any]]", pairs)


def _bytes_of(stored: Any) -> bytes:
    try:
        return base64.b64decode(stored, validate=True)
    except (TypeError, ValueError) as error:
        raise _corrupt("$bytes", stored) from error


def _float_of(stored: Any) -> float:
    if stored not in ("nan", "inf", "-inf"):
        raise _corrupt("$float", stored)
    return float(stored)


def _text_of(marked: Mapping[str, Any], name: str) -> str:
    value = marked.get(name)
    if not isinstance(value, str):
        raise _corrupt(name, value)
    return value


def _read_array(marked: Mapping[str, Any], output_path: str) -> Any:
    import numpy as np

    name, dtype = _text_of(marked, "$array"), _text_of(marked, "dtype")
    if not _ARRAY_FILE.fullmatch(name):
        # Nothing but what `save` writes beside the JSON: never a path that leads out of the output.
        raise _corrupt("$array", name)
    file = join(output_path, name)
    try:
        array = _array_in(read_bytes(file, limit=_largest_file(marked, dtype)))
    except (FileNotFoundError, ValueError, EOFError) as error:
        raise ArtifactError(explain(f"the array {file} is missing or corrupt: {error}")) from error
    if str(array.dtype) == dtype:
        return array
    import ml_dtypes

    named: Any = getattr(ml_dtypes, dtype, None)
    is_dtype = isinstance(named, type) and issubclass(named, np.generic)
    recorded: Any = np.dtype(cast("Any", named)) if is_dtype else None
    if recorded is None or recorded.itemsize != array.dtype.itemsize:
        raise ArtifactError(explain(f"the array {file} holds {array.dtype}, and not what was recorded: {dtype}"))
    return array.view(recorded)


def _largest_file(marked: Mapping[str, Any], dtype: str) -> int:
    """The bytes of an array's file, at most, by what the artifact says of it."""
    import numpy as np

    shape: Any = marked.get("shape")
    if not isinstance(shape, list) or not all(
        type(length) is int and length >= 0 for length in cast("list[Any]", shape)
    ):
        raise _corrupt("the shape of an array", shape)
    try:
        itemsize = np.dtype(dtype).itemsize
    except (TypeError, ValueError, SyntaxError):  # of ml_dtypes, or structured: NumPy does not know it by name
        return NO_LIMIT
    return min(NO_LIMIT, math.prod(cast("list[int]", shape)) * itemsize + _LARGEST_HEADER)


def _array_in(content: bytes) -> Any:
    """The array of a ``.npy`` file, whose header may claim anything: what it claims must be there."""
    import numpy as np

    untyped: Any = np.lib.format
    stream = io.BytesIO(content)
    version = untyped.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"its format has the version {version}")
    read_header = untyped.read_array_header_1_0 if version == (1, 0) else untyped.read_array_header_2_0
    try:
        shape, _, dtype = read_header(stream)
    except Exception as error:  # whatever a tokenizer, a literal and a dtype can raise
        raise ValueError(f"its header cannot be read: {error}") from error
    size = dtype.itemsize * math.prod(shape)
    if dtype.hasobject or any(length < 0 for length in shape) or size != len(content) - stream.tell():
        raise ValueError(f"its header tells of {dtype} {shape}, and {len(content) - stream.tell()} bytes follow")
    return np.load(io.BytesIO(content), allow_pickle=False)


def _corrupt(what: str, stored: Any) -> ArtifactError:
    return ArtifactError(explain(f"the artifact is corrupt: {what} cannot be {_shortened(stored)}"))


def _mismatch(path: str, annotation: Any, tree: Any, details: Iterable[str] = ()) -> ArtifactError:
    stored = "nothing" if tree is None else _shortened(tree)
    return ArtifactError(explain(f"{path} is {stored}, expected {annotation_text(annotation)}", facts=list(details)))


def _other_fields(annotation: Any, path: str, missing: list[str], unknown: list[str]) -> ArtifactError:
    problems = [f"{path}.{name} is missing" for name in missing] + [f"{path}.{name} is not known" for name in unknown]
    return ArtifactError(
        explain(
            f"{', '.join(problems)}: the artifact was stored by another {annotation_text(annotation)}",
            hint="give new fields a default, or build the step again with --force",
        )
    )


def _refused(path: str, annotation: Any, error: Exception) -> ArtifactError:
    return ArtifactError(
        explain(f"{path} cannot be made a {annotation_text(annotation)}: {type(error).__name__}: {error}")
    )


def _invalid(path: str, annotation: Any, error: Any) -> ArtifactError:
    problems = [
        "".join([path, *(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"])])
        + f": {detail['msg']}, stored: {_shortened(detail['input'])}"
        for detail in error.errors(include_url=False)
    ]
    first = problems[0] if problems else f"{path}: {error}"
    return ArtifactError(explain(f"{first}, expected {annotation_text(annotation)}", facts=problems[1:]))


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
