"""The open trace: which body is being traced, and what it has recorded so far.

One ContextVar holds the innermost open :class:`Frame`, and through it the trace; a thread or task without one is
outside. A body records into its frame; when it has ended, that becomes a frozen node or group.

How edges come about: each step call is an :class:`Occurrence`. Using it in a recorded call leaves an edge per use;
passing it to another step makes it that step's; deriving a ref from it (``.nonblocking()``, ``.with_output_path()``)
replaces it by the derived one; and one that is neither leaves an ordering edge. The same holds for the refs among the
step's own arguments.
"""

import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, NamedTuple, final

from marin_trace.errors import LeakedRefError, TraceError, explain
from marin_trace.ir.collector import collector_paused
from marin_trace.ir.config_tree import Found, Tree
from marin_trace.ir.graph import Call, Edge, EdgeKind, Group, Node, Scope
from marin_trace.ir.location import Location, recurses_in_user_code, user_location
from marin_trace.ir.records import class_of
from marin_trace.ir.refs import DeferredResult, OwnOutput, StepArtifact, StepOutput, source_of


@final
class CallOccurrence:
    """One call of a step or group in a body, or a ref derived from one."""

    __slots__ = ("blocking", "group_call", "target")

    def __init__(self, target: Node | Group, *, blocking: bool, group_call: "CallOccurrence | None" = None) -> None:
        self.target = target
        self.blocking = blocking
        self.group_call = group_call
        """The call of a group that a non-blocking ref came from: it stays called."""

    def derived(self, node: Node, *, blocking: bool) -> "CallOccurrence":
        """The occurrence that takes this one's place in the body being traced."""
        new = CallOccurrence(node, blocking=blocking)
        frame = current_frame()
        if frame is not None:
            if self.target.is_group and not blocking:
                # The group stays called, for its other members; nothing waits for it.
                new.group_call = self
                frame.touched |= {self, (self, node)}
            else:
                frame.replaced.add(self)
            frame.occurrences.append(new)
        return new

    def redirected(self, old: Node, new: Node) -> "CallOccurrence":
        """The occurrence of a ref to ``old`` that writes elsewhere, as ``new``.

        A group that this body called stays called, with ``new`` among its members in the place of ``old``.
        """
        frame = current_frame()
        call = self if self.group_call is None else self.group_call
        if frame is None or not isinstance(call.target, Group) or call not in frame.occurrences:
            return self.derived(new, blocking=self.blocking)
        before, call.target = call.target, call.target.with_step(old, new)
        if call is not self:
            return self.derived(new, blocking=self.blocking)
        if call.target is before:  # Redirected before: this is one more step.
            frame.occurrences.append(CallOccurrence(new, blocking=self.blocking))
            return frame.occurrences[-1]
        return self


class GivenRef(NamedTuple):
    """A ref among the arguments of the step whose body is traced."""

    occurrence: Any
    target: Node | Group
    blocking: bool


def refs_in(found: Iterable[Found]) -> list[StepOutput]:
    """The refs to steps among what was found, those of artifacts included."""
    refs: list[StepOutput] = []
    for leaf, _, _ in found:
        kind = class_of(leaf)
        if kind is StepOutput:
            refs.append(leaf)
        elif kind is StepArtifact:
            refs.append(source_of(leaf))
    return refs


def given_refs(found: Iterable[Found]) -> list[GivenRef]:
    """The refs among a step's arguments, each once."""
    given = [GivenRef(ref.occurrence, ref.node, ref.blocking) for ref in refs_in(found)]
    return given if len(given) < 2 else list(dict.fromkeys(given))


