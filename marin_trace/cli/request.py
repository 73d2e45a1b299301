"""What ``executor_main`` was asked for: from what ``steps=`` holds, and its flags, to the steps of a run. Runs nothing.

A command that works on an experiment file listens (`listening`): ``executor_main`` then hands over the request instead
of running it.
"""

import dataclasses
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, cast, final

from marin_trace.cli.flags import ExecutorFlags
from marin_trace.errors import (
    ConfigTypeError,
    FingerprintChangedError,
    FlagError,
    explain,
)
from marin_trace.ir.config_tree import short_repr
from marin_trace.ir.functions import main_module
from marin_trace.ir.graph import Graph, Node, graph_of_refs
from marin_trace.ir.location import Location, user_location
from marin_trace.ir.markers import Marker
from marin_trace.ir.passes.select import NamedStep, matching, matching_steps, selected
from marin_trace.ir.refs import HardcodedPath, StepOutput, StepRef
from marin_trace.lowering.body import ResolvedRef
from marin_trace.lowering.lower import Lowered, lower_graph
from marin_trace.lowering.paths import check_conflicts, path_below
from marin_trace.lowering.step_spec import StepSpec
from marin_trace.planning.plan import readers_of
from marin_trace.runtime.options import RunOptions
from marin_trace.runtime.prefix import use_prefix
from marin_trace.runtime.records import field_differences, read_step_info
from marin_trace.runtime.run_plan import RunnableStep, collect_steps
from marin_trace.runtime.schedule import wanted
from marin_trace.storage.files import join
from marin_trace.workers.client import current_client
from marin_trace.workers.clusters import client_named

__all__ = ["RunRequest", "listener", "listening", "request_for"]


@final
@dataclass(frozen=True, slots=True)
class RunRequest:
    """One call of ``executor_main``, understood. Nothing of the store has been read."""

    flags: ExecutorFlags
    description: str | None
    """The flag's, else what the call says."""
    prefix: str
    """Normalised."""
    lowered: Lowered
    """All that was asked for."""
    chosen: Lowered
    """What ``--run_only`` leaves of it; the same without that flag."""
    roots: tuple[StepSpec, ...]
    """What is to be finished."""
    steps: Mapping[str, RunnableStep]
    """Everything that the roots bring in, by output path, dependencies first."""
    location: Location
    """The user's line of the call."""
    experiment: str | None
    """The main script's module; None in a notebook."""

    def forced(self) -> dict[str, str | None]:
        """The output paths to build again; with the forced step that they read, where that is why.

        Raises:
            FlagError: An expression matches nothing, or only what ``--run_only`` or ``--until`` leave out.
        """
        forced: dict[str, str | None] = {}
        for flag, patterns in (("--force", self.flags.force), ("--force_from", self.flags.force_from)):
            if not patterns:
                continue
            paths = {path for pattern in patterns for path in self._matched(pattern, flag)}
            reached = readers_of(self.steps, paths) if flag == "--force_from" else dict.fromkeys(paths)
            forced |= {path: through for path, through in reached.items() if path not in forced}
        return {path: forced[path] for path in self.steps if path in forced}

    def _matched(self, pattern: str, flag: str) -> set[str]:
        # In all that was asked for, so that groups are found that --run_only has inlined.
        found = matching_steps(self.lowered.traced, [pattern], flag=flag, others=list(self.steps.values()))
        paths = {self.lowered.spec_by_node[node].output_path for node in found.nodes}
        paths |= {step.output_path for step in _as_specs(found.others)}
        if paths.isdisjoint(self.steps):
            raise FlagError(explain(f"{flag} {pattern!r} matches only steps that --run_only or --until leave out"))
        return paths

    def options(self, forced: Mapping[str, int]) -> RunOptions:
        """The run's options.

        Args:
            forced: The epoch seen of each output that is to be built again.

        Raises:
            ResourcesUnavailableError: There is no such cluster.
            WorkerError: What it needs is not installed.
        """
        flags = self.flags
        # What a job raised has to reach this process: below the prefix, as steps' outputs do.
        outcomes = None if self.prefix.startswith("memory://") else join(self.prefix, ".jobs")
        return RunOptions(
            force_run_failed=flags.force_run_failed,
            forced=dict(forced),
            lease_seconds=flags.lease_seconds,
            fail_fast=flags.fail_fast,
            max_jobs=flags.max_jobs,
            allow_unsafe_store=flags.allow_unsafe_store,
            client=current_client() if flags.cluster is None else client_named(flags.cluster, outcomes=outcomes),
            prefix=self.prefix,
            records_path=flags.executor_info_base_path,
            description=self.description,
            experiment=self.experiment,
        )

    def resolve(self, step: Any) -> ResolvedRef:
        """What a ref, a spec or a step of the older kind stands for.

        Raises:
            ConfigTypeError: It is none of them.
        """
        match step:
            case Marker():
                return self.resolve(step.__marin_trace_value__())
            case StepOutput():
                spec = self._spec_of(step)
                path = f"{spec.output_path}/{step.subpath}" if step.subpath else spec.output_path
                return ResolvedRef(path, spec.artifact_type)
            case HardcodedPath():
                return ResolvedRef(path_below(self.prefix, step.path), None)
            case StepSpec():
                with use_prefix(self.prefix):
                    return ResolvedRef(step.output_path, step.artifact_type)
            case _:
                raise ConfigTypeError(explain(f"{short_repr(step)} is no step of this run", at=user_location()))

    def _spec_of(self, ref: StepOutput) -> StepSpec:
        node = ref.step_node()
        spec = self.lowered.spec_by_node.get(node)
        if spec is None:
            spec = lower_graph(graph_of_refs(ref), prefix=self.prefix).spec_by_node[node]
        return spec


