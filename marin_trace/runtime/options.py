"""What a run is told (`RunOptions`), and what each attempt of a step is told (`AttemptOptions`)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, final

from marin_trace.runtime.log_records import AttemptLog
from marin_trace.runtime.prefix import current_prefix, normalise_prefix
from marin_trace.runtime.provenance import Provenance
from marin_trace.runtime.records import StepRecord
from marin_trace.storage.links import refuse_links_out_of

if TYPE_CHECKING:
    from marin_trace.workers.client import JobClient

__all__ = ["DEFAULT_LEASE_S", "DEFAULT_MAX_JOBS", "AttemptOptions", "RunOptions"]

DEFAULT_LEASE_S: Final = 120.0
"""T of the protocol: how long an owner on another machine must be silent before its step is taken over."""
DEFAULT_MAX_JOBS: Final = 256
"""Of one launcher on a cluster."""


@final
@dataclass(frozen=True, slots=True)
class RunOptions:
    """One run's options, the same for all its steps."""

    force_run_failed: bool = True
    """Run again what failed before."""
    forced: Mapping[str, int] = field(default_factory=dict[str, int])
    """Outputs to build again, with the epoch seen at planning: a later success is a hit."""
    lease_seconds: float = DEFAULT_LEASE_S
    """The lease that this run's claims announce."""
    client: "JobClient | None" = None
    """The cluster that was chosen; None: this machine, and what it lacks is an error."""
    run_id: str | None = None
    """Names the run in claims and records; None: the runner makes one."""
    prefix: str | None = None
    """Where outputs without a prefix of their own and the run's record lie; None: the current one."""
    records_path: str | None = None
    """Where run records go; None: ``experiments`` under the prefix."""
    description: str | None = None
    """The user's words, for the run's record."""
    experiment: str | None = None
    """What is run, as it is named in every run of it: the main script's module. None: not known (a notebook)."""
    provenance: Provenance | None = None
    """What to record beside outputs; None: the runner looks once."""
    allow_unsafe_store: bool = False
    """Warn of a store that lets two create the same file, instead of refusing it: for a single launcher."""
    adopted: Mapping[str, str] = field(default_factory=dict[str, str])
    """Outputs whose data lies elsewhere, with where: who reads the one is given the other."""
    fail_fast: bool = False
    """After the first failure nothing more is started; what runs goes on to its end."""
    max_jobs: int = DEFAULT_MAX_JOBS
    """Jobs on a cluster that have not ended, pending ones included: a bound of its own beside that on this machine."""

    def root_of(self, output_path: str) -> str | None:
        """The prefix, where an output lies below it."""
        prefix = normalise_prefix(self.prefix) if self.prefix else current_prefix()
        return prefix if output_path.startswith(f"{prefix.rstrip('/')}/") else None


@final
@dataclass(frozen=True, slots=True)
class AttemptOptions:
    """How the attempts at one output are made."""

    force_run_failed: bool = True
    """Run again what failed before."""
    rerun_of: int | None = None
    """Run again what succeeded at this epoch or before."""
    lease_seconds: float = DEFAULT_LEASE_S
    retries: int = 0
    """Further attempts after a failed one, each a new epoch that runs the whole body again, in place."""
    fresh: bool = False
    """Empty the output before each attempt; else an attempt finds what earlier ones left."""
    run_id: str | None = None
    record: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Stored in the end of the epoch: opaque to the lock, but that the planner reads ``fingerprint``."""
    inputs: tuple[str, ...] = ()
    """Output paths of the inputs that are waited for: their epochs are stored in the end."""
    info: StepRecord | None = None
    """Written as ``.executor_info`` when the claim is made."""
    provenance: Provenance | None = None
    root: str | None = None
    """Where the output was placed by rule: no link below it leads out of it. None: the output was named by a user."""

    def check_links(self, output_path: str) -> None:
        """Looks, before anything is written, whether links lead elsewhere.

        Raises:
            StorageError: One does.
        """
        refuse_links_out_of(self.root or output_path, AttemptLog(output_path).directory)

    @classmethod
    def for_step(
        cls,
        output_path: str,
        run: RunOptions,
        *,
        info: StepRecord | None = None,
        digests: Mapping[str, Any] | None = None,
        inputs: tuple[str, ...] = (),
        retries: int = 0,
        fresh: bool = False,
    ) -> "AttemptOptions":
        """The options of one step in a run.

        Args:
            output_path: Of the step.
            run: The run's options.
            info: What is recorded beside the output; its fingerprint is stored in the end.
            digests: Further digests to store in the end (of unversioned values, of function sources).
            inputs: Output paths that the step waits for.
            retries: Further attempts after a failed one.
            fresh: Empty the output before each attempt.
        """
        record = {"fingerprint": info.fingerprint} if info is not None else {}
        return cls(
            force_run_failed=run.force_run_failed,
            rerun_of=run.forced.get(output_path),
            lease_seconds=run.lease_seconds,
            retries=retries,
            fresh=fresh,
            run_id=run.run_id,
            record={**record, **(digests or {})},
            inputs=inputs,
            info=info,
            provenance=run.provenance,
            root=run.root_of(output_path),
        )
