"""``@step``, ``output()`` and ``trace``: from a call of a step function to a node of the graph."""

import dataclasses
import functools
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, NoReturn, ParamSpec, TypeVar, cast, final, overload

from marin_trace.errors import (
    ConfigError,
    ConfigTypeError,
    CycleError,
    GroupError,
    LeakedRefError,
    MarinTraceError,
    MarinTraceWarning,
    TraceError,
    explain,
)
from marin_trace.ir.canonical import memo_bytes
from marin_trace.ir.config_tree import (
    Found,
    Path,
    Record,
    Tree,
    UnversionedValue,
    flatten,
    flatten_arguments,
    materialise,
)
from marin_trace.ir.graph import (
    NO_OPTIONS,
    Graph,
    Group,
    Node,
    Options,
    Scope,
    checked_override,
    graph_of,
    graph_of_refs,
)
from marin_trace.ir.location import Location, location_of, user_location, without_own_frames
from marin_trace.ir.names import RESERVED_FIRST_SEGMENT, checked_name, checked_output_name
from marin_trace.ir.passes.inline_groups import read_steps
from marin_trace.ir.refs import (
    DeferredResult,
    HardcodedPath,
    OwnOutput,
    StepArtifact,
    StepOutput,
    StepRef,
    TracedValue,
    projection_steps,
    source_of,
)
from marin_trace.ir.signatures import CallPlan
from marin_trace.tracing.settings import (
    StepSettings,
    check_option_names,
    check_settings,
    normalised,
    options_key,
)
from marin_trace.tracing.templates import rendered
from marin_trace.tracing.tracer import (
    CallOccurrence,
    Frame,
    Trace,
    current_frame,
    given_refs,
    opened_trace,
    refs_in,
    traced_body,
)

P = ParamSpec("P")
R = TypeVar("R")

_GROUP_OPTIONS = frozenset({"description"})
_REF_ATTRIBUTES = frozenset({"artifact", "cd", "name", "nonblocking", "with_output_path"})


class UncalledStepError(ConfigTypeError, AttributeError):
    """A step was used as what calling it returns (an ``AttributeError``, so that ``hasattr`` says no)."""


@final
class _Memo:
    """One memoised call: open while its body is traced, then what each further call gets."""

    __slots__ = ("frame", "keepalive", "target")

    def __init__(self, frame: Frame, keepalive: object) -> None:
        self.frame: Frame | None = frame
        """The body being traced; None when it has ended."""
        self.keepalive = keepalive
        """Objects whose ``id`` is part of the key."""
        self.target: Node | Group | None = None


