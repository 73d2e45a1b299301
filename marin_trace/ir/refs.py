"""Stand-ins for what is known only later: paths (refs), and values (deferred results, artifacts).

While a pipeline is traced nothing has a path or a value yet. What user code holds instead are the classes of this
module:

- :class:`StepRef`, abstract, with three final classes: :class:`OwnOutput` (what ``output()`` returns),
  :class:`StepOutput` (what a step call returns) and :class:`HardcodedPath`. At run time a function gets the path in its
  place.
- :class:`Projection`, abstract, with two final classes: :class:`DeferredResult` (what a deferred call returns) and
  :class:`StepArtifact` (``ref.artifact``). Attributes and items project lazily; at run time a function gets the value.

All refuse every use as a concrete value, each with its own hint and the user's ``file:line``; none ever fails in
``repr`` or ``str``, since loggers call them. All are immutable, hashable, and survive ``copy``, ``deepcopy`` and
``dataclasses.replace`` as themselves.
"""

import functools
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, cast, final

from marin_trace.errors import ConcretizationError, GroupError, TraceError, explain
from marin_trace.ir.location import user_location
from marin_trace.ir.names import checked_subpath

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from marin_trace.ir.graph import Group, Node, Occurrence, Scope

    _Base = Any
else:
    _Base = object

_STR_AND_PATH_METHODS: Final = frozenset(name for name in {*dir(str), *dir(Path)} if not name.startswith("_"))


class RefAttributeError(ConcretizationError, AttributeError):
    """An attribute of ``str`` or ``Path`` was asked of a ref (an ``AttributeError``, so that ``hasattr`` says no)."""


def _refusing(operation: str) -> "Callable[..., NoReturn]":
    def refuse(self: "TracedValue", *_: object) -> NoReturn:
        self.refuse(operation)

    return refuse


class TracedValue(_Base):
    """What refs and projections share: they have no concrete value at trace time, and say so."""

    __slots__ = ()
    hint_by_operation: ClassVar[dict[str, str]] = {}
    lacks: ClassVar[str] = ""

    def refuse(self, operation: str) -> NoReturn:
        """Raises the error for one use as a concrete value.

        Raises:
            ConcretizationError: Always.
        """
        hint = self.hint_by_operation.get(operation) or self.hint_by_operation["*"]
        raise ConcretizationError(explain(f"cannot {operation} {self!r}: {self.lacks}", at=user_location(), hint=hint))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise TraceError(explain(f"cannot set {name!r} on {self!r}: it is immutable", at=user_location()))

    def __delattr__(self, name: str) -> NoReturn:
        raise TraceError(explain(f"cannot delete {name!r} of {self!r}: it is immutable", at=user_location()))

    def __copy__(self) -> "TracedValue":
        return self

    def __deepcopy__(self, memo: object) -> "TracedValue":
        return self

    def __str__(self) -> str:
        return repr(self)

    def __format__(self, spec: str) -> str:
        self.refuse("format")

    __fspath__ = _refusing("open or join")
    __bool__ = _refusing("test the truth of")
    __iter__ = _refusing("iterate over")
    __len__ = _refusing("take the length of")
    __contains__ = _refusing("look inside")
    __int__ = __float__ = __complex__ = __index__ = __bytes__ = _refusing("convert")
    __add__ = __radd__ = _refusing("add to")
    __lt__ = __le__ = __gt__ = __ge__ = _refusing("order")
    __sub__ = __rsub__ = __mul__ = __rmul__ = __mod__ = __rmod__ = __floordiv__ = _refusing("compute with")
    __rtruediv__ = __pow__ = __rpow__ = __neg__ = __matmul__ = __and__ = __or__ = __xor__ = _refusing("compute with")
    __rfloordiv__ = __rdivmod__ = __rmatmul__ = __rand__ = __ror__ = __rxor__ = _refusing("compute with")
    __rlshift__ = __rrshift__ = __trunc__ = _refusing("compute with")
    __pos__ = __abs__ = __round__ = __invert__ = __divmod__ = __lshift__ = __rshift__ = _refusing("compute with")
    __enter__ = __exit__ = __next__ = __await__ = _refusing("enter, await or step through")
    __setitem__ = __delitem__ = _refusing("change an item of")
    __call__ = _refusing("call")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        self.refuse("pickle")


