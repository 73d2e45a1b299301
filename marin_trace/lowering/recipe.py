"""Recipes in words: what a fingerprint is made of, as text by config path.

Two of them can be compared by field. Owns also what is recorded of a recipe without being part of it: the config as
JSON, and the digests of unversioned values and function sources.
"""

import base64
import enum
import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

from marin_trace.ir.canonical import identity_of, memo_bytes
from marin_trace.ir.config_tree import (
    Absent,
    BoundFunction,
    Opaque,
    Path,
    Record,
    Sequence,
    Tree,
    Unversioned,
    children,
    key_text,
    render_leaf,
    unversioned_parts,
)
from marin_trace.ir.config_tree import Mapping as MappingTree
from marin_trace.ir.graph import Call, Node
from marin_trace.ir.printer import print_value
from marin_trace.ir.refs import (
    DeferredResult,
    HardcodedPath,
    OwnOutput,
    Projection,
    StepArtifact,
    StepOutput,
    StepRef,
    projection_steps,
    render_steps,
    source_of,
)

NameWithHash = Callable[[Node], str]


def recipe_parts(node: Node, name_with_hash_of: NameWithHash) -> dict[str, str]:
    """What the fingerprint of a step is made of: readable text by config path, in the order of the calls.

    Paths begin at the function's parameters (``config.tokenizer``); with several calls in the body, at the function's
    name (``train.config.lr``, the second ``train`` as ``train#2``). What is the step's own has the paths ``name``,
    ``version``, ``function`` and ``returns``; where a parameter is called so, ``@step(name)`` and the like. Values are
    Python literals, so that ``1`` and ``'1'`` differ.

    Args:
        node: The step.
        name_with_hash_of: How a producer is called.
    """
    if node.foreign is not None:
        return dict(node.foreign.parts)
    calls = _labelled_calls(node)
    # Of a single call, parameters have paths without a label, and may be called as what is the step's own.
    taken = frozenset(calls[0][1].arguments.plan.names if len(calls) == 1 else ())
    own = {name: f"@step({name})" if name in taken else name for name in ("name", "version", "function", "returns")}
    parts = {own["name"]: node.name}
    if node.options.version is not None:
        parts[own["version"]] = repr(node.options.version)
    for label, call in calls:
        parts[f"{label}()" if label else own["function"]] = call.function.identity
        _add_parts(call.arguments, label, parts, name_with_hash_of)
    _add_parts(node.returned, own["returns"], parts, name_with_hash_of)
    return parts


def _labelled_calls(node: Node) -> list[tuple[str, Call]]:
    if len(node.calls) == 1:
        return [("", node.calls[0])]
    seen: dict[str, int] = {}
    labelled: list[tuple[str, Call]] = []
    for call in node.calls:
        count = seen[call.function.label] = seen.get(call.function.label, 0) + 1
        labelled.append((call.function.label if count == 1 else f"{call.function.label}#{count}", call))
    return labelled


def _add_parts(tree: Tree, path: str, parts: dict[str, str], name_with_hash_of: NameWithHash) -> None:
    if isinstance(tree, Unversioned | Absent):
        return
    if isinstance(tree, Sequence) and tree.is_unordered:
        items = sorted(_one_text(item, name_with_hash_of) for item in tree.items)
        parts[path] = f"{tree.cls.__qualname__}({', '.join(items)})"
        return
    kind = _container_text(tree)
    if kind is None:
        parts[path] = _leaf_text(tree, name_with_hash_of)
        return
    if kind:
        parts[path] = kind
    for last, part in children(tree):
        if isinstance(tree, Sequence) and isinstance(part, Unversioned | Absent):
            parts[_extended(path, last)] = "unversioned"
        elif last.kind != "key":
            _add_parts(part, _extended(path, last), parts, name_with_hash_of)
        elif not isinstance(part, str | int | float | bool | bytes | None):
            _add_parts(part, f"{path}.keys()[{key_text(part)}]", parts, name_with_hash_of)


def _one_text(tree: Tree, name_with_hash_of: NameWithHash) -> str:
    """An item of a set, which has no path of its own."""
    parts: dict[str, str] = {}
    _add_parts(tree, "", parts, name_with_hash_of)
    return " ".join(f"{path}={text}" if path else text for path, text in parts.items())


def _container_text(tree: Tree) -> str | None:
    """What a container itself contributes: nothing where its items say enough, None for a leaf."""
    match tree:
        case Record():
            return "" if tree.plan.kind == "call" else tree.plan.cls.__qualname__
        case Sequence():
            return tree.cls.__qualname__ if tree.cls is not list or not tree.items else ""
        case MappingTree():
            return tree.cls.__qualname__
        case BoundFunction() if tree.kind != "plain":
            return f"{tree.kind} {identity_of(tree.function)}"
        case _:
            return None


