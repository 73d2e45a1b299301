"""Which steps a run is made of and which of them must run: decided once, from one snapshot of all statuses."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, final

from marin_trace.errors import CycleError, FingerprintMismatchError, OutputConflictError, RunError, explain
from marin_trace.runtime.executable import Executable
from marin_trace.runtime.options import RunOptions
from marin_trace.runtime.records import field_differences, read_step_info
from marin_trace.runtime.redaction import redact_parts
from marin_trace.runtime.schedule import find_cycle, post_order, wanted
from marin_trace.runtime.status import StepStatus, adopted_outputs, read_statuses

__all__ = ["RunPlan", "RunnableStep", "brought_by", "collect_steps", "plan_run"]

logger = logging.getLogger(__name__)

_NAMED_IN_A_WARNING: Final = 5
_SHOWN_CHANGES: Final = 10


class RunnableStep(Protocol):
    """What the runner needs to know of a step."""

    @property
    def name(self) -> str: ...

    @property
    def name_with_hash(self) -> str: ...

    @property
    def output_path(self) -> str:
        """Its key: steps with one output path are one step."""
        ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def deps(self) -> "Sequence[RunnableStep]":
        """All it waits for, wanted with it but for `order_only_deps`."""
        ...

    @property
    def nonblocking_deps(self) -> "Sequence[RunnableStep]":
        """Wanted with it and not waited for; they start first, and their failure skips nobody."""
        ...

    @property
    def order_only_deps(self) -> "Collection[RunnableStep]":
        """Those of `deps` that it does not bring into a run, and waits for only where something else does."""
        ...

    @property
    def location(self) -> str | None:
        """``file:line`` of the step call."""
        ...

    @property
    def template(self) -> str | None:
        """What its name was made from; None where it was given as it is."""
        ...

    @property
    def functions(self) -> "Sequence[str]":
        """``module:qualname`` of each call, in order."""
        ...

    @property
    def declared_cpu(self) -> float | None: ...

    @property
    def can_run(self) -> bool:
        """False for a step that can only be found finished."""
        ...

    def recipe_parts(self) -> Mapping[str, str]:
        """What its fingerprint is made of: readable text by config path."""
        ...

    def executable(self, options: RunOptions) -> Executable:
        """It, ready to run under a run's options."""
        ...


@final
@dataclass(frozen=True, slots=True)
class RunPlan:
    """The steps of a run, and what is to be done about them."""

    steps: Mapping[str, RunnableStep]
    """Everything that the roots reach, by output path, dependencies first."""
    waits: Mapping[str, Sequence[str]]
    """For each step, the output paths that it waits for, each once; some may not be part of the run."""
    statuses: Mapping[str, StepStatus]
    """Of every step, read in one batch."""
    to_run: tuple[str, ...]
    """What is wanted and unfinished, dependencies first."""
    first: frozenset[str]
    """Those of `to_run` that another does not wait for but should see running: they start first."""

    adopted: Mapping[str, str]
    """Of finished steps whose data lies elsewhere: where."""

    def is_finished(self, output_path: str) -> bool:
        """Whether an output is there to be read (one that is forced may be, and is still to run)."""
        return self.statuses[output_path].is_finished


def plan_run(
    roots: Iterable[RunnableStep],
    options: RunOptions,
    *,
    steps: Mapping[str, RunnableStep] | None = None,
    statuses: Mapping[str, StepStatus] | None = None,
) -> RunPlan:
    """Plans a run.

    Args:
        roots: What is asked for, in any order; dependencies are found from them.
        options: Of the run; forced outputs count as unfinished, and are wanted where the roots reach them.
        steps: What `collect_steps` gave for these roots, where the caller has asked it already.
        statuses: A snapshot that the caller has read already; what it lacks is read here.

    Returns:
        The plan. Nothing was written.

    Raises:
        CycleError: Steps wait for each other.
        OutputConflictError: Two different recipes have one output path.
        FingerprintMismatchError: A finished output was built by another recipe.
        RunError: An adopted output is to be read, and is gone.
        StorageError: A status cannot be read.
    """
    asked = list(roots)
    steps = collect_steps(asked) if steps is None else steps
    waits = {path: _distinct(dep.output_path for dep in step.deps) for path, step in steps.items()}
    _refuse_cycles(steps, waits)
    known = dict(statuses or {})
    known.update(read_statuses(path for path in steps if path not in known))
    _check_fingerprints(steps, known, options)

    def is_finished(path: str) -> bool:
        return known[path].is_finished and not (path in options.forced and known[path].epoch <= options.forced[path])

    brings = {path: brought_by(step) for path, step in steps.items()}
    forced = [path for path in steps if path in options.forced]
    chosen = wanted([*(step.output_path for step in asked), *forced], is_finished=is_finished, needs=brings.__getitem__)
    nonblocking = {dep.output_path for path in chosen for dep in steps[path].nonblocking_deps}
    adopted = {path: source for path, source in adopted_outputs(known).items() if path in steps and path not in chosen}
    if adopted:
        _check_adopted(adopted, steps, known, read=nonblocking.union(*(waits[path] for path in chosen)))
    return RunPlan(
        steps=steps,
        waits=waits,
        statuses={path: known[path] for path in steps},
        to_run=tuple(path for path in steps if path in chosen),
        first=frozenset(nonblocking & chosen),
        adopted=adopted,
    )


