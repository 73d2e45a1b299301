"""Parameters of a function: binding the arguments of a call to them, by name and with defaults, and calling again.

``inspect.Signature.bind`` takes some 10 µs; a trace binds two functions per step, so plain signatures are bound by hand
and everything unusual, errors included, is left to ``inspect``.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, final

from marin_trace.ir.records import Plan

_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_VARIABLE: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@final
class CallPlan(Plan):
    """The parameters of one function: its names as a record's fields, and how a call puts values back into place.

    A function whose signature Python does not know (some builtins) takes anything: ``args`` and ``kwargs``.
    """

    __slots__ = ("_defaults", "_is_plain", "_positional", "signature")

    def __init__(self, function: Callable[..., Any]) -> None:
        self.signature = _signature_of(function)
        parameters = self.signature.parameters
        super().__init__(function, "call", "", tuple(parameters))
        self._positional = tuple(name for name, p in parameters.items() if p.kind in _POSITIONAL)
        self._defaults = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
        unusual = (inspect.Parameter.POSITIONAL_ONLY, *_VARIABLE)
        self._is_plain = not any(p.kind in unusual for p in parameters.values())

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The value of each parameter, in the order of the signature.

        Raises:
            TypeError: The arguments do not fit, in Python's own words.
        """
        bound = self._bound_quickly(args, kwargs) if self._is_plain else None
        if bound is not None:
            return bound
        arguments = self.signature.bind(*args, **kwargs)
        arguments.apply_defaults()
        return arguments.arguments

    def _bound_quickly(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
        names = self.names
        if len(args) == len(names) == len(self._positional) and not kwargs:
            return dict(zip(names, args, strict=True))
        if len(args) > len(self._positional):
            return None
        given = dict(zip(self._positional, args, strict=False))
        for name, value in kwargs.items():
            if name in given:
                return None
            given[name] = value
        defaults = self._defaults
        bound: dict[str, Any] = {}
        taken = 0
        for name in names:
            if name in given:
                bound[name] = given[name]
                taken += 1
            elif name in defaults:
                bound[name] = defaults[name]
            else:
                return None
        return bound if taken == len(given) else None

    def hint(self, names: Iterable[str]) -> str | None:
        """What may have been meant by arguments that the function does not have."""
        import difflib

        for name in names:
            near = difflib.get_close_matches(name, self.names, n=1) if name not in self.names else []
            if near:
                return f"did you mean {near[0]}=?"
        return None

    def call(self, function: Callable[..., Any], values: tuple[Any, ...] | list[Any]) -> Any:
        """Calls ``function`` with one value per parameter. **Phase**: run time."""
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for parameter, value in zip(self.signature.parameters.values(), values, strict=True):
            match parameter.kind:
                case inspect.Parameter.VAR_POSITIONAL:
                    args += value
                case inspect.Parameter.VAR_KEYWORD:
                    kwargs |= value
                case inspect.Parameter.KEYWORD_ONLY:
                    kwargs[parameter.name] = value
                case _:
                    args.append(value)
        return function(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return (CallPlan, (self.cls,))


def _signature_of(function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (ValueError, TypeError):
        variable = zip(("args", "kwargs"), _VARIABLE, strict=True)
        return inspect.Signature([inspect.Parameter(name, kind) for name, kind in variable])
