"""`disk_cached`: a function of an output path, run once; later calls read what it left.

It knows nothing of artifacts and steps: what saving and loading mean is given to it. A lock is optional and comes from
outside (`Cached(distributed_lock(fn))`): then the lock decides what a hit is, and saving happens inside its claim.
Without one, the function runs unprotected, and the commit is made in one go after saving: of several that ran at the
same time one commits, and the others leave no trace in the log.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast, final

from marin_trace.errors import StepAlreadyDone
from marin_trace.runtime.attempt import Attempt, draft_claim
from marin_trace.runtime.driver import driver_for
from marin_trace.runtime.executable import JobTicket
from marin_trace.runtime.liveness import living_attempt
from marin_trace.runtime.log_records import AttemptLog
from marin_trace.runtime.operations import LeaseView, ReadLease
from marin_trace.runtime.options import DEFAULT_LEASE_S, AttemptOptions
from marin_trace.runtime.protocol import Claimed, ClaimPolicy, claim_epoch, read_state
from marin_trace.storage.store_probe import check_store

__all__ = ["Cached", "disk_cached"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


def disk_cached(
    fn: Callable[[str], T],
    output_path: str,
    *,
    save: Callable[[T, str], None] | None = None,
    load: Callable[[str], T] | None = None,
) -> T:
    """Runs ``fn(output_path)`` once, now; a later call reads what it left.

    Args:
        fn: Writes below the path that it is given.
        output_path: Full path, on local disk or ``memory://``.
        save: ``save(value, output_path)``: stores what ``fn`` returned, before the output counts as finished.
        load: ``load(output_path)``: what a hit returns. Without it ``fn`` does its own reading: a hit calls it again.

    Returns:
        What ``fn`` returned, now or, as ``load`` gives it, earlier.

    Raises:
        StorageError: The output's log cannot be read or written.
        PrefixError: The store lets several create the same file: nothing was run.

    Example:
        >>> import pathlib, tempfile
        >>> output = f"{tempfile.mkdtemp()}/answer"
        >>> def save(value, path):
        ...     pathlib.Path(path).mkdir()
        ...     pathlib.Path(path, "answer.txt").write_text(str(value))
        >>> def load(path):
        ...     return int(pathlib.Path(path, "answer.txt").read_text())
        >>> disk_cached(lambda path: 42, output, save=save, load=load)
        42
        >>> disk_cached(lambda path: 1 / 0, output, save=save, load=load)
        42
    """
    return Cached(fn, save, load)(output_path)


class _Lock(Protocol):
    """What a lock offers beside being callable."""

    @property
    def options(self) -> AttemptOptions: ...

    def finishing(self, save: Callable[[Any, str], None] | None) -> "_LockedFunction": ...


class _LockedFunction(Protocol):
    def __call__(self, output_path: str) -> Any: ...

    def attempt(self, output_path: str, ticket: JobTicket | None = None) -> Any: ...


@final
@dataclass(frozen=True, slots=True, eq=False)
class Cached(Generic[T]):
    """`disk_cached` as a callable of the path. Thread-safe; pickles if its parts do."""

    fn: Callable[[str], T]
    """The function; one with ``finishing`` (a lock) saves and commits by itself."""
    save: Callable[[T, str], None] | None = None
    """``save(value, output_path)``."""
    load: Callable[[str], T] | None = None
    """``load(output_path)``; without it a hit calls the function again."""

    @property
    def runs_elsewhere(self) -> bool:
        """See `Executable`: a thread of this process."""
        return False

    def __call__(self, output_path: str) -> T:
        """Runs the function or reads what it left; a lock waits while another attempt holds the output."""
        lock = self._lock()
        return self._unlocked(output_path) if lock is None else self._locked(lock.finishing(self.save), output_path)

    def attempt(self, output_path: str, ticket: JobTicket | None = None) -> T:
        """The same, but where another attempt holds the output a lock raises `StepHeldElsewhere` at once.

        Args:
            output_path: Where it writes.
            ticket: Of the job that this process is, for the lock.
        """
        lock = self._lock()
        if lock is None:
            return self._unlocked(output_path)
        locked = lock.finishing(self.save)
        return self._locked(lambda path: locked.attempt(path, ticket), output_path)

    @property
    def options(self) -> AttemptOptions | None:
        """Of the lock's attempts; None without a lock."""
        lock = self._lock()
        return None if lock is None else lock.options

    def start(self, output_path: str, pool: Executor) -> Future[T]:
        """Starts one attempt on the pool; see `Executable`."""
        return pool.submit(self.attempt, output_path)

    def _lock(self) -> _Lock | None:
        return cast("_Lock", self.fn) if hasattr(self.fn, "finishing") else None

    def _locked(self, run: Callable[[str], T], output_path: str) -> T:
        try:
            return run(output_path)
        except StepAlreadyDone:
            return self._hit(output_path)

    def _unlocked(self, output_path: str) -> T:
        if driver_for(output_path).run(read_state(AttemptLog(output_path))).is_finished:
            return self._hit(output_path)
        AttemptOptions().check_links(output_path)
        # Of several that run at the same time one commits, if the store can tell.
        check_store(AttemptLog(output_path).directory)
        value = self.fn(output_path)
        if self.save is not None:
            self.save(value, output_path)
        _commit_in_one_go(output_path)
        return value

    def _hit(self, output_path: str) -> T:
        if self.load is not None:
            return self.load(output_path)
        unlocked: Callable[[str], T] = getattr(self.fn, "__wrapped__", self.fn) if self._lock() else self.fn
        return unlocked(output_path)


def _commit_in_one_go(output_path: str) -> None:
    driver, log = driver_for(output_path), AttemptLog(output_path)
    draft = draft_claim(lease_s=DEFAULT_LEASE_S)
    with living_attempt(draft.nonce):
        outcome = driver.run(claim_epoch(log, draft, ClaimPolicy()))
        if isinstance(outcome, Claimed):
            lease = LeaseView(outcome.claim.lease_s, outcome.sent_at)
            attempt = Attempt(driver.answering({ReadLease: lambda operation: lease}), log, outcome)
            attempt.commit(record={}, inputs={})
        else:
            logger.info(f"{output_path}: not committed, another attempt was faster or holds it")
