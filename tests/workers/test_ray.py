"""Laws of jobs on Ray beyond those of every engine: other launchers, machines that vanish, gangs, TPU slices.

One cluster of several nodes on this machine, which pretend to have TPUs and GPUs.
"""

import functools
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from marin_trace.errors import JobFailedError, ResourcesUnavailableError, WorkerError
from marin_trace.workers.client import JobHandle, JobRequest, JobStatus, job_name
from marin_trace.workers.ray import RayClient
from marin_trace.workers.ray_job import JobActor
from marin_trace.workers.resources import ResourceConfig
from tests.workers.engines import PATIENCE_S, append, ended, is_alive, lines_of, parent_of, require_module, wait_until
from tests.workers.ray_clusters import Node, RayCluster, ray_cluster, tpu_node
from tests.workers.test_overlay import tiny_wheel

pytestmark = pytest.mark.xdist_group("ray")

HALL = "ray.io/availability-zone"


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """A head, and a TPU slice of two machines."""
    slice_nodes = [tpu_node("slice-a", worker, tpu_type="v5p-16", topology="2x2x2") for worker in (0, 1)]
    with ray_cluster([Node(resources={"accelerator_type:H100": 1}, gpus=8), *slice_nodes]) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: RayCluster) -> RayClient:
    return RayClient(term_grace_s=5)


def submit(client: RayClient, entrypoint: Any, resources: ResourceConfig | None = None, **fields: Any) -> JobHandle:
    asked = resources or ResourceConfig.with_cpu(0.1)
    return client.submit(JobRequest(job_name("job"), entrypoint, resources=asked, **fields))


def wait_for_ever() -> None:
    threading.Event().wait()


# Launchers.


def wait_for_line(path: str, text: str) -> None:
    append(path, str(os.getpid()))
    with open(f"{path}.go") as stream:
        append(path, f"{text} {stream.read()}")