_listeners: Final[list[Callable[[RunRequest], None]]] = []


def listener() -> Callable[[RunRequest], None] | None:
    """Who is told of a request instead of its being run."""
    return _listeners[-1] if _listeners else None


@contextmanager
def listening(tell: Callable[[RunRequest], None]) -> Generator[None, None, None]:
    """Within the block ``executor_main`` runs nothing, in whatever thread, and tells what it was asked for."""
    _listeners.append(tell)
    try:
        yield
    finally:
        _listeners.remove(tell)


def request_for(steps: Any, flags: ExecutorFlags, description: str | None, *, prefix: str) -> RunRequest:
    """Understands a call of ``executor_main``.

    **Phase**: lower time. Reads nothing, but the output that a pinned fingerprint names where the pin no longer fits.

    Args:
        steps: As the call has them.
        flags: The command line.
        description: What the call says.
        prefix: Normalised; the current one.

    Raises:
        MarinTraceError: The steps contradict each other, or the flags name none of them.
    """
    graph, specs = _requested(steps)
    lowered = _lowered(graph, prefix)
    chosen, roots = _selected(lowered, specs, flags, prefix)
    every_step = collect_steps(roots)
    if flags.until:
        roots = _until(roots, every_step, chosen, flags.until)
        every_step = collect_steps(roots)
    if specs:
        check_conflicts(every_step.values(), prefix)
    return RunRequest(
        flags=flags,
        description=flags.description or description,
        prefix=prefix,
        lowered=lowered,
        chosen=chosen,
        roots=tuple(roots),
        steps=every_step,
        location=user_location(),
        experiment=main_module(),
    )


def _requested(steps: Any) -> tuple[Graph, tuple[StepSpec, ...]]:
    """What ``steps=`` brings: the traced part as a graph, the rest as specs."""
    refs: list[StepRef] = []
    specs: list[StepSpec] = []
    for value in _leaves(steps):
        if isinstance(value, StepRef):
            refs.append(value)
        elif isinstance(value, StepSpec):
            specs.append(value)
        else:
            raise _not_a_step(value)
    graph = graph_of_refs(refs)
    if not graph.nodes and not specs:
        raise ConfigTypeError(
            explain(
                "executor_main was given no step",
                at=user_location(),
                facts={"groups": ", ".join(group.name for group in graph.groups)} if graph.groups else {},
                hint="executor_main(steps=[entry()]), where the body of entry calls steps",
            )
        )
    return graph, tuple(specs)


