"""``executor_main``: from what an experiment's steps returned to a finished run."""

import dataclasses
import logging
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, cast, final

from marin_trace.cli.flags import USAGE_ERROR, ExecutorFlags, close_broken_output, exit_with, parse_executor_flags
from marin_trace.errors import (
    ConfigTypeError,
    FingerprintChangedError,
    FlagError,
    MarinTraceError,
    RunFailedError,
    explain,
)
from marin_trace.ir.config_tree import short_repr
from marin_trace.ir.graph import Graph, Node, graph_of_refs
from marin_trace.ir.location import is_own_file, user_location
from marin_trace.ir.passes.select import NamedStep, matching, matching_steps, selected
from marin_trace.ir.refs import HardcodedPath, StepOutput, StepRef
from marin_trace.lowering.body import ResolvedRef
from marin_trace.lowering.lower import Lowered, lower_graph
from marin_trace.lowering.paths import check_conflicts, path_below
from marin_trace.lowering.step_spec import StepSpec
from marin_trace.planning.plan import planned, readers_of
from marin_trace.planning.render import render_plan
from marin_trace.runtime.interrupts import exit_code_of, interrupting_signals
from marin_trace.runtime.options import RunOptions
from marin_trace.runtime.prefix import current_prefix, use_prefix
from marin_trace.runtime.records import field_differences, read_step_info
from marin_trace.runtime.report import RunReport
from marin_trace.runtime.run_plan import RunnableStep, collect_steps, plan_run
from marin_trace.runtime.status import StepStatus, read_statuses
from marin_trace.runtime.step_runner import StepRunner
from marin_trace.safe_text import printable, redact_text
from marin_trace.storage.files import join
from marin_trace.workers.client import current_client
from marin_trace.workers.clusters import client_named
from marin_trace.workers.placement import check_placeable

logger = logging.getLogger(__name__)

RUN_FAILED: Final = 1
"""Exit code of a run in which a step failed, or that could not start."""
_TALKATIVE: Final = ("aiobotocore", "botocore", "finelog", "fray", "gcsfs", "iris", "rigging")
"""Libraries that tell where each client connects to, where its credentials were found, or how a file is read."""
OUTPUT_CLOSED: Final = 141
"""Exit code where whoever read the output has gone away, as shells give it for SIGPIPE."""


def executor_main(steps: Any, *, description: str | None = None, argv: Sequence[str] | None = None) -> RunReport:
    """Runs an experiment: brings the given steps, and what they need, to finished.

    **Phase**: run time; blocks until the run has ended. Flags: ``--help`` lists them. With ``--dry_run`` the plan is
    printed and nothing is written.

    Args:
        steps: Refs, what group steps returned, StepSpecs; in lists, tuples or dicts, nested as you like.
        description: A sentence for the run's record; ``--description`` wins.
        argv: The command line without the program's name. None reads ``sys.argv``; then a failure is printed and ends
            the process (1: a step failed or the run could not start; 2: the command line; 130, 143, 129: Ctrl-C,
            SIGTERM, SIGHUP; 141: the output was closed). With ``argv``
            given it is raised, and signals are left alone.

    Returns:
        What became of each step; ``report.output_path(ref)`` and ``report.artifact(ref)`` lead to what was made.

    Raises:
        RunFailedError: Steps failed: it holds what each of them raised. All that did not depend on them has run.
        MarinTraceError: The steps or the flags cannot be used; nothing was started.
        KeyboardInterrupt: The run was interrupted; its steps were released.

    Example:
        >>> from marin_trace import deferred, executor_main, output, step
        >>> from marin_trace.io import atomic_write
        >>> def write(path: str, text: str) -> int:
        ...     with atomic_write(path, "w") as stream:
        ...         return stream.write(text)
        >>> @step(name="hello/{word}")
        ... def hello(word: str):
        ...     return deferred(write)(output() / "hello.txt", word)
        >>> ref = hello("world")
        >>> executor_main(steps=[ref], argv=["--prefix", "memory://docs"]).artifact(ref)
        5
    """
    if argv is not None:
        return _run(steps, parse_executor_flags(argv), description)
    _show_log()
    try:
        with interrupting_signals():
            return _run(steps, parse_executor_flags(sys.argv[1:]), description)
    except FlagError as error:
        exit_with(error, USAGE_ERROR)
    except RunFailedError as error:
        with suppress(BrokenPipeError):  # nobody reads it: the exit code still tells
            _print_failures(error)
        raise SystemExit(RUN_FAILED) from None
    except MarinTraceError as error:
        exit_with(error, RUN_FAILED)
    except KeyboardInterrupt as error:
        with suppress(BrokenPipeError):
            print("interrupted: the steps of this machine were released", file=sys.stderr)
        raise SystemExit(exit_code_of(error)) from None
    except BrokenPipeError:
        raise SystemExit(OUTPUT_CLOSED) from None
    finally:
        close_broken_output()


