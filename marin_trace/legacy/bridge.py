"""The bridge: a step of the older kind as a node of a graph, so that everything here works on it.

The node has one call, ``fn(config)``, with refs in the place of what the older API put into the config; it is known by
its version instead of by that call, and writes where the older executor wrote.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, final

from marin_trace.errors import ConfigTypeError, CycleError, UnstableValueError, explain
from marin_trace.ir.config_tree import Found, Path, Record, flatten, materialise
from marin_trace.ir.functions import function_identity, hidden_by_ray, unwrapped
from marin_trace.ir.graph import (
    Call,
    CallHandle,
    Edge,
    EdgeKind,
    ForeignRecipe,
    FunctionRef,
    Node,
    Options,
    Scope,
    checked_override,
)
from marin_trace.ir.markers import KeptMarkers
from marin_trace.ir.names import checked_output_name
from marin_trace.ir.refs import OwnOutput, StepOutput
from marin_trace.ir.signatures import CallPlan
from marin_trace.legacy.steps import ExecutorStep, OutputName, VersionedValue
from marin_trace.legacy.version import StepVersion, hash_of, readable_parts, version_of, version_text
from marin_trace.workers.resources import ResourceConfig

__all__ = ["LegacyOccurrence", "node_of"]


def _of_config(config: Any) -> None:
    """Stands for the parameters of every function of the older kind."""


_PLAN: Final = CallPlan(_of_config)


@final
class LegacyOccurrence:
    """One step of the older kind, or a ref derived from one: it was made, not called, so no body answers for it."""

    __slots__ = ("blocking", "target")

    def __init__(self, target: Node, *, blocking: bool) -> None:
        self.target = target
        self.blocking = blocking

    def derived(self, node: Node, *, blocking: bool) -> "LegacyOccurrence":
        """The occurrence of a ref derived by ``.nonblocking()``."""
        return LegacyOccurrence(node, blocking=blocking)

    def redirected(self, old: Node, new: Node) -> "LegacyOccurrence":
        """The occurrence of a ref derived by ``.with_output_path()``."""
        return LegacyOccurrence(new, blocking=self.blocking)


def node_of(step: ExecutorStep[Any]) -> Node:
    """What a step is in a graph; `ExecutorStep.node` remembers it. The steps that it reads get theirs first.

    Raises:
        ConfigError: A config holds what has no version.
        StepNameError: A name or override is not safe.
        CycleError: Configs that were changed since lead in a circle.
    """
    versions = _versions(step)
    for current, version in versions.items():
        if current is not step:
            vars(current)["node"] = _node(current, version)
    return _node(step, versions[step])


def _versions(step: ExecutorStep[Any]) -> dict[ExecutorStep[Any], StepVersion]:
    """The versions of a step and of all below it that have no node yet, those that are read first. No recursion."""
    done: dict[ExecutorStep[Any], StepVersion] = {}
    open_versions: dict[ExecutorStep[Any], StepVersion] = {}
    stack = [step]
    while stack:
        current = stack[-1]
        if current in done:
            stack.pop()
            continue
        if current in open_versions:
            done[current] = open_versions.pop(current)
            continue
        version = version_of(current.config, step=current.name, location=current.location)
        open_versions[current] = version
        read = [reference.step for reference in version.references]
        below = [one for one in read if isinstance(one, ExecutorStep) and "node" not in vars(one) and one not in done]
        if any(one in open_versions for one in below):
            raise CycleError(explain(f"{current.name} needs itself", at=current.location))
        stack += reversed(below)
    return done


def _node(step: ExecutorStep[Any], version: StepVersion) -> Node:
    checked_output_name(step.name, at=step.location)
    text = version_text(step.name, version)
    scope = Scope(step.name, None, step.name)
    function = FunctionRef(_plain_function(step.fn), _identity(step.fn), _label(step.fn))
    arguments, found = _arguments(step.config, scope)
    call = Call(function, arguments, 1, CallHandle(0, function.label, scope, step.location), tuple(found))
    edges = tuple(
        Edge(EdgeKind.DATA if leaf.blocking else EdgeKind.NONBLOCKING, leaf.step_node(), path)
        for leaf, path, _ in found
        if isinstance(leaf, StepOutput)
    )
    read = [
        reference.step.node if isinstance(reference.step, ExecutorStep) else reference.step
        for reference in version.references
    ]
    return Node(
        name=step.name,
        calls=(call,),
        returned=None,
        edges=edges,
        options=_options(step, f"{step.name}-{hash_of(text)}"),
        location=step.location,
        scope=scope,
        called=tuple(dict.fromkeys(read)),
        foreign=_recipe(text, readable_parts(step.name, version, read), read),
    )


def _recipe(text: str, parts: dict[str, str], read: Sequence[Node]) -> ForeignRecipe:
    depth = 1 + max((node.foreign.depth for node in read if node.foreign is not None), default=0)
    return ForeignRecipe(text, hashlib.sha256(text.encode()).hexdigest(), parts, depth)


def _arguments(config: Any, scope: Scope) -> tuple[Record, list[Found]]:
    """The config as a call's arguments, with refs in the place of what the older API put into it."""
    kept = flatten(config, KeptMarkers(), None, versioned=False)
    found: list[Found] = []
    path = Path(None, "config", "field", _PLAN)
    return Record(_PLAN, (flatten(materialise(kept, partial(_ref, scope)), found, path, versioned=False),)), found


def _ref(scope: Scope, leaf: Any) -> Any:
    match leaf:
        case OutputName():
            return OwnOutput(scope, leaf.name or "")
        case VersionedValue():
            inner = flatten(leaf.value, KeptMarkers(), None, versioned=False)  # pyright: ignore[reportUnknownMemberType]
            return materialise(inner, partial(_ref, scope))
        case _:
            # A step or input name becomes a ref when the config is flattened again; a ref is one.
            return leaf


def _options(step: ExecutorStep[Any], own_path: str) -> Options:
    groups, resources = step.pip_dependency_groups, step.resources
    if isinstance(groups, str) or not (resources is None or isinstance(resources, ResourceConfig)):
        raise ConfigTypeError(
            explain(
                f"{step.name} has options that cannot be used",
                at=step.location,
                facts={"pip_dependency_groups": groups, "resources": resources},
                hint='pip_dependency_groups=["cpu"], resources=ResourceConfig.with_cpu(8)',
            )
        )
    override = own_path if step.override_output_path is None else step.override_output_path
    return Options(
        description=step.description,
        resources=resources,
        pip_dependency_groups=tuple(groups) if groups else None,
        override_output_path=checked_override(override, at=step.location),
    )


def _nothing(config: Any) -> None:
    """Runs where a step has no function."""


def _plain_function(fn: Callable[..., Any] | None) -> Callable[..., Any]:
    if fn is None:
        return _nothing
    return hidden_by_ray(fn)


def _identity(fn: Callable[..., Any] | None) -> str:
    """How the record names the function: it is no part of the version, so any will do."""
    plain = unwrapped(_plain_function(fn)).function
    try:
        return function_identity(plain)
    except UnstableValueError:
        return f"{getattr(plain, '__module__', None)}:{getattr(plain, '__qualname__', plain)}"


def _label(fn: Callable[..., Any] | None) -> str:
    plain = unwrapped(_plain_function(fn)).function
    return getattr(plain, "__name__", type(plain).__name__)