@final
class StepFunction(Generic[P, R]):
    """A function decorated with ``@step``: calling it traces its body and returns a ref."""

    def __init__(
        self, function: Callable[P, R], settings: StepSettings, base: "StepFunction[P, R] | None" = None
    ) -> None:
        functools.update_wrapper(self, function)
        self.__name__: str = function.__name__
        self._function = function
        self._settings = settings
        self._base: StepFunction[P, R] = base or self
        self._plan: CallPlan = base._plan if base else CallPlan(function)
        self._variable_keywords = next(
            (p.name for p in self._plan.signature.parameters.values() if p.kind is p.VAR_KEYWORD), None
        )
        self._name_template = function.__name__ if settings.name is None else settings.name
        self._options_key = options_key(settings)
        check_settings(settings)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Traces the body, once per trace for equal arguments.

        Returns:
            A ref to the step's output; for a group, what its body returned.

        Raises:
            MarinTraceError: A rule of tracing is broken; every message names the line.
        """
        location = user_location(skip=1)
        frame = current_frame()
        if frame is not None:
            return self._call(frame, args, kwargs, location)
        try:
            with opened_trace(self.__name__, location) as root:
                result = self._call(root, args, kwargs, location)
                check_trace(root.trace)
        except MarinTraceError as error:
            raise error.with_traceback(without_own_frames(error)) from error.__cause__
        return result

    def with_options(self, **changes: Any) -> "StepFunction[P, R]":
        """The same step with other options (any of those of ``@step``), for the calls made through it.

        Raises:
            ConfigError: There is no such option.

        Example:
            >>> from marin_trace import step
            >>> @step
            ... def train(): ...
            >>> train.with_options(retries=2, name="train/again")
            <step train>
        """
        check_option_names(changes)
        return StepFunction(self._function, self._settings.updated(normalised(changes)), self._base)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else functools.partial(cast("Any", self), instance)

    def __repr__(self) -> str:
        return f"<step {self.__name__}>"

    def __marin_trace_hint__(self) -> str:
        """What to do where a step was given as a value, for the verifier."""
        return f"call it: {self.__name__}()"

    def __truediv__(self, subpath: object) -> NoReturn:
        raise self._not_called(f" / {subpath!r}")

    def __getattr__(self, name: str) -> Any:
        if name in _REF_ATTRIBUTES:
            raise self._not_called(f".{name}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _not_called(self, use: str) -> "UncalledStepError":
        name = self.__name__
        return UncalledStepError(
            explain(
                f"{name}{use} asks {self!r} for what only its output has: it was not called",
                at=user_location(skip=1),
                hint=f"call it: {name}(){use}",
            )
        )

    def __reduce__(self) -> Any:
        raise TraceError(
            explain(
                f"{self!r} was pickled or used as a value: it is a step, not what it returns", hint="call it: my_step()"
            )
        )

    def _call(self, caller: Frame, args: tuple[Any, ...], kwargs: Mapping[str, Any], location: Location) -> Any:
        try:
            bound = self._plan.bind(args, kwargs)
        except TypeError as error:
            message = explain(f"{self.__name__}(): {error}", at=location, hint=self._plan.hint(kwargs))
            raise ConfigTypeError(message) from None
        found: list[Found] = []
        tree = flatten_arguments(self._plan, bound, found)
        key = (id(self._base), self._options_key, memo_bytes(tree))
        memo = caller.trace.memo.get(key)
        if memo is None:
            memo = self._trace_body(caller, args, kwargs, bound, tree, found, key, location)
        elif memo.target is None:
            raise _cycle(caller, memo.frame, location)
        elif found:
            caller.check_arguments_of_step(found, memo.target.name, location)
            caller.touch_arguments(found)
        return _result_of(cast("Node | Group", memo.target), caller)

    def _trace_body(  # noqa: PLR0917 (what _call has at hand, once per step)
        self,
        caller: Frame,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        bound: dict[str, Any],
        tree: Record,
        found: list[Found],
        key: Any,
        location: Location,
    ) -> _Memo:
        trace = caller.trace
        names = bound if self._variable_keywords is None else {**bound[self._variable_keywords], **bound}
        name = checked_name(rendered(self._name_template, names, what="name", location=location), at=location)
        frame = Frame(trace, caller, Scope(name, caller.scope, self._name_template), location)
        trace.deepest = max(trace.deepest, frame.depth)
        if found:
            caller.check_arguments_of_step(found, name, location)
            frame.arguments = given_refs(found)
        memo = _Memo(frame, (self, tree))
        mark = trace.mark()
        trace.memo[key] = memo
        try:
            returned = traced_body(frame, self._function, args, dict(kwargs))
            options = self._settings.options
            if options is not NO_OPTIONS:
                options = self._resolved_options(names, location)
            close = _closed_node if frame.calls else _closed_group
            memo.target = close(frame, returned, options)
        except BaseException as error:
            trace.forget_since(mark)
            _explain_validation_error(error, frame)
            raise
        memo.frame = None
        trace.nodes.append(memo.target)
        if found:
            caller.touch_arguments(found)
        return memo

    def _resolved_options(self, arguments: Mapping[str, Any], location: Location) -> Options:
        options = self._settings.options
        # What is no part of the identity may use what is none.
        arguments = {name: _carried(value) for name, value in arguments.items()}
        changes: dict[str, Any] = {}
        if callable(options.resources):
            changes["resources"] = options.resources(**_accepted(options.resources, arguments, location))
        if options.description is not None:
            changes["description"] = rendered(options.description, arguments, what="description", location=location)
        if options.override_output_path is not None:
            path = rendered(options.override_output_path, arguments, what="override_output_path", location=location)
            changes["override_output_path"] = checked_override(path, at=location)
        return dataclasses.replace(options, **changes) if changes else options


def _carried(value: Any) -> Any:
    """An argument, without ``unversioned`` around it."""
    return value.value if isinstance(value, UnversionedValue) else value


def _accepted(function: Callable[..., Any], arguments: Mapping[str, Any], location: Location) -> dict[str, Any]:
    """The arguments that a callable option asks for by name (all, if it takes ``**kwargs``)."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return dict(arguments)
    missing = [
        p.name
        for p in parameters
        if p.name not in arguments and p.default is p.empty and p.kind is not p.VAR_POSITIONAL
    ]
    if missing:
        raise ConfigError(
            explain(
                f"resources= asks for {missing[0]!r}, which the step has no argument of",
                at=location,
                facts={"arguments": ", ".join(arguments) or "none"},
            )
        )
    return {p.name: arguments[p.name] for p in parameters if p.name in arguments}