class Frame:
    """A body being traced; the outermost frame of a trace stands for the caller."""

    __slots__ = (
        *("arguments", "calls", "depth", "edges", "is_open", "location", "occurrences", "output_location"),
        *("parent", "replaced", "scope", "touched", "trace", "used"),
    )

    def __init__(self, trace: "Trace", parent: "Frame | None", scope: Scope, location: Location) -> None:
        self.trace = trace
        self.parent = parent
        self.scope = scope
        self.location = location
        self.is_open = True
        """Whether its body is still running; a context that was copied from it may outlive it."""
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.calls: list[Call] = []
        self.edges: list[Edge] = []
        self.arguments: list[GivenRef] = []
        """The refs among the step's arguments."""
        self.occurrences: list[CallOccurrence] = []
        """What the body called or derived, in order."""
        self.used: list[Node | Group] = []
        """What recorded calls read, in order."""
        self.touched: set[Any] = set()
        """Occurrences that were used or passed on; for a ref that came through a group, with its step."""
        self.replaced: set[CallOccurrence] = set()
        self.output_location: Location | None = None
        """The first use of ``output()``, for the error about it in a group."""

    @property
    def is_root(self) -> bool:
        """Whether this is no step's body."""
        return self.parent is None

    def call_chain(self) -> list[str]:
        """The steps being traced, outermost first, each with the line that called it."""
        chain: list[str] = []
        frame: Frame | None = self
        while frame is not None and not frame.is_root:
            chain.append(f"{frame.scope.name}  {frame.location}")
            frame = frame.parent
        return chain[::-1]

    def own_output(self) -> OwnOutput:
        """The ref to the output of the step whose body this is."""
        if self.output_location is None:
            self.output_location = user_location(skip=1)
        return OwnOutput(self.scope)

    def record_call(self, call: Call) -> None:
        """Adds a call, and the edges that its arguments leave; a call that is refused leaves nothing.

        Raises:
            LeakedRefError: An argument belongs to another step.
            GroupError: An argument is a group that returned nothing.
        """
        used = [found for found in call.found if self._is_use(found.leaf, call.location)]
        self.calls.append(call)
        for found in used:
            self._add_use(found)

    def _is_use(self, leaf: Any, location: Location) -> bool:
        """Whether a leaf leaves an edge; refuses what may not be used here."""
        kind = class_of(leaf)
        if kind is StepOutput:
            leaf.step_node()
            return True
        if kind is DeferredResult or (kind is OwnOutput and leaf.scope is not self.scope):
            self.check_is_own(leaf, location)
        return kind is StepArtifact

    def touch(self, ref: StepOutput) -> None:
        """Notes that a ref was used, or passed on."""
        self.touched.add(ref.occurrence)
        if ref.group is not None:
            self.touched.add((ref.occurrence, ref.node))

    def _add_use(self, found: Found) -> None:
        leaf = found.leaf
        ref: StepOutput = leaf if class_of(leaf) is StepOutput else source_of(leaf)
        node = ref.step_node()
        self.touch(ref)
        self.used.append(node)
        self.edges.append(Edge(_kind_of_use(found, ref), node, found.path))

    def check_is_own(self, leaf: Any, location: Location) -> None:
        """Refuses a deferred result or an own output of another body.

        Raises:
            LeakedRefError: ``leaf`` belongs to another step.
        """
        scope = leaf.scope if isinstance(leaf, OwnOutput) else source_of(leaf).scope
        if scope is self.scope:
            return
        made = None if isinstance(leaf, OwnOutput) else source_of(leaf).location
        raise LeakedRefError(
            explain(
                f"{leaf!r} was used in the body of {self.scope.name}: it belongs to {scope.name}",
                at=location,
                facts={} if made is None else {"made at": made},
                hint="return it from its step, and use ref.artifact (the value) or ref (the path) here",
            )
        )

    def touch_arguments(self, found: Iterable[Found]) -> None:
        """Notes what was passed to another step: from here on that step answers for it."""
        for ref in refs_in(found):
            self.touch(ref)

    def check_arguments_of_step(self, found: Iterable[Found], step: str, location: Location) -> None:
        """Refuses what may not be passed to another step.

        Raises:
            LeakedRefError: A deferred result or an own output is among it.
        """
        for leaf, path, _ in found:
            match leaf:
                case DeferredResult():
                    raise LeakedRefError(
                        explain(
                            f"{leaf!r} was passed to the step {step}: a deferred result never leaves its body",
                            at=location,
                            facts={"argument": path, "made at": source_of(leaf).location},
                            hint="return it, and pass ref.artifact to the other step; or call both in one body",
                        )
                    )
                case OwnOutput():
                    raise LeakedRefError(
                        explain(
                            f"output() was passed to the step {step}: another step cannot write or read it yet",
                            at=location,
                            facts={"argument": path},
                            hint=f"in {step}, write output() to mean its own path; to read this step's output there, "
                            "pass the ref that its call returns",
                        )
                    )
                case _:
                    pass

    def leftover_edges(self) -> tuple[Edge, ...]:
        """The edges of what the body called, and neither used, passed on nor replaced."""
        if not self.occurrences:
            return ()
        return tuple([_leftover(o) for o in self.occurrences if o not in self.touched and o not in self.replaced])

    def leftover_argument_edges(self) -> tuple[Edge, ...]:
        """The same for the refs that the body was given."""
        if not self.arguments:
            return ()
        return tuple([_leftover(given) for given in self.arguments if self._is_left_over(given)])

    def _is_left_over(self, given: GivenRef) -> bool:
        occurrence = given.occurrence
        came_through_group = occurrence.target is not given.target
        is_touched = ((occurrence, given.target) if came_through_group else occurrence) in self.touched
        return not is_touched and occurrence not in self.replaced

    def members(self) -> tuple[Node | Group, ...]:
        """What the body called, in order; a replaced call counts as what replaced it."""
        return tuple(dict.fromkeys(o.target for o in self.occurrences if o not in self.replaced))

    def called(self) -> tuple[Node | Group, ...]:
        """What a walk of the graph visits before this step, in trace order."""
        arguments = [given.target for given in self.arguments]
        if not self.occurrences:
            return tuple(dict.fromkeys([*arguments, *self.used]))
        return tuple(dict.fromkeys([*arguments, *self.members(), *self.used]))


