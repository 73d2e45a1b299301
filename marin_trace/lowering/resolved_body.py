"""What of a lowered body travels to another process: its calls, with paths in the place of refs.

A job's process imports this module, and so it needs neither the graph nor what lowers one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path as LocalPath
from typing import Any, final

from marin_trace.io import local_path
from marin_trace.ir.config_tree import Record, StandIn, Tree
from marin_trace.ir.interpreter import below, run_body
from marin_trace.ir.refs import ProjectionStep, project

__all__ = ["OwnPath", "ResolvedArtifact", "ResolvedBody", "ResolvedPath", "ResolvedResult"]


@final
@dataclass(frozen=True, slots=True)
class OwnPath(StandIn):
    """The step's own output path, or a path below it."""

    subpath: str
    as_object: bool


@final
@dataclass(frozen=True, slots=True)
class ResolvedPath(StandIn):
    """A path of somebody else's."""

    path: str
    as_object: bool
    """Whether the function is annotated to take a ``pathlib.Path``, not a ``str``."""


@final
@dataclass(frozen=True, slots=True)
class ResolvedArtifact(StandIn):
    """What another step returned, to be loaded from its output."""

    output_path: str
    artifact_type: Any
    steps: tuple[ProjectionStep, ...]


@final
@dataclass(frozen=True, slots=True)
class ResolvedResult(StandIn):
    """What an earlier call of the same body returned."""

    index: int
    steps: tuple[ProjectionStep, ...]


@final
@dataclass(frozen=True, slots=True)
class ResolvedBody:
    """The calls of one step, with paths in the place of refs. Pickles, where its functions and plain values do."""

    calls: tuple[tuple[Callable[..., Any], Record], ...]
    returned: Tree

    def __call__(self, output_path: str) -> Any:
        """Makes the calls. **Phase**: run time.

        Args:
            output_path: The step's own.

        Returns:
            The artifact: what the body returned.
        """
        artifacts: dict[str, Any] = {}

        def value_of(leaf: Any, results: Sequence[Any]) -> Any:
            match leaf:
                case OwnPath():
                    return _path_value(below(output_path, leaf.subpath), as_object=leaf.as_object)
                case ResolvedPath():
                    return _path_value(leaf.path, as_object=leaf.as_object)
                case ResolvedResult():
                    return project(results[leaf.index], leaf.steps)
                case ResolvedArtifact():
                    return project(_loaded(leaf, artifacts), leaf.steps)
                case _:
                    raise AssertionError(f"not lowered: {type(leaf)}")

        return run_body(self.calls, self.returned, value_of)


def _path_value(path: str, *, as_object: bool) -> Any:
    return LocalPath(local_path(path)) if as_object else path


def _loaded(leaf: ResolvedArtifact, artifacts: dict[str, Any]) -> Any:
    from marin_trace.runtime.artifact import Artifact

    if leaf.output_path not in artifacts:
        wanted = None if leaf.artifact_type is Any else leaf.artifact_type
        artifacts[leaf.output_path] = Artifact.load(leaf.output_path, wanted)
    return artifacts[leaf.output_path]
