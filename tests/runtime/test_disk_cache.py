"""Laws of the cache, alone and around a lock."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from marin_trace.runtime.artifact import Artifact
from marin_trace.runtime.disk_cache import Cached, disk_cached
from marin_trace.runtime.distributed_lock import distributed_lock
from marin_trace.runtime.log_records import AttemptLog
from marin_trace.runtime.options import AttemptOptions
from marin_trace.runtime.status import StatusKind, read_status
from marin_trace.storage.control_store import control_store_for


@pytest.fixture
def output(tmp_path: Path) -> str:
    return str(tmp_path / "out")


def test_a_hit_loads_and_does_not_run(output: str) -> None:
    runs: list[str] = []
    for _ in range(2):
        value = disk_cached(lambda path: runs.append(path) or 7, output, save=Artifact.save, load=Artifact.load)
        assert value == 7
    assert runs == [output]


def test_without_save_and_load_a_hit_calls_the_function_again(output: str) -> None:
    runs: list[str] = []
    for expected in (1, 2):
        assert disk_cached(lambda path: runs.append(path) or len(runs), output) == expected
    assert read_status(output).epoch == 1


def test_around_a_lock_a_hit_calls_the_function_without_the_lock(output: str) -> None:
    runs: list[str] = []
    cached = Cached(distributed_lock(lambda path: runs.append(path) or len(runs)))
    assert [cached(output), cached(output)] == [1, 2]
    assert read_status(output).epoch == 1


def test_around_a_lock_forcing_is_the_locks_matter(output: str) -> None:
    first = Cached(distributed_lock(lambda path: 1), Artifact.save, Artifact.load)
    lock = distributed_lock(lambda path: 2).with_options(AttemptOptions(rerun_of=1))
    assert [first(output), first(output), Cached(lock, Artifact.save, Artifact.load)(output)] == [1, 1, 2]


def test_a_failure_leaves_no_commit_and_no_artifact(output: str) -> None:
    with pytest.raises(ZeroDivisionError, match="division"):
        disk_cached(lambda path: 1 / 0, output, save=Artifact.save, load=Artifact.load)
    assert read_status(output).kind is StatusKind.MISSING
    assert disk_cached(lambda path: 3, output, save=Artifact.save, load=Artifact.load) == 3


def test_without_a_lock_a_loser_commits_nothing(output: str) -> None:
    def body(path: str) -> str:
        disk_cached(lambda inner: "winner", path, save=Artifact.save, load=Artifact.load)
        return "loser"

    assert disk_cached(body, output) == "loser"
    assert control_store_for(output).list(AttemptLog(output).directory) == ["000001.claim", "000001.end"]
    assert disk_cached(body, output, save=Artifact.save, load=Artifact.load) == "winner"


def test_without_a_lock_a_held_output_is_not_committed(output: str) -> None:
    def holder(path: str) -> str:
        assert disk_cached(lambda inner: "beside", path) == "beside"
        return "holder"

    assert distributed_lock(holder)(output) == "holder"
    assert read_status(output).epoch == 1


def test_started_on_a_pool_it_gives_a_future(output: str) -> None:
    with ThreadPoolExecutor(1) as pool:
        assert Cached(lambda path: 4, Artifact.save, Artifact.load).start(output, pool).result(30) == 4
        locked = Cached(distributed_lock(lambda path: 5), Artifact.save, Artifact.load)
        assert locked.start(output, pool).result(30) == 4


def test_what_an_older_system_finished_is_a_hit(output: str) -> None:
    Artifact.save("old", output)
    control_store_for(output).put(AttemptLog(output).status_token, b"SUCCESS\n")
    assert disk_cached(lambda path: "new", output, save=Artifact.save, load=Artifact.load) == "old"
    assert Cached(distributed_lock(lambda path: "new"), Artifact.save, Artifact.load)(output) == "old"
