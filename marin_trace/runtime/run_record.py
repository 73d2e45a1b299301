"""The record of a run: one immutable file under the prefix, with the outcome and the timings of each step."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, final

from marin_trace.errors import StorageError
from marin_trace.runtime.attempt import failure_of, utc_now
from marin_trace.runtime.log_records import FailurePhase
from marin_trace.runtime.options import RunOptions
from marin_trace.runtime.prefix import current_prefix, normalise_prefix
from marin_trace.runtime.records import RUN_RECORDS_DIRECTORY, write_run_record
from marin_trace.runtime.report import StepOutcome
from marin_trace.runtime.run_plan import RunPlan
from marin_trace.storage.files import join
from marin_trace.storage.links import refuse_links_out_of

__all__ = ["RunRecordWriter"]

logger = logging.getLogger(__name__)


@final
@dataclass(frozen=True, slots=True)
class RunRecordWriter:
    """Writes the record of a run when it has ended, however it did."""

    plan: RunPlan
    options: RunOptions
    limit: int
    """On what runs side by side."""
    started_at: str
    """UTC, ISO 8601."""

    def write(self, outcome: str, steps: Iterable[StepOutcome], seconds: float) -> str | None:
        """Writes it; a store that fails here is told of, and hides no outcome.

        Args:
            outcome: Of the run, in a word.
            steps: What became of each, dependencies first.
            seconds: That it took.

        Returns:
            The record's path; None where it could not be written.
        """
        options = self.options
        record = {
            "run_id": options.run_id,
            "experiment": options.experiment,
            "description": options.description,
            "outcome": outcome,
            "started_at": self.started_at,
            "ended_at": utc_now(),
            "seconds": round(seconds, 3),
            "max_concurrent": self.limit,
            "max_jobs": options.max_jobs,
            "force_run_failed": options.force_run_failed,
            "forced": dict(options.forced),
            **({"allow_unsafe_store": True} if options.allow_unsafe_store else {}),
            "steps": [_recorded(step, self.plan) for step in steps],
            "provenance": options.provenance.to_json() if options.provenance else None,
        }
        try:
            directory = options.records_path or self._default_directory()
            return write_run_record(directory, options.run_id or "", record)
        except StorageError as error:
            logger.error(f"run {options.run_id}: its record could not be written: {error}")  # noqa: TRY400
            return None

    def _default_directory(self) -> str:
        prefix = normalise_prefix(self.options.prefix) if self.options.prefix else current_prefix()
        directory = join(prefix, RUN_RECORDS_DIRECTORY)
        refuse_links_out_of(prefix, directory)
        return directory


def _recorded(outcome: StepOutcome, plan: RunPlan) -> dict[str, Any]:
    error = outcome.error and failure_of(outcome.error, FailurePhase.BODY)
    step = plan.steps[outcome.output_path]
    return {
        "name": outcome.name,
        "output_path": outcome.output_path,
        "template": step.template,
        "functions": list(step.functions),
        "fingerprint": step.fingerprint,
        "outcome": outcome.kind.value,
        "began_after": outcome.began_after and round(outcome.began_after, 3),
        "seconds": round(outcome.seconds, 3),
        "log": outcome.log_path,
        "epoch": outcome.epoch,
        "cause": outcome.cause,
        "error": error and {"type": error.type, "message": error.message, "traceback": error.traceback},
        "location": outcome.location,
    }
