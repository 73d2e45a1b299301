"""Laws of remote callables: alone, and as steps whose cache and lock run inside the job."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marin_trace.errors import JobFailedError, PreviousTaskFailedError, ResourcesUnavailableError, RunFailedError
from marin_trace.runtime.log_records import (
    LOCAL_CLUSTER,
    AttemptLog,
    ClaimRecord,
    EndKind,
    EndRecord,
    FailurePhase,
    StartRecord,
)
from marin_trace.runtime.options import RunOptions
from marin_trace.runtime.remote import RemoteCallable, remote
from marin_trace.runtime.report import OutcomeKind
from marin_trace.runtime.status import StatusKind, read_status
from marin_trace.runtime.step_runner import EventKind, StepRunner
from marin_trace.storage.local_store import LocalControlStore
from marin_trace.storage.store_probe import PROBED_VARIABLE
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

    def when_over(self, callback: Callable[[], None]) -> None:
        callback()

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

    def find(self, name: str) -> None:
        return None


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
    monkeypatch.delenv(PROBED_VARIABLE, raising=False)
    cluster, tpu = FakeCluster(), ResourceConfig.with_tpu("v5p-8")
    with use_client(cluster):
        remote(os.getcwd, resources=tpu, env_vars={"A": "b"}, timeout=5)()
    remote(os.getcwd, client=cluster)()
    request = cluster.requests[0]
    assert (request.name[:-8], request.resources, request.timeout) == ("getcwd-", tpu, 5)
    assert request.name != cluster.requests[1].name
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


def test_the_claim_names_the_job_and_the_start_its_process(make_step) -> None:
    step = make_step("a", pid_of_job, wrap=as_job())
    report = StepRunner().run([step])
    log = AttemptLog(step.output_path)
    claim = ClaimRecord.from_bytes(Path(log.claim(1)).read_bytes(), "claim")
    start = StartRecord.from_bytes(Path(log.start(1)).read_bytes(), "start")
    assert (claim.pid, start.pid) == (os.getpid(), report.artifact(step))
    assert claim.job is not None
    assert (claim.job.name[:-8], claim.job.cluster) == ("step-", LOCAL_CLUSTER)
    assert start.nonce == claim.nonce
    assert end_of(step, 1).nonce == start.attempt


def fail_the_first_time(path: str) -> int:
    Path(path).mkdir(exist_ok=True)
    with open(f"{path}/attempts", "a+") as stream:
        stream.write(".")
        stream.seek(0)
        if len(stream.read()) < 3:
            raise LookupError("not yet")
    return os.getpid()


def test_a_job_repeats_a_failed_attempt_by_itself(make_step) -> None:
    step = make_step("a", fail_the_first_time, retries=2, wrap=as_job())
    report = StepRunner().run([step])
    assert report.outcomes[0].epoch == 3
    starts = [StartRecord.from_bytes(Path(AttemptLog(step.output_path).start(n)).read_bytes(), "start") for n in (1, 3)]
    assert starts[0].pid == starts[1].pid == report.artifact(step)


def test_a_job_that_dies_is_followed_by_another_as_long_as_there_are_retries(make_step) -> None:
    step = make_step("a", die_in_job_once, retries=1, wrap=as_job())
    report = StepRunner().run([step])
    assert (report.outcomes[0].epoch, report.artifact(step)) == (2, "alive")


def test_a_call_that_cannot_be_carried_over_is_the_steps_failure_and_nobody_elses(make_step) -> None:
    lock = threading.Lock()
    step = make_step("a", lambda path: lock, wrap=as_job())
    with pytest.raises(RunFailedError) as caught:
        StepRunner().run([step])
    assert isinstance(caught.value.exceptions[0], TypeError)
    assert "lock" in str(caught.value.exceptions[0])
    assert (end_of(step, 1).kind, end_of(step, 1).error.phase) == (EndKind.RELEASED, FailurePhase.JOB)


def test_a_step_in_a_process_of_its_own_cannot_write_to_this_processs_memory(make_step) -> None:
    step = make_step("a", pid_of_job, output_path="memory://here/a", wrap=as_job())
    with pytest.raises(RunFailedError) as caught:
        StepRunner().run([step])
    assert "cannot reach memory://here/a" in str(caught.value.exceptions[0])


def test_what_has_no_lock_cannot_be_started_as_a_step(make_step) -> None:
    step = make_step("a", wrap=lambda executable: remote(pid_of_job))
    with pytest.raises(RunFailedError) as caught:
        StepRunner().run([step])
    assert "pid_of_job is no step" in str(caught.value.exceptions[0])


def wait_for_ever(path: str) -> None:
    Path(path).mkdir(exist_ok=True)
    with open(f"{path}/../ready", "w") as stream:
        stream.write("ready")
    threading.Event().wait()


def wait_the_first_time(path: str) -> None:
    if not os.path.exists(f"{path}/begun"):
        Path(path, "begun").touch()
        threading.Event().wait()


def end_of(step: Any, epoch: int) -> EndRecord:
    path = AttemptLog(step.output_path).end(epoch)
    return EndRecord.from_bytes(Path(path).read_bytes(), path)


def test_a_job_out_of_time_is_ended_as_failed(make_step, prefix: str) -> None:
    step = make_step("a", wait_for_ever, wrap=as_job(timeout=1.0, client=LocalClient(term_grace_s=5)))
    with pytest.raises(RunFailedError) as caught:
        StepRunner().run([step])
    assert "step took longer than its timeout of 1 s" in str(caught.value.exceptions[0])
    status = read_status(step.output_path)
    assert status.kind is StatusKind.FAILED
    assert status.error.message == "cancelled by the step's timeout: it took longer than 1 s"


def test_a_job_out_of_time_is_released_and_tried_again(make_step, prefix: str) -> None:
    step = make_step("a", wait_the_first_time, retries=1, wrap=as_job(timeout=2.0))
    report = StepRunner().run([step])
    assert (report.outcomes[0].kind, report.outcomes[0].epoch) == (OutcomeKind.SUCCEEDED, 2)
    end = end_of(step, 1)
    assert (end.kind, end.error.type) == (EndKind.RELEASED, "KeyboardInterrupt")


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


class StubbornCluster(FakeCluster):
    """A cluster whose jobs begin late and never end by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.is_ended = threading.Event()

    def submit(self, request: JobRequest) -> Any:
        self.requests.append(request)
        return StubbornHandle(request, self.is_ended)


