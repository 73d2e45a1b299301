"""The canonical encoding of config trees, calls and recipes: equal meaning, equal bytes, in every process.

Every part is self-delimiting and carries a tag, so no two different trees share an encoding:

=====  =====================================================================================================
tag    what follows
=====  =====================================================================================================
N T F  None, True, False
i f z  int as decimal text, float as 8 bytes (IEEE 754, big-endian; one NaN), complex as two floats
s b    text as UTF-8, bytes; with their length in front, as for all text below
L U    list, tuple: the items, then ``)``
S Z    set, frozenset: the encoded items, sorted
D      dict: key and value of each entry, sorted by key; a subclass is named
R      record: class qualname (without module), then name and value of each field, sorted by name
E A    enum member; any other plain value: class name and text
O      a value that the walker does not look into: the text of its encoder
X      function: identity, then what is bound to it
``_``  an unversioned item of a sequence or of bound arguments (fields and entries are left out instead)
=====  =====================================================================================================

Refs and projections are encoded by the caller, who knows what stands for a producer: its fingerprint in a recipe, its
identity as an object in a memo key. Memo keys also include what is unversioned.
"""

import enum
import math
import re
import struct
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, cast

from marin_trace.errors import UnstableValueError
from marin_trace.ir.config_tree import BoundFunction, Mapping, Opaque, Record, Sequence, Tree, Unversioned
from marin_trace.ir.encoders import shows_address
from marin_trace.ir.functions import function_identity
from marin_trace.ir.graph import Group, Node
from marin_trace.ir.records import Absent, class_of
from marin_trace.ir.refs import (
    DeferredResult,
    HardcodedPath,
    OwnOutput,
    ProjectionStep,
    StepArtifact,
    StepOutput,
    projection_steps,
    source_of,
)

SCHEME = b"marin_trace recipe 1\n"
"""Begins every recipe; a change of the encoding changes the number, and with it every fingerprint."""

EncodeTraced = Callable[[Any], bytes]