def _cycle(caller: Frame, open_frame: Frame | None, location: Location) -> CycleError:
    chain = caller.call_chain()
    return CycleError(
        explain(
            f"{open_frame.scope.name if open_frame else caller.scope.name} calls itself with the same arguments",
            at=location,
            facts=["while tracing:", *(f"  {entry}" for entry in chain)],
            hint="pass the ref of an earlier step as an argument, or give the inner call other arguments",
        )
    )


def _closed_node(frame: Frame, returned: Any, options: Options) -> Node:
    if frame.scope.name.startswith(RESERVED_FIRST_SEGMENT):
        checked_output_name(frame.scope.name, at=frame.location)
    return Node(
        frame.scope.name,
        tuple(frame.calls),
        _body_result(frame, returned),
        (*frame.edges, *frame.leftover_argument_edges(), *frame.leftover_edges()),
        options,
        frame.location,
        frame.scope,
        frame.called(),
    )


def _body_result(frame: Frame, returned: Any) -> Tree:
    """What a body with calls returned, as a tree: its artifact."""
    if type(returned) is DeferredResult:
        frame.check_is_own(returned, frame.location)
        return returned
    found: list[Found] = []
    tree = flatten(returned, found, Path(None, "return", "item"))
    for leaf, _, _ in found:
        match leaf:
            case DeferredResult() | OwnOutput():
                frame.check_is_own(leaf, frame.location)
            case StepOutput() | StepArtifact():
                raise LeakedRefError(
                    explain(
                        f"the body of {frame.scope.name} records calls of its own and returns {leaf!r}, "
                        "which belongs to another step",
                        at=frame.location,
                        hint="return the result of one of its own calls; or move those calls into a step of their own, "
                        "so that this one is a group",
                    )
                )
            case TracedValue():
                pass
            case _:
                from marin_trace.ir.printer import print_value

                raise ConfigTypeError(
                    explain(
                        f"the body of {frame.scope.name} returned {print_value(leaf)}, "
                        "which cannot be part of an artifact",
                        at=frame.location,
                        hint="return results of deferred calls, plain values, or nothing",
                    )
                )
    return tree


def _closed_group(frame: Frame, returned: Any, options: Options) -> Group:
    frame.scope.is_group = True
    name = frame.scope.name
    given = [option for option in options.given() if option not in _GROUP_OPTIONS]
    if given:
        raise GroupError(
            explain(
                f"{name} is a group (its body records no deferred call), and a group has no {given[0]}",
                at=frame.location,
                facts={"given": ", ".join(given)},
                hint=f"give it to the steps that do the work: my_step.with_options({given[0]}=…)(…)",
            )
        )
    if frame.output_location is not None:
        raise GroupError(
            explain(
                f"{name} is a group (its body records no deferred call), and a group has no output()",
                at=frame.output_location,
                hint="did you forget deferred() around the function that writes it?",
            )
        )
    if not frame.occurrences and returned is None:
        _warn_of_empty_body(frame)
    outputs = _group_result(frame, returned)
    members = frame.members()
    return Group(
        name, members, outputs, frame.leftover_argument_edges(), options, frame.location, frame.scope, frame.called()
    )


def _warn_of_empty_body(frame: Frame) -> None:
    message = explain(
        f"{frame.scope.name} recorded nothing: whatever its body did was done at trace time",
        at=frame.location,
        hint="did you forget deferred()? write train = deferred(_train), and call train(...) in the body",
    )
    warnings.warn_explicit(message, MarinTraceWarning, frame.location.file, frame.location.line)


