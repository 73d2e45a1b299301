"""`remote`: a function that runs as a job of its own, on this machine or on a cluster.

It submits and waits, and returns nothing: what the function made is in storage. Resources belong to this wrapper,
never to the function. Cache and lock run inside the job (``remote(Cached(distributed_lock(fn)))``).
"""

import functools
import logging
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any, Final, Generic, ParamSpec, final, overload

from marin_trace.errors import JobFailedError, StepHeldElsewhere, explain
from marin_trace.runtime.attempt import draft_claim, failure_of, previous_failure, utc_now
from marin_trace.runtime.driver import driver_for
from marin_trace.runtime.executable import AttemptObserver, attempt_observer
from marin_trace.runtime.log_records import AttemptLog, EndKind, EndRecord, FailurePhase
from marin_trace.runtime.options import DEFAULT_LEASE_S
from marin_trace.runtime.protocol import FailedBefore, end_attempt
from marin_trace.runtime.status import StatusKind, StepStatus, read_status
from marin_trace.workers.client import JobClient, JobHandle, JobRequest, JobStatus, current_client
from marin_trace.workers.local import LocalClient
from marin_trace.workers.resources import ResourceConfig

__all__ = ["RemoteCallable", "remote"]

logger = logging.getLogger(__name__)

P = ParamSpec("P")

_FORWARDED_VARIABLES: Final = ("HF_TOKEN", "WANDB_API_KEY")
"""Jobs on a cluster are given these too; a local process has them anyway."""


@overload
def remote(
    fn: Callable[P, Any],
    *,
    resources: ResourceConfig | None = None,
    env_vars: Mapping[str, str] | None = None,
    pip_dependency_groups: tuple[str, ...] | list[str] = (),
    name: str | None = None,
    timeout: float | None = None,
    client: JobClient | None = None,
) -> "RemoteCallable[P]": ...


@overload
def remote(
    fn: None = None,
    *,
    resources: ResourceConfig | None = None,
    env_vars: Mapping[str, str] | None = None,
    pip_dependency_groups: tuple[str, ...] | list[str] = (),
    name: str | None = None,
    timeout: float | None = None,
    client: JobClient | None = None,
) -> "Callable[[Callable[P, Any]], RemoteCallable[P]]": ...


def remote(
    fn: Callable[P, Any] | None = None,
    *,
    resources: ResourceConfig | None = None,
    env_vars: Mapping[str, str] | None = None,
    pip_dependency_groups: tuple[str, ...] | list[str] = (),
    name: str | None = None,
    timeout: float | None = None,
    client: JobClient | None = None,
) -> "RemoteCallable[P] | Callable[[Callable[P, Any]], RemoteCallable[P]]":
    """Wraps a function so that each call runs as a job. Usable as a decorator, bare or with arguments.

    Args:
        fn: The function; must be picklable by cloudpickle, as must be its arguments.
        resources: What the job asks for.
        env_vars: Added to the job's environment; their values are never recorded.
        pip_dependency_groups: Extras or dependency groups of the project, or requirements, that the job can import.
        name: Of the job; default: the function's.
        timeout: Seconds, after which the job is ended.
        client: Where to run; default: the one that was chosen (`set_current_client`), else a process of this machine.

    Returns:
        A frozen callable with the function's parameters.

    Example:
        >>> @remote(resources=ResourceConfig.with_cpu(1), env_vars={"GREETING": "hello"})
        ... def write_greeting(path: str) -> None:
        ...     import os, pathlib
        ...     pathlib.Path(path).write_text(os.environ["GREETING"])
        >>> import pathlib, tempfile
        >>> path = tempfile.mkdtemp() + "/greeting.txt"
        >>> write_greeting(path)
        >>> pathlib.Path(path).read_text()
        'hello'
    """

    def wrap(function: Callable[P, Any]) -> RemoteCallable[P]:
        return RemoteCallable(
            fn=function,
            resources=resources or ResourceConfig(),
            env_vars=dict(env_vars or {}),
            pip_dependency_groups=tuple(pip_dependency_groups),
            name=name,
            timeout=timeout,
            client=client,
        )

    return wrap if fn is None else wrap(fn)