def _text(tag: bytes, text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return b"%b%d:%b" % (tag, len(data), data)


def _float(value: float) -> bytes:
    return b"f" + struct.pack(">d", math.nan if math.isnan(value) else value)


def _str(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return b"s%d:%b" % (len(data), data)


_ENCODE_PLAIN: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda _: b"N",
    bool: lambda value: b"T" if value else b"F",
    int: lambda value: b"i%d;" % value,
    float: _float,
    complex: lambda value: b"z" + _float(value.real) + _float(value.imag),
    str: _str,
    bytes: lambda value: b"b%d:%b" % (len(value), value),
}


def identity_bytes(tree: Tree, encode_traced: EncodeTraced | None = None) -> bytes:
    """The encoding of the part of a tree that counts for the identity.

    Args:
        tree: The tree.
        encode_traced: How refs and projections are encoded; None where there are none.

    Raises:
        UnstableValueError: The tree holds a value without a stable identity.
    """
    return _encode(tree, encode_traced or _no_traced, memo=False)


def memo_bytes(tree: Tree) -> bytes:
    """The encoding of a whole tree for this process only: what two calls must share to be the same call."""
    if type(tree) is Record:
        return _record(tree, _encode_for_memo, memo=True)
    return _encode(tree, _encode_for_memo, memo=True)


def _no_traced(leaf: Any) -> bytes:
    raise UnstableValueError(f"{leaf!r} has no identity here")


def _encode(tree: Tree, encode_traced: EncodeTraced, *, memo: bool) -> bytes:
    kind = class_of(tree)
    plain = _ENCODE_PLAIN.get(kind)
    if plain is not None:
        return plain(tree)
    if kind is StepOutput or kind is OwnOutput:
        return encode_traced(tree)
    if kind is Record:
        return _record(tree, encode_traced, memo=memo)
    if kind is Sequence:
        return _sequence(tree, encode_traced, memo=memo)
    if kind is Mapping:
        return _mapping(tree, encode_traced, memo=memo)
    if kind is HardcodedPath or kind is DeferredResult or kind is StepArtifact:
        return encode_traced(tree)
    return _rare(tree, encode_traced, memo=memo)


def _is_left_out(tree: Tree) -> bool:
    return type(tree) is Unversioned or type(tree) is Absent


def _record(record: Record, encode_traced: EncodeTraced, *, memo: bool) -> bytes:
    values = record.values
    parts = [record.plan.header]
    for name, index in record.plan.sorted_fields:
        value = values[index]
        kind = class_of(value)
        plain = _ENCODE_PLAIN.get(kind)
        if plain is not None:
            parts += name, plain(value)
        elif kind is StepOutput or kind is OwnOutput:
            parts += name, encode_traced(value)
        elif memo or not _is_left_out(value):
            parts += name, _encode(value, encode_traced, memo=memo)
    if record.extras is not None and (memo or record.plan.counts_extras):
        parts += b"+", _encode(record.extras, encode_traced, memo=memo)
    parts.append(b")")
    return b"".join(parts)


def _sequence(sequence: Sequence, encode_traced: EncodeTraced, *, memo: bool) -> bytes:
    items = [
        b"_" if not memo and _is_left_out(item) else _encode(item, encode_traced, memo=memo) for item in sequence.items
    ]
    cls = sequence.cls
    if sequence.is_unordered:
        items.sort()
    tag = next(
        tag for base, tag in ((list, b"L"), (tuple, b"U"), (frozenset, b"Z"), (set, b"S")) if issubclass(cls, base)
    )
    subclass = b"" if cls in {list, tuple, set, frozenset} else _text(b"c", cls.__qualname__)
    return tag + subclass + b"".join(items) + b")"


def _mapping(mapping: Mapping, encode_traced: EncodeTraced, *, memo: bool) -> bytes:
    entries = [
        _encode(key, encode_traced, memo=memo) + _encode(value, encode_traced, memo=memo)
        for key, value in zip(mapping.keys, mapping.values, strict=True)
        if memo or not (_is_left_out(value) or _is_left_out(key))
    ]
    subclass = b"" if mapping.cls is dict else _text(b"c", mapping.cls.__qualname__)
    return b"D" + subclass + b"".join(sorted(entries)) + b")"


def _rare(tree: Tree, encode_traced: EncodeTraced, *, memo: bool) -> bytes:
    match tree:
        case enum.Enum():
            return _text(b"E", type(tree).__qualname__) + _str(_member_text(tree))
        case Unversioned():
            return b"!" + _encode(tree.tree, encode_traced, memo=memo)
        case Absent():
            return b"?" + (_encode(tree.value, encode_traced, memo=memo) if tree.holds_value else b"")
        case BoundFunction():
            return _bound_function(tree, encode_traced, memo=memo)
        case Opaque():
            if tree.encoding is not None:
                return _text(b"O", tree.encoding)
            if memo:
                return b"@%d;" % id(tree.value)
            raise UnstableValueError(f"{type(tree.value).__name__} has no stable identity")
        case _:
            return _text(b"A", type(tree).__name__) + _str(_atom_text(tree))


def _member_text(member: enum.Enum) -> str:
    """The name of a member; a flag of no or several members has none, and its value instead."""
    name = cast("str | None", member.name)
    return repr(member.value) if name is None else name


def _atom_text(value: Any) -> str:
    if isinstance(value, re.Pattern):
        return f"{value.pattern!r} {value.flags}"  # pyright: ignore[reportUnknownMemberType]
    if isinstance(value, PurePath):
        return str(value)
    text = repr(value)
    return f"{value.isoformat()} {value.tzname()}" if shows_address(text, value) else text


def _bound_function(bound: BoundFunction, encode_traced: EncodeTraced, *, memo: bool) -> bytes:
    if memo and bound.kind == "plain":
        return b"@%d;" % id(bound.function)
    identity = b"@%d;" % id(bound.function) if memo else _str(identity_of(bound.function))
    args = [b"_" if not memo and _is_left_out(item) else _encode(item, encode_traced, memo=memo) for item in bound.args]
    keywords = sorted(
        _str(key) + _encode(item, encode_traced, memo=memo)
        for key, item in bound.keywords.items()
        if memo or not _is_left_out(item)
    )
    return b"X" + identity + b"".join(args) + b"," + b"".join(keywords) + b")"


def identity_of(function: Any) -> str:
    """The identity of a function given as a value: a deferred one's own, else ``module:qualname``."""
    explicit = getattr(function, "__marin_trace_function__", None)
    return function_identity(function) if explicit is None else function.identity


def _encode_for_memo(leaf: Any) -> bytes:
    if type(leaf) is StepOutput:
        return b"r%d %d;" % (id(leaf.node), leaf.blocking) + _str(leaf.subpath)
    match leaf:
        case OwnOutput():
            return b"o%d;" % id(leaf.scope) + _str(leaf.subpath)
        case HardcodedPath():
            return b"h" + _str(leaf.path)
        case DeferredResult():
            return b"d%d;" % id(source_of(leaf)) + steps_bytes(projection_steps(leaf))
        case StepArtifact():
            return b"a%d;" % id(source_of(leaf).node) + steps_bytes(projection_steps(leaf))
        case _:
            raise AssertionError(f"not a traced leaf: {type(leaf)}")


def steps_bytes(steps: tuple[ProjectionStep, ...]) -> bytes:
    """The encoding of a projection."""
    if not steps:
        return b";"
    return b"".join(_str(kind) + _text(b"k", f"{type(key).__name__} {key!r}") for kind, key in steps) + b";"


def _recipe_encoder(fingerprint_of: Callable[[Node], str]) -> EncodeTraced:
    """How recipes encode refs and projections.

    Args:
        fingerprint_of: The fingerprint of a step whose output or artifact is read.
    """

    def encode_traced(leaf: Any) -> bytes:
        kind = class_of(leaf)
        if kind is StepOutput:
            tag = b"r" if leaf.blocking else b"n"
            return tag + _str(fingerprint_of(leaf.step_node())) + _str(leaf.subpath)
        if kind is OwnOutput:
            return b"o" + _str(leaf.subpath)
        if kind is DeferredResult:
            return b"d%d;" % source_of(leaf).index + steps_bytes(projection_steps(leaf))
        match leaf:
            case HardcodedPath():
                return b"h" + _str(leaf.path)
            case StepArtifact():
                producer = source_of(leaf).step_node()
                return b"a" + _str(fingerprint_of(producer)) + steps_bytes(projection_steps(leaf))
            case _:
                raise AssertionError(f"not a traced leaf: {type(leaf)}")

    return encode_traced


def recipe_bytes(node: Node, encode_traced: EncodeTraced) -> bytes:
    """The recipe of a step: what its fingerprint is the sha256 of.

    In order: scheme, rendered name, ``version``, each call (function, arguments by name), and what of it the step
    returns.
    """
    parts = [SCHEME, _str(node.name), _ENCODE_PLAIN[type(node.options.version)](node.options.version)]
    for call in node.calls:
        parts += b"C", _str(call.function.identity), _record(call.arguments, encode_traced, memo=False)
    returned = node.returned
    parts.append(b"_" if _is_left_out(returned) else _encode(returned, encode_traced, memo=False))
    return b"".join(parts)


def fingerprints(nodes: "tuple[Node, ...] | list[Node]") -> dict[Node, str]:
    """The fingerprint of each step: 64 hex digits, the sha256 of its recipe. Producers come before consumers."""
    from hashlib import sha256

    fingerprint_by_node: dict[Node, str] = {}
    encode_traced = _recipe_encoder(fingerprint_by_node.__getitem__)
    for node in nodes:
        if node.foreign is not None:
            fingerprint_by_node[node] = node.foreign.fingerprint
            continue
        fingerprint_by_node[node] = sha256(recipe_bytes(node, encode_traced)).hexdigest()
    return fingerprint_by_node


def sort_keys(trees: list[Tree]) -> list[bytes]:
    """Keys that put the items of a set into an order on which two processes agree.

    Steps count by name and line; where those do not tell two items apart, by fingerprint.
    """
    from marin_trace.ir.graph import graph_of

    keys = _sort_keys(trees, lambda node: f"{node.name} {node.location}")
    if len(set(keys)) == len(keys):
        return keys
    finer = _sort_keys(trees, lambda node: fingerprints(graph_of([node]).nodes)[node])
    return [key + more for key, more in zip(keys, finer, strict=True)]


def _sort_keys(trees: list[Tree], identity_of_step: Callable[[Node], str]) -> list[bytes]:
    encode = _recipe_encoder(identity_of_step)

    def encode_traced(leaf: Any) -> bytes:
        step = leaf.node if type(leaf) is StepOutput else None
        return b"g" + _str(step.name) if isinstance(step, Group) else encode(leaf)

    def key(tree: Tree) -> bytes:
        try:
            return _encode(tree, encode_traced, memo=False)
        except UnstableValueError:
            return memo_bytes(tree)

    return [key(tree) for tree in trees]


def same_recipe(a: Node | Group, b: Node | Group) -> bool:
    """Whether two steps, perhaps of different traces, mean the same output path."""
    from marin_trace.ir.graph import graph_of

    if a.is_group or b.is_group or a.name != b.name or a.override_output_path != b.override_output_path:
        return False
    by_node = fingerprints(graph_of([a, b]).nodes)
    return by_node[a] == by_node[b]  # pyright: ignore[reportArgumentType]
