"""Whole runs, from the command line's flags on, with a prefix in a cloud."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy
import pytest

from marin_trace import StepRef, deferred, executor_main, output, step
from marin_trace.errors import PrefixError, RunFailedError
from marin_trace.io import atomic_directory, atomic_write
from marin_trace.runtime.attempt import empty_output
from marin_trace.runtime.disk_cache import disk_cached
from marin_trace.runtime.maintenance import CheckKind, check_output, collect_garbage, find_outputs, unlock
from marin_trace.runtime.report import OutcomeKind
from marin_trace.runtime.status import StatusKind, read_statuses
from marin_trace.storage.control_store import control_store_for
from marin_trace.storage.files import FileStat, exists, list_files, open_data, read_bytes, write_bytes
from marin_trace.storage.store_probe import PROBED_VARIABLE, check_store
from tests.storage.clouds import Cloud, gcs_cloud, s3_cloud
from tests.storage.faults import Call, Fault, lost_answer, status_after, status_before

ROOT = Path(__file__).parents[2]


@dataclass
class Counts:
    words: int
    lengths: numpy.ndarray


def write_words(path: str, words: list[str]) -> Counts:
    print(f"{len(words)} words")
    with atomic_write(path, "w") as stream:
        stream.write("\n".join(words))
    return Counts(len(words), numpy.array([len(word) for word in words]))


def upper(path: str, source: str) -> int:
    with atomic_directory(f"{path}/parts") as parts:
        Path(parts, "0.txt").write_text(read_bytes(source).decode().upper())
    return 1


def fail_at_first(path: str, marker: str) -> str:
    if not os.path.exists(marker):
        Path(marker).touch()
        write_bytes(f"{path}/left", b"of the first")
        raise ValueError("the first time")
    return "the second time"


@step(name="words")
def words() -> Any:
    return deferred(write_words)(output() / "words.txt", ["a", "bcd"])


@step(name="upper")
def upper_of(source: StepRef) -> Any:
    return deferred(upper)(output(), source / "words.txt")


@step(name="fragile", retries=1)
def fragile(marker: str) -> Any:
    return deferred(fail_at_first)(output(), marker)


@step(name="broken")
def broken(marker: str) -> Any:
    return deferred(fail_at_first)(output(), marker)


@pytest.fixture
def place(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A prefix of this test in a cloud that has been tried."""
    place = f"{cloud.bucket}{tmp_path}"
    monkeypatch.setenv(PROBED_VARIABLE, "")
    check_store(f"{place}/probe")
    return place


def run(steps: Any, prefix: str, *flags: str) -> Any:
    return executor_main(steps, argv=["--prefix", prefix, *flags])


def copied(source: str, target: str) -> None:
    filesystem, key = fsspec.core.url_to_fs(source)
    for name in filesystem.find(key):
        filesystem.copy(name, target.partition("://")[2] + name[len(key) :])


