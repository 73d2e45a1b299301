"""The Iris controller behind a client of marin-fray: what a launcher asks of it.

marin-fray's own client submits and tells the status of one job; the rest (many statuses in one question, a job by its
name, what the cluster has, why a job waits) is the Iris client's that it holds. That client repeats a request for half
an hour while the controller is away; a launcher holds leases, so here each question is given up after a while. One
that was given up may still be answered: a job that was submitted by it is ended.
"""

import contextvars
import functools
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, Final, TypeVar, final

from marin_trace.errors import ResourcesUnavailableError, WorkerError, explain
from marin_trace.workers.client import JobStatus
from marin_trace.workers.fray_package import FrayPackage
from marin_trace.workers.resources import ResourceConfig

__all__ = ["FrayEngine", "JobAccount", "JobNews"]

T = TypeVar("T")

_UNSCHEDULABLE: Final = re.compile(r"is unschedulable: (?P<why>.*?)(?: \(constraints: .*)?$", re.DOTALL)
_NEVER: Final = re.compile(
    r"Unsatisfied autoscaler demand: (?P<why>(?:coschedule_mismatch|no_matching_group|insufficient_resources): .*)",
    re.DOTALL,
)
"""Of the autoscaler's reasons those that time does not change; quota and capacity are not among them."""
_SHORT: Final = re.compile(r"(?P<what>cpu|memory|disk): need [0-9]+, available (?P<available>[0-9]+)")
"""Of the reason that nothing is large enough; in thousandths of a core, and bytes."""
_MOST_FOUND: Final = 20
_SHORT_PATIENCE_S: Final = 15.0
"""For a first answer, before anything is claimed."""


@final
@dataclass(frozen=True, slots=True)
class JobNews:
    """What Iris tells of a job that has not ended, besides its status."""

    preemptions: int
    """How often its machines were taken away."""
    waits_for: str
    """Why it is pending."""

    @property
    def never_runs_because(self) -> str | None:
        """Why it would be pending for ever; None: it may run yet."""
        found = _NEVER.search(self.waits_for)
        return found["why"].strip() if found else None


@final
@dataclass(frozen=True, slots=True)
class JobAccount:
    """What Iris tells of a job that has failed."""

    message: str
    exit_code: int | None
    """Of its first process that failed; negative: by that signal."""