class StepRef(TracedValue):
    """A path that is known when the pipeline is lowered: the output of a step, or a path given by hand.

    **Phase**: trace time. A library function never sees one: it gets a ``str``.

    To type checkers a ref is ``Any``-like, so a config field annotated ``str`` accepts it. Two refs are equal when they
    mean the same path.

    Example:
        >>> from marin_trace import StepRef
        >>> raw = StepRef.hardcoded("gs://bucket/raw")
        >>> raw / "train" / "*.jsonl"
        <StepRef gs://bucket/raw/train/*.jsonl>
        >>> raw.name
        'raw'
    """

    __slots__ = ()
    lacks = "it has no path until the step is lowered"
    hint_by_operation: ClassVar[dict[str, str]] = {
        "format": 'write `ref / \'train\'` instead of f"{ref}/train"; in a name template write "{ref.name}"',
        "open or join": "write `ref / 'train'` instead of os.path.join(ref, 'train'); open files in a function "
        "wrapped by deferred() (was that forgotten?), which gets the path as a str",
        "test the truth of": "write `ref is not None`; a ref is always something",
        "iterate over": "list files in a function wrapped by deferred(); several refs go into a list: [ref_a, ref_b]",
        "take the length of": "take lengths in a function wrapped by deferred(), which gets the path as a str",
        "look inside": "what is inside is known at run time: look in a function wrapped by deferred()",
        "convert": "pass the ref itself to a function wrapped by deferred(); its value is ref.artifact",
        "add to": "write `ref / 'train'` instead of ref + '/train'",
        "order": "sort by name: sorted(refs, key=lambda ref: ref.name)",
        "compute with": "a ref supports ref / 'sub', .cd(), .name, .artifact, .nonblocking() and .with_output_path()",
        "compare with text": "compare names: ref.name == 'fineweb', or refs: ref == other_ref",
        "pickle": "refs live in the process that traces; send the lowered StepSpec, or a path as text",
        "enter, await or step through": "a ref is a path, not a file: open it in a function wrapped by deferred()",
        "change an item of": "a ref is a path: write files in a function wrapped by deferred()",
        "index": "for an item of what the step returned write ref.artifact['k']; for a path below it ref / 'k'",
        "call": "a ref is what a step call has returned already: pass it on as it is",
        "*": "pass the ref itself: the function wrapped by deferred() gets the path as a str",
    }

    def __init__(self) -> None:
        raise TraceError(
            explain(
                "StepRef is abstract",
                at=user_location(),
                hint="call a step, or write output() or StepRef.hardcoded('gs://…')",
            )
        )

    @staticmethod
    def hardcoded(path: str) -> "HardcodedPath":
        """A ref to a path that no step of this pipeline makes.

        Args:
            path: Absolute, a URL, or relative to the prefix.

        Raises:
            StepNameError: The path is empty, or relative and unsafe (``..``).
        """
        return HardcodedPath(path)

    @property
    def name(self) -> str:
        """The name of the step (rendered, without hash), or the last segment of a hardcoded path."""
        raise NotImplementedError

    def __truediv__(self, subpath: str) -> "StepRef":
        """The ref to a path below this one; globs are allowed, ``..`` is not."""
        raise NotImplementedError

    def cd(self, subpath: str) -> "StepRef":
        """The same as ``ref / subpath``."""
        return self / subpath

    def nonblocking(self) -> "StepRef":
        """The same path, without waiting for its step: for checkpoints of a training that still runs.

        The edge stays part of the fingerprint. It replaces the blocking edge of the call that it derives from.
        """
        self._refuse_operation("nonblocking()")

    def with_output_path(self, path: str) -> "StepRef":
        """The ref to the same step, writing to ``path`` instead of its own output path.

        Args:
            path: Relative to the prefix, or an absolute path or URL, used as it is.
        """
        self._refuse_operation("with_output_path()")

    @property
    def artifact(self) -> Any:
        """The *value* that the step returned, loaded at run time; attributes and items project lazily."""
        self._refuse_operation("artifact")

    def __getattr__(self, name: str) -> Any:
        if name not in _STR_AND_PATH_METHODS:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        hint = {
            "parent": "a ref points at or below an output: pass the ref of the step itself",
            "exists": "what exists is known at run time: look in a function wrapped by deferred()",
            "joinpath": "write `ref / 'train'`",
            "open": "open files in a function wrapped by deferred(), which gets the path as a str",
            "endswith": "test the text that you built the ref from, or test in a function wrapped by deferred()",
        }.get(
            name,
            "use text methods in a function wrapped by deferred(), which gets the path as a str; its step is ref.name",
        )
        raise RefAttributeError(explain(f"cannot use .{name} of {self!r}: {self.lacks}", at=user_location(), hint=hint))

    def __getitem__(self, key: object) -> NoReturn:
        self.refuse("index")

    def __ne__(self, other: object) -> bool:
        result = self.__eq__(other)
        return result if result is NotImplemented else not result

    def _refuse_text(self, other: object) -> None:
        if isinstance(other, str | bytes | PurePath):
            self.refuse("compare with text")

    def _refuse_operation(self, what: str) -> NoReturn:
        raise TraceError(explain(f"{self!r} has no {what}: only the output of a called step has", at=user_location()))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> object:
        from pydantic_core import core_schema

        return core_schema.is_instance_schema(StepRef)


