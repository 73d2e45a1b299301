"""What a run would do, from one snapshot of the store: the same for ``--dry_run``, ``plan`` and a run's own checks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from marin_trace.cli.request import RunRequest
from marin_trace.ir.collector import collector_paused
from marin_trace.planning.adoptable import outputs_to_adopt
from marin_trace.planning.advice import warnings_of_hits
from marin_trace.planning.causes import find_causes
from marin_trace.planning.earlier import EarlierRuns
from marin_trace.planning.plan import Plan, Reasons, planned
from marin_trace.runtime.options import RunOptions
from marin_trace.runtime.records import RUN_RECORDS_DIRECTORY
from marin_trace.runtime.run_plan import RunPlan, plan_run
from marin_trace.runtime.status import read_statuses
from marin_trace.storage.files import join

__all__ = ["Outlook", "outlook_of"]


@final
@dataclass(frozen=True, slots=True)
class Outlook:
    """A request, with what the store says of its steps."""

    request: RunRequest
    forced: Mapping[str, str | None]
    """The outputs to build again; with the forced step that they read, where that is why."""
    options: RunOptions
    run_plan: RunPlan
    """What the runner would do."""
    warnings: Mapping[str, tuple[str, ...]]
    """What speaks against the finished outputs that are not built again, by output path."""

    @property
    def records_directory(self) -> str:
        """Where run records lie."""
        return self.options.records_path or join(self.request.prefix, RUN_RECORDS_DIRECTORY)

    def plan(self) -> Plan:
        """The plan, with reasons. Reads what is needed to explain misses; writes nothing.

        Raises:
            StorageError: What would explain a miss cannot be read.
        """
        with collector_paused():
            return self._plan()

    def _plan(self) -> Plan:
        request, run_plan = self.request, self.run_plan
        runs = EarlierRuns(self.records_directory, request.experiment, run_plan.steps)
        causes = find_causes(run_plan, runs, request.prefix)
        adoptable = outputs_to_adopt(run_plan, request.prefix)
        reasons = Reasons(self.forced, causes.explanations, causes.gone, self.warnings, adoptable)
        return planned(run_plan, self.options, request.chosen.traced, request.chosen.spec_by_node, reasons=reasons)


def outlook_of(request: RunRequest) -> Outlook:
    """Reads the status of every step of a request, in one batch, and decides what a run would do.

    Raises:
        FlagError: An expression of ``--force`` or ``--force_from`` matches nothing.
        MarinTraceError: As `marin_trace.runtime.run_plan.plan_run`.
    """
    with collector_paused():
        forced = request.forced()
        statuses = read_statuses(request.steps)
        options = request.options({path: statuses[path].epoch for path in forced})
        run_plan = plan_run(request.roots, options, steps=request.steps, statuses=statuses)
        hits = {path: step for path, step in request.steps.items() if statuses[path].is_finished and path not in forced}
        return Outlook(request, forced, options, run_plan, warnings_of_hits(hits, statuses))
