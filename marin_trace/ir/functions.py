"""What identifies a function: ``module:qualname``, never its source, and never ``__main__``.

Owns the naming of the main script, the unwrapping of partials and bound methods into a plain function plus leading
arguments, and the refusal of functions that another process could not find.
"""

import functools
import inspect
import os
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from marin_trace.errors import UnstableValueError, explain


@dataclass(frozen=True, slots=True)
class PlainFunction:
    """A function without its bound arguments."""

    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    """The arguments that a partial or a bound method puts first."""
    keywords: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The keyword arguments that a partial binds."""


def unwrapped(function: Callable[..., Any]) -> PlainFunction:
    """A callable as a plain function or class, and what is bound to it: ``partial(f, 1)`` as ``f`` and ``(1,)``.

    A bound method is its function with ``self`` first; an instance with ``__call__`` is that method, bound.
    """
    args: tuple[Any, ...] = ()
    keywords: dict[str, Any] = {}
    while True:
        if isinstance(function, functools.partial):
            args, keywords = (*function.args, *args), {**function.keywords, **keywords}
            function = function.func
        elif isinstance(function, types.MethodType):
            args, function = (function.__self__, *args), function.__func__
        elif inspect.isroutine(function) or isinstance(function, type) or hasattr(function, "__qualname__"):
            return PlainFunction(function, args, keywords)
        else:
            function = types.MethodType(type(function).__call__, function)


def hidden_by_ray(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function that ``@ray.remote`` hides: its wrapper cannot be called. Any other is given back as it is."""
    hidden = getattr(function, "_function", None) if type(function).__name__ == "RemoteFunction" else None
    return hidden if callable(hidden) else function


def function_identity(function: Callable[..., Any]) -> str:
    """``module:qualname`` of a plain function or class.

    Raises:
        UnstableValueError: It is a lambda, closes over values that its ``module:qualname`` does not lead back to, or
            lives in a notebook or in text given to the interpreter; the hint is ``identity=``.
    """
    qualname = getattr(function, "__qualname__", None) or getattr(function, "__name__", None)
    if qualname is None:
        raise _unstable(function, "has no name")
    module = module_of(function)
    if module is None:
        raise _unstable(function, "is defined where no other process can find it (a notebook or typed text)")
    if "<lambda>" in qualname:
        raise _unstable(function, "is a lambda")
    if getattr(function, "__closure__", None) and not _leads_back(function, qualname):
        raise _unstable(function, "closes over values of the function that made it")
    return f"{module}:{qualname}"


def _unstable(function: Callable[..., Any], why: str) -> UnstableValueError:
    code = getattr(function, "__code__", None)
    return UnstableValueError(
        explain(
            f"{getattr(function, '__qualname__', repr(function))} has no stable identity: it {why}",
            at=f"{os.path.relpath(code.co_filename)}:{code.co_firstlineno}" if code else None,
            hint='define it with def at the top of a module, or name it: deferred(fn, identity="my_module:my_fn")',
        )
    )


def _leads_back(function: Callable[..., Any], qualname: str) -> bool:
    """Whether the module attribute of that name is this function, or a wrapper around it."""
    found: Any = sys.modules.get(function.__module__)
    if found is None or "<locals>" in qualname:
        return False
    for part in qualname.split("."):
        found = getattr(found, part, None)
    while found is not None and found is not function:
        found = getattr(found, "__wrapped__", None)
    return found is function


def module_of(function: Callable[..., Any]) -> str | None:
    """The dotted module of a function or class; for the main script the name under which it would be imported."""
    module = getattr(function, "__module__", None)
    if module is None:
        owner = getattr(function, "__objclass__", None) or getattr(function, "__self__", None)
        return getattr(owner, "__module__", None) or (type(owner).__module__ if owner is not None else "builtins")
    if module != "__main__":
        return module
    return main_module(getattr(function, "__globals__", None))


def main_module(variables: Mapping[str, Any] | None = None) -> str | None:
    """The name under which the main script would be imported; None for a notebook or typed text.

    Args:
        variables: The global variables of one of its functions, where one is at hand.
    """
    variables = variables or vars(sys.modules["__main__"])
    spec = variables.get("__spec__")
    if spec is not None and spec.name != "__main__":
        return spec.name
    file = variables.get("__file__")
    # A script that is piped in has the file ``<stdin>``, as has every other one.
    return None if file is None or file.startswith("<") else script_module(file, tuple(sys.path))


@functools.cache
def script_module(file: str, search_path: tuple[str, ...]) -> str:
    """The dotted path of a script, so that running and importing it agree.

    Found by climbing while ``__init__.py`` exists; else from the deepest entry of ``search_path`` that contains it (the
    script's own directory excepted); else from the project root (nearest directory with ``pyproject.toml`` or
    ``.git``); else its stem.
    """
    path = os.path.realpath(file)
    directory = os.path.dirname(path)
    top = directory
    while os.path.exists(os.path.join(top, "__init__.py")):
        top = os.path.dirname(top)
    if top == directory:
        entries = {os.path.realpath(entry or os.curdir) for entry in search_path} - {directory}
        containing = [entry for entry in entries if _lies_below(path, entry)]
        top = max(containing, key=len) if containing else _project_root(directory) or directory
    relative = os.path.relpath(os.path.splitext(path)[0], top)
    return ".".join(part for part in relative.split(os.sep) if part)


def _lies_below(path: str, directory: str) -> bool:
    return path.startswith(directory.rstrip(os.sep) + os.sep)


def _project_root(directory: str) -> str | None:
    while True:
        if any(os.path.exists(os.path.join(directory, mark)) for mark in ("pyproject.toml", ".git")):
            return directory
        parent = os.path.dirname(directory)
        if parent == directory:
            return None
        directory = parent
