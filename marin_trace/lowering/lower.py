"""``lower``: a graph to StepSpecs."""

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, final

from marin_trace.errors import ConfigTypeError, FingerprintChangedError, explain
from marin_trace.ir.canonical import fingerprints
from marin_trace.ir.collector import collector_paused
from marin_trace.ir.graph import Call, EdgeKind, Graph, Group, Node, graph_of_refs
from marin_trace.ir.location import Location
from marin_trace.ir.passes.inline_groups import inline_groups
from marin_trace.ir.passes.merge_equal_steps import merge_equal_steps
from marin_trace.ir.refs import StepRef
from marin_trace.ir.typecheck import becomes_path_object
from marin_trace.ir.verifier import verify
from marin_trace.lowering.body import LoweredBody
from marin_trace.lowering.paths import check_conflicts, name_with_hash, normal_prefix, path_below
from marin_trace.lowering.recipe import recipe_parts
from marin_trace.lowering.step_spec import StepSpec
from marin_trace.runtime.prefix import current_prefix, use_prefix


@final
@dataclass(frozen=True, slots=True)
class Lowered:
    """A lowered graph, with the way back to the traced one."""

    traced: Graph
    """As it was given."""
    graph: Graph
    """As it was lowered: merged, without groups; its roots are what a run is asked for."""
    specs: list[StepSpec]
    """One per step of ``graph``, in its order."""
    spec_by_node: dict[Node, StepSpec]
    """For the steps of ``graph`` and of the graph that was given."""


@final
@dataclass(frozen=True, slots=True)
class PinnedFingerprint:
    """What is known of a pin that no longer fits; on the error, for whoever can read the pinned output."""

    summary: str
    location: Location
    parts: dict[str, str]
    pinned_name: str
    """Name and hash of the output that was pinned."""
    hint: str


def lower(graph_or_refs: Any, *, prefix: str | None = None) -> list[StepSpec]:
    """Lowers a graph to StepSpecs.

    **Phase**: lower time; no I/O.

    Args:
        graph_or_refs: What ``trace`` returned; or a ref, what a group returned, or a tree of them.
        prefix: Where the outputs lie; None: under the prefix of the run.

    Returns:
        One spec per step, producers first, groups left out; steps that are equal are one.

    Raises:
        GraphError: Steps contradict each other: a cycle, two recipes for one path, two options for one step.
        FingerprintChangedError: A step that pins its fingerprint has another one.
        ConfigTypeError: A function wants a ``pathlib.Path`` of something on an object store.

    Example:
        >>> from marin_trace import deferred, lower, output, step, trace
        >>> def touch(path: str) -> None: ...
        >>> @step
        ... def make():
        ...     return deferred(touch)(output())
        >>> [spec.name for spec in lower(trace(make), prefix="/data")]
        ['make']
    """
    graph = graph_or_refs if isinstance(graph_or_refs, Graph) else graph_of_refs(graph_or_refs)
    return lower_graph(graph, prefix=prefix).specs


def lower_graph(graph: Graph, *, prefix: str | None = None) -> Lowered:
    """Lowers a graph, keeping track of which step became which spec; see :func:`lower`."""
    with collector_paused():
        return _lowered(graph, None if prefix is None else normal_prefix(prefix))