@final
@dataclass(frozen=True, slots=True, eq=False)
class RemoteCallable(Generic[P]):
    """What `remote` returns."""

    fn: Callable[P, Any]
    """The function, as it was."""
    resources: ResourceConfig = field(default_factory=ResourceConfig)
    env_vars: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    pip_dependency_groups: tuple[str, ...] = ()
    name: str | None = None
    timeout: float | None = None
    """Seconds."""
    client: JobClient | None = None
    """None: the current one when it is called."""
    _waited_for: dict[str, int] = field(default_factory=dict[str, int], repr=False)
    """The epoch that was first seen held by another, by output path."""

    @property
    def __wrapped__(self) -> Callable[P, Any]:
        """The function, as it was."""
        return self.fn

    @property
    def runs_elsewhere(self) -> bool:
        """See `Executable`: false where the job is a process of this machine."""
        client = self.client or current_client()
        return client is not None and not client.is_local

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Submits the call and waits for its end.

        Raises:
            ResourcesUnavailableError: The chosen place does not have what the job asks for.
            JobFailedError: The job ended without a word; what the function raised is raised as it is.
        """
        handle = self._submit(functools.partial(self.fn, *args, **kwargs))
        try:
            status = _wait(handle)
        except BaseException:
            handle.terminate()
            raise
        error = _error_of(handle, status)
        if error is not None:
            raise error

    def start(self, output_path: str, pool: Executor) -> Future[None]:
        """Submits it as the step with this output path; no thread of the pool is held. See `Executable`.

        Cancelling the future terminates a job of this machine, and leaves one on a cluster to itself.
        """
        step: Callable[..., Any] = self.fn
        attempt = getattr(step, "attempt", step)
        before = read_status(output_path)
        self._refuse_held(output_path, before)
        handle = self._submit(functools.partial(attempt, output_path))
        future = _JobFuture(handle, stops_with_launcher=not self.runs_elsewhere)
        watch = functools.partial(_watch, handle, future, output_path, before.epoch, attempt_observer.get())
        watcher = threading.Thread(target=watch, name=f"marin-trace-{handle.job_id}", daemon=True)
        watcher.start()
        return future

    def _refuse_held(self, output_path: str, status: StepStatus) -> None:
        # Looked at before a process is spent on it; the job itself decides.
        if status.kind is StatusKind.RUNNING:
            self._waited_for.setdefault(output_path, status.epoch)
            raise StepHeldElsewhere(explain(f"{output_path} is being built by {status.owner}"))
        waited_for = self._waited_for.get(output_path)
        if status.kind is StatusKind.FAILED and waited_for is not None and status.epoch >= waited_for:
            raise previous_failure(output_path, FailedBefore(status.epoch, status.error, while_waiting=True))

    def _submit(self, entrypoint: Callable[[], Any]) -> JobHandle:
        client = self.client or current_client() or LocalClient()
        forwarded = {name: os.environ[name] for name in _FORWARDED_VARIABLES if name in os.environ}
        request = JobRequest(
            name=self.name or getattr(self.fn, "__name__", type(self.fn).__name__),
            entrypoint=entrypoint,
            resources=self.resources,
            env_vars={**({} if client.is_local else forwarded), **self.env_vars},
            pip_dependency_groups=self.pip_dependency_groups,
            timeout=self.timeout,
        )
        return client.submit(request)


@final
class _JobFuture(Future[None]):
    """The outcome of a job; cancelling it ends the job where that is ours to do."""

    def __init__(self, handle: JobHandle, *, stops_with_launcher: bool) -> None:
        super().__init__()
        self._handle = handle
        self._stops_with_launcher = stops_with_launcher
        self.set_running_or_notify_cancel()

    def cancel(self) -> bool:
        """Terminates a job of this machine; its end then settles the future."""
        if self._stops_with_launcher:
            # On a thread of its own: several jobs are given their grace side by side.
            threading.Thread(target=self._handle.terminate, daemon=True).start()
        else:
            logger.warning(f"{self._handle.job_id} is left running")
        return False


def _wait(handle: JobHandle) -> JobStatus:
    while not (status := handle.wait()).is_over:
        logger.debug(f"{handle.job_id}: {status}")
    return status


def _watch(
    handle: JobHandle, future: Future[None], output_path: str, epoch_before: int, observer: AttemptObserver | None
) -> None:
    try:
        error = _error_of(handle, _wait(handle))
        status = read_status(output_path)
        _settle_log(output_path, status, error)
        if observer is not None and status.epoch > epoch_before:
            observer.epoch = status.epoch
    except Exception as unexpected:  # noqa: BLE001 - a thread's exception would be lost; the future carries it
        error = unexpected
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _settle_log(output_path: str, status: StepStatus, error: BaseException | None) -> None:
    """A job that died without a word has failed: nobody else is to repeat it as if it had been interrupted."""
    if error is None or status.kind is not StatusKind.ABANDONED:
        return
    kind = EndKind.FAILED if isinstance(error, JobFailedError) else EndKind.RELEASED
    nonce = draft_claim(lease_s=DEFAULT_LEASE_S).nonce
    end = EndRecord(status.epoch, kind, nonce, utc_now(), error=failure_of(error, FailurePhase.JOB))
    driver_for(output_path).run(end_attempt(AttemptLog(output_path), end))


def _error_of(handle: JobHandle, status: JobStatus) -> BaseException | None:
    if status is JobStatus.SUCCEEDED:
        handle.forget()
        return None
    error = handle.exception()
    return error if error is not None else JobFailedError(explain(f"{handle.job_id} ended as {status}"))