_set = object.__setattr__


@final
class OwnOutput(StepRef):
    """The output path of the step whose body is being traced."""

    __slots__ = ("scope", "subpath")
    scope: "Scope"
    subpath: str

    def __init__(self, scope: "Scope", subpath: str = "") -> None:
        _set(self, "scope", scope)
        _set(self, "subpath", subpath)

    @property
    def name(self) -> str:
        return self.scope.name

    def __truediv__(self, subpath: str) -> "OwnOutput":
        return OwnOutput(self.scope, _joined(self.subpath, checked_subpath(subpath, at=user_location())))

    def __eq__(self, other: object) -> bool:
        self._refuse_text(other)
        return isinstance(other, OwnOutput) and self.scope is other.scope and self.subpath == other.subpath

    def __hash__(self) -> int:
        return hash((id(self.scope), self.subpath))

    def __repr__(self) -> str:
        return f"<StepRef output() of {_joined(self.scope.name, self.subpath)}>"


@final
class StepOutput(StepRef):
    """The output of a step call.

    ``occurrence`` is the call (or derivation) that this ref came from, for the edges that calls leave behind; ``group``
    the outermost group that returned it, so that whoever gets the ref also gets to know the group's other members.
    """

    __slots__ = ("blocking", "group", "node", "occurrence", "subpath")
    node: "Node | Group"
    subpath: str
    blocking: bool
    occurrence: "Occurrence"
    group: "Group | None"

    def __init__(
        self,
        node: "Node | Group",
        subpath: str,
        blocking: bool,  # noqa: FBT001 (built some 10,000 times a trace, by position)
        occurrence: "Occurrence",
        group: "Group | None",
    ) -> None:
        _set(self, "node", node)
        _set(self, "subpath", subpath)
        _set(self, "blocking", blocking)
        _set(self, "occurrence", occurrence)
        _set(self, "group", group)

    @property
    def name(self) -> str:
        return self.node.name

    def __truediv__(self, subpath: str) -> "StepOutput":
        self.step_node()
        below = _joined(self.subpath, checked_subpath(subpath, at=user_location()))
        return StepOutput(self.node, below, self.blocking, self.occurrence, self.group)

    def nonblocking(self) -> "StepOutput":
        node = self.step_node()
        occurrence = self.occurrence.derived(node, blocking=False)
        return StepOutput(node, self.subpath, False, occurrence, self.group)  # noqa: FBT003

    def with_output_path(self, path: str) -> "StepOutput":
        node = self.step_node()
        redirected = node.redirected(path, user_location())
        occurrence = self.occurrence.redirected(node, redirected)
        group = None if self.group is None else self.group.with_step(node, redirected)
        return StepOutput(redirected, self.subpath, self.blocking, occurrence, group)

    @property
    def artifact(self) -> Any:
        self.step_node()
        if not self.blocking:
            raise TraceError(
                explain(
                    f"cannot take the artifact of {self!r}: nobody waits for it",
                    at=user_location(),
                    hint="write ref.artifact on the blocking ref, without .nonblocking()",
                )
            )
        if self.subpath:
            raise TraceError(
                explain(
                    f"cannot take the artifact of {self!r}: it is a path below an output",
                    at=user_location(),
                    hint="the artifact belongs to the step: write ref.artifact, without / 'sub'",
                )
            )
        return StepArtifact(self)

    def step_node(self) -> "Node":
        """The step that this ref points at.

        Raises:
            GroupError: It is a group that returned nothing, so there is no path.
        """
        node = self.node
        if node.is_group:
            raise GroupError(
                explain(
                    f"cannot use {node.name} as a path: it is a group that returned nothing",
                    at=user_location(),
                    facts={"group": f"{node.name}  {node.location}"},
                    hint="return a ref from its body, or pass the ref of one of the steps that it calls",
                )
            )
        return node  # pyright: ignore[reportReturnType]

    def __eq__(self, other: object) -> bool:
        self._refuse_text(other)
        if not isinstance(other, StepOutput) or self.subpath != other.subpath:
            return False
        from marin_trace.ir.canonical import same_recipe

        return self.node is other.node or same_recipe(self.node, other.node)

    def __hash__(self) -> int:
        return hash((self.node.name, self.subpath))

    def __repr__(self) -> str:
        return f"<StepRef {_joined(self.node.name, self.subpath)}{'' if self.blocking else ' (nonblocking)'}>"