def test_a_pipeline_runs_is_found_again_and_verifies(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = words()
    report = run([upper_of(source)], place)
    assert [outcome.kind for outcome in report.outcomes] == [OutcomeKind.SUCCEEDED] * 2
    found = report.artifact(source)
    assert (found.words, found.lengths.tolist()) == (2, [1, 3])
    again = run([upper_of(source)], place)
    assert [outcome.kind for outcome in again.outcomes] == [OutcomeKind.HIT] * 2
    outputs = list(find_outputs(place))
    assert len(outputs) == 2
    for path in outputs:
        check = check_output(path)
        assert (check.kind, check.changes) == (CheckKind.OK, ())
        assert collect_garbage(path) == []
        assert b"executor_version" in read_bytes(f"{path}/.executor_info")
    assert read_bytes(f"{report.output_path(source)}/.executor/000001.log") == b"2 words\n"
    assert len(list(list_files(f"{place}/experiments"))) == 2


def test_a_copied_run_is_found_and_verifies(place: str) -> None:
    run([upper_of(words())], f"{place}/one")
    copied(f"{place}/one", f"{place}/two")
    again = run([upper_of(words())], f"{place}/two")
    assert [outcome.kind for outcome in again.outcomes] == [OutcomeKind.HIT] * 2
    assert {check_output(path).kind for path in find_outputs(f"{place}/two")} == {CheckKind.OK}


def test_what_is_written_after_the_commit_is_named(place: str) -> None:
    path = run([words()], place).outcomes[0].output_path
    write_bytes(f"{path}/words.txt", b"a\nxyz")
    write_bytes(f"{path}/late", b"")
    check = check_output(path)
    assert check.kind is CheckKind.DAMAGED
    assert {(change.path, change.kind.value) for change in check.changes} == {
        ("words.txt", "changed"),
        ("late", "added"),
    }


def test_a_failed_attempt_is_retried(place: str, tmp_path: Path) -> None:
    report = run([fragile(str(tmp_path / "marker"))], place)
    path = report.outcomes[0].output_path
    assert report.outcomes[0].epoch == 2
    assert check_output(path).kind is CheckKind.OK


def test_a_failure_is_told_recorded_and_run_again(place: str, tmp_path: Path) -> None:
    step = broken(str(tmp_path / "marker"))
    with pytest.raises(RunFailedError, match="1 of 1 steps failed") as caught:
        run([step], place)
    assert isinstance(caught.value.exceptions[0], ValueError)
    path = caught.value.report.outcomes[0].output_path
    assert read_statuses([path])[path].kind is StatusKind.FAILED
    assert read_bytes(f"{path}/.executor_status") == b"FAILED"
    assert [garbage.files for garbage in collect_garbage(path)] == [(f"{path}/left",)]
    assert run([step], place).outcomes[0].kind is OutcomeKind.SUCCEEDED


def test_statuses_take_two_requests_a_step_and_go_side_by_side(cloud: Cloud, place: str) -> None:
    report = run([upper_of(words())], place)
    cloud.faults.clear()
    statuses = read_statuses(outcome.output_path for outcome in report.outcomes)
    assert all(status.is_finished for status in statuses.values())
    assert len(cloud.faults.calls) == 4


def test_emptying_takes_exact_keys_and_keeps_the_log(place: str) -> None:
    path = f"{place}/run[12]"
    for name in ("run[12]/a", "run[12]/d/b", "run1/a", "run2/a", "run[12]/.executor/000001.claim"):
        write_bytes(f"{place}/{name}", b"x")
    empty_output(path)
    left = {file.path.removeprefix(f"{place}/") for file in list_files(place)}
    assert left == {"run1/a", "run2/a", "run[12]/.executor/000001.claim"}


def test_a_failing_writer_leaves_nothing_at_the_final_name(place: str) -> None:
    def half_a_file() -> None:
        with atomic_write(f"{place}/file") as stream:
            stream.write(b"half")
            raise ValueError("in between")

    def half_a_directory() -> None:
        with atomic_directory(f"{place}/directory") as directory:
            Path(directory, "half").touch()
            raise ValueError("in between")

    for write in (half_a_file, half_a_directory):
        with pytest.raises(ValueError, match="in between"):
            write()
    assert list(list_files(place)) == []


def test_data_is_streamed_and_seen_at_once(place: str) -> None:
    assert not exists(f"{place}/a")
    with open_data(f"{place}/a/b", "wb") as stream:
        stream.write(b"streamed")
    assert (exists(f"{place}/a"), read_bytes(f"{place}/a/b")) == (True, b"streamed")
    with pytest.raises(FileNotFoundError):
        read_bytes(f"{place}/a/c")
    (file,) = list_files(f"{place}/a")
    assert isinstance(file, FileStat)
    assert file.checksum is not None


def test_a_step_of_its_own_process_runs_in_a_cloud(place: str) -> None:
    report = run([own_process()], place)
    assert report.outcomes[0].kind is OutcomeKind.SUCCEEDED
    assert b"from its own process" in read_bytes(f"{report.outcomes[0].output_path}/.executor/000001.log")


def speak(path: str) -> None:
    assert os.environ["LOUD"] == "yes"
    print("from its own process", flush=True)


@step(name="own", env_vars={"LOUD": "yes"})
def own_process() -> Any:
    return deferred(speak)(output())


@pytest.mark.parametrize("make", [gcs_cloud, s3_cloud])
def test_a_store_that_lies_is_refused_unless_told_otherwise(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(PROBED_VARIABLE, "")
    with make(honours_preconditions=False) as cloud:
        prefix = f"{cloud.bucket}/lying"
        run([words()], prefix, "--dry_run")
        assert not any(
            call.is_write for call in cloud.faults.calls if "experiments" in call.path or "probe" in call.path
        )
        with pytest.raises(PrefixError, match=r"cannot hold claims: \d of 8 that created the same file"):
            run([words()], prefix)
        assert list(list_files(prefix)) == []
        report = run([words()], prefix, "--allow_unsafe_store")
        assert "no second launcher may use" in caplog.text
        assert json.loads(read_bytes(report.record_path))["allow_unsafe_store"] is True
        cloud.faults.clear()
        check_store(f"{prefix}/other")
        assert cloud.faults.calls == []


def test_an_honest_store_is_tried_once(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(PROBED_VARIABLE, "")
    run([words()], f"{cloud.bucket}{tmp_path}")
    tried = [call for call in cloud.faults.calls if call.is_write and "probe-" in call.path + str(call.content)]
    assert len(tried) >= 40
    cloud.faults.clear()
    run([words()], f"{cloud.bucket}{tmp_path}/more")
    assert not any("probe-" in call.path + str(call.content) for call in cloud.faults.calls)


def _is_control_write(name: str) -> Callable[[Call], bool]:
    return lambda call: call.is_write and (call.path.endswith(name) or f"/{name}".encode() in call.content[:400])


CONTROL_WRITES = (
    "000001.claim",
    ".executor_info",
    ".artifact.json",
    "000001.manifest",
    "000001.end",
    ".executor_status",
)


@pytest.mark.parametrize(
    "fault", [lost_answer, status_after(503), status_before(409), status_before(429), status_before(503)]
)
def test_what_is_reported_is_what_is_stored_whatever_happens_to_each_control_write(
    cloud: Cloud, place: str, fault: Fault
) -> None:
    for name in CONTROL_WRITES:
        cloud.faults.hit(fault, where=_is_control_write(name))
    report = run([words()], place, "--lease_seconds", "20")
    path = report.outcomes[0].output_path
    assert cloud.faults.pending == []
    assert report.outcomes[0].kind is OutcomeKind.SUCCEEDED
    status = read_statuses([path])[path]
    assert (status.kind, status.epoch) == (StatusKind.SUCCESS, 1)
    assert check_output(path).kind is CheckKind.OK


def test_a_launcher_of_another_process_finds_what_was_built(cloud: Cloud, place: str) -> None:
    run([words()], place)
    shown = subprocess.run(
        [sys.executable, "-m", "marin_trace.cli.main", "verify", "--json", place],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert [row["result"] for row in json.loads(shown.stdout)] == ["ok"]


def test_an_open_claim_is_unlocked(place: str) -> None:
    from marin_trace.runtime.attempt import draft_claim
    from marin_trace.runtime.driver import driver_for
    from marin_trace.runtime.log_records import AttemptLog
    from marin_trace.runtime.protocol import ClaimPolicy, claim_epoch

    path = f"{place}/open"
    driver_for(path).run(claim_epoch(AttemptLog(path), draft_claim(lease_s=60), ClaimPolicy()))
    assert unlock(path, 1) is StatusKind.FENCED
    assert control_store_for(path).list(f"{path}/.executor") == ["000001.claim", "000001.end"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_finished_step_outlasts_a_refusal(
    cloud: Cloud, place: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (".artifact.json", "000001.manifest", "000001.end"):
        cloud.faults.hit(status_before(status), where=_is_control_write(name))
    report = run([words()], place, "--lease_seconds", "20")
    assert report.outcomes[0].kind is OutcomeKind.SUCCEEDED
    assert report.outcomes[0].epoch == 1
    assert cloud.faults.pending == []
    for told in ("cannot save yet", "cannot write manifest yet", "not committed yet"):
        assert told in caplog.text


def test_a_cache_without_a_lock_tries_its_store(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(PROBED_VARIABLE, "")
    path, built = f"{cloud.bucket}{tmp_path}/cached", list[str]()
    disk_cached(built.append, path)
    assert any("probe-" in call.path + str(call.content) for call in cloud.faults.calls)
    cloud.faults.clear()
    disk_cached(built.append, path, load=lambda path: None)
    assert (built, len(cloud.faults.calls)) == ([path], 2)


@pytest.mark.parametrize("make", [gcs_cloud, s3_cloud])
def test_a_cache_without_a_lock_is_refused_by_a_store_that_lies(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PROBED_VARIABLE, "")
    built: list[str] = []
    with make(honours_preconditions=False) as cloud, pytest.raises(PrefixError, match="cannot hold claims"):
        disk_cached(built.append, f"{cloud.bucket}/cached")
    assert built == []