class StubbornHandle(FakeHandle):
    def __init__(self, request: JobRequest, is_ended: threading.Event) -> None:
        super().__init__(request)
        self.terminate = is_ended.set
        self.is_ended = is_ended

    def status(self) -> JobStatus:
        return JobStatus.STOPPED if self.is_ended.is_set() else JobStatus.PENDING


def interrupt_when_submitted(cluster: StubbornCluster, monkeypatch: pytest.MonkeyPatch, times: int) -> StepRunner:
    """A runner that is interrupted once the job is submitted, and again while it stays for that."""
    is_submitted = threading.Event()
    submit = cluster.submit
    monkeypatch.setattr(cluster, "submit", lambda request: (submit(request), is_submitted.set())[0])

    def interrupt(event: Any) -> None:
        if event.kind is EventKind.STARTED and event.step.name == "last":
            assert is_submitted.wait(30)
            raise KeyboardInterrupt

    def again(seconds: float) -> None:
        if times == 2:
            raise KeyboardInterrupt

    return StepRunner(on_event=interrupt, sleep=again)


@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_leaves_a_job_on_a_cluster_and_a_second_one_ends_it(make_step, monkeypatch, caplog, times) -> None:
    cluster = StubbornCluster()
    step = make_step("first", pid_of_job, wrap=as_job(client=cluster))
    with pytest.raises(KeyboardInterrupt):
        interrupt_when_submitted(cluster, monkeypatch, times).run([step, make_step("last")])
    assert cluster.is_ended.wait(30 if times == 2 else 0) is (times == 2)
    assert f"job {cluster.requests[0].name} is left running on fake" in caplog.text
    assert "jobs left running: 1; Ctrl-C" in caplog.text
    assert read_status(step.output_path).kind is StatusKind.RUNNING


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


