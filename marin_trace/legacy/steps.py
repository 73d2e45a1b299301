"""The names of Marin's older executor: steps as objects with a config, references to their outputs, versioned values.

``ExecutorStep(name, fn, config)`` says what to run; its config holds, as they are, other steps (or `InputName`), the
step's own output path (`OutputName`) and versioned values. Nothing is looked at before the step is used: given to
``executor_main``, or to a traced step. It then becomes a node of the graph (`marin_trace.legacy.bridge`), known by the
version that the older executor computed (`marin_trace.legacy.version`).
"""

import copy
import posixpath
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from marin_trace.errors import ConfigError, ConfigTypeError, StepNameError, explain
from marin_trace.ir.config_tree import short_repr
from marin_trace.ir.location import Location, user_location
from marin_trace.ir.markers import Marker
from marin_trace.ir.refs import HardcodedPath, StepOutput, StepRef

if TYPE_CHECKING:
    from marin_trace.ir.graph import Node

__all__ = [
    "THIS_OUTPUT_PATH",
    "ExecutorStep",
    "InputName",
    "OutputName",
    "VersionedValue",
    "ensure_versioned",
    "get_executor_step",
    "output_path_of",
    "this_output_path",
    "unwrap_versioned_value",
    "versioned",
]

ConfigT = TypeVar("ConfigT")
T = TypeVar("T")


@dataclass(frozen=True, eq=False, repr=False)
class ExecutorStep(Marker, Generic[ConfigT]):
    """A step of the older kind: ``fn(config)``, with an output at ``{prefix}/{name}-{hash}``.

    **Phase**: any; making one does nothing. A snapshot of the config is taken when the step is first used. Two steps
    are equal when they are one object; those with equal versions run once.

    Args:
        name: Of the step, and the beginning of its output path.
        fn: Gets the config, with a path in the place of each reference. What it returns is not kept. None: nothing is
            to be done.
        config: A dataclass, dict or list, nested; or anything else that ``fn`` takes.
        description: For people.
        override_output_path: Where it writes instead: relative to the prefix, or absolute. The version stays the same.
        pip_dependency_groups: What the process that runs it has installed.
        resources: A ``ResourceConfig``: it then runs as a job.

    Raises:
        ConfigTypeError: ``name`` is no text, or ``fn`` cannot be called.

    Example:
        >>> from marin_trace.legacy import ExecutorStep, this_output_path, versioned
        >>> raw = ExecutorStep("raw/web", fn=print, config={"url": versioned("http://x"), "to": this_output_path()})
        >>> raw / "part-0.jsonl"
        <StepRef raw/web/part-0.jsonl>
    """

    name: str
    fn: Callable[[ConfigT], Any] | None
    config: ConfigT
    description: str | None = None
    override_output_path: str | None = None
    pip_dependency_groups: list[str] | None = None
    resources: Any = None
    location: Location = field(init=False)
    """The line that made it."""

    def __post_init__(self) -> None:
        location = user_location()
        object.__setattr__(self, "location", location)
        if not isinstance(self.name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigTypeError(explain(f"the name of a step is text, not {short_repr(self.name)}", at=location))
        if self.fn is not None and not callable(self.fn):
            raise ConfigTypeError(
                explain(
                    f"the fn of {self.name} cannot be called: {short_repr(self.fn)}",
                    at=location,
                    hint="ExecutorStep(name, fn, config): a function that takes the config",
                )
            )

    def cd(self, subpath: str) -> "InputName":
        """A path below the output."""
        return InputName(self, None).cd(subpath)

    def __truediv__(self, subpath: str) -> "InputName":
        return self.cd(subpath)

    def nonblocking(self) -> "InputName":
        """The output path, without waiting for the step; see `InputName.nonblocking`."""
        return InputName(self, None).nonblocking()

    def as_input_name(self) -> "InputName":
        """The output path."""
        return InputName(self, None)

    def with_output_path(self, output_path: str) -> "ExecutorStep[ConfigT]":
        """The same step, writing elsewhere."""
        return replace(self, override_output_path=output_path)

    @cached_property
    def node(self) -> "Node":
        """What the step is in a graph.

        Raises:
            ConfigError: The config holds what has no version.
        """
        from marin_trace.legacy.bridge import node_of

        return node_of(self)

    @cached_property
    def _ref(self) -> StepOutput:
        from marin_trace.legacy.bridge import LegacyOccurrence

        return StepOutput(self.node, "", True, LegacyOccurrence(self.node, blocking=True), None)  # noqa: FBT003

    def __marin_trace_value__(self) -> StepOutput:
        return self._ref

    def __deepcopy__(self, memo: dict[int, Any]) -> "ExecutorStep[ConfigT]":
        # Another step, with a config of its own that may be changed: nothing that is known of this one holds for it.
        return replace(self, config=copy.deepcopy(self.config, memo))

    def __repr__(self) -> str:
        return f"<ExecutorStep {self.name}>"


@dataclass(frozen=True, repr=False)
class InputName(Marker):
    """The output path of a step, or a path below it; or, without a step, a path that no step makes."""

    step: "ExecutorStep[Any] | None"
    name: str | None
    """Below the step's output path; without a step: the path, relative to the prefix or absolute."""
    block_on_step: bool = True

    def cd(self, subpath: str) -> "InputName":
        """A path below this one.

        Raises:
            StepNameError: It leads elsewhere: absolute, a URL, or with ``..``.
        """
        checked = _checked_subpath(subpath)
        return replace(self, name=posixpath.join(self.name, checked) if self.name else checked)

    def __truediv__(self, subpath: str) -> "InputName":
        return self.cd(subpath)

    @staticmethod
    def hardcoded(path: str) -> "InputName":
        """A path that no step makes. Its text is part of the version.

        Args:
            path: Absolute, a URL, or relative to the prefix.
        """
        _hardcoded_ref(path)
        return InputName(None, path)

    def nonblocking(self) -> "InputName":
        """The same path, without waiting for its step.

        The step is brought into the run, as by ``StepRef.nonblocking()``; the older executor left it out where nothing
        else needed it.
        """
        return replace(self, block_on_step=False)

    def __marin_trace_value__(self) -> StepRef:
        if self.step is None:
            return _hardcoded_ref(self.name or "")
        ref = self.step.__marin_trace_value__()
        return StepOutput(ref.node, self.name or "", self.block_on_step, ref.occurrence, None)

    def __repr__(self) -> str:
        parts = [self.step.name] if self.step else []
        text = "/".join([*parts, *([self.name] if self.name else [])])
        return f"<StepRef {text}{'' if self.block_on_step else ' (nonblocking)'}>"


def _hardcoded_ref(path: str) -> HardcodedPath:
    """The ref to a path, with a slash at its end where the text has one: functions get the text as it is."""
    ref = HardcodedPath(path.rstrip("/") or path)
    object.__setattr__(ref, "path", path)
    return ref


@dataclass(frozen=True)
class OutputName(Marker):
    """The output path of the step whose config it stands in, or a path below it."""

    name: str | None

    def __marin_trace_value__(self) -> Any:
        raise ConfigError(
            explain(
                "this_output_path() was given to a traced step: it means a path in the config of an ExecutorStep only",
                at=user_location(),
                hint="write output() in the body of the step, for a default of a config class too",
            )
        )


@dataclass(frozen=True)
class VersionedValue(Marker, Generic[T]):
    """A value that is part of its step's version; the function gets the value itself, and so do names of steps."""

    value: T

    def __marin_trace_value__(self) -> T:
        return self.value

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)