@final
class HardcodedPath(StepRef):
    """A path that no step of this pipeline makes: absolute, a URL, or relative to the prefix.

    ``group`` is the outermost group that returned it, so that whoever gets the path gets to know its members too.
    """

    __slots__ = ("group", "path")
    path: str
    group: "Group | None"

    def __init__(self, path: str, group: "Group | None" = None) -> None:
        if not isinstance(path, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TraceError(
                explain(
                    f"a hardcoded path is text, not {type(path).__name__}",
                    at=user_location(),
                    hint="write StepRef.hardcoded('gs://bucket/data')",
                )
            )
        if not is_absolute(path):
            checked_subpath(path, at=user_location())
        _set(self, "path", path if path.endswith("://") else path.rstrip("/") or "/")
        _set(self, "group", group)

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    def __truediv__(self, subpath: str) -> "HardcodedPath":
        return HardcodedPath(_joined(self.path, checked_subpath(subpath, at=user_location())), self.group)

    def nonblocking(self) -> "HardcodedPath":
        return self

    def __eq__(self, other: object) -> bool:
        self._refuse_text(other)
        return isinstance(other, HardcodedPath) and self.path == other.path

    def __hash__(self) -> int:
        return hash((HardcodedPath, self.path))

    def __repr__(self) -> str:
        return f"<StepRef {self.path}>"


def is_absolute(path: str) -> bool:
    """Whether a path is a URL or begins at the root, and so does not lie under the prefix."""
    return path.startswith("/") or "://" in path


def _joined(base: str, subpath: str) -> str:
    return f"{base.rstrip('/')}/{subpath}" if base and subpath else base or subpath


class Projection(TracedValue):
    """A value that exists at run time: a source, and the attributes and items that lead from it to the value.

    Every public attribute belongs to the value, so what this module knows of a projection is read through
    :func:`projection_steps` and the ``source_of_…`` functions.
    """

    __slots__ = ("_source", "_steps")
    lacks = "it has no value until the step runs"
    hint_by_operation: ClassVar[dict[str, str]] = {
        "format": "format it in a function wrapped by deferred(), which gets the value",
        "test the truth of": "branch in a function wrapped by deferred(), which gets the value",
        "iterate over": "loop in a function wrapped by deferred(), which gets the value",
        "call": "a method of a result runs at run time: call it in a function wrapped by deferred()",
        "pickle": "results live in the process that traces: pass them to a function wrapped by deferred()",
        "*": "compute in a function wrapped by deferred(), which gets the value: deferred(fn)(value)",
    }
    _source: Any
    _steps: "tuple[ProjectionStep, ...]"

    def __init__(self, source: Any, steps: "tuple[ProjectionStep, ...]" = ()) -> None:
        _set(self, "_source", source)
        _set(self, "_steps", steps)

    def __getattr__(self, name: str) -> Any:
        # Notebooks and consoles ask every object how it wants to be shown.
        if (name.startswith("__") and name.endswith("__")) or name.startswith(("_repr_", "_ipython_")):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return type(self)(self._source, (*self._steps, (".", name)))

    def __getitem__(self, key: "Hashable") -> Any:
        if not isinstance(key, str | int | float | bool | bytes | slice | tuple | None):
            self.refuse("index with a value that is not plain")
        return type(self)(self._source, (*self._steps, ("[]", cast("Any", key))))

    __truediv__ = _refusing("compute with")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Projection):
            return type(self) is type(other) and self._source == other._source and self._steps == other._steps
        if other is None or isinstance(other, bool | int | float | str | bytes | list | tuple | dict | set):
            self.refuse("compare")
        return False

    def __ne__(self, other: object) -> bool:
        return not self.__eq__(other)

    def __hash__(self) -> int:
        return hash((self._source, str(self._steps)))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._origin()}{render_steps(self._steps)}>"

    def _origin(self) -> str:
        raise NotImplementedError