def _kind_of_use(found: Found, ref: StepOutput) -> EdgeKind:
    if not ref.blocking:
        return EdgeKind.NONBLOCKING
    return EdgeKind.DATA if found.versioned else EdgeKind.ORDERING


def _leftover(occurrence: CallOccurrence | GivenRef) -> Edge:
    return Edge(EdgeKind.ORDERING if occurrence.blocking else EdgeKind.NONBLOCKING, occurrence.target)


class Trace:
    """What one outermost call records: the memo, the finished nodes, and all findings about them."""

    __slots__ = ("deepest", "findings", "memo", "nodes")

    def __init__(self) -> None:
        self.memo: dict[Any, Any] = {}
        self.nodes: list[Node | Group] = []
        """Finished, in post-order; only those made by this trace."""
        self.findings: list[Any] = []
        """Complaints that do not stop the tracing, so that all of them can be said at once."""
        self.deepest = 0

    def mark(self) -> tuple[int, int, int]:
        """How much there is of each, for :meth:`forget_since`."""
        return len(self.memo), len(self.nodes), len(self.findings)

    def forget_since(self, mark: tuple[int, int, int]) -> None:
        """Drops what was recorded since, since the call that recorded it has raised: a later one begins anew."""
        calls, nodes, findings = mark
        while len(self.memo) > calls:
            self.memo.popitem()
        del self.nodes[nodes:], self.findings[findings:]


_frame: ContextVar[Frame | None] = ContextVar("marin_trace_open_frame", default=None)


def current_frame() -> Frame | None:
    """The body being traced in this context, or None outside any trace.

    Raises:
        TraceError: The context was copied in a body that has ended: what is called in it would be lost.
    """
    frame = _frame.get()
    if frame is not None and not frame.is_open:
        raise TraceError(
            explain(
                f"a step or deferred function was called in a context of {frame.scope.name}, whose body has ended",
                at=user_location(),
                facts={"body": f"{frame.scope.name}  {frame.location}"},
                hint="wait in the body for the threads and tasks that it starts",
            )
        )
    return frame


class _OpenTraces:
    """How many traces are open in the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def __bool__(self) -> bool:
        return self._count > 0

    def add(self, change: int) -> None:
        with self._lock:
            self._count += change


open_traces: Final = _OpenTraces()


@contextmanager
def opened_trace(name: str, location: Location) -> Generator[Frame]:
    """Opens a trace whose root frame stands for the caller; findings are raised when the block ends well.

    Raises:
        TraceError: The steps nest deeper than Python's recursion limit.
    """
    trace = Trace()
    frame = Frame(trace, None, Scope(name, None, name), location)
    token = _frame.set(frame)
    open_traces.add(1)
    try:
        with collector_paused():
            yield frame
    except RecursionError as error:
        if recurses_in_user_code(error):
            raise
        raise _too_deep(trace, location) from error
    finally:
        open_traces.add(-1)
        frame.is_open = False
        _frame.reset(token)
        trace.memo.clear()


def _too_deep(trace: Trace, location: Location) -> TraceError:
    if trace.deepest < 10:
        return TraceError(
            explain(
                "a config nests deeper than Python's recursion limit, or contains itself",
                at=location,
                hint="break the cycle: a config is a tree",
            )
        )
    return TraceError(
        explain(
            f"steps call each other {trace.deepest} deep, which reaches Python's recursion limit",
            at=location,
            hint="call the producer first and pass its ref: data = stage(); data = stage(data)",
        )
    )


def traced_body(frame: Frame, body: Callable[..., Tree], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Runs a body with ``frame`` open."""
    token = _frame.set(frame)
    try:
        return body(*args, **kwargs)
    finally:
        frame.is_open = False
        _frame.reset(token)