def _show_log() -> None:
    """Shows the log of a script that has not arranged for it itself."""
    if not logging.getLogger().handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(_PlainFormatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
        logging.basicConfig(level=logging.INFO, handlers=[handler])
        for library in _TALKATIVE:
            logging.getLogger(library).setLevel(logging.WARNING)


@final
class _PlainFormatter(logging.Formatter):
    """Shows the log as text and nothing else, whatever a file, a server or an exception has said."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's line, or lines."""
        return redact_text(printable(super().format(record)))


def _print_failures(failure: RunFailedError) -> None:
    for error in failure.exceptions:
        shown = traceback.TracebackException.from_exception(error)
        _hide_own_frames(shown)
        # Messages hold what files and servers have said.
        print(redact_text(printable("".join(shown.format()))), file=sys.stderr)
    print(failure.message, file=sys.stderr)


def _hide_own_frames(shown: traceback.TracebackException | None) -> None:
    """Drops this package's frames from what is printed: a traceback begins in the function that failed.

    The exceptions themselves, and the run's record, keep them all.
    """
    while shown is not None:
        frames = [frame for frame in shown.stack if not is_own_file(frame.filename)]
        # None leaves the heading out as well.
        shown.stack = traceback.StackSummary.from_list(frames) if frames else cast("Any", None)
        shown = shown.__cause__ or shown.__context__


@final
@dataclass(frozen=True, slots=True)
class _Request:
    """What ``steps=`` brings: the traced part as a graph, the rest as specs."""

    graph: Graph
    specs: tuple[StepSpec, ...]


def _run(steps: Any, flags: ExecutorFlags, description: str | None) -> RunReport:
    request = _requested(steps)
    with use_prefix(current_prefix() if flags.prefix is None else flags.prefix) as prefix:
        lowered = _lowered(request.graph, prefix)
        chosen, roots = _selected(request, lowered, flags, prefix)
        every_step = collect_steps(roots)
        if request.specs:
            check_conflicts(every_step.values(), prefix)
        statuses = read_statuses(every_step)
        forced = _forced(flags, lowered, every_step)
        epochs = {path: statuses[path].epoch for path in forced}
        options = _run_options(flags, description, prefix, epochs)
        if flags.dry_run:
            run_plan = plan_run(roots, options, statuses=statuses)
            shown = planned(run_plan, options, chosen.traced, chosen.spec_by_node, forced_through=forced)
            print(render_plan(shown), flush=True)
        _check_placeable(roots, options, statuses)
        runner = StepRunner(options=options, statuses=statuses, resolve=_Resolver(lowered, prefix))
        return runner.run(
            roots, dry_run=flags.dry_run, force_run_failed=flags.force_run_failed, max_concurrent=flags.max_concurrent
        )


def _requested(steps: Any) -> _Request:
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
    return _Request(graph, tuple(specs))


def _leaves(value: Any) -> Iterable[Any]:
    if isinstance(value, StepRef | StepSpec):
        yield value
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


def _selected(request: _Request, lowered: Lowered, flags: ExecutorFlags, prefix: str) -> tuple[Lowered, list[StepSpec]]:
    """What is to be run, and its roots: everything, or what ``--run_only`` names."""
    if not flags.run_only:
        return lowered, [
            *(lowered.spec_by_node[root] for root in lowered.graph.roots if isinstance(root, Node)),
            *request.specs,
        ]
    specs = list(collect_steps(request.specs).values())
    found = matching(request.graph, flags.run_only, flag="--run_only", others=specs)
    part = _lowered(selected(request.graph, found.nodes), prefix)
    roots = [part.spec_by_node[root] for root in part.graph.roots if isinstance(root, Node)]
    return part, [*roots, *_as_specs(found.others)]


def _as_specs(steps: Iterable[NamedStep | RunnableStep]) -> list[StepSpec]:
    return [step for step in steps if isinstance(step, StepSpec)]


def _forced(flags: ExecutorFlags, lowered: Lowered, steps: Mapping[str, RunnableStep]) -> dict[str, str | None]:
    """The output paths to build again; with the forced step that they read, where that is why.

    Args:
        flags: The command line.
        lowered: All that was asked for, so that groups are found that ``--run_only`` has inlined.
        steps: What the run is made of.
    """
    forced: dict[str, str | None] = {}
    for flag, patterns in (("--force", flags.force), ("--force_from", flags.force_from)):
        if not patterns:
            continue
        paths: set[str] = set()
        for pattern in patterns:
            found = matching_steps(lowered.traced, [pattern], flag=flag, others=list(steps.values()))
            matched = {lowered.spec_by_node[node].output_path for node in found.nodes}
            matched |= {step.output_path for step in _as_specs(found.others)}
            if matched.isdisjoint(steps):
                raise FlagError(explain(f"{flag} {pattern!r} matches only steps that --run_only leaves out"))
            paths |= matched
        reached = readers_of(steps, paths) if flag == "--force_from" else dict.fromkeys(paths)
        forced |= {path: through for path, through in reached.items() if path not in forced}
    return {path: forced[path] for path in steps if path in forced}


def _check_placeable(roots: Sequence[StepSpec], options: RunOptions, statuses: Mapping[str, StepStatus]) -> None:
    """Refuses what is to run and cannot, where it would run: before anything is started."""
    if not any(step.options.resources for step in _as_specs(collect_steps(roots).values())):
        return
    run_plan = plan_run(roots, options, statuses=statuses)
    to_run = _as_specs(run_plan.steps[path] for path in run_plan.to_run)
    asked = [(step.name, step.options.resources) for step in to_run if step.options.resources is not None]
    check_placeable(asked, options.client)


def _run_options(flags: ExecutorFlags, description: str | None, prefix: str, forced: dict[str, int]) -> RunOptions:
    # What a job raised has to reach this process: below the prefix, as steps' outputs do.
    outcomes = None if prefix.startswith("memory://") else join(prefix, ".jobs")
    return RunOptions(
        force_run_failed=flags.force_run_failed,
        forced=forced,
        lease_seconds=flags.lease_seconds,
        fail_fast=flags.fail_fast,
        allow_unsafe_store=flags.allow_unsafe_store,
        client=current_client() if flags.cluster is None else client_named(flags.cluster, outcomes=outcomes),
        prefix=prefix,
        records_path=flags.executor_info_base_path,
        description=flags.description or description,
    )


@final
@dataclass(frozen=True, slots=True)
class _Resolver:
    """What a ref or a spec of this run stands for."""

    lowered: Lowered
    prefix: str

    def __call__(self, step: Any) -> ResolvedRef:
        match step:
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
