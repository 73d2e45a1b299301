"""`FrayClient`: jobs on an Iris cluster, through marin-fray. The way to TPU slices.

Each job is an Iris job with a name of its own. It outlives its launcher, and another launcher finds it by its name. The
status is asked for by one thread for all jobs (`marin_trace.workers.polling`); what a call raised comes back through a
file that the job leaves (`marin_trace.workers.fray_main`). A preempted job is started again by Iris, on Iris's budget:
it stays the same job, and that is said once each time.
"""

import atexit
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Final, final
from weakref import WeakValueDictionary

from marin_trace.errors import JobFailedError, ResourcesUnavailableError, WorkerError, explain
from marin_trace.storage.files import delete_files, list_files, read_bytes
from marin_trace.workers.client import JobRequest, JobStatus
from marin_trace.workers.fray_engine import FrayEngine, JobNews
from marin_trace.workers.fray_main import outcome_path
from marin_trace.workers.fray_package import FrayPackage, load_fray
from marin_trace.workers.fray_request import fray_request, fray_resources
from marin_trace.workers.outcome import opened, unpacked_error
from marin_trace.workers.overlay import project_directory
from marin_trace.workers.polling import JobPoller
from marin_trace.workers.resources import ResourceConfig

__all__ = ["FrayClient", "FrayHandle"]

logger = logging.getLogger(__name__)

_PATIENCE_S: Final = 60.0
"""For one question to the controller. Half a lease, so that a launcher can still give its claim back."""
_LOG_LINES: Final = 200
_SHOWN_LINES: Final = 20
_GONE_S: Final = 60.0
"""How long the processes of a terminated job may take to be gone."""
_PAUSE_S: Final = 0.2
_NEWS_S: Final = 10.0
"""Between two questions after preemptions, and after what pending jobs wait for."""
_FIRST_NEWS_S: Final = 2.0
"""After a submission: by then the scheduler has looked at the job, and tells if it will never be placed."""


