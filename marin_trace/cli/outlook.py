"""What a run would do, from one snapshot of the store: the same for ``--dry_run``, ``plan`` and a run's own checks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from marin_trace.cli.request import RunRequest
from marin_trace.planning.plan import Plan, Reasons, planned
from marin_trace.runtime.options import RunOptions
from marin_trace.runtime.run_plan import plan_run
from marin_trace.runtime.status import StepStatus, read_statuses

__all__ = ["Outlook", "outlook_of"]


@final
@dataclass(frozen=True, slots=True)
class Outlook:
    """A request, with what the store says of its steps."""

    request: RunRequest
    statuses: Mapping[str, StepStatus]
    """Of every step, by output path, read in one batch."""
    forced: Mapping[str, str | None]
    """The outputs to build again; with the forced step that they read, where that is why."""
    options: RunOptions

    def plan(self) -> Plan:
        """The plan, with reasons. Reads what is needed to explain misses; writes nothing.

        Raises:
            MarinTraceError: As `marin_trace.runtime.run_plan.plan_run`.
        """
        request = self.request
        run_plan = plan_run(request.roots, self.options, statuses=self.statuses)
        reasons = Reasons(forced_through=self.forced)
        return planned(run_plan, self.options, request.chosen.traced, request.chosen.spec_by_node, reasons=reasons)


def outlook_of(request: RunRequest) -> Outlook:
    """Reads the status of every step of a request.

    Raises:
        FlagError: An expression of ``--force`` or ``--force_from`` matches nothing.
        StorageError: A status cannot be read.
    """
    forced = request.forced()
    statuses = read_statuses(request.steps)
    options = request.options({path: statuses[path].epoch for path in forced})
    return Outlook(request, statuses, forced, options)
