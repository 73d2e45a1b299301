"""Graphs: what tracing returns and the compiler transforms.

A :class:`Node` is one step: its calls, its edges, its options. Nodes are frozen and compared by identity; refs hold
them. A :class:`Group` is a named scope that runs nothing. A :class:`Graph` lists both, producers first. Nothing here
does I/O.
"""

import dataclasses
import enum
import functools
import heapq
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple, Protocol, final

from marin_trace.errors import StepNameError, explain
from marin_trace.ir.config_tree import Found, Path, Record, Tree, flatten
from marin_trace.ir.location import Location
from marin_trace.ir.names import checked_output_name
from marin_trace.ir.refs import DeferredResult, HardcodedPath, StepOutput, is_absolute, projection_steps, source_of


class EdgeKind(enum.StrEnum):
    """What an edge means for the consumer."""

    DATA = "data"
    """Waits for the producer; part of the fingerprint."""
    NONBLOCKING = "non-blocking"
    """Brings the producer into the run, does not wait; part of the fingerprint where a call uses it."""
    ORDERING = "ordering"
    """Waits for the producer; no part of the fingerprint."""
    WEAK_ORDERING = "weak ordering"
    """Waits for the producer where something else brings it into the run. Made by passes, of groups."""


class Edge(NamedTuple):
    """A step needs another step, or (``ORDERING`` edges before ``inline_groups`` only) a group."""

    kind: EdgeKind
    producer: "Node | Group"
    path: Path | None = None
    """Where the call's arguments use the producer; None for an edge that no argument shows."""

    @property
    def reads(self) -> bool:
        """Whether it is a data or non-blocking edge."""
        return self.kind is EdgeKind.DATA or self.kind is EdgeKind.NONBLOCKING


@dataclass(frozen=True, slots=True)
class Options:
    """How a step is run. None means: not given. Only ``version`` is part of the fingerprint."""

    description: str | None = None
    resources: Any = None
    """A ``ResourceConfig``; opaque to the compiler but for its ``str()``, which is printed."""
    env_vars: Mapping[str, str] | None = dataclasses.field(default=None, repr=False)
    """Only their names are ever shown."""
    pip_dependency_groups: tuple[str, ...] | None = None
    override_output_path: str | None = None
    """Relative to the prefix, or absolute."""
    version: str | int | None = None
    """A manual salt of the fingerprint."""
    retries: int | None = None
    timeout: float | None = None
    """Seconds that one attempt may take."""
    fresh: bool | None = None
    """Whether the output is emptied before an attempt."""
    expect_fingerprint: str | None = None
    """The beginning of the fingerprint (at least 8 hex digits) that the step must have."""

    RUN_OPTIONS: ClassVar[tuple[str, ...]] = (
        "resources",
        "env_vars",
        "pip_dependency_groups",
        "retries",
        "timeout",
        "fresh",
    )
    """What says how a step runs, and so can differ between two calls of one recipe only by accident."""

    def given(self) -> dict[str, Any]:
        """The options that were given, by name."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value is not None}


NO_OPTIONS: Final = Options()


@dataclass(frozen=True, slots=True, eq=False)
class FunctionRef:
    """A library function, as a call of it is recorded."""

    function: Callable[..., Any]
    """Plain: without bound arguments."""
    identity: str
    """``module:qualname``, or what ``identity=`` says."""
    label: str
    """Its name, for printing."""

    @property
    def return_annotation(self) -> Any:
        """What it returns: the annotation, the class itself for a class, ``Any`` where unknown or unresolvable."""
        return _return_annotation(self.function)


@functools.cache
def _return_annotation(function: Callable[..., Any]) -> Any:
    if isinstance(function, type):
        return function
    try:
        return typing.get_type_hints(function).get("return", Any)
    except Exception:  # noqa: BLE001 (annotations are arbitrary expressions; one that cannot be evaluated says nothing)
        return Any


@final
class CallHandle:
    """Which call of which body a deferred result stands for."""

    __slots__ = ("index", "label", "location", "scope")

    def __init__(self, index: int, label: str, scope: "Scope", location: Location) -> None:
        self.index = index
        self.label = label
        self.scope = scope
        self.location = location


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One recorded call of a library function."""

    function: FunctionRef
    arguments: Record
    """A value for each parameter, defaults included; its plan is a ``CallPlan``."""
    positional: int
    """How many arguments the user gave by position, for printing."""
    handle: CallHandle
    found: tuple[Found, ...]
    """The refs, projections and values without a stable identity among the arguments."""

    @property
    def location(self) -> Location:
        """The user's line of the call."""
        return self.handle.location