THIS_OUTPUT_PATH: Final = OutputName(None)
"""The step's own output path, as the default of a config's field."""


def this_output_path(subpath: str | None = None) -> Any:
    """The output path of the step whose config it is put into, or a path below it.

    Returns:
        An `OutputName` (``Any`` to type checkers, so that a ``str`` field accepts it).

    Raises:
        StepNameError: ``subpath`` leads elsewhere.
    """
    return OutputName(None if subpath is None else _checked_subpath(subpath))


def output_path_of(step: Any, subpath: str | None = None) -> Any:
    """The output path of a step, or a path below it.

    Args:
        step: An `ExecutorStep`; what a traced step returned works too.
        subpath: Relative.

    Returns:
        An `InputName`; of a traced step its ref. ``Any`` to type checkers, so that a ``str`` field accepts it.
    """
    ref: Any = step.as_input_name() if isinstance(step, ExecutorStep) else step
    if isinstance(ref, InputName | StepRef):
        return ref if subpath is None else ref / subpath
    raise ConfigTypeError(
        explain(f"output_path_of() takes a step, not {short_repr(ref)}", at=user_location(), hint="step / 'sub'")
    )


def versioned(value: object) -> Any:
    """Makes a value part of its step's version: another one means another output path.

    Returns:
        A `VersionedValue` (``Any`` to type checkers, so that the field's own type accepts it).

    Raises:
        ConfigError: It is versioned already, or a reference, which always is part of the version.
    """
    if isinstance(value, VersionedValue):
        raise ConfigError(explain("versioned(versioned(…)): the value is versioned already", at=user_location()))
    if isinstance(value, ExecutorStep | InputName | StepRef):
        raise ConfigError(
            explain(
                f"versioned({value!r}): a reference to a step is part of the version by itself",
                at=user_location(),
                hint="pass the reference without versioned()",
            )
        )
    return VersionedValue(value)


def ensure_versioned(value: Any) -> Any:
    """The value, versioned; one that is versioned already is returned as it is."""
    return cast("Any", value) if isinstance(value, VersionedValue) else versioned(value)


def unwrap_versioned_value(value: Any) -> Any:
    """The value without ``versioned``."""
    return cast("VersionedValue[Any]", value).value if isinstance(value, VersionedValue) else value


def get_executor_step(run: Any) -> "ExecutorStep[Any]":
    """The step that a reference leads to.

    Raises:
        ConfigTypeError: It leads to none: a hardcoded path, or something else.
    """
    step: Any = run.step if isinstance(run, InputName) else run
    if isinstance(step, ExecutorStep):
        return cast("ExecutorStep[Any]", step)
    raise ConfigTypeError(
        explain(
            f"{short_repr(run)} leads to no ExecutorStep",
            at=user_location(),
            hint="pass the ExecutorStep itself, or step / 'sub'",
        )
    )


def _checked_subpath(subpath: str) -> str:
    """A path below an output. More is allowed than in new code, since the text is part of existing hashes."""
    is_text = isinstance(subpath, str)  # pyright: ignore[reportUnnecessaryIsInstance]
    is_safe = is_text and bool(subpath) and subpath.isprintable() and "://" not in subpath
    if is_safe and not subpath.startswith("/") and ".." not in subpath.split("/"):
        return subpath
    raise StepNameError(
        explain(
            f"{subpath!r} is not a path below an output",
            at=user_location(),
            hint="step / 'train/*.jsonl'; for a path elsewhere InputName.hardcoded('gs://…')",
        )
    )