class SlowHandle(FakeHandle):
    """A job that is pending until its cluster is told to work."""

    def __init__(self, request: JobRequest) -> None:
        super().__init__(request)
        self.is_over = False
        self.asked = 0
        self.hear: Callable[[], None] | None = None

    def status(self) -> JobStatus:
        self.asked += 1
        return JobStatus.SUCCEEDED if self.is_over else JobStatus.PENDING

    def when_over(self, callback: Callable[[], None]) -> None:
        self.hear = callback


class SlowCluster(FakeCluster):
    """A cluster that begins no job before it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.handles: list[SlowHandle] = []

    def submit(self, request: JobRequest) -> SlowHandle:
        self.requests.append(request)
        self.handles.append(SlowHandle(request))
        return self.handles[-1]

    def work(self) -> None:
        """Runs what was submitted."""
        for request, handle in zip(self.requests, self.handles, strict=True):
            request.entrypoint()
            handle.is_over = True
            if handle.hear is not None:
                handle.hear()


def test_jobs_in_flight_hold_no_threads(make_step) -> None:
    cluster, threads = SlowCluster(), list[int]()
    steps = [make_step(str(n), wrap=as_job(client=cluster)) for n in range(100)]

    def work_when_all_wait() -> None:
        while len(cluster.handles) < 100:
            time.sleep(0.01)
        threads.append(threading.active_count())
        cluster.work()

    before = threading.active_count()
    worker = threading.Thread(target=work_when_all_wait)
    worker.start()
    assert StepRunner().run(steps).count(OutcomeKind.SUCCEEDED) == 100
    worker.join()
    assert threads[0] - before < 30


def test_a_job_that_waits_for_room_is_not_looked_for_in_the_store(make_step, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, looks = SlowCluster(), list[str]()
    list_store = LocalControlStore.list
    monkeypatch.setattr(
        LocalControlStore, "list", lambda self, directory: looks.append(directory) or list_store(self, directory)
    )

    def work_when_it_was_asked_about() -> None:
        while not cluster.handles or cluster.handles[0].asked < 3:
            time.sleep(0.01)
        counts.append(len(looks))
        while cluster.handles[0].asked < 5:
            time.sleep(0.01)
        counts.append(len(looks))
        cluster.work()

    counts: list[int] = []
    worker = threading.Thread(target=work_when_it_was_asked_about)
    worker.start()
    step = make_step("a", wrap=as_job(client=cluster))
    assert StepRunner().run([step]).count(OutcomeKind.SUCCEEDED) == 1
    worker.join()
    assert counts[0] == counts[1]
    assert len(looks) > counts[1]


def test_a_cluster_is_given_as_many_jobs_at_a_time_as_the_run_allows(make_step) -> None:
    steps = [make_step(str(n), wrap=as_job(client=FakeCluster())) for n in range(5)]
    in_flight = [0]

    def count(event: Any) -> None:
        in_flight.append(in_flight[-1] + (1 if event.kind is EventKind.STARTED else -1))

    runner = StepRunner(options=RunOptions(max_jobs=2), on_event=count)
    assert runner.run(steps).count(OutcomeKind.SUCCEEDED) == 5
    assert max(in_flight) == 2


def test_what_this_machine_lacks_is_the_steps_failure(make_step) -> None:
    client = LocalClient(machine=Machine(2, None, 0, 0))
    step = make_step("a", wrap=as_job(resources=ResourceConfig.with_tpu("v5p-8"), client=client))
    with pytest.raises(RunFailedError) as caught:
        StepRunner().run([step])
    assert isinstance(caught.value.exceptions[0], ResourcesUnavailableError)