@final
class Scope:
    """The place of a step or group in the calls of a trace; ``is_group`` is known when the body has ended."""

    __slots__ = ("is_group", "name", "parent", "template")

    def __init__(self, name: str, parent: "Scope | None", template: str) -> None:
        self.name = name
        self.parent = parent
        self.template = template
        """What the name was made from: the same for all calls of one step function."""
        self.is_group = False

    def groups(self) -> "tuple[Scope, ...]":
        """The groups around it, outermost first."""
        found: list[Scope] = []
        scope = self.parent
        while scope is not None:
            if scope.is_group:
                found.append(scope)
            scope = scope.parent
        return tuple(reversed(found))

    def group_path(self) -> tuple[str, ...]:
        """The names of the groups around it, outermost first."""
        return tuple(scope.name for scope in self.groups())


@final
@dataclass(frozen=True, slots=True, eq=False)
class ForeignRecipe:
    """What identifies a step by the rules of another system than this one."""

    text: str
    """The identity in full, as that system writes it."""
    fingerprint: str
    """The sha256 of the text, in hex."""
    parts: Mapping[str, str]
    """What the text says: readable text by config path."""
    depth: int
    """How deep the identities of steps that it reads are nested in it, its own included."""


class Occurrence(Protocol):
    """One call of a step, or a ref derived from one: what leaves an edge if nothing uses it."""

    def derived(self, node: "Node", *, blocking: bool) -> "Occurrence":
        """The occurrence of a ref derived by ``.nonblocking()``; it replaces this one."""
        ...

    def redirected(self, old: "Node", new: "Node") -> "Occurrence":
        """The occurrence of a ref derived by ``.with_output_path()``: replaces this one, or the step in its group."""
        ...


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Node:
    """One step of a graph."""

    name: str
    """Rendered, without hash."""
    calls: tuple[Call, ...]
    """In program order; never empty."""
    returned: Tree
    """What the body returned, with deferred results in it: the artifact."""
    edges: tuple[Edge, ...]
    options: Options
    location: Location
    """The user's line that called the step."""
    scope: Scope
    called: "tuple[Node | Group, ...]"
    """What a walk visits before this step: its ref arguments' steps, then what its body called and used, in trace
    order."""
    foreign: ForeignRecipe | None = None
    """What identifies it instead of its calls, where another system's rules do."""

    is_group: ClassVar[bool] = False

    @property
    def override_output_path(self) -> str | None:
        """Where the step writes instead of its own output path."""
        return self.options.override_output_path

    @property
    def template(self) -> str:
        """What the name was made from: ``tokenize/{name}``."""
        return self.scope.template

    @property
    def group_path(self) -> tuple[str, ...]:
        """The names of the groups around the first call of the step, outermost first."""
        return self.scope.group_path()

    @property
    def artifact_type(self) -> Any:
        """The return annotation of the function whose result the step returns; ``Any`` where that is unknown."""
        returned = self.returned
        if not isinstance(returned, DeferredResult) or projection_steps(returned):
            return Any
        index: int = source_of(returned).index
        return self.calls[index].function.return_annotation

    def redirected(self, path: str, location: Location) -> "Node":
        """The same step, writing to ``path`` (relative to the prefix, or absolute)."""
        options = dataclasses.replace(self.options, override_output_path=checked_override(path, at=location))
        return dataclasses.replace(self, options=options, location=location)

    def __repr__(self) -> str:
        return f"<Node {self.name}>"


