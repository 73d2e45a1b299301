"""`remote`: a function that runs as a job of its own, on this machine or on a cluster.

It submits and waits, and returns nothing: what the function made is in storage. Resources belong to this wrapper,
never to the function. Cache and lock run inside the job (``remote(Cached(distributed_lock(fn)))``); the claim is made
before, for the job (`marin_trace.runtime.job_launch`).
"""

import functools
import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any, Final, Generic, ParamSpec, cast, final, overload

from marin_trace.errors import JobFailedError, RunError, explain
from marin_trace.runtime.attempt import ClaimMemory
from marin_trace.runtime.executable import attempt_observer
from marin_trace.runtime.job_launch import ClaimedStep, JobFuture, JobLaunch, JobPlace
from marin_trace.runtime.options import AttemptOptions
from marin_trace.storage.store_probe import PROBED_VARIABLE
from marin_trace.workers.client import JobClient, JobHandle, JobRequest, JobStatus, current_client, job_name
from marin_trace.workers.local import LocalClient
from marin_trace.workers.resources import ResourceConfig

__all__ = ["RemoteCallable", "remote"]

logger = logging.getLogger(__name__)

P = ParamSpec("P")

_FORWARDED_VARIABLES: Final = ("HF_TOKEN", "WANDB_API_KEY", PROBED_VARIABLE)
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
    _memory: ClaimMemory = field(default_factory=ClaimMemory, repr=False)

    @property
    def __wrapped__(self) -> Callable[P, Any]:
        """The function, as it was."""
        return self.fn

    @property
    def runs_elsewhere(self) -> bool:
        """See `Executable`: false where the job is a process of this machine."""
        return not self._engine().is_local

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Submits the call and waits for its end.

        Raises:
            ResourcesUnavailableError: The chosen place does not have what the job asks for.
            JobFailedError: The job ended without a word; what the function raised is raised as it is.
        """
        client, call = self._engine(), functools.partial(self.fn, *args, **kwargs)
        handle = self._submit(client, job_name(self._known_as), call, timeout=self.timeout)
        try:
            status = _wait(handle)
        except BaseException:
            handle.terminate()
            raise
        if status is JobStatus.SUCCEEDED:
            handle.forget()
            return
        error = handle.exception()
        raise error if error is not None else JobFailedError(explain(f"job {handle.job_id} ended as {status}"))

    def start(self, output_path: str, pool: Executor) -> Future[None]:
        """Claims for a job and submits it, beside the caller; holds no thread while it waits. See `Executable`.

        Cancelling the future ends a job of this machine, and leaves one on a cluster to itself; cancelling it again
        ends that one too.

        Raises:
            RunError: The function has no lock, or writes where no other process can read.
        """
        client = self._engine()
        step = cast("ClaimedStep", self.fn)
        options: AttemptOptions | None = getattr(self.fn, "options", None)
        if options is None:
            raise RunError(explain(f"{self._known_as} is no step: remote(Cached(distributed_lock(fn))) is one"))
        if output_path.startswith("memory://"):
            raise RunError(
                explain(
                    f"{self._known_as} runs in a process of its own, which cannot reach {output_path}",
                    hint="--prefix DIRECTORY, or a URL that both can reach",
                )
            )
        # The end of a job of this machine is for its launch to bring about, which can tell the log why.
        submit = functools.partial(self._submit, client, timeout=None if client.is_local else self.timeout)
        place = JobPlace(self._known_as, client, submit, timeout=self.timeout if client.is_local else None)
        launch = JobLaunch(step, output_path, options, place, memory=self._memory, observer=attempt_observer.get())
        return JobFuture(launch)

    @property
    def _known_as(self) -> str:
        return self.name or getattr(self.fn, "__name__", type(self.fn).__name__)

    def _engine(self) -> JobClient:
        return self.client or current_client() or LocalClient()

    def _submit(
        self, client: JobClient, name: str, call: Callable[[], Any], *, timeout: float | None = None
    ) -> JobHandle:
        forwarded = {name: os.environ[name] for name in _FORWARDED_VARIABLES if name in os.environ}
        request = JobRequest(
            name=name,
            entrypoint=call,
            resources=self.resources,
            env_vars={**({} if client.is_local else forwarded), **self.env_vars},
            pip_dependency_groups=self.pip_dependency_groups,
            timeout=timeout,
        )
        return client.submit(request)


def _wait(handle: JobHandle) -> JobStatus:
    while not (status := handle.wait()).is_over:
        logger.debug(f"{handle.job_id}: {status}")
    return status
