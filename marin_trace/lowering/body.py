"""Bodies, lowered: what a step's own calls are once every ref has a path.

A :class:`LoweredBody` still holds the graph and finds paths when it runs (the prefix is read then); what travels to
another process is the :class:`ResolvedBody`, which holds paths only.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, final

from marin_trace.ir.config_tree import Path, Record, StandIn, Tree, substitute
from marin_trace.ir.graph import Node
from marin_trace.ir.interpreter import below
from marin_trace.ir.refs import (
    DeferredResult,
    HardcodedPath,
    OwnOutput,
    StepArtifact,
    StepOutput,
    StepRef,
    projection_steps,
    source_of,
)
from marin_trace.ir.typecheck import becomes_path_object
from marin_trace.lowering.paths import PlacedStep
from marin_trace.lowering.resolved_body import OwnPath, ResolvedArtifact, ResolvedBody, ResolvedPath, ResolvedResult


@final
@dataclass(frozen=True, slots=True)
class ResolvedRef:
    """What a ref stands for: a path, and what was returned by the step that made it."""

    output_path: str
    artifact_type: Any
    """None where it is not annotated."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class LoweredBody:
    """The ``fn`` of a lowered step."""

    node: Node
    spec_of_node: Callable[[Node], PlacedStep]
    """The lowered form of a step of the same graph."""
    path_below_prefix: Callable[[str], str]
    """Where a relative hardcoded path lies."""

    def path_of(self, ref: StepRef, adopted: Mapping[str, str] = MappingProxyType({})) -> str:
        """The path that a ref stands for (of the step's own output too).

        Args:
            ref: Of the step's graph.
            adopted: Outputs whose data lies elsewhere, with where.
        """
        if isinstance(ref, HardcodedPath):
            return self.path_below_prefix(ref.path)
        assert isinstance(ref, StepOutput | OwnOutput)
        node = ref.step_node() if isinstance(ref, StepOutput) else self.node
        output_path = self.spec_of_node(node).output_path
        return below(adopted.get(output_path, output_path), ref.subpath)

    def resolved(self, adopted: Mapping[str, str] = MappingProxyType({})) -> ResolvedBody:
        """The body with today's paths in it.

        Args:
            adopted: Outputs whose data lies elsewhere, with where.
        """
        stand_in = partial(self._stand_in, adopted)
        calls = tuple(
            (call.function.function, _arguments(substitute(call.arguments, stand_in))) for call in self.node.calls
        )
        return ResolvedBody(calls, substitute(self.node.returned, stand_in))

    def _stand_in(self, adopted: Mapping[str, str], leaf: Any, path: Path | None) -> StandIn:
        takes_paths = path is not None and isinstance(leaf, StepRef) and becomes_path_object(path)
        as_object = takes_paths and self.node.foreign is None
        match leaf:
            case OwnOutput():
                return OwnPath(leaf.subpath, as_object)
            case StepOutput() | HardcodedPath():
                return ResolvedPath(self.path_of(leaf, adopted), as_object)
            case DeferredResult():
                return ResolvedResult(source_of(leaf).index, projection_steps(leaf))
            case StepArtifact():
                source = source_of(leaf)
                artifact_type = source.step_node().artifact_type
                return ResolvedArtifact(self.path_of(source, adopted), artifact_type, projection_steps(leaf))
            case _:
                raise AssertionError(f"not a traced leaf: {type(leaf)}")

    def __call__(self, output_path: str) -> Any:
        """Runs the body in this thread; see :meth:`ResolvedBody.__call__`."""
        return self.resolved()(output_path)

    def __reduce__(self) -> tuple[Any, ...]:
        resolved = self.resolved()
        return (ResolvedBody, (resolved.calls, resolved.returned))


def _arguments(tree: Tree) -> Record:
    """A call's arguments, which substitution keeps a record."""
    assert isinstance(tree, Record)
    return tree
