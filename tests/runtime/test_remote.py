"""Laws of remote callables: alone, and as steps whose cache and lock run inside the job."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from marin_trace.errors import JobFailedError, PreviousTaskFailedError, ResourcesUnavailableError, RunFailedError
from marin_trace.runtime.remote import RemoteCallable, remote
from marin_trace.runtime.report import OutcomeKind
from marin_trace.runtime.status import StatusKind, read_status
from marin_trace.runtime.step_runner import EventKind, StepRunner
from marin_trace.workers.client import JobRequest, JobStatus, use_client
from marin_trace.workers.local import LocalClient
from marin_trace.workers.machine import Machine
from marin_trace.workers.resources import ResourceConfig


class FakeHandle:
    """A job that has run already."""

    def __init__(self, request: JobRequest) -> None:
        self.job_id = request.name

    def wait(self, timeout: float | None = None) -> JobStatus:
        return self.status()

    def status(self) -> JobStatus:
        return JobStatus.SUCCEEDED

    def exception(self) -> None:
        return None

    def forget(self) -> None:
        pass


class FakeCluster:
    """A cluster that runs each call at once."""

    name, is_local = "fake", False

    def __init__(self) -> None:
        self.requests: list[JobRequest] = []

    def submit(self, request: JobRequest) -> Any:
        self.requests.append(request)
        request.entrypoint()
        return FakeHandle(request)


def write_greeting(path: str, *, name: str = "world") -> str:
    Path(path).write_text(f"{os.environ['GREETING']} {name}")
    return "dropped"


def test_a_call_runs_elsewhere_and_returns_nothing(tmp_path: Path) -> None:
    wrapped = remote(write_greeting, env_vars={"GREETING": "hello"}, resources=ResourceConfig.with_cpu(1))
    assert wrapped(str(tmp_path / "out"), name="you") is None
    assert (tmp_path / "out").read_text() == "hello you"
    assert wrapped.__wrapped__ is write_greeting
    assert "hello" not in repr(wrapped)


def test_what_the_function_raises_is_raised() -> None:
    with pytest.raises(KeyError, match="GREETING") as caught:
        remote(write_greeting)("/nowhere")
    assert "in the job's process" in caught.value.__notes__[0]


def test_it_is_a_decorator_bare_and_with_arguments() -> None:
    @remote
    def bare() -> None: ...

    @remote(name="named", pip_dependency_groups=["extra"])
    def named() -> None: ...

    assert isinstance(bare, RemoteCallable)
    assert (named.name, named.pip_dependency_groups) == ("named", ("extra",))


def test_the_chosen_client_gets_the_request_with_forwarded_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "s3cr3t")
    monkeypatch.setenv("GREETING", "hello")
    cluster, tpu = FakeCluster(), ResourceConfig.with_tpu("v5p-8")
    with use_client(cluster):
        remote(print, resources=tpu, env_vars={"A": "b"}, timeout=5)()
    remote(print, client=cluster)()
    request = cluster.requests[0]
    assert (request.name, request.resources, request.timeout) == ("print", tpu, 5)
    assert dict(request.env_vars) == {"A": "b", "HF_TOKEN": "s3cr3t"}
    assert len(cluster.requests) == 2


def as_job(**options: Any) -> Any:
    return lambda executable: remote(executable, name="step", **options)


def pid_of_job(path: str) -> int:
    return os.getpid()


def test_a_step_in_a_job_commits_from_the_job(make_step) -> None:
    step = make_step("a", pid_of_job, wrap=as_job(env_vars={"A": "b"}))
    report = StepRunner().run([step])
    assert report.outcomes[0].kind is OutcomeKind.SUCCEEDED
    assert report.outcomes[0].epoch == 1
    assert report.artifact(step) != os.getpid()
    assert StepRunner().run([step]).outcomes[0].kind is OutcomeKind.HIT


def fail_in_job(path: str) -> None:
    raise LookupError("deep inside")


def test_a_step_that_fails_in_a_job_keeps_its_exception(make_step) -> None:
    step = make_step("a", fail_in_job, wrap=as_job())
    with pytest.raises(RunFailedError, match="1 of 1 steps failed: a") as caught:
        StepRunner().run([step])
    (error,) = caught.value.exceptions
    assert isinstance(error, LookupError)
    assert "in fail_in_job" in error.__notes__[0]
    assert error.__notes__[1].startswith("in step a, attempt 1")
    assert read_status(step.output_path).kind is StatusKind.FAILED


def die_in_job_once(path: str) -> str:
    marker = Path(f"{path}-died")
    if marker.exists():
        return "alive"
    marker.touch()
    os.kill(os.getpid(), 9)
    return "dead"


def test_a_job_that_is_killed_is_a_failure_of_this_run_and_is_released_by_its_keeper(make_step) -> None:
    step = make_step("a", die_in_job_once, wrap=as_job())
    with pytest.raises(RunFailedError) as caught:
        StepRunner().run([step])
    assert isinstance(caught.value.exceptions[0], JobFailedError)
    report = StepRunner().run([step])
    assert report.outcomes[0].kind is OutcomeKind.SUCCEEDED
    assert report.artifact(step) == "alive"
    assert report.outcomes[0].epoch == 2


def wait_for_ever(path: str) -> None:
    Path(path).mkdir(exist_ok=True)
    with open(f"{path}/../ready", "w") as stream:
        stream.write("ready")
    threading.Event().wait()


def test_a_job_out_of_time_is_ended_as_failed(make_step, prefix: str) -> None:
    step = make_step("a", wait_for_ever, wrap=as_job(timeout=1.0, client=LocalClient(term_grace_s=5)))
    with pytest.raises(RunFailedError) as caught:
        StepRunner().run([step])
    assert "step took longer than its timeout of 1 s" in str(caught.value.exceptions[0])


def test_an_interrupt_stops_local_jobs_and_releases_their_claims(make_step, prefix: str) -> None:
    ready = Path(prefix, "ready")
    os.mkfifo(ready)

    def interrupt(event: Any) -> None:
        if event.kind is EventKind.STARTED and event.step.name == "last":
            with open(ready) as stream:
                stream.read()
            raise KeyboardInterrupt

    step = make_step("first", wait_for_ever, wrap=as_job())
    with pytest.raises(KeyboardInterrupt):
        StepRunner(on_event=interrupt, stop_grace_s=30).run([step, make_step("last")])
    assert read_status(step.output_path).kind is StatusKind.RELEASED


def test_a_step_held_elsewhere_costs_no_job(make_step, launch) -> None:
    cluster = FakeCluster()
    step = make_step("held", pid_of_job, wrap=as_job(client=cluster))
    holder = launch("hold", step.output_path)
    assert holder.stdout.readline() == "claimed\n"

    def fail_it(event: Any) -> None:
        if event.kind is EventKind.HELD:
            holder.stdin.write("fail\n")
            holder.stdin.flush()

    with pytest.raises(RunFailedError) as caught:
        StepRunner(on_event=fail_it).run([step])
    assert isinstance(caught.value.exceptions[0], PreviousTaskFailedError)
    assert "told to fail" in str(caught.value.exceptions[0])
    assert cluster.requests == []


def test_a_step_on_a_cluster_does_not_count_against_this_machine(make_step) -> None:
    steps = [make_step(str(n), wrap=as_job(client=FakeCluster())) for n in range(4)]
    assert StepRunner().run(steps, max_concurrent=1).count(OutcomeKind.SUCCEEDED) == 4


def test_what_this_machine_lacks_is_the_steps_failure(make_step) -> None:
    client = LocalClient(machine=Machine(2, None, 0, 0))
    step = make_step("a", wrap=as_job(resources=ResourceConfig.with_tpu("v5p-8"), client=client))
    with pytest.raises(RunFailedError) as caught:
        StepRunner().run([step])
    assert isinstance(caught.value.exceptions[0], ResourcesUnavailableError)