def checked_override(path: str, *, at: object) -> str:
    """``path`` as an override: absolute, or a safe name below the prefix.

    Raises:
        StepNameError: It is neither, or begins with ``experiments`` below the prefix.
    """
    text = path.rstrip("/")
    if not is_absolute(text):
        return checked_output_name(text, at=at)
    if ".." in text.split("/") or not text.isprintable() or any(mark in text for mark in ("::", "<", ">")):
        raise StepNameError(
            explain(f"{path!r} is not an output path: it holds '..', '::', '<', '>' or a control character", at=at)
        )
    return text


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Group:
    """A step whose body recorded no deferred call: a named scope of the steps that it called."""

    name: str
    members: "tuple[Node | Group, ...]"
    """What its body called, in order."""
    returned: Tree
    """What the caller gets: a ref or a tree of refs, or None."""
    after: tuple[Edge, ...]
    """The unused ref arguments: every member runs after these."""
    options: Options
    location: Location
    scope: Scope
    called: "tuple[Node | Group, ...]"

    is_group: ClassVar[bool] = True
    override_output_path: ClassVar[None] = None

    def with_step(self, old: Node, new: Node) -> "Group":
        """The group with one of its steps replaced, in the groups within it too; itself where it has no such step."""
        renewed: dict[Node | Group, Node | Group] = {old: new}

        def renew(member: "Node | Group") -> "Node | Group":
            if member not in renewed:
                renewed[member] = renewed_group(member) if isinstance(member, Group) else member
            return renewed[member]

        def renewed_group(group: "Group") -> "Group":
            members, called = (tuple(map(renew, steps)) for steps in (group.members, group.called))
            is_same = (members, called) == (group.members, group.called)
            return group if is_same else dataclasses.replace(group, members=members, called=called)

        return renewed_group(self)

    @property
    def group_path(self) -> tuple[str, ...]:
        """The names of the groups around it, outermost first."""
        return self.scope.group_path()

    def __repr__(self) -> str:
        return f"<Group {self.name}>"


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Graph:
    """A traced pipeline: a frozen value. ``str()`` is the printed IR (see :mod:`marin_trace.ir.printer`).

    Example:
        >>> from marin_trace import deferred, output, step, trace
        >>> def touch(path: str) -> None: ...
        >>> @step(name="made/{word}")
        ... def make(word: str):
        ...     return deferred(touch)(output())
        >>> print(trace(make, "hello"))
        a : made/hello = touch(self)
    """

    nodes: tuple[Node, ...]
    """The steps, in post-order of tracing: producers first."""
    groups: tuple[Group, ...]
    """Inner groups first."""
    outputs: Any
    """What the traced function returned: a ref, a tree of refs, or None."""
    roots: tuple[Node | Group, ...]
    """What the traced function called itself."""

    def __str__(self) -> str:
        from marin_trace.ir.printer import print_graph

        return print_graph(self)

    def __repr__(self) -> str:
        return f"<Graph of {len(self.nodes)} steps and {len(self.groups)} groups>"


def graph_of(roots: "Iterable[Node | Group]", outputs: Any = None) -> Graph:
    """The graph of everything that the roots reach, in post-order. O(V + E); no recursion."""
    roots = tuple(dict.fromkeys(roots))
    done: dict[Node | Group, None] = {}
    opened: set[Node | Group] = set()
    stack: list[Node | Group] = list(reversed(roots))
    while stack:
        node = stack[-1]
        if node in opened:
            stack.pop()
            done.setdefault(node)
            continue
        opened.add(node)
        stack.extend(child for child in reversed(node.called) if child not in opened)
    nodes = tuple(node for node in done if isinstance(node, Node))
    groups = tuple(node for node in done if isinstance(node, Group))
    return Graph(nodes, groups, outputs, roots)


def graph_of_refs(values: Any) -> Graph:
    """The graph of what refs bring into a run.

    Args:
        values: A ref, what a group returned, or a tree of them. Each ref brings its step and the group that it came
            through.
    """
    found: list[Found] = []
    flatten(values, found)
    return graph_of([root for entry in found for root in _roots_of(entry.leaf)], values)


def _roots_of(leaf: Any) -> "tuple[Node | Group, ...]":
    match leaf:
        case StepOutput():
            return (leaf.node,) if leaf.group is None else (leaf.group, leaf.node)
        case HardcodedPath():
            return () if leaf.group is None else (leaf.group,)
        case _:
            return ()


def topological_order(nodes: Iterable[Node], producers_of: Callable[[Node], Iterable[Any]]) -> tuple[Node, ...]:
    """The nodes with every producer before its consumers, and otherwise in the order given.

    Kahn's algorithm with a heap of positions: O(E + V log V).

    Args:
        nodes: Some nodes.
        producers_of: What each needs; what is not among ``nodes`` is passed over.

    Raises:
        CycleError: They need each other.
    """
    nodes = tuple(nodes)
    position = {node: index for index, node in enumerate(nodes)}
    producers = [{position[p] for p in producers_of(node) if p in position} for node in nodes]
    if all(max(before, default=-1) < index for index, before in enumerate(producers)):
        return nodes
    consumers: list[list[int]] = [[] for _ in nodes]
    for index, before in enumerate(producers):
        for producer in before:
            consumers[producer].append(index)
    missing = [len(before) for before in producers]
    ready = [index for index, count in enumerate(missing) if not count]
    ordered: list[Node] = []
    while ready:
        index = heapq.heappop(ready)
        ordered.append(nodes[index])
        for consumer in consumers[index]:
            missing[consumer] -= 1
            if not missing[consumer]:
                heapq.heappush(ready, consumer)
    if len(ordered) < len(nodes):
        from marin_trace.ir.verifier import raise_cycle

        raise_cycle(nodes, producers_of)
    return tuple(ordered)
