"""How a job's call travels: pickled by cloudpickle, which carries modules by reference and local functions whole.

What cannot travel is named as its author knows it, by the variable that holds it.
"""

import dataclasses
import functools
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, cast, final

from marin_trace.errors import UnpicklableError, explain

__all__ = ["pickled_call"]

_DEEPEST: Final = 30
"""How many values inside each other are looked into for the one to blame."""

_SCOPES: Final = (types.FunctionType, types.MethodType)
"""What an author thinks of as holding variables: a label begins there."""


@final
@dataclass(frozen=True, slots=True)
class _Part:
    """A value inside another."""

    owner: Any
    label: str
    """What its author writes after the owner; empty where that is nothing."""
    value: Any


def pickled_call(entrypoint: Callable[[], Any], name: str) -> bytes:
    """A call as bytes, for ``pickle.loads`` in a process that can import the same modules.

    Args:
        entrypoint: What the job calls.
        name: Of the job, for messages.

    Raises:
        UnpicklableError: It captures something that lives in this process alone; the variable is named.
    """
    pickled = _pickled(entrypoint)
    if isinstance(pickled, bytes):
        return pickled
    path = _path_to_blame(entrypoint)
    functions = [part.owner for part in path if isinstance(part.owner, types.FunctionType)]
    variables = (n for n in range(len(path) - 1, -1, -1) if isinstance(path[n].owner, _SCOPES))
    since = next(variables, -1)
    label = "".join(part.label for part in path[since:]).removeprefix(".")
    what = f"captures `{label}`, a {_type_name(path[-1].value)} that cannot" if label else "cannot"
    reason = f"{pickled}".splitlines()[0] if f"{pickled}" else type(pickled).__name__
    raise UnpicklableError(
        explain(
            f"{name} {what} be sent to another process: {reason}",
            at=_place(functions[-1]) if functions else None,
            hint="make it inside the function, or pass a path or plain values instead",
        )
    ) from pickled


def _pickled(value: Any) -> "bytes | Exception":
    """The value as bytes, or why that cannot be."""
    import cloudpickle  # pyright: ignore[reportMissingTypeStubs]

    try:
        return cloudpickle.dumps(value)  # pyright: ignore[reportUnknownMemberType]
    except Exception as error:  # noqa: BLE001 - a value's own __reduce__ may raise anything
        return error


def _path_to_blame(value: Any) -> list[_Part]:
    """The way from a value down to the innermost part of it that cannot be pickled."""
    path: list[_Part] = []
    while len(path) < _DEEPEST:
        parts = (_Part(value, label, inner) for label, inner in _parts(value))
        found = next((part for part in parts if not isinstance(_pickled(part.value), bytes)), None)
        if found is None:
            break
        path.append(found)
        value = found.value
    return path


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value is made of, as far as pickling looks: how its author writes each part, and the part."""
    match value:
        case functools.partial():
            call = cast("functools.partial[Any]", value)
            yield "", call.func
            yield from ((f"argument {position}", part) for position, part in enumerate(call.args, 1))
            yield from ((f".{name}", part) for name, part in call.keywords.items())
        case types.FunctionType():
            yield from _captured(value)
        case types.MethodType():
            yield "", value.__func__
            yield ".self", value.__self__
        case Mapping():
            yield from ((f"[{key!r}]", part) for key, part in cast("Mapping[Any, Any]", value).items())
        case list() | tuple() | set() | frozenset():
            yield from ((f"[{position}]", part) for position, part in enumerate(cast("list[Any]", value)))
        case type() | types.ModuleType():
            return
        case _:
            yield from _attributes(value)


def _captured(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        # A cell that is still to be filled holds nothing.
        with suppress(ValueError):
            yield f".{name}", cell.cell_contents
    yield from ((f".{name}", function.__globals__[name]) for name in _global_names(function))
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    defaults = function.__defaults__ or ()
    yield from ((f".{name}", part) for name, part in zip(names[len(names) - len(defaults) :], defaults, strict=True))
    yield from ((f".{name}", part) for name, part in (function.__kwdefaults__ or {}).items())


def _global_names(function: types.FunctionType) -> list[str]:
    """The globals that a function, or one that it defines, reads."""
    names: dict[str, None] = {}
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        names |= dict.fromkeys(code.co_names)
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return [name for name in names if name in function.__globals__]


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    names: dict[str, None] = dict.fromkeys(getattr(value, "__dict__", {}))
    if dataclasses.is_dataclass(value):
        names |= dict.fromkeys(entry.name for entry in dataclasses.fields(value))
    yield from ((f".{name}", getattr(value, name)) for name in names if hasattr(value, name))


def _place(function: types.FunctionType) -> str:
    return f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}"


def _type_name(value: Any) -> str:
    kind = cast("type[object]", type(value))
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
