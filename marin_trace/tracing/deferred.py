"""``deferred``: library functions that are recorded, not called, while a pipeline is traced."""

import functools
import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, final, overload

from marin_trace.errors import ConfigError, ConfigTypeError, TraceError, explain
from marin_trace.io import running_body
from marin_trace.ir.config_tree import Found, Record, flatten_arguments
from marin_trace.ir.functions import PlainFunction, function_identity, hidden_by_ray, unwrapped
from marin_trace.ir.graph import Call, CallHandle, FunctionRef
from marin_trace.ir.location import user_location
from marin_trace.ir.refs import DeferredResult, TracedValue
from marin_trace.ir.signatures import CallPlan
from marin_trace.tracing.step import StepFunction
from marin_trace.tracing.tracer import Frame, current_frame, open_traces

if TYPE_CHECKING:
    from marin_trace.tracing.identity_rules import IdentityRules

P = ParamSpec("P")
R = TypeVar("R")


@final
class DeferredFunction(Generic[P, R]):
    """A library function or class whose calls are recorded inside a step's body, and made everywhere else."""

    def __init__(self, function: Callable[P, R], identity: str | None, rules: "IdentityRules | None") -> None:
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise TraceError(
                explain(
                    f"cannot defer {getattr(function, '__qualname__', function)}: it is asynchronous",
                    at=user_location(),
                    hint="wrap it in a plain function that calls asyncio.run()",
                )
            )
        functools.update_wrapper(self, function)
        self.__name__: str = getattr(function, "__name__", type(function).__name__)
        self._function = function
        self._explicit_identity = identity
        self._rules = rules

    @property
    def __marin_trace_function__(self) -> Callable[P, R]:
        """The wrapped function, for the config walker."""
        return self._function

    @functools.cached_property
    def _plain(self) -> PlainFunction:
        return unwrapped(self._function)

    @functools.cached_property
    def _plan(self) -> CallPlan:
        return CallPlan(self._plain.function)

    @functools.cached_property
    def identity(self) -> str:
        """What stands for the function in a fingerprint: ``identity=``, else ``module:qualname``.

        Raises:
            UnstableValueError: It has none, and none was given.
        """
        return self._explicit_identity or function_identity(self._plain.function)

    @functools.cached_property
    def _ref(self) -> FunctionRef:
        function = self._plain.function
        return FunctionRef(function, self.identity, getattr(function, "__name__", type(function).__name__))

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Records the call where a body is being traced and returns a placeholder; calls the function elsewhere.

        Raises:
            TraceError: In a plain function under ``trace``, or in a thread without a trace while one is open.
        """
        frame = current_frame()
        if frame is None:
            self._check_not_tracing()
            return self._function(*args, **kwargs)
        if frame.parent is None:
            raise TraceError(
                explain(
                    f"{self.__name__}() was called outside any step: nothing would run it",
                    at=user_location(),
                    hint="call it in a function decorated with @step",
                )
            )
        return self._record(frame, args, kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        binding = getattr(type(self._function), "__get__", None)
        if instance is None or binding is None:  # As an attribute, a class is no method.
            return self
        return DeferredFunction(binding(self._function, instance, owner), self._explicit_identity, self._rules)

    def __repr__(self) -> str:
        return f"deferred({self._function!r})"

    def _check_not_tracing(self) -> None:
        if open_traces and not running_body.get():
            raise TraceError(
                explain(
                    f"{self.__name__}() was called in a thread that traces nothing, while a trace is open: "
                    "it would do its work at trace time",
                    at=user_location(),
                    hint="call it in the thread that runs the step's body, or copy the context: "
                    "contextvars.copy_context().run(...)",
                )
            )

    def _record(self, frame: Frame, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> DeferredResult:
        location = user_location(skip=1)
        plain, plan, function = self._plain, self._plan, self._ref
        handle = CallHandle(len(frame.calls), function.label, frame.scope, location)
        try:
            if plain.args or plain.keywords:
                args, kwargs = (*plain.args, *args), {**plain.keywords, **kwargs}
            bound = plan.bind(args, kwargs)
        except TypeError as error:
            from marin_trace.ir.findings import Finding

            summary = f"{function.label}(): {error}"
            frame.trace.findings.append(Finding(summary, frame.scope.name, location, plan.hint(kwargs)))
            frame.record_call(Call(function, Record(CallPlan(_nothing), ()), 0, handle, ()))
            return DeferredResult(handle)
        found: list[Found] = []
        arguments = flatten_arguments(plan, bound, found)
        if self._rules is not None:
            arguments, found = self._rules.applied(arguments, found, function.label, location)
        frame.record_call(Call(function, arguments, len(args), handle, tuple(found)))
        return DeferredResult(handle)


def _nothing() -> None:
    """Stands for the arguments of a call that does not fit its function."""


@overload
def deferred(
    fn: Callable[P, R],
    *,
    identity: str | None = None,
    unversioned: Iterable[str] = (),
    omit_when: Mapping[str, object] = ...,
) -> DeferredFunction[P, R]: ...


@overload
def deferred(
    *,
    identity: str | None = None,
    unversioned: Iterable[str] = (),
    omit_when: Mapping[str, object] = ...,
) -> Callable[[Callable[P, R]], DeferredFunction[P, R]]: ...


def deferred(
    fn: Callable[..., Any] | None = None,
    *,
    identity: str | None = None,
    unversioned: Iterable[str] = (),
    omit_when: Mapping[str, object] = types.MappingProxyType({}),
) -> Any:
    """Wraps a library function or class so that its calls in a step's body are recorded instead of made.

    **Phase**: import time of the wiring module. The wrapped function is never changed. Outside any step it is simply
    called, as a jitted JAX function can be called eagerly.

    Args:
        fn: A function or class of any signature; a partial or a bound method too. Without it: a decorator. Of what
            ``@ray.remote`` made, the function in it; what the step needs is said by ``@step(resources=…)``.
        identity: What stands for the function in fingerprints, instead of ``module:qualname``: for one that was moved
            or renamed (its old name keeps the outputs), for a lambda, or for a function of a notebook.
        unversioned: Config paths that are no part of the identity: ``("config.workers", "config.shards[*].host")``.
        omit_when: Config paths left out of the identity while they equal a value: ``{"config.new_flag": False}`` lets a
            config grow a field without recomputing what was built before.

    Returns:
        The wrapper, typed as ``fn`` but for its result, which is ``Any``: at trace time a placeholder whose attributes
        and items project lazily.

    Raises:
        TraceError: ``fn`` is asynchronous, or is no function.
        ConfigError: A config path cannot be read.

    Example:
        >>> from marin_trace import deferred
        >>> def count(path: str, workers: int = 1) -> int: ...
        >>> count = deferred(count, unversioned=("workers",))
        >>> count.identity.endswith(":count")
        True
    """
    if fn is None:
        return functools.partial(deferred, identity=identity, unversioned=unversioned, omit_when=omit_when)
    if isinstance(fn, DeferredFunction):
        raise TraceError(explain(f"{fn.__name__} is deferred already", at=user_location()))
    if isinstance(fn, StepFunction):
        raise TraceError(
            explain(
                f"{fn.__name__} is a step: its call is traced, not recorded",
                at=user_location(),
                hint=f"call it as it is: {fn.__name__}(…); wrap the functions that its body calls",
            )
        )
    if not callable(fn) or isinstance(fn, TracedValue):
        raise ConfigTypeError(
            explain(f"deferred() takes a function or class, not {type(fn).__name__}", at=user_location())
        )
    fn = hidden_by_ray(fn)
    if identity is not None and not identity.strip():
        raise ConfigError(explain("identity= is empty", at=user_location(), hint='write identity="my_module:my_fn"'))
    if isinstance(unversioned, str):
        unversioned = (unversioned,)
    rules = _rules(unversioned, omit_when)
    if identity is None and rules is None and type(fn) is types.FunctionType:
        return _plainly_deferred(fn)
    return DeferredFunction(fn, identity, rules)


@functools.lru_cache(maxsize=1024)
def _plainly_deferred(function: Callable[..., Any]) -> DeferredFunction[..., Any]:
    """The wrapper of a plain function: a body that wraps it at each call reads its signature once (12 µs)."""
    return DeferredFunction(function, None, None)


def _rules(unversioned: Iterable[str], omit_when: Mapping[str, object]) -> "IdentityRules | None":
    paths = tuple(unversioned)
    if not paths and not omit_when:
        return None
    from marin_trace.tracing.identity_rules import IdentityRules

    return IdentityRules.parsed(paths, omit_when)