def collect_steps(roots: Iterable[RunnableStep]) -> dict[str, RunnableStep]:
    """Everything that the roots bring into a run if nothing is finished, by output path, dependencies first.

    Raises:
        OutputConflictError: Two different recipes have one output path.
    """
    steps: dict[str, RunnableStep] = {}

    def register(step: RunnableStep) -> str:
        path = step.output_path
        known = steps.setdefault(path, step)
        if known is not step and known.fingerprint != step.fingerprint:
            raise _conflict(path, known, step)
        return path

    def children(path: str) -> list[str]:
        step = steps[path]
        excluded = {dep.output_path for dep in step.order_only_deps}
        brought = [dep for dep in step.deps if dep.output_path not in excluded]
        return [register(dep) for dep in (*brought, *step.nonblocking_deps)]

    order = post_order([register(step) for step in roots], children)
    return {path: steps[path] for path in order}


def brought_by(step: RunnableStep) -> list[str]:
    """The output paths of what a step brings into a run while it is unfinished."""
    excluded = {dep.output_path for dep in step.order_only_deps}
    waited = [dep.output_path for dep in step.deps if dep.output_path not in excluded]
    return waited + [dep.output_path for dep in step.nonblocking_deps]


def _distinct(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(paths))


def _refuse_cycles(steps: Mapping[str, RunnableStep], waits: Mapping[str, Sequence[str]]) -> None:
    cycle = find_cycle(waits)
    if cycle is None:
        return
    chain = " → ".join(steps[path].name for path in cycle)
    places = [f"{steps[path].name}  {steps[path].location or 'unknown place'}" for path in cycle[:-1]]
    raise CycleError(explain(f"steps wait for each other: {chain}", facts=places))


def _conflict(path: str, first: RunnableStep, second: RunnableStep) -> OutputConflictError:
    facts = {
        label: f"{step.name}  {step.location or 'unknown place'}  fingerprint {step.fingerprint[:8]}"
        for label, step in (("first", first), ("second", second))
    }
    return OutputConflictError(explain(f"two steps would write {path}", facts=facts))


def _check_fingerprints(
    steps: Mapping[str, RunnableStep], statuses: Mapping[str, StepStatus], options: RunOptions
) -> None:
    unrecorded: list[str] = []
    for path, step in steps.items():
        status = statuses[path]
        if status.foreign_run:
            logger.warning(f"{path}: an older system's RUNNING token or lock file lies there; it is not honoured")
        if not status.is_finished or path in options.forced:
            continue
        if status.fingerprint is None:
            unrecorded.append(path)
        elif status.fingerprint != step.fingerprint:
            raise _mismatch(step, status.fingerprint)
    if unrecorded:
        named = ", ".join(unrecorded[:_NAMED_IN_A_WARNING]) + (", …" if len(unrecorded) > _NAMED_IN_A_WARNING else "")
        logger.warning(
            f"{len(unrecorded)} finished outputs have no recorded fingerprint and are taken as they are: {named}"
        )


def _check_adopted(
    adopted: Mapping[str, str],
    steps: Mapping[str, RunnableStep],
    statuses: Mapping[str, StepStatus],
    *,
    read: Collection[str],
) -> None:
    """Looks whether the outputs that steps adopted are still there, and are what was adopted."""
    status_by_source = read_statuses(adopted.values())
    for path, source in adopted.items():
        step, status = steps[path], status_by_source[source]
        if not status.is_finished:
            summary = f"the output that {step.name} adopted is not finished any more: {source}"
            hint = f"bring it back, or build the step itself: --force '^{step.name}$'"
            if path in read:
                raise RunError(explain(summary, at=step.location, hint=hint))
            logger.warning(summary)
        elif status.adopted_from is None and status.epoch > statuses[path].adopted_epoch:
            logger.warning(f"the output that {step.name} adopted was built again since: {source}")


def _mismatch(step: RunnableStep, recorded: str) -> FingerprintMismatchError:
    info = read_step_info(step.output_path) or {}
    changes = field_differences(info.get("parts") or {}, redact_parts(step.recipe_parts())) if info else []
    shown = [str(change) for change in changes[:_SHOWN_CHANGES]]
    if len(changes) > _SHOWN_CHANGES:
        shown.append(f"… and {len(changes) - _SHOWN_CHANGES} more")
    return FingerprintMismatchError(
        explain(
            f"the output of {step.name} at {step.output_path} was built by another recipe",
            at=step.location,
            facts=[f"recorded {recorded[:8]}, expected {step.fingerprint[:8]}", *shown],
            hint=f"give the step another output path; --force '^{step.name}$' builds it again; as it is it is taken by "
            f"marin-trace adopt {step.name} {step.output_path} --experiment FILE.py",
        )
    )