def _extended(path: str, last: Path) -> str:
    return f"{path}{last if str(last).startswith('[') else f'.{last}'}".lstrip(".")


def _leaf_text(leaf: Tree, name_with_hash_of: NameWithHash) -> str:
    match leaf:
        case StepOutput():
            text = f"{name_with_hash_of(leaf.step_node())}{'/' if leaf.subpath else ''}{leaf.subpath}"
            return text if leaf.blocking else f"{text} (nonblocking)"
        case StepArtifact():
            return f"{name_with_hash_of(source_of(leaf).step_node())}.artifact{render_steps(projection_steps(leaf))}"
        case DeferredResult():
            return f"result {source_of(leaf).index + 1}{render_steps(projection_steps(leaf))}"
        case OwnOutput() | HardcodedPath():
            return print_value(leaf)
        case Opaque():
            return leaf.encoding or print_value(leaf)
        case BoundFunction():
            return identity_of(leaf.function)
        case _:
            return print_value(leaf)


def config_json(node: Node, path_of: Callable[[StepRef], str]) -> Any:
    """The arguments of a step's calls as a JSON value, for people: unversioned values included, refs as paths.

    Args:
        node: The step.
        path_of: The path that a ref stands for.
    """
    shown = {label or call.function.label: _json_of(call.arguments, path_of) for label, call in _labelled_calls(node)}
    return next(iter(shown.values())) if len(node.calls) == 1 else shown


def _json_of(tree: Tree, path_of: Callable[[StepRef], str]) -> Any:
    match tree:
        case Record():
            fields = zip(tree.plan.names, tree.values, strict=True)
            return {
                name: _json_of(item, path_of)
                for name, item in fields
                if not (isinstance(item, Absent) and not item.holds_value)
            }
        case Sequence():
            return [_json_of(item, path_of) for item in tree.items]
        case MappingTree():
            pairs = zip(tree.keys, tree.values, strict=True)
            return {key if isinstance(key, str) else render_leaf(key): _json_of(item, path_of) for key, item in pairs}
        case Unversioned():
            return _json_of(tree.tree, path_of)
        case Absent():
            return _json_of(tree.value, path_of)
        case StepRef():
            return path_of(tree)
        case bytes():
            return base64.b64encode(tree).decode()
        case None | bool() | int() | float() | str():
            return tree.name if isinstance(tree, enum.Enum) else tree
        case Projection():
            return repr(tree)
        case _:
            return print_value(tree)


def advisory_digests(node: Node) -> dict[str, str]:
    """Digests of what is no part of the recipe and may matter: unversioned values, function sources."""
    # A value that is left out at a certain value is the same wherever it is left out. Other rules than ours do not say
    # value by value what counts: there the whole config is looked at.
    parts = [
        part
        for call in node.calls
        for part in ((call.arguments,) if node.foreign else unversioned_parts(call.arguments, omitted=False))
    ]
    unversioned = b"".join(memo_bytes(_without_refs(part)) for part in parts)
    return {
        "unversioned": hashlib.sha256(unversioned).hexdigest() if unversioned else _NOTHING,
        "sources": _sources_digest(tuple(call.function.function for call in node.calls)),
    }


_NOTHING: Final = hashlib.sha256(b"").hexdigest()


@functools.lru_cache(maxsize=4096)
def _sources_digest(functions: tuple[Callable[..., Any], ...]) -> str:
    return hashlib.sha256("\0".join(function_source(function) or "" for function in functions).encode()).hexdigest()


def _without_refs(tree: Tree) -> Tree:
    """The printed form of what has no encoding that another process would agree on."""
    from marin_trace.ir.config_tree import leaves

    return Sequence(list, tuple(f"{path}={print_value(leaf)}" for path, leaf in leaves(tree)))


@functools.cache
def function_source(function: Callable[..., Any]) -> str | None:
    """The source text of a function or class, or None where Python has none (builtins, typed text)."""
    try:
        return inspect.getsource(inspect.unwrap(function))
    except (OSError, TypeError, SyntaxError):  # a class is looked for by parsing its file, which may be no Python
        return None


def spec_parts(name: str, hash_attrs: Mapping[str, Tree], deps: list[str]) -> dict[str, str]:
    """The parts of a hand-written spec: its name, its ``hash_attrs`` by path, its dependencies in order."""
    parts = {"name": name}
    for key, tree in hash_attrs.items():
        _add_parts(tree, key, parts, lambda node: node.name)
    return parts | {f"deps[{index}]": dep for index, dep in enumerate(deps)}