def _group_result(frame: Frame, returned: Any) -> Tree:
    if returned is None:
        return None
    found: list[Found] = []
    tree = flatten(returned, found, Path(None, "return", "item"))
    for ref in refs_in(found):
        frame.touch(ref)
    for leaf, _, _ in found:
        if isinstance(leaf, DeferredResult | OwnOutput):
            frame.check_is_own(leaf, frame.location)
    if any(isinstance(leaf, StepRef) and not isinstance(leaf, OwnOutput) for leaf, _, _ in found):
        return tree
    raise GroupError(
        explain(
            f"the group {frame.scope.name} returned {type(returned).__name__} without a ref in it",
            at=frame.location,
            facts={"returned": repr(returned)[:100]},
            hint="return a ref, a list, dict or dataclass of refs, or nothing; what should run goes into deferred()",
        )
    )


def _result_of(target: Node | Group, caller: Frame) -> Any:
    """What one call returns: fresh refs that remember the call, and the group that they came through."""
    occurrence = CallOccurrence(target, blocking=True)
    caller.occurrences.append(occurrence)
    if not target.is_group:
        return StepOutput(target, "", True, occurrence, None)  # noqa: FBT003 (hot)
    group = cast("Group", target)
    if group.returned is None:
        return StepOutput(group, "", True, occurrence, group)  # noqa: FBT003

    def fresh(leaf: Any) -> Any:
        if isinstance(leaf, StepOutput):
            return StepOutput(leaf.node, leaf.subpath, leaf.blocking, occurrence, group)
        if isinstance(leaf, StepArtifact):
            return StepArtifact(fresh(source_of(leaf)), projection_steps(leaf))
        return HardcodedPath(leaf.path, group) if isinstance(leaf, HardcodedPath) else leaf

    return materialise(group.returned, fresh)


def _explain_validation_error(error: BaseException, frame: Frame) -> None:
    """Turns pydantic's complaint about a ref into one that says so.

    Raises:
        ConfigTypeError: ``error`` is a pydantic ``ValidationError`` about a ref, a placeholder or an unversioned value.
    """
    if type(error).__name__ != "ValidationError" or not type(error).__module__.startswith("pydantic"):
        return
    for complaint in cast("Any", error).errors():
        value = complaint["input"]
        if not isinstance(value, TracedValue | UnversionedValue):
            continue
        field, first = ".".join(str(part) for part in complaint["loc"]), complaint["loc"][0]
        model = cast("Any", error).title
        hint = (
            f'keep the value plain, and write deferred(fn, unversioned=("config.{field}",))'
            if isinstance(value, UnversionedValue)
            else f"build it at run time: {model} = deferred(_{model}), then {model}({first}=…) in the body"
        )
        raise ConfigTypeError(
            explain(
                f"{model}.{field} was given {value!r}, which pydantic cannot check at trace time",
                at=location_of(error),
                facts={"step": f"{frame.scope.name}  {frame.location}"},
                hint=hint,
            )
        ) from error


def check_trace(trace: Trace) -> None:
    """Raises all findings about what a trace has recorded, at once.

    Raises:
        MarinTraceError: There is at least one.
    """
    from marin_trace.ir.findings import raise_findings
    from marin_trace.ir.typecheck import type_findings
    from marin_trace.ir.verifier import verify_nodes

    nodes = [node for node in trace.nodes if isinstance(node, Node)]
    raise_findings([*trace.findings, *verify_nodes(nodes), *type_findings(nodes)])


@overload
def step(fn: Callable[P, R], /) -> StepFunction[P, R]: ...


@overload
def step(
    *,
    name: str | None = None,
    description: str | None = None,
    resources: Any = None,
    env_vars: Mapping[str, str] | None = None,
    pip_dependency_groups: Iterable[str] | None = None,
    override_output_path: str | None = None,
    version: str | int | None = None,
    retries: int | None = None,
    timeout: float | None = None,
    fresh: bool | None = None,
    expect_fingerprint: str | None = None,
) -> Callable[[Callable[P, R]], StepFunction[P, R]]: ...


