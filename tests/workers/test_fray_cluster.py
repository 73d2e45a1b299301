"""Laws of the fray adapter on a real Iris cluster, beyond what every engine owes: slices, preemption, secrets, runs."""

import functools
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from marin_trace import deferred, executor_main, output, step
from marin_trace.errors import JobFailedError, ResourcesUnavailableError, RunFailedError
from marin_trace.runtime.remote import remote
from marin_trace.runtime.report import OutcomeKind
from marin_trace.workers.client import JobRequest, JobStatus, job_name, set_current_client, use_client
from marin_trace.workers.fray import FrayClient
from marin_trace.workers.gang import gang_seat
from marin_trace.workers.resources import ResourceConfig
from tests.workers.engines import PATIENCE_S, append, ended, lines_of, wait_until
from tests.workers.iris_site import MACHINES, SLICE_TYPE, WRONG_SLICE_TYPE, IrisCluster

pytestmark = pytest.mark.xdist_group("fray")

SMALL = ResourceConfig.with_cpu(0.1, ram="1g", disk="1g")


@pytest.fixture
def client(iris: IrisCluster, tmp_path: Path) -> FrayClient:
    return FrayClient(iris.address, outcomes=str(tmp_path / "outcomes"))


def wait_for_lines(path: Path, count: int) -> list[str]:
    """What jobs have written into a file, once it is so many lines."""
    wait_until(lambda: len(lines_of(path)) >= count)
    return lines_of(path)


# Slices.


def note_place(path: str) -> None:
    seat = gang_seat()
    assert seat is not None
    append(path, f"{seat.rank} {seat.size} {seat.attempt} {seat.host}")


def test_every_machine_of_a_slice_runs_the_call_and_knows_its_place(client: FrayClient, tmp_path: Path) -> None:
    call = functools.partial(note_place, str(tmp_path / "places"))
    handle = client.submit(JobRequest(job_name("gang"), call, ResourceConfig.with_tpu(SLICE_TYPE, cpu=1, ram="1g")))
    assert ended(handle) is JobStatus.SUCCEEDED, handle.logs()
    places = sorted(line.split() for line in wait_for_lines(tmp_path / "places", MACHINES))
    attempt = f"{handle.job_id}:0"
    assert [place[:3] for place in places] == [["0", "2", attempt], ["1", "2", attempt]]
    assert all(host != "None" for *_, host in places)


def fail_on_rank_1() -> None:
    seat = gang_seat()
    assert seat is not None
    if seat.rank == 1:
        raise LookupError("on rank 1")
    threading.Event().wait()


def test_what_another_rank_than_0_raised_is_told(client: FrayClient) -> None:
    handle = client.submit(
        JobRequest(job_name("gang"), fail_on_rank_1, ResourceConfig.with_tpu(SLICE_TYPE, cpu=1, ram="1g"))
    )
    assert ended(handle) is JobStatus.FAILED
    error = handle.exception()
    assert isinstance(error, LookupError)
    assert "on rank 1" in str(error)


def test_a_job_that_iris_takes_and_never_places_is_refused_within_seconds(
    client: FrayClient, iris: IrisCluster
) -> None:
    resources = ResourceConfig.with_tpu(WRONG_SLICE_TYPE, cpu=1, ram="1g")
    handle = client.submit(JobRequest(job_name("never"), int, resources))
    assert ended(handle) is JobStatus.FAILED
    error = handle.exception()
    assert isinstance(error, ResourcesUnavailableError)
    assert f"asks for tpu={WRONG_SLICE_TYPE}" in str(error)
    assert f"this cluster has cpu, tpu {SLICE_TYPE}" in str(error)
    assert "coschedule_mismatch" in str(error)
    assert client.find(handle.job_id) is None


# Preemption, secrets, and what is left behind.


def fail_the_second_time(path: str) -> None:
    append(path, str(os.getpid()))
    if len(Path(path).read_text().splitlines()) == 1:
        threading.Event().wait()
    os._exit(3)


def test_what_a_preempted_attempt_left_is_not_taken_for_the_last_ones(
    client: FrayClient, iris: IrisCluster, tmp_path: Path
) -> None:
    name = job_name("twice")
    call = functools.partial(fail_the_second_time, str(tmp_path / "pids"))
    handle = client.submit(JobRequest(name, call, SMALL))
    wait_for_lines(tmp_path / "pids", 1)
    left = tmp_path / "outcomes" / name
    left.mkdir(parents=True)
    (left / "0").write_bytes(b"of the first attempt")
    iris.preempt(name)
    assert ended(handle) is JobStatus.FAILED
    error = handle.exception()
    assert isinstance(error, JobFailedError)
    assert "exited with code 3" in str(error)
    assert len(wait_for_lines(tmp_path / "pids", 2)) == 2


def show_secret(path: str) -> None:
    append(path, f"{os.environ['MY_API_KEY']} {os.environ['PLAIN']}")