def _lowered(graph: Graph, chosen: str | None) -> Lowered:
    verify(graph)
    traced_fingerprints = fingerprints(graph.nodes)
    flat = inline_groups(merge_equal_steps(graph, traced_fingerprints))
    same = flat.nodes is graph.nodes or all(node in traced_fingerprints for node in flat.nodes)
    fingerprint_by_node = traced_fingerprints if same else fingerprints(flat.nodes)
    spec_by_node: dict[Node, StepSpec] = {}
    spec_of_node = spec_by_node.__getitem__

    def path_below_prefix(path: str) -> str:
        return path_below(current_prefix() if chosen is None else chosen, path)

    specs: list[StepSpec] = []
    for node in flat.nodes:
        fingerprint = fingerprint_by_node[node]
        if node.options.expect_fingerprint is not None:
            _check_pin(node, fingerprint, spec_by_node)
        waits, beside, weak = _dependencies(node, spec_by_node)
        spec = StepSpec(
            node.name,
            waits,
            {},
            LoweredBody(node, spec_of_node, path_below_prefix),
            chosen,
            node.override_output_path,
            _fingerprint=fingerprint,
            _nonblocking=beside,
            _order_only=weak,
            _options=node.options,
            _location=node.location,
        )
        spec_by_node[node] = spec
        specs.append(spec)
    with nullcontext(chosen) if chosen is not None else use_prefix(current_prefix()) as base:
        check_conflicts(specs, base)
        _check_path_objects(flat.nodes, spec_by_node, path_below_prefix)
    if flat is not graph:
        spec_by_key = {(spec.fingerprint, spec.override_output_path): spec for spec in specs}
        for node in graph.nodes:
            spec_by_node[node] = spec_by_key[traced_fingerprints[node], node.override_output_path]
    return Lowered(graph, flat, specs, spec_by_node)


def _dependencies(
    node: Node, spec_by_node: dict[Node, StepSpec]
) -> tuple[list[StepSpec], tuple[StepSpec, ...], tuple[StepSpec, ...]]:
    """What a step waits for, what it only brings in, and what it only waits for."""
    edges = node.edges
    if not edges:
        return [], (), ()
    if len(edges) == 1 and edges[0].kind is EdgeKind.DATA:
        return [spec_by_node[edges[0].producer]], (), ()  # pyright: ignore[reportArgumentType]
    kinds: dict[Node | Group, set[EdgeKind]] = {}
    for edge in edges:
        kinds.setdefault(edge.producer, set()).add(edge.kind)
    waits: list[StepSpec] = []
    beside: list[StepSpec] = []
    weak: list[StepSpec] = []
    for producer, found in kinds.items():
        spec = spec_by_node[producer]  # pyright: ignore[reportArgumentType]
        if EdgeKind.DATA in found or EdgeKind.ORDERING in found:
            waits.append(spec)
            continue
        if EdgeKind.NONBLOCKING in found:
            beside.append(spec)
        if EdgeKind.WEAK_ORDERING in found:
            waits.append(spec)
            weak.append(spec)
    return waits, tuple(beside), tuple(weak)


def _check_pin(node: Node, fingerprint: str, spec_by_node: dict[Node, StepSpec]) -> None:
    expected = node.options.expect_fingerprint
    if expected is None or fingerprint.startswith(expected):
        return
    pin = PinnedFingerprint(
        summary=f"{node.name} has the fingerprint {fingerprint[: len(expected)]}, and pins {expected}",
        location=node.location,
        parts=recipe_parts(node, lambda producer: spec_by_node[producer].name_with_hash),
        pinned_name=name_with_hash(node.name, expected),
        hint=f'undo the change, or accept it: expect_fingerprint="{fingerprint[:8]}"',
    )
    error = FingerprintChangedError(explain(pin.summary, at=pin.location, facts=pin.parts, hint=pin.hint))
    error.pin = pin
    raise error


def _check_path_objects(nodes: Iterable[Node], spec_by_node: dict[Node, StepSpec], below_prefix: Any) -> None:
    """Refuses a ref to an object store where a function takes a ``pathlib.Path``, which only a local disk has."""
    for node in nodes:
        for call in node.calls if node.foreign is None else ():
            for found in call.found:
                if found.path is not None and isinstance(found.leaf, StepRef) and becomes_path_object(found.path):
                    _check_path_object(node, call, found.leaf, str(found.path), spec_by_node)


def _check_path_object(
    node: Node, call: Call, ref: StepRef, config_path: str, spec_by_node: dict[Node, StepSpec]
) -> None:
    body = spec_by_node[node].fn
    assert isinstance(body, LoweredBody)
    path = body.path_of(ref)
    if "://" in path and not path.startswith("file://"):
        raise ConfigTypeError(
            explain(
                f"{call.function.label}({config_path}) is annotated to take a pathlib.Path, and would get {path}",
                at=call.location,
                facts={"step": node.name},
                hint="annotate it as str, and open it with fsspec",
            )
        )