def step(fn: Callable[..., Any] | None = None, /, *, name: str | None = None, **options: Any) -> Any:
    """Makes a function a step of a pipeline: calling it traces its body.

    **Phase**: decorating, import time; calling, trace time. A body that calls deferred functions is a step with an
    output. One that only calls other steps is a *group*: a named scope that runs nothing and returns what its body
    returned.

    Args:
        fn: The function, for bare ``@step``.
        name: A format template over all arguments: ``"tokenize/{name}"``, ``"train/{cfg.lr}"``; for a ref write
            ``{ref.name}``. The default is the function's name.
        description: A template; for people only.
        resources: A ``ResourceConfig``, or a callable that gets the arguments that it names and returns one.
        env_vars: Environment variables of the process that runs the step; only their names are recorded.
        pip_dependency_groups: What that process has installed.
        override_output_path: A template; relative to the prefix, or absolute. Not part of the fingerprint.
        version: A manual salt: changing it recomputes.
        retries: How many further attempts follow a failed one.
        timeout: Seconds that one attempt may take.
        fresh: Whether the output is emptied before each attempt; by default an attempt finds what earlier ones left.
        expect_fingerprint: Pins the fingerprint (8 or more hex digits): any change is an error that shows it.

    Returns:
        A :class:`StepFunction`: call it, or ``.with_options(...)`` it first.

    Raises:
        ConfigError: An option has a value that it cannot have.

    Example:
        >>> from marin_trace import deferred, output, step
        >>> def write(path: str, text: str) -> None: ...
        >>> write = deferred(write)
        >>> @step(name="hello/{word}")
        ... def hello(word: str):
        ...     return write(output() / "hello.txt", word)
        >>> hello("world").name
        'hello/world'
    """
    check_option_names(options)
    settings = StepSettings(name, Options(**normalised(options)) if options else NO_OPTIONS)

    def decorate(function: Callable[..., Any]) -> StepFunction[..., Any]:
        if isinstance(function, StepFunction):
            raise TraceError(explain(f"{function.__name__} is a step already", at=user_location()))
        if not inspect.isroutine(function):
            raise TraceError(explain(f"@step decorates a function, not {type(function).__name__}", at=user_location()))
        if (
            inspect.iscoroutinefunction(function)
            or inspect.isgeneratorfunction(function)
            or inspect.isasyncgenfunction(function)
        ):
            raise TraceError(
                explain(
                    f"{function.__name__} is asynchronous or a generator: the body of a step is a plain function",
                    at=user_location(),
                )
            )
        return StepFunction(function, settings)

    return decorate if fn is None else decorate(fn)


def output() -> Any:
    """The output path of the step whose body is being traced.

    **Phase**: trace time. The function that it is passed to gets the path as ``str``.

    Returns:
        A :class:`StepRef`; ``output() / "sub"`` works. (``Any`` to type checkers, so that a ``str`` field accepts it.)

    Raises:
        TraceError: Outside the body of a step.
    """
    frame = current_frame()
    if frame is None or frame.is_root:
        raise TraceError(
            explain(
                "output() was called outside a step",
                at=user_location(),
                hint="call it in the body of a @step function; a library config has no default for its path",
            )
        )
    return frame.own_output()


def trace(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Graph:
    """Traces a step, or a plain function that calls steps.

    **Phase**: trace time. No I/O, and nothing runs. Deterministic: two traces of one pipeline print equally.

    Args:
        fn: A step or a plain function.
        *args: Its arguments.
        **kwargs: Its keyword arguments.

    Returns:
        The graph; ``str(graph)`` prints it.

    Raises:
        MarinTraceError: A rule of tracing is broken. Type and binding errors of the whole graph come as one.
    """
    location = user_location()
    try:
        with opened_trace(getattr(fn, "__name__", "trace"), location) as root:
            try:
                outputs = fn(*args, **kwargs)
            except BaseException as error:
                _explain_validation_error(error, root)
                raise
            check_trace(root.trace)
    except MarinTraceError as error:
        raise error.with_traceback(without_own_frames(error)) from error.__cause__
    returned = graph_of_refs(outputs)
    graph = graph_of((*root.members(), *returned.roots), outputs)
    # A plain function is like a group: of what it called, a run is asked for what nothing reads.
    read = read_steps(graph)
    roots = [node for node in root.members() if node not in read]
    return dataclasses.replace(graph, roots=tuple(dict.fromkeys((*roots, *returned.roots))))