@final
class FrayClient:
    """Runs jobs on an Iris cluster. Thread-safe."""

    def __init__(
        self,
        address: str | None = None,
        *,
        outcomes: str | None = None,
        workspace: Path | None = None,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        """Makes a client; asks nothing of the cluster yet.

        Args:
            address: ``host:port`` or URL of a controller, or the name of a cluster that ``iris cluster list`` shows.
                None: the client that was chosen with ``fray.current_client.set_current_client``, else the cluster
                whose job this process is.
            outcomes: A directory that launcher and jobs can reach, where a job leaves what its call raised. None: a
                failure is told in the cluster's words.
            workspace: The project that workers are given, at most 25 MB; default: the one around the working directory.
            patience_s: After how many seconds without an answer the controller counts as out of reach.

        Raises:
            WorkerError: marin-fray is missing, too old, or another package; or no cluster is known.
        """
        self._package = load_fray()
        self._address = address
        self._outcomes = outcomes.rstrip("/") if outcomes else None
        client = _chosen(self._package) if address is None else _connected(self._package, address, workspace)
        self._engine = FrayEngine(self._package, client, name=self.name, patience_s=patience_s)
        self._handles: WeakValueDictionary[str, FrayHandle] = WeakValueDictionary()
        self._poller = JobPoller(self.name, self._look)
        self._news_due = 0.0
        self._is_reachable = False

    @property
    def name(self) -> str:
        """``fray``, with the address if one was given."""
        return "fray" if self._address is None else f"fray://{self._address}"

    @property
    def is_local(self) -> bool:
        """Its jobs are a cluster's."""
        return False

    def submit(self, request: JobRequest) -> "FrayHandle":
        """Submits a job.

        Raises:
            ResourcesUnavailableError: The cluster never has what it asks for.
            UnpicklableError: It captures what cannot be sent to another process.
            WorkerError: The cluster does not answer or refuses; marin-fray is too old for what is asked.
        """
        key = os.urandom(32)
        asked = fray_request(self._package, request, outcomes=self._outcomes, key=key)
        job_id = self._engine.submit(asked, request.resources)
        logger.info(f"{request.name} is the Iris job {job_id}")
        return self._watched(_Job(request.name, job_id, self._outcomes, request.resources, key))

    def check_placeable(self, name: str, resources: ResourceConfig) -> None:
        """See `PlacementClient.check_placeable`: what marin-fray knows by itself, and whether the cluster answers.

        What it has, Iris says when it is given a job: it may pass it on to a cluster that it is allied with.

        Raises:
            ResourcesUnavailableError: No Iris cluster has such a device, or places so many slices.
            WorkerError: The cluster does not answer.
        """
        fray_resources(self._package, name, resources)
        if not self._is_reachable:
            self._engine.check_reachable()
            self._is_reachable = True

    def find(self, name: str) -> "FrayHandle | None":
        """See `JobClient.find`: asks the controller, whoever submitted the job."""
        found = self._engine.find(name)
        if found is None:
            return None
        job_id, status = found
        handle = self._handles.get(job_id) or self._watched(_Job(name, job_id, self._outcomes))
        handle.learn(status)
        return handle

    def _watched(self, job: "_Job") -> "FrayHandle":
        handle = FrayHandle(job, self._engine, self._poller)
        self._handles[job.id] = handle
        self._news_due = min(self._news_due, time.monotonic() + _FIRST_NEWS_S)
        self._poller.watch(job.id, handle)
        return handle

    def _look(self, job_ids: Sequence[str]) -> Mapping[str, JobStatus]:
        statuses = self._engine.statuses(job_ids)
        if time.monotonic() >= self._news_due:
            self._news_due = time.monotonic() + _NEWS_S
            self._spread_news()
        return statuses

    def _spread_news(self) -> None:
        handles = dict(self._handles)
        try:
            news = self._engine.news({job_id: handle.status() for job_id, handle in handles.items()})
        except WorkerError as error:  # said for people only: the statuses count
            logger.debug(f"{self.name} does not tell why jobs wait: {error}")
            return
        for job_id, its in news.items():
            handles[job_id].learn_news(its)


def _chosen(package: FrayPackage) -> Any:
    """The client that marin-fray would use here, but for its fallback: threads that ignore what a job asks for."""
    client = package.current.current_client()
    if not isinstance(client, package.local.LocalClient):
        return client
    raise WorkerError(
        explain(
            "no cluster is chosen: marin-fray would run jobs as threads of this process, without their resources, "
            "environment or retries",
            hint="--cluster fray://HOST:PORT, or start this launcher as an Iris job; --cluster local for this machine",
        )
    )


def _connected(package: FrayPackage, address: str, workspace: Path | None) -> Any:
    try:
        url, credentials = _way_to(address)
        iris = import_module("iris.client.client").IrisClient.remote(
            url, workspace=workspace or project_directory(), credentials=credentials
        )
    except Exception as error:
        said = getattr(error, "message", None) or f"{error}" or type(error).__name__
        raise WorkerError(
            explain(f"cannot connect to fray://{address}: {said}", hint="--cluster fray://HOST:PORT or fray://CLUSTER")
        ) from error
    return package.iris.FrayIrisClient.from_iris_client(iris)


def _way_to(address: str) -> tuple[str, Any]:
    """The URL of a controller, and what to show there. A cluster that is named is reached by its own configuration."""
    if "://" not in address and ":" not in address:
        endpoint: Any = import_module("iris.cli.connect").connect_controller(cluster_name=address)
        atexit.register(endpoint.close)
        return endpoint.url, endpoint.credentials
    url = address if "://" in address else f"http://{address}"
    manifest: Any = import_module("rigging.cluster_manifest")
    name = import_module("rigging.credential_store").cluster_name_from_url(url)
    unfronted = manifest.ClusterAuth(manifest.AuthProvider.NONE)
    return url, import_module("rigging.credentials").credentials_for(name, unfronted)


@final
@dataclass(frozen=True, slots=True)
class _Job:
    name: str
    id: str
    """Iris's, with user and parent."""
    outcomes: str | None
    resources: ResourceConfig | None = None
    """None: another launcher has submitted it."""
    key: bytes | None = field(default=None, repr=False)
    """What it leaves is sealed with; None: another launcher's, and what it left is not opened."""


@final
class FrayHandle:
    """An Iris job. Thread-safe."""

    def __init__(self, job: _Job, engine: FrayEngine, poller: JobPoller) -> None:
        self._job = job
        self._name = job.name
        self._engine = engine
        self._poller = poller
        self._status = JobStatus.PENDING
        self._preemptions = 0
        self._waits_for = ""
        self._refusal: ResourcesUnavailableError | None = None
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []

    @property
    def job_id(self) -> str:
        """See `JobHandle.job_id`."""
        return self._name

    def status(self) -> JobStatus:
        """See `JobHandle.status`: as the cluster last told, at most ten seconds ago if it answers.

        Where it does not, the log says so a minute later, and every ten minutes.
        """
        return self._status

    def wait(self, timeout: float | None = None) -> JobStatus:
        """See `JobHandle.wait`."""
        self._is_over.wait(timeout)
        return self._status

    def when_over(self, callback: Callable[[], None]) -> None:
        """Calls back once, on any thread, when the job has ended."""
        with self._lock:
            if not self._is_over.is_set():
                self._callbacks.append(callback)
                return
        callback()

    def logs(self) -> str:
        """See `JobHandle.logs`: the last 200 lines of all its processes."""
        try:
            return self._engine.logs(self._job.id, _LOG_LINES)
        except WorkerError as error:
            logger.warning(f"the log of {self._name} cannot be shown: {error}")
            return ""

    def terminate(self) -> None:
        """See `JobHandle.terminate`.

        Raises:
            WorkerError: The controller does not answer.
        """
        if not self._is_over.is_set():
            self._engine.terminate(self._job.id)
            self._poller.hurry(self._job.id)
            self.wait(_GONE_S)
        until = time.monotonic() + _GONE_S
        while self._status is JobStatus.STOPPED and self._engine.has_live_processes(self._job.id):
            if time.monotonic() > until:
                logger.warning(f"{self._name} was ended {_GONE_S:g} s ago, and its workers do not say so yet")
                return
            time.sleep(_PAUSE_S)

    def exception(self) -> BaseException | None:
        """See `JobHandle.exception`: itself, if the job could leave it; else in the cluster's words."""
        if self._status is JobStatus.SUCCEEDED or not self._status.is_over:
            return None
        if self._refusal is not None:
            return self._refusal
        return self._left_exception() or self._failure()

    def forget(self) -> None:
        """Deletes what it left for its launcher; Iris keeps its own record."""
        if self._job.outcomes is not None:
            delete_files([file.path for file in list_files(_outcomes_of(self._job))])

    # What the poller tells.

    def learn(self, status: JobStatus) -> bool:
        """See `PolledJob.learn`."""
        if self._status.is_over:
            return True
        if self._status is JobStatus.RUNNING and status is JobStatus.PENDING:
            logger.warning(f"{self._name} waits for a machine again: its own was taken away")
        if status.is_over:
            self._end_as(status)
        else:
            self._status = status
        return status.is_over

    def learn_news(self, news: JobNews) -> None:
        """Says each time that the machines were taken away, and what a job waits for; ends one that waits for ever."""
        if news.preemptions > self._preemptions:
            logger.warning(f"{self._name} was preempted, for the {news.preemptions}. time: the cluster starts it again")
        self._preemptions = news.preemptions
        if self._status is not JobStatus.PENDING:
            return
        if news.never_runs_because is not None:
            self._refuse(news.never_runs_because)
        elif news.waits_for != self._waits_for:
            self._waits_for = news.waits_for
            logger.info(f"{self._name} is pending: {' '.join(news.waits_for.split())}")

    def _refuse(self, why: str) -> None:
        try:
            self._engine.terminate(self._job.id)
        except WorkerError as error:  # the next news find it still pending
            logger.warning(f"{self._name} will never run, and cannot be ended: {error}")
            return
        self._refusal = self._engine.refusal(self._name, self._job.resources, why)
        self._end_as(JobStatus.FAILED)

    def _end_as(self, status: JobStatus) -> None:
        with self._lock:
            self._status = status
            self._is_over.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    # How it ended.

    def _left_exception(self) -> BaseException | None:
        """What its lowest rank that failed has left."""
        if self._job.outcomes is None or self._job.key is None:
            return None
        try:
            paths = sorted((file.path for file in list_files(_outcomes_of(self._job))), key=_rank)
            content = opened(read_bytes(paths[0]), self._job.key) if paths else None
            return None if content is None else unpacked_error(content)
        except Exception as error:  # noqa: BLE001 - a store that fails, a type that is not here: then in words
            logger.warning(f"what {self._name} raised cannot be read: {error!r}")
            return None

    def _failure(self) -> JobFailedError:
        try:
            account = self._engine.account(self._job.id)
            how, said = _how(account.exit_code), account.message
        except WorkerError as error:
            how, said = f"ended as {self._status}", str(error)
        facts = [*([f"Iris says: {said.splitlines()[-1]}"] if said else []), *self.logs().splitlines()[-_SHOWN_LINES:]]
        return JobFailedError(explain(f"the process of {self._name} {how or f'ended as {self._status}'}", facts=facts))


def _outcomes_of(job: _Job) -> str:
    return outcome_path(job.outcomes or "", job.name, 0).rpartition("/")[0]


def _rank(path: str) -> int:
    return int(path.rpartition("/")[2])


def _how(exit_code: int | None) -> str | None:
    """What an exit code means, as Iris tells it: of a container, or of a process."""
    if exit_code is None:
        return None
    number = -exit_code if exit_code < 0 else exit_code - 128
    if 0 < number < signal.NSIG and number in signal.valid_signals():
        memory = " (where nobody did that, the machine was out of memory)" if number == signal.SIGKILL else ""
        return f"was killed by {signal.Signals(number).name}{memory}"
    return f"exited with code {exit_code}"