ProjectionStep = tuple[str, Any]
"""``(".", attribute)`` or ``("[]", key)``."""


@final
class DeferredResult(Projection):
    """What a deferred call will return; its source is the recorded :class:`~marin_trace.ir.graph.CallHandle`."""

    __slots__ = ()

    def _origin(self) -> str:
        return f"of {self._source.label}()"


@final
class StepArtifact(Projection):
    """What a step returned, loaded when the consumer runs; its source is the :class:`StepOutput`."""

    __slots__ = ()

    def _origin(self) -> str:
        return self._source.name


def source_of(projection: Projection) -> Any:
    """The recorded call of a :class:`DeferredResult`, or the :class:`StepOutput` of a :class:`StepArtifact`."""
    return projection._source  # pyright: ignore[reportPrivateUsage]


def projection_steps(projection: Projection) -> tuple[ProjectionStep, ...]:
    """The attributes and items that lead from the source to the value, outermost first."""
    return projection._steps  # pyright: ignore[reportPrivateUsage]


def render_steps(steps: tuple[ProjectionStep, ...]) -> str:
    """The steps as Python text: ``.vocab['a'].size``."""
    return "".join(f".{key}" if kind == "." else f"[{key!r}]" for kind, key in steps)


def project(value: Any, steps: tuple[ProjectionStep, ...]) -> Any:
    """Follows projection steps on a concrete value. **Phase**: run time.

    Raises:
        AttributeError, KeyError, IndexError: As the value does.
    """
    return functools.reduce(lambda v, step: getattr(v, step[1]) if step[0] == "." else v[step[1]], steps, value)
