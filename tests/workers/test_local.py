"""Laws of local jobs: real processes of this machine."""

import functools
import os
import sys
import threading
from pathlib import Path

import pytest

from marin_trace.errors import JobFailedError, ResourcesUnavailableError
from marin_trace.workers.client import JobRequest, JobStatus, current_client, set_current_client, use_client
from marin_trace.workers.local import LocalClient
from marin_trace.workers.machine import Machine, this_machine
from marin_trace.workers.resources import ResourceConfig


def run(entrypoint, **fields):
    return LocalClient(term_grace_s=5).submit(JobRequest("job", entrypoint, **fields))


def test_a_job_runs_in_a_process_of_its_own_with_its_environment(tmp_path: Path) -> None:
    target = str(tmp_path / "out")

    def body() -> None:
        with open(target, "w") as stream:
            stream.write(f"{os.getpid()} {os.getpgid(0)} {os.environ['GREETING']}")

    handle = run(body, env_vars={"GREETING": "hello"})
    assert handle.wait() is handle.status() is JobStatus.SUCCEEDED
    pid, group, greeting = Path(target).read_text().split()
    assert int(pid) != os.getpid()
    assert (group, greeting) == (pid, "hello")
    assert handle.exception() is None


def test_an_exception_keeps_its_type_and_brings_its_traceback() -> None:
    def body() -> None:
        raise LookupError("in the job")

    handle = run(body)
    assert handle.wait() is JobStatus.FAILED
    error = handle.exception()
    assert isinstance(error, LookupError)
    assert "in body" in error.__notes__[0]
    assert "LookupError: in the job" in handle.logs()


def test_a_job_that_dies_without_a_word_shows_the_tail_of_its_log() -> None:
    def body() -> None:
        print("last words", flush=True)
        os.kill(os.getpid(), 9)

    handle = run(body)
    handle.wait()
    error = handle.exception()
    assert isinstance(error, JobFailedError)
    assert "the process of job was killed by SIGKILL" in str(error)
    assert "last words" in str(error)
    assert handle.log_path in str(error)


def test_an_exception_that_does_not_pickle_is_told_from_the_log() -> None:
    def body() -> None:
        error = ValueError("unpicklable")
        error.lock = threading.Lock()  # pyright: ignore[reportAttributeAccessIssue]
        raise error

    handle = run(body)
    handle.wait()
    assert isinstance(handle.exception(), JobFailedError)
    assert "ValueError: unpicklable" in str(handle.exception())


def wait_for_children(fifo: str) -> None:
    import subprocess

    subprocess.Popen(["cat", fifo])
    with open(fifo + ".ready", "w") as stream:
        stream.write("ready")
    threading.Event().wait()


def test_termination_takes_the_whole_group(tmp_path: Path) -> None:
    fifo, ready = str(tmp_path / "fifo"), str(tmp_path / "fifo.ready")
    os.mkfifo(fifo)
    os.mkfifo(ready)
    handle = run(functools.partial(wait_for_children, fifo))
    with open(ready) as stream:
        assert stream.read() == "ready"
    writer = os.open(fifo, os.O_WRONLY)
    handle.terminate()
    handle.terminate()
    assert handle.status() is JobStatus.STOPPED
    with pytest.raises(BrokenPipeError):
        os.write(writer, b"nobody reads")
    os.close(writer)


def test_a_job_that_takes_too_long_is_ended() -> None:
    handle = run(lambda: threading.Event().wait(), timeout=0.01)
    assert handle.wait() is JobStatus.STOPPED
    error = handle.exception()
    assert isinstance(error, JobFailedError)
    assert "job took longer than its timeout of 0.01 s" in str(error)


SMALL = Machine(cores=2, ram_bytes=8 * 10**9, gpus=1, tpus=0)


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        (ResourceConfig.with_tpu("v5p-8"), "job asks for tpu=v5p-8, and this machine has no TPU"),
        (ResourceConfig.with_gpu("H100", 8), "job asks for gpu=H100x8, and this machine has 1 GPU"),
        (ResourceConfig.with_cpu(1, ram="64g"), "job asks for 64g of memory, and this machine has 8 GB"),
    ],
)
def test_what_this_machine_lacks_is_refused_with_the_flag(resources: ResourceConfig, message: str) -> None:
    with pytest.raises(ResourcesUnavailableError, match=message) as caught:
        LocalClient(machine=SMALL).submit(JobRequest("job", print, resources))
    assert "hint: --cluster ray or --cluster fray" in str(caught.value)


def test_what_this_machine_has_is_given() -> None:
    client = LocalClient(machine=SMALL)
    handle = client.submit(JobRequest("job", int, ResourceConfig.with_gpu("any", cpu=1, ram="1g")))
    assert handle.wait() is JobStatus.SUCCEEDED
    handle.forget()
    assert not Path(handle.log_path).exists()


def test_this_machine_is_looked_at() -> None:
    machine = this_machine()
    assert 1 <= machine.cores <= (os.cpu_count() or 1)
    assert machine.ram_bytes is None or machine.ram_bytes > 10**8


def test_the_client_is_the_contexts() -> None:
    client = LocalClient()
    assert current_client() is None
    with use_client(client):
        assert current_client() is client
    set_current_client(client)
    assert current_client() is client
    set_current_client(None)
    assert (client.name, client.is_local) == ("local", True)


def test_a_job_imports_what_the_launcher_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_here.py").write_text("def body():\n    return None\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_here  # pyright: ignore[reportMissingImports]

    handle = run(only_here.body)
    assert handle.wait() is JobStatus.SUCCEEDED, handle.logs()
    sys.modules.pop("only_here")