LAUNCHER = """
import functools, sys
from marin_trace.workers.client import JobRequest
from marin_trace.workers.ray import RayClient
from marin_trace.workers.resources import ResourceConfig
from tests.workers.test_ray import wait_for_line

call = functools.partial(wait_for_line, sys.argv[2], "done")
RayClient().submit(JobRequest(sys.argv[1], call, resources=ResourceConfig.with_cpu(0.1)))
print("submitted", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("has_begun", [True, False], ids=["while-it-runs", "as-soon-as-submitted"])
def test_a_job_outlives_its_launcher_and_the_next_one_finds_it(
    client: RayClient, tmp_path: Path, has_begun: bool
) -> None:
    name, path = job_name("orphan"), tmp_path / "out"
    os.mkfifo(f"{path}.go")
    command = [sys.executable, "-c", textwrap.dedent(LAUNCHER), name, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == "submitted\n"
        if has_begun:
            wait_until(lambda: bool(lines_of(path)))
        launcher.kill()
    found = client.find(name)
    assert found is not None
    if has_begun:
        # Whoever found it hears of its end as its own launcher would: also when Ray has to begin it again.
        os.kill(parent_of(int(lines_of(path)[0])), signal.SIGKILL)
        wait_until(lambda: len(lines_of(path)) == 2)
    with open(f"{path}.go", "w") as stream:
        stream.write("now")
    assert ended(found) is JobStatus.SUCCEEDED
    assert lines_of(path)[-1] == "done now"
    assert len(lines_of(path)) == (3 if has_begun else 2)
    assert client.find(name) is None


def test_a_name_that_a_live_job_has_is_refused(client: RayClient) -> None:
    request = JobRequest(job_name("twice"), wait_for_ever, resources=ResourceConfig.with_cpu(0.1))
    handle = client.submit(request)
    with pytest.raises(WorkerError, match=f"{request.name} cannot be submitted to Ray: the cluster has a job of this"):
        client.submit(request)
    handle.terminate()
    assert handle.status() is JobStatus.STOPPED


def test_ray_is_given_our_code_once_for_each_connection(client: RayClient, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    given: list[Any] = []
    remote: Any = ray.remote
    monkeypatch.setattr(ray, "remote", lambda *what, **how: given.extend(what) or remote(*what, **how))
    for _ in range(2):
        assert ended(submit(client, int)) is JobStatus.SUCCEEDED
    assert given.count(JobActor) == 1
    ray.shutdown()
    assert ended(submit(client, int)) is JobStatus.SUCCEEDED
    assert given.count(JobActor) == 2


def test_the_end_of_a_job_is_told_once(client: RayClient) -> None:
    told = threading.Event()
    calls: list[str] = []
    handle = submit(client, int)
    handle.when_over(lambda: (calls.append("first"), told.set()))
    assert told.wait(PATIENCE_S)
    handle.when_over(lambda: calls.append("late"))
    assert calls == ["first", "late"]
    assert handle.status() is JobStatus.SUCCEEDED


def test_a_job_without_room_is_pending_and_can_be_ended(client: RayClient, tmp_path: Path) -> None:
    first = submit(client, functools.partial(append, str(tmp_path / "a"), "x"), ResourceConfig.with_tpu("v5p-16"))
    assert ended(first) is JobStatus.SUCCEEDED
    filling = submit(client, wait_for_ever, ResourceConfig.with_gpu("h100", 8))
    wait_until(lambda: filling.status() is JobStatus.RUNNING)
    handle = submit(client, functools.partial(append, str(tmp_path / "out"), "ran"), ResourceConfig.with_gpu(count=1))
    assert handle.status() is JobStatus.PENDING
    assert client.find(handle.job_id) is not None
    handle.terminate()
    assert handle.status() is JobStatus.STOPPED
    assert client.find(handle.job_id) is None
    filling.terminate()
    assert lines_of(tmp_path / "out") == []


def test_values_of_variables_are_not_where_ray_shows_them(client: RayClient, tmp_path: Path) -> None:
    import ray

    handle = submit(client, wait_for_ever, env_vars={"TOKEN": "s3cr3t"})
    wait_until(lambda: handle.status() is JobStatus.RUNNING)
    shown = f"{ray.get_actor(handle.job_id, namespace='marin_trace')} {ray._private.state.actors()}"
    session = Path(ray._private.worker.global_worker.node.get_session_dir_path(), "logs")
    handle.terminate()
    assert "s3cr3t" not in shown
    assert not [path for path in session.rglob("*.*") if path.is_file() and b"s3cr3t" in path.read_bytes()]


def test_a_large_call_arrives(client: RayClient, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept, large = os.urandom(3_000_000), os.urandom(9_000_000)
    for size, content in ((3_000_000, kept), (9_000_000, large)):
        path = str(tmp_path / str(size))
        assert ended(submit(client, lambda path=path, content=content: append(path, str(len(content))))) is (
            JobStatus.SUCCEEDED
        )
        assert lines_of(Path(path)) == [str(size)]
    assert "captures 9 MB: until it begins, it needs this launcher alive" in caplog.text
    assert "captures 3 MB" not in caplog.text


def test_packages_are_installed_for_the_job_alone(
    client: RayClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body() -> None:
        import tiny_dist  # pyright: ignore[reportMissingImports]

        append(str(tmp_path / "out"), str(tiny_dist.ANSWER))

    groups = (tiny_wheel(tmp_path),)
    assert ended(submit(client, body, pip_dependency_groups=groups)) is JobStatus.SUCCEEDED
    assert lines_of(tmp_path / "out") == ["42"]
    broken = submit(client, int, pip_dependency_groups=(f"tiny-dist @ file://{tmp_path}/missing.whl",))
    assert ended(broken) is JobStatus.FAILED
    assert "pip could not install tiny-dist" in str(broken.exception())


def test_code_that_the_workers_do_not_have_is_named_with_the_way_out(
    client: RayClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_on_the_launcher.py").write_text("def body():\n    return None\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_on_the_launcher  # pyright: ignore[reportMissingImports]

    call = functools.partial(only_on_the_launcher.body)
    (tmp_path / "only_on_the_launcher.py").unlink()
    for path in tmp_path.rglob("*.pyc"):
        path.unlink()
    handle = submit(client, call)
    assert ended(handle) is JobStatus.FAILED
    assert "cannot import only_on_the_launcher, which the job uses" in str(handle.exception())
    assert "hint: send your code along: RayClient(working_dir='.')" in str(handle.exception())


# Machines.


def note_node_and_wait_the_first_time(path: str) -> None:
    append(path, f"{os.getpid()} {os.environ['RAY_RAYLET_PID']}")
    if len(lines_of(Path(path))) == 1:
        threading.Event().wait()


def note_node_and_wait_for_word(path: str) -> None:
    append(path, os.environ["RAY_RAYLET_PID"])
    wait_until(Path(f"{path}.go").exists)


def test_a_job_whose_machine_vanishes_runs_again_on_another(
    cluster: RayCluster, client: RayClient, tmp_path: Path
) -> None:
    raylets = [cluster.add(Node(cpus=1, labels={HALL: "hall-7"})) for _ in range(2)]
    path = tmp_path / "nodes"
    call = functools.partial(note_node_and_wait_the_first_time, str(path))
    handle = submit(client, call, ResourceConfig.with_cpu(1, zone="hall-7"))
    wait_until(lambda: bool(lines_of(path)))
    pid, raylet = map(int, lines_of(path)[0].split())
    cluster.lose(raylet)
    assert ended(handle) is JobStatus.SUCCEEDED
    assert [line.split()[1] == str(raylet) for line in lines_of(path)] == [True, False]
    assert not is_alive(pid)
    cluster.lose(next(other for other in raylets if other != raylet))


def test_a_job_whose_machine_was_the_only_one_is_pending_until_another_comes(
    cluster: RayCluster, client: RayClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hall = Node(cpus=1, labels={HALL: "hall-8"})
    raylet = cluster.add(hall)
    path = tmp_path / "nodes"
    call = functools.partial(note_node_and_wait_for_word, str(path))
    handle = submit(client, call, ResourceConfig.with_cpu(1, zone="hall-8"))
    wait_until(lambda: bool(lines_of(path)) and handle.status() is JobStatus.RUNNING)
    cluster.lose(raylet)
    wait_until(lambda: handle.status() is JobStatus.PENDING)
    found = client.find(handle.job_id)
    assert found is not None
    again = cluster.add(hall)
    wait_until(lambda: handle.status() is JobStatus.RUNNING)
    Path(f"{path}.go").touch()
    # Who hears of the end first lets the actor go: the other may be told no more than that it is gone.
    assert JobStatus.SUCCEEDED in {ended(handle), ended(found)}
    assert len(lines_of(path)) == 2
    assert f"{handle.job_id} is begun again: Ray had lost its machine or its worker" in caplog.text
    cluster.lose(again)


def test_what_the_cluster_lacks_is_told_with_what_it_has(client: RayClient) -> None:
    with pytest.raises(ResourcesUnavailableError, match=r"asks for tpu=v5p-32 on each of 4 machines, and the Ray") as e:
        submit(client, int, ResourceConfig.with_tpu("v5p-32"))
    assert "has v5p-16 (4 chips) on 2 nodes" in str(e.value)
    assert "1 x cpu=2" in str(e.value)


# Gangs.

SLICE = ResourceConfig.with_tpu("v5p-16", cpu=0.1)
PAIR = ResourceConfig(cpu=0.1, replicas=2)


def note_seat(path: str) -> None:
    names = ("MARIN_TRACE_RANK", "MARIN_TRACE_GANG_SIZE", "MARIN_TRACE_GANG_ATTEMPT", "MARIN_TRACE_GANG_HOST")
    append(path, " ".join([*(os.environ[name] for name in names), os.environ["RAY_RAYLET_PID"], str(os.getpid())]))


@pytest.mark.parametrize("resources", [SLICE, PAIR], ids=["slice", "replicas"])
def test_every_process_of_a_gang_has_its_seat(client: RayClient, tmp_path: Path, resources: ResourceConfig) -> None:
    handle = submit(client, functools.partial(note_seat, str(tmp_path / "seats")), resources)
    assert ended(handle) is JobStatus.SUCCEEDED, handle.exception()
    seats = sorted(line.split() for line in lines_of(tmp_path / "seats"))
    assert [seat[:2] for seat in seats] == [["0", "2"], ["1", "2"]]
    assert seats[0][2] == seats[1][2]
    assert seats[0][4] != seats[1][4]


def note_seat_and_wait(path: str) -> None:
    note_seat(path)
    threading.Event().wait()


def pids_of(path: Path) -> dict[str, int]:
    return {line.split()[0]: int(line.split()[5]) for line in lines_of(path)}


def started_pair(client: RayClient, path: Path, resources: ResourceConfig = PAIR) -> JobHandle:
    handle = submit(client, functools.partial(note_seat_and_wait, str(path)), resources)
    wait_until(lambda: len(lines_of(path)) == 2)
    return handle


def test_terminating_a_gang_ends_all_of_it_and_frees_its_slice(client: RayClient, tmp_path: Path) -> None:
    for attempt in ("first", "second"):
        handle = started_pair(client, tmp_path / attempt, SLICE)
        assert handle.status() is JobStatus.RUNNING
        found = client.find(handle.job_id)
        assert found is not None
        found.terminate()
        assert not any(is_alive(pid) for pid in pids_of(tmp_path / attempt).values())
        assert ended(handle) is JobStatus.STOPPED


def fail_as_rank_1(path: str) -> None:
    note_seat(path)
    if os.environ["MARIN_TRACE_RANK"] == "1":
        wait_until(lambda: len(lines_of(Path(path))) == 2)
        raise LookupError("rank 1 has had enough")
    threading.Event().wait()


def test_a_process_that_fails_ends_the_gang_with_its_exception(client: RayClient, tmp_path: Path) -> None:
    handle = submit(client, functools.partial(fail_as_rank_1, str(tmp_path / "seats")), PAIR)
    assert ended(handle) is JobStatus.FAILED
    error = handle.exception()
    assert isinstance(error, LookupError)
    assert "in fail_as_rank_1" in error.__notes__[0]
    assert len(lines_of(tmp_path / "seats")) == 2
    assert not any(is_alive(pid) for pid in pids_of(tmp_path / "seats").values())


def wait_in_the_first_attempt(path: str) -> None:
    note_seat(path)
    if len(lines_of(Path(path))) <= 2:
        threading.Event().wait()


def test_a_lost_process_restarts_the_whole_gang(client: RayClient, tmp_path: Path) -> None:
    path = tmp_path / "seats"
    handle = submit(client, functools.partial(wait_in_the_first_attempt, str(path)), PAIR)
    wait_until(lambda: len(lines_of(path)) == 2)
    first = pids_of(path)
    os.kill(parent_of(first["1"]), signal.SIGKILL)
    assert ended(handle) is JobStatus.SUCCEEDED, handle.exception()
    attempts = [line.split()[2] for line in lines_of(path)]
    assert len(attempts) == 4
    assert attempts[0] == attempts[1] != attempts[2] == attempts[3]
    assert not any(is_alive(pid) for pid in first.values())


# What is said where Ray cannot be used.


def test_ray_that_is_not_installed_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(WorkerError, match="--cluster ray needs Ray, which is not installed") as caught:
        RayClient()
    assert "pip install 'marin-trace[ray]'" in str(caught.value)


@pytest.mark.parametrize("address", ["ray://127.0.0.1:9", None])
def test_where_no_cluster_answers_the_way_to_one_is_told(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    require_module("ray", "Ray")
    code = "from marin_trace.workers.ray import RayClient\nimport sys\nRayClient(*sys.argv[1:]).find('any')"
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    command = [sys.executable, "-c", code, *([address] if address else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"WorkerError: no Ray cluster answers {address or '127.0.0.1:9'}: " in done.stderr
    assert "hint: ray start --head, or --cluster ray://HOST:10001" in done.stderr


def test_connecting_leaves_the_launchers_answer_to_signals_alone(client: RayClient) -> None:
    code = "import signal; before = signal.getsignal(signal.SIGTERM)\nfrom marin_trace.workers.ray import RayClient\n"
    code += "assert RayClient().find('none') is None\nassert signal.getsignal(signal.SIGTERM) is before"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_error_of_a_type_that_the_launcher_lacks_is_told_in_words(client: RayClient, tmp_path: Path) -> None:
    def body() -> None:
        (tmp_path / "made_there.py").write_text("class MadeThere(Exception): ...\n")
        sys.path.insert(0, str(tmp_path))
        from made_there import MadeThere  # pyright: ignore[reportMissingImports]

        raise MadeThere("far away")

    handle = submit(client, body)
    assert ended(handle) is JobStatus.FAILED
    assert isinstance(handle.exception(), JobFailedError)
    assert "MadeThere: far away" in str(handle.exception())
