"""What every engine owes a step: one suite for all job clients, on real processes.

An engine is the fixture ``NAME_engine``; see `tests.workers.engines`. Bodies travel by cloudpickle and write what they
saw into the test's directory, which every engine of the suite shares.
"""

import ctypes
import functools
import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from marin_trace import deferred, executor_main, output, step
from marin_trace.errors import JobFailedError, ResourcesUnavailableError, RunFailedError, WorkerError
from marin_trace.runtime.status import StatusKind, read_status
from marin_trace.workers.client import JobHandle, JobStatus, job_name, use_client
from marin_trace.workers.resources import ResourceConfig
from tests.workers.engines import PATIENCE_S, Engine, append, ended, is_alive, lines_of, wait_until


class OwnError(Exception):
    """Of a type that the launcher knows, with more than a message."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message, code)
        self.code = code


def note_pid_and_wait(path: str) -> None:
    append(path, str(os.getpid()))
    threading.Event().wait()


def running(engine: Engine, path: Path, **fields: object) -> tuple[JobHandle, int]:
    """A job that runs until it is ended, and the id of its process."""
    handle = engine.submit(functools.partial(note_pid_and_wait, str(path)), **fields)
    wait_until(lambda: bool(lines_of(path)))
    return handle, int(lines_of(path)[0])


# What a step makes of it.


def wait_in_step(path: str) -> None:
    threading.Event().wait()


def test_a_step_that_is_out_of_time_has_failed_for_everybody(engine: Engine, tmp_path: Path) -> None:
    @step(name="late", resources=ResourceConfig.with_cpu(0.1), timeout=5.0)
    def late():
        return deferred(wait_in_step, identity="tests:wait_in_step")(output())

    with use_client(engine.client), pytest.raises(RunFailedError) as caught:
        executor_main(steps=[late()], argv=["--prefix", str(tmp_path)])
    assert "took longer than its timeout of 5 s" in str(caught.value.exceptions[0])
    (log,) = tmp_path.glob("late-*/.executor")
    status = read_status(str(log.parent))
    assert (status.epoch, status.kind) == (1, StatusKind.FAILED)
    assert status.error is not None
    assert "took longer than" in status.error.message


# What a job is given.


def test_a_job_runs_in_a_process_of_its_own(engine: Engine, tmp_path: Path) -> None:
    handle = engine.submit(functools.partial(append, str(tmp_path / "out"), "done"))
    assert ended(handle) is handle.status() is JobStatus.SUCCEEDED
    assert lines_of(tmp_path / "out") == ["done"]
    assert handle.exception() is None
    handle.forget()


def test_a_function_without_a_module_travels_with_what_it_captures(engine: Engine, tmp_path: Path) -> None:
    target, number = str(tmp_path / "out"), 42

    def body() -> None:
        with open(target, "w") as stream:
            stream.write(f"{number} {os.getpid()}")

    assert ended(engine.submit(body)) is JobStatus.SUCCEEDED
    found, pid = (tmp_path / "out").read_text().split()
    assert found == "42"
    assert int(pid) != os.getpid()


def test_environment_variables_reach_the_job_and_no_other(engine: Engine, tmp_path: Path) -> None:
    def body(path: str) -> None:
        append(path, os.environ.get("GREETING", "nothing"))

    first = engine.submit(functools.partial(body, str(tmp_path / "1")), env_vars={"GREETING": "hello"})
    assert ended(first) is JobStatus.SUCCEEDED
    second = engine.submit(functools.partial(body, str(tmp_path / "2")))
    assert ended(second) is JobStatus.SUCCEEDED
    assert (lines_of(tmp_path / "1"), lines_of(tmp_path / "2")) == (["hello"], ["nothing"])
    assert "GREETING" not in os.environ


def test_a_job_works_where_the_working_tree_is(engine: Engine, tmp_path: Path) -> None:
    def body() -> None:
        append(str(tmp_path / "out"), str(os.path.exists("marin_trace/workers/client.py")))

    assert ended(engine.submit(body)) is JobStatus.SUCCEEDED
    assert lines_of(tmp_path / "out") == ["True"]


def sum_in_processes(path: str) -> None:
    append(path, f"began {os.getpid()}")
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        append(path, f"{sum(pool.map(abs, [-1, -2, -3]))}")


def test_a_job_may_start_processes_of_its_own(engine: Engine, tmp_path: Path) -> None:
    assert ended(engine.submit(functools.partial(sum_in_processes, str(tmp_path / "out")))) is JobStatus.SUCCEEDED
    began, total = lines_of(tmp_path / "out")
    assert (began.partition(" ")[0], total) == ("began", "6")


def test_what_a_job_writes_can_be_read(engine: Engine) -> None:
    def body() -> None:
        print("to stdout")
        print("to stderr", file=sys.stderr)
        os.system("echo from a child")

    handle = engine.submit(body)
    assert ended(handle) is JobStatus.SUCCEEDED
    wait_until(lambda: all(text in handle.logs() for text in ("to stdout", "to stderr", "from a child")))
    handle.forget()


# How it ends.


def test_an_exception_keeps_type_message_and_remote_traceback(engine: Engine) -> None:
    def deep_inside() -> None:
        raise OwnError("in the job", 7)

    handle = engine.submit(deep_inside)
    assert ended(handle) is JobStatus.FAILED
    error = handle.exception()
    assert isinstance(error, OwnError)
    assert (error.args, error.code) == (("in the job", 7), 7)
    assert any("in deep_inside" in note for note in error.__notes__)


def test_an_exception_that_cannot_be_carried_over_is_told_in_words(engine: Engine) -> None:
    def body() -> None:
        error = ValueError("has a lock")
        error.lock = threading.Lock()  # pyright: ignore[reportAttributeAccessIssue]
        raise error

    handle = engine.submit(body)
    assert ended(handle) is JobStatus.FAILED
    assert isinstance(handle.exception(), JobFailedError)
    assert "ValueError: has a lock" in str(handle.exception())


@pytest.mark.parametrize("code", [3, 0])
def test_sys_exit_is_a_failure_that_leaves_the_launcher_alone(engine: Engine, code: int) -> None:
    handle = engine.submit(functools.partial(sys.exit, code))
    assert ended(handle) is JobStatus.FAILED
    error = handle.exception()
    assert isinstance(error, JobFailedError)
    assert f"called sys.exit({code})" in str(error)


def crash(path: str) -> None:
    append(path, "began")
    ctypes.string_at(0)


def test_a_segfault_is_a_failure_that_the_engine_does_not_repeat(engine: Engine, tmp_path: Path) -> None:
    handle = engine.submit(functools.partial(crash, str(tmp_path / "out")), name="crashing")
    assert ended(handle) is JobStatus.FAILED
    error = handle.exception()
    assert isinstance(error, JobFailedError)
    assert handle.job_id in str(error)
    if engine.names_signals:
        assert "SIGSEGV" in str(error)
    assert lines_of(tmp_path / "out") == ["began"]


def die_of_hunger(path: str) -> None:
    append(path, "began")
    print("last words", flush=True)
    # As the kernel does to what takes more memory than there is.
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_job_killed_for_memory_says_so_with_its_last_words(engine: Engine, tmp_path: Path) -> None:
    handle = engine.submit(functools.partial(die_of_hunger, str(tmp_path / "out")))
    assert ended(handle) is JobStatus.FAILED
    error = handle.exception()
    assert isinstance(error, JobFailedError)
    assert "last words" in str(error)
    if engine.names_signals:
        assert "SIGKILL" in str(error)
        assert "memory" in str(error)
    assert lines_of(tmp_path / "out") == ["began"]


def append_and_fail(path: str) -> None:
    append(path, "tried")
    raise LookupError("always")


def test_retries_are_not_the_engines(engine: Engine, tmp_path: Path) -> None:
    handle = engine.submit(functools.partial(append_and_fail, str(tmp_path / "out")))
    assert ended(handle) is JobStatus.FAILED
    assert lines_of(tmp_path / "out") == ["tried"]


# Ending it.


def test_termination_takes_the_process_and_is_over_when_it_returns(engine: Engine, tmp_path: Path) -> None:
    handle, pid = running(engine, tmp_path / "pid")
    assert handle.status() is JobStatus.RUNNING
    handle.terminate()
    assert not is_alive(pid)
    assert handle.status() is handle.wait(PATIENCE_S) is JobStatus.STOPPED
    handle.terminate()


def test_a_job_that_has_ended_is_not_changed_by_terminating_it(engine: Engine) -> None:
    handle = engine.submit(int)
    assert ended(handle) is JobStatus.SUCCEEDED
    handle.terminate()
    assert handle.status() is JobStatus.SUCCEEDED


def test_a_job_out_of_time_is_ended_and_says_so(engine: Engine, tmp_path: Path) -> None:
    handle = engine.submit(functools.partial(note_pid_and_wait, str(tmp_path / "pid")), timeout=3.0)
    assert ended(handle) in (JobStatus.STOPPED, JobStatus.FAILED)
    error = handle.exception()
    assert isinstance(error, JobFailedError)
    assert "took longer than its timeout of 3 s" in str(error)
    assert not any(is_alive(int(pid)) for pid in lines_of(tmp_path / "pid"))


def wait_the_first_time(path: str) -> None:
    append(path, str(os.getpid()))
    if len(lines_of(Path(path))) == 1:
        threading.Event().wait()


def test_a_job_whose_worker_is_lost_runs_again_where_the_engine_has_workers(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "pids"
    handle = engine.submit(functools.partial(wait_the_first_time, str(path)))
    wait_until(lambda: bool(lines_of(path)))
    engine.lose_worker(int(lines_of(path)[0]))
    if engine.restarts_lost_workers:
        assert ended(handle) is JobStatus.SUCCEEDED
        assert len(lines_of(path)) == 2
    else:
        assert ended(handle) is JobStatus.FAILED
        assert isinstance(handle.exception(), JobFailedError)
    assert not is_alive(int(lines_of(path)[0]))


# What is refused.


@pytest.mark.parametrize(
    ("resources", "asked"),
    [
        (ResourceConfig.with_cpu(0.1, ram="900t"), "900t"),
        (ResourceConfig.with_gpu("H100", 64), "gpu=H100x64"),
        (ResourceConfig.with_tpu("v2-8"), "tpu=v2-8"),
    ],
)
def test_what_no_worker_can_give_is_refused_at_once(engine: Engine, resources: ResourceConfig, asked: str) -> None:
    with pytest.raises(ResourcesUnavailableError, match=f"^hungry.* asks for {asked}.* has") as caught:
        engine.submit(int, name="hungry", resources=resources)
    assert "hint:" in str(caught.value)


def test_what_cannot_be_pickled_is_refused_naming_the_variable(engine: Engine) -> None:
    connection = threading.Lock()

    def body() -> None:
        connection.acquire()

    with pytest.raises(WorkerError, match="`connection`") as caught:
        engine.submit(functools.partial(body), name="unpicklable")
    assert isinstance(caught.value, TypeError)
    assert "test_workers.py:" in str(caught.value)


NAMES = ["train/tiny", "Ünïcode and spaces", "12345678", "..", "x" * 300, "a_b.c-D", ""]


def test_every_name_that_we_give_is_taken(engine: Engine) -> None:
    handles = [engine.submit(int, name=text) for text in NAMES]
    for handle in handles:
        assert handle.job_id.islower()
        assert len(handle.job_id) < 60
        assert ended(handle) is JobStatus.SUCCEEDED


# Finding it again, and many of them.


def test_a_live_job_is_found_by_its_name_and_no_other(engine: Engine, tmp_path: Path) -> None:
    handle, pid = running(engine, tmp_path / "pid")
    found = engine.client.find(handle.job_id)
    assert found is not None
    assert (found.job_id, found.status()) == (handle.job_id, JobStatus.RUNNING)
    assert engine.client.find(job_name("never-was")) is None
    found.terminate()
    assert not is_alive(pid)
    assert handle.wait(PATIENCE_S).is_over
    assert engine.client.find(handle.job_id) is None


def run_side_by_side(engine: Engine, directory: Path, count: int) -> None:
    handles = [engine.submit(functools.partial(append, str(directory / str(n)), "done")) for n in range(count)]
    for handle in handles:
        assert ended(handle) is JobStatus.SUCCEEDED, handle.exception()
        handle.forget()
    assert sorted(int(path.name) for path in directory.iterdir()) == list(range(count))


def test_jobs_run_side_by_side(engine: Engine, tmp_path: Path) -> None:
    run_side_by_side(engine, tmp_path, 6)


@pytest.mark.slow
def test_many_jobs_run_side_by_side(engine: Engine, tmp_path: Path) -> None:
    run_side_by_side(engine, tmp_path, 500)