def test_secrets_reach_the_job_and_nothing_else(
    client: FrayClient, iris: IrisCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    variables = {"MY_API_KEY": "s3cr3t\n", "PLAIN": "seen"}
    call = functools.partial(show_secret, str(tmp_path / "out"))
    handle = client.submit(JobRequest(job_name("secret"), call, SMALL, env_vars=variables))
    assert ended(handle) is JobStatus.SUCCEEDED, handle.logs()
    assert (tmp_path / "out").read_text() == "s3cr3t\n seen\n"
    assert "s3cr3t" not in caplog.text + handle.logs() + repr(iris.iris.job_status(iris.job_id(handle.job_id)))
    assert not any("s3cr3t" in path.read_text(errors="replace") for path in tmp_path.glob("outcomes/**/*"))


def raise_key_error() -> None:
    raise KeyError("left behind")


def test_what_a_job_left_is_deleted_when_it_is_forgotten(client: FrayClient, tmp_path: Path) -> None:
    handle = client.submit(JobRequest(job_name("left"), raise_key_error, SMALL))
    told = threading.Event()
    handle.when_over(told.set)
    assert ended(handle) is JobStatus.FAILED
    assert told.wait(PATIENCE_S)
    assert list((tmp_path / "outcomes" / handle.job_id).iterdir())
    handle.forget()
    assert not list((tmp_path / "outcomes" / handle.job_id).iterdir())
    again = threading.Event()
    handle.when_over(again.set)
    assert again.is_set()


def test_without_a_place_for_outcomes_a_failure_is_told_in_words(iris: IrisCluster) -> None:
    handle = FrayClient(iris.address).submit(JobRequest(job_name("words"), raise_key_error, SMALL))
    assert ended(handle) is JobStatus.FAILED
    assert isinstance(handle.exception(), JobFailedError)
    assert "KeyError: 'left behind'" in str(handle.exception())
    handle.forget()


def wait_for_ever() -> None:
    threading.Event().wait()


def test_another_client_finds_a_job_and_learns_its_end(client: FrayClient, iris: IrisCluster, tmp_path: Path) -> None:
    handle = client.submit(JobRequest(job_name("found"), wait_for_ever, SMALL))
    other = FrayClient(iris.address, outcomes=str(tmp_path / "outcomes"))
    found = other.find(handle.job_id)
    assert found is not None
    handle.terminate()
    assert found.wait(PATIENCE_S) is JobStatus.STOPPED
    assert isinstance(found.exception(), JobFailedError)


# As a cluster for steps.


def write_number(path: str, number: int) -> int:
    print(f"writes {number}")
    os.makedirs(path, exist_ok=True)
    append(f"{path}/out", str(number))
    return number


@step(name="numbers/{number}", resources=SMALL)
def numbered(number: int):
    return deferred(write_number)(output(), number)


def test_a_run_on_the_cluster_leaves_what_a_run_here_does(iris: IrisCluster, tmp_path: Path) -> None:
    argv = ["--prefix", str(tmp_path / "prefix"), "--cluster", f"fray://{iris.address}"]
    ref = numbered(7)
    run = executor_main(steps=[ref], argv=argv)
    assert run.artifact(ref) == 7
    assert Path(run.output_path(ref), "out").read_text() == "7\n"
    assert Path(run.output_path(ref), ".executor/000001.log").read_text() == "writes 7\n"
    again = executor_main(steps=[ref], argv=[*argv[:2], "--cluster", "local"])
    assert [outcome.kind for outcome in again.outcomes] == [OutcomeKind.HIT]


def test_a_failing_step_keeps_its_exception_from_the_cluster(iris: IrisCluster, tmp_path: Path) -> None:
    @step(name="failing", resources=SMALL)
    def failing():
        return deferred(raise_key_error, identity="fails")()

    with pytest.raises(RunFailedError) as caught:
        executor_main(steps=[failing()], argv=["--prefix", str(tmp_path), "--cluster", f"fray://{iris.address}"])
    (error,) = caught.value.exceptions
    assert isinstance(error, KeyError)
    assert any("in raise_key_error" in note for note in error.__notes__)


@pytest.fixture
def chosen(iris: IrisCluster) -> Iterator[None]:
    from fray.current_client import set_current_client as choose  # pyright: ignore[reportMissingImports]
    from fray.iris_backend import FrayIrisClient  # pyright: ignore[reportMissingImports]

    with choose(FrayIrisClient(iris.url)):
        yield


@pytest.mark.usefixtures("chosen")
def test_the_client_that_marin_fray_was_given_is_taken_along_to_other_threads(tmp_path: Path) -> None:
    found = FrayClient()
    assert (found.name, found.is_local) == ("fray", False)
    with use_client(found):
        worker = threading.Thread(
            target=remote(append, resources=SMALL, client=found), args=(str(tmp_path / "out"), "by remote")
        )
        worker.start()
        worker.join(PATIENCE_S)
    assert wait_for_lines(tmp_path / "out", 1) == ["by remote"]
    set_current_client(None)