def _leaves(value: Any) -> Iterable[Any]:
    if isinstance(value, StepRef | StepSpec):
        yield value
    elif isinstance(value, Marker):
        yield from _leaves(value.__marin_trace_value__())
    elif isinstance(value, Mapping):
        for item in cast("Mapping[Any, Any]", value).values():
            yield from _leaves(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in cast("Iterable[Any]", value):
            yield from _leaves(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [getattr(value, entry.name) for entry in dataclasses.fields(value)]
        yield from (leaf for item in fields for leaf in _leaves(item) if isinstance(leaf, StepRef | StepSpec))
    else:
        yield value


def _not_a_step(value: Any) -> ConfigTypeError:
    name = getattr(value, "__name__", None)
    if value is None:
        hint = "decorate the function that returned it with @step, or return the refs of the steps that it calls"
    elif callable(value) and name:
        hint = f"call it: executor_main(steps=[{name}()])"
    else:
        hint = "executor_main(steps=[entry()])"
    return ConfigTypeError(
        explain(f"executor_main was given {short_repr(value)}, which is no step", at=user_location(), hint=hint)
    )


def _lowered(graph: Graph, prefix: str) -> Lowered:
    try:
        return lower_graph(graph, prefix=prefix)
    except FingerprintChangedError as error:
        raise _with_field_difference(error, prefix) from None


def _with_field_difference(error: FingerprintChangedError, prefix: str) -> FingerprintChangedError:
    """The error, with the fields that changed since the pinned output was built, where that is there to be read."""
    pin = error.pin
    info = read_step_info(join(prefix, pin.pinned_name)) if pin is not None else None
    if pin is None or info is None:
        return error
    changes = [str(change) for change in field_differences(info.get("parts") or {}, pin.parts)]
    return FingerprintChangedError(explain(pin.summary, at=pin.location, facts=changes, hint=pin.hint))


def _selected(
    lowered: Lowered, asked: tuple[StepSpec, ...], flags: ExecutorFlags, prefix: str
) -> tuple[Lowered, list[StepSpec]]:
    """What is to be run, and its roots: everything, or what ``--run_only`` names."""
    if not flags.run_only:
        return lowered, [*_roots(lowered), *asked]
    specs = list(collect_steps(asked).values())
    found = matching(lowered.traced, flags.run_only, flag="--run_only", others=specs)
    part = _lowered(selected(lowered.traced, found.nodes), prefix)
    return part, [*_roots(part), *_as_specs(found.others)]


def _until(
    roots: Iterable[StepSpec], steps: Mapping[str, RunnableStep], lowered: Lowered, patterns: Sequence[str]
) -> list[StepSpec]:
    """The roots of all that does not come after a match: what waits for one, or reads it, is left out."""
    found = matching_steps(lowered.traced, patterns, flag="--until", others=list(steps.values()))
    last = {lowered.spec_by_node[node].output_path for node in found.nodes}
    last |= {step.output_path for step in _as_specs(found.others)}
    needs = {path: [dep.output_path for dep in (*step.deps, *step.nonblocking_deps)] for path, step in steps.items()}
    later: set[str] = set()
    for path in steps:  # dependencies first
        if any(dep in last or dep in later for dep in needs[path]):
            later.add(path)
    # A match may come after another one: it is kept, with what lies between.
    kept = wanted(last, is_finished=lambda path: path not in steps, needs=needs.__getitem__)
    kept |= {path for path in steps if path not in later}
    ends = {dep for path in steps if path not in kept for dep in needs[path] if dep in kept}
    ends |= {root.output_path for root in roots if root.output_path in kept} | last
    return _as_specs(step for path, step in steps.items() if path in ends)


def _roots(lowered: Lowered) -> list[StepSpec]:
    return [lowered.spec_by_node[root] for root in lowered.graph.roots if isinstance(root, Node)]


def _as_specs(steps: Iterable[NamedStep]) -> list[StepSpec]:
    return [step for step in steps if isinstance(step, StepSpec)]