@final
class FrayEngine:
    """A controller. Thread-safe."""

    def __init__(self, package: FrayPackage, client: Any, *, name: str, patience_s: float) -> None:
        """Takes the context of the calling thread along: Iris finds the job that it runs in there.

        Args:
            package: marin-fray.
            client: A ``FrayIrisClient``.
            name: Of the cluster, for messages.
            patience_s: After how many seconds a question is given up.

        Raises:
            WorkerError: The client is of another kind.
        """
        self._package = package
        self._client = client
        self._iris: Any = getattr(client, "_iris", None)
        self._cluster: Any = getattr(self._iris, "_cluster_client", None)
        if self._cluster is None:
            raise WorkerError(
                explain(
                    f"marin-fray's client is a {type(client).__name__}, which leads to no Iris controller",
                    facts={"marin-fray": package.version},
                    hint="--cluster fray://HOST:PORT",
                )
            )
        self._name_shown = name
        self._patience_s = patience_s
        self._context = contextvars.copy_context()

    def check_reachable(self) -> None:
        """Asks for any answer.

        Raises:
            WorkerError: There is none, after a quarter of a minute at most.
        """
        self._answer("answer", self._cluster.get_autoscaler_status, patience_s=min(_SHORT_PATIENCE_S, self._patience_s))

    def submit(self, request: Any, resources: ResourceConfig) -> str:
        """Submits a ``fray.types.JobRequest``.

        Args:
            request: Its name is unique: a job of this name is this one, submitted by a request whose answer was lost.
            resources: As our request asks for them, for messages.

        Returns:
            The job's id.

        Raises:
            ResourcesUnavailableError: This cluster never has that.
            WorkerError: It does not answer, or refuses.
        """
        try:
            handle = self._answer(
                f"take {request.name}",
                lambda: self._client.submit(request, adopt_existing=True),
                late=lambda handle: handle.terminate(),
            )
        except WorkerError as error:
            refused = _UNSCHEDULABLE.search(str(error))
            if refused is None:
                raise
            raise self.refusal(request.name, resources, refused["why"]) from None
        return str(handle.job_id)

    def refusal(self, name: str, resources: ResourceConfig | None, why: str) -> ResourcesUnavailableError:
        """The error that names what a cluster lacks, and what it has."""
        short = _too_small(resources, why) if resources is not None else None
        asked, offer = short or (resources or "what it was submitted with", f"this cluster has {self._offer()}")
        return ResourcesUnavailableError(
            explain(
                f"{name} asks for {asked}, and {offer}",
                facts={"Iris says": why},
                hint="ask for less, or for another type: ResourceConfig.with_tpu(…), .with_gpu(…), .with_cpu(…)",
            )
        )

    def _offer(self) -> str:
        try:
            status = self._answer("say what it has", self._cluster.get_autoscaler_status)
        except WorkerError as error:  # the refusal is told without it
            return f"nothing like it ({error})"
        kinds = {f"{group.device_type} {group.device_variant}".strip(): None for group in status.status.groups}
        return ", ".join(kind or "workers of no kind" for kind in kinds) or "no workers of its own"

    def statuses(self, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """The statuses of jobs, in one request; one that Iris no longer knows has failed.

        Raises:
            WorkerError: The controller does not answer.
        """
        names = [self._name(job_id) for job_id in job_ids]
        states: Mapping[str, int] = self._answer("tell of jobs", lambda: self._cluster.get_job_states(names))
        return {job_id: self._status(states[job_id]) if job_id in states else JobStatus.FAILED for job_id in job_ids}

    def _status(self, state: int) -> JobStatus:
        return JobStatus(str(self._package.iris.map_iris_job_state(self._package.codec.job_state_from_proto(state))))

    def find(self, name: str) -> tuple[str, JobStatus] | None:
        """The id of the job of this name that has not ended, whoever submitted it and from wherever.

        Raises:
            WorkerError: The controller does not answer.
        """
        query = self._package.messages.Controller.JobQuery(name_filter=name)
        jobs = self._answer("find a job", lambda: self._cluster.list_jobs(query=query, limit=_MOST_FOUND))
        for job in jobs:
            status = self._status(job.state)
            if job.job_id.rpartition("/")[2] == name and not status.is_over:
                return job.job_id, status
        return None

    def terminate(self, job_id: str) -> None:
        """Asks for a job's end. Its processes live on for a second or two: `has_live_processes`.

        Raises:
            WorkerError: The controller does not answer.
        """
        self._answer("end a job", lambda: self._cluster.terminate_job(self._name(job_id)))

    def has_live_processes(self, job_id: str) -> bool:
        """Whether a worker has not said yet that it has ended a process of the job.

        Raises:
            WorkerError: The controller does not answer.
        """
        tasks = self._answer("list processes", lambda: self._iris.list_tasks(self._name(job_id)))
        return any(attempt.finished_at is None for task in tasks for attempt in task.attempts)

    def account(self, job_id: str) -> JobAccount:
        """What it tells of a job.

        Raises:
            WorkerError: The controller does not answer.
        """
        status = self._answer("tell of a job", lambda: self._iris.job_status(self._name(job_id)))
        tasks = self._answer("list processes", lambda: self._iris.list_tasks(self._name(job_id)))
        codes = [task.exit_code for task in tasks if task.exit_code]
        return JobAccount(message=status.error_message, exit_code=codes[0] if codes else None)

    def news(self, statuses: Mapping[str, JobStatus]) -> dict[str, JobNews]:
        """What is told of jobs that are pending or run, in one request for each of the two, however many they are.

        Args:
            statuses: Of these jobs, by their ids.

        Raises:
            WorkerError: The controller does not answer.
        """
        found: dict[str, JobNews] = {}
        for status in (JobStatus.PENDING, JobStatus.RUNNING):
            state = self._package.states.JobState(status.value)
            for space in {job_id.rpartition("/")[0] for job_id, its in statuses.items() if its is status}:
                ask = functools.partial(self._iris.list_jobs, state=state, prefix=f"{space}/")
                for job in self._answer("list jobs", ask):
                    found[str(job.job_id)] = JobNews(job.preemption_count, job.pending_reason)
        return {job_id: found[job_id] for job_id in statuses if job_id in found}

    def logs(self, job_id: str, lines: int) -> str:
        """The last lines that all processes of a job wrote.

        Raises:
            WorkerError: The controller does not answer.
        """
        job = self._iris.job(self._name(job_id))
        entries = self._answer("show a log", lambda: job.logs(max_lines=lines, tail=True))
        return "\n".join(entry.data.rstrip("\n") for entry in entries)

    def _name(self, job_id: str) -> Any:
        return self._package.names.JobName.from_wire(job_id)

    def _answer(
        self,
        what: str,
        ask: Callable[[], T],
        *,
        late: Callable[[T], object] | None = None,
        patience_s: float | None = None,
    ) -> T:
        seconds = self._patience_s if patience_s is None else patience_s
        answer: Future[T] = Future()
        context = self._context.copy()

        def work() -> None:
            try:
                answer.set_result(context.run(ask))
            except BaseException as error:  # noqa: BLE001 - the asking thread raises it
                answer.set_exception(error)

        threading.Thread(target=work, name=f"marin-trace-asks-to-{what}", daemon=True).start()
        if wait([answer], seconds).not_done:
            if late is not None:
                answer.add_done_callback(lambda done: None if done.exception() else late(done.result()))
            raise WorkerError(explain(f"the Iris controller of {self._name_shown} did not {what} within {seconds:g} s"))
        error = answer.exception()
        if error is None:
            return answer.result()
        said = f"{error}".splitlines()[0] if f"{error}" else type(error).__name__
        raise WorkerError(explain(f"the Iris controller of {self._name_shown} does not {what}: {said}")) from error


def _too_small(resources: ResourceConfig, why: str) -> tuple[str, str] | None:
    """What is asked for and what the largest worker gives instead, where size is the reason."""
    found = [(match["what"], int(match["available"])) for match in _SHORT.finditer(why)]
    if not found:
        return None
    what = found[0][0]
    most = max(available for kind, available in found if kind == what)
    asked = {
        "cpu": f"cpu={resources.cpu or 'its default'}",
        "memory": f"{resources.ram or 'the default'} of memory",
        "disk": f"{resources.disk or 'the default'} of disk",
    }
    size = f"{most / 1000:g} cores" if what == "cpu" else f"{most / 10**9:g} GB"
    return asked[what], f"the largest worker that this cluster has gives {size}"
