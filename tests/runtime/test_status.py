"""Laws of status: what each log says, and at what price."""

import logging
from pathlib import Path
from typing import Any

import pytest

from marin_trace.errors import ControlFileError, PrefixError
from marin_trace.runtime.distributed_lock import distributed_lock
from marin_trace.runtime.driver import Driver
from marin_trace.runtime.log_records import AttemptLog
from marin_trace.runtime.protocol import read_state
from marin_trace.runtime.status import StatusKind, read_status, read_statuses
from marin_trace.storage.local_store import LocalControlStore


class CountingStore:
    """A control store that counts its requests."""

    def __init__(self) -> None:
        self.inner = LocalControlStore()
        self.requests: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.requests.append(name)
        return getattr(self.inner, name)


def test_nothing_there_is_missing(tmp_path: Path) -> None:
    assert read_status(str(tmp_path / "x")).kind is StatusKind.MISSING


def test_a_running_attempt_names_its_owner(tmp_path: Path) -> None:
    seen: list[str] = []
    distributed_lock(lambda path: seen.append(f"{read_status(path).kind} {read_status(path).owner}"))(
        str(tmp_path / "x")
    )
    assert seen[0].startswith("RUNNING ")
    assert "(pid " in seen[0]


@pytest.mark.parametrize(
    ("token", "kind", "foreign"),
    [
        ("SUCCESS", StatusKind.LEGACY_SUCCESS, False),
        ("FAILED", StatusKind.FAILED, False),
        ("RUNNING", StatusKind.MISSING, True),
        ("DEP_FAILED", StatusKind.MISSING, False),
        ("SUCCESS\n", StatusKind.LEGACY_SUCCESS, False),
        ('{"date": "1", "status": "RUNNING"}\n{"date": "2", "status": "SUCCESS"}\n', StatusKind.LEGACY_SUCCESS, False),
        ('{"date": "1", "status": "SUCCESS"}\n{"date": "2", "status": "FAILED"}', StatusKind.FAILED, False),
        ('{"date": "1", "status": "SUCCESS"}\n{"date": "2", "status": "RUNNING"}', StatusKind.MISSING, True),
        # An event that was not written to its end is none: the last one before it counts.
        ('{"date": "1", "status": "SUCCESS"}\n{"date": "2", "sta', StatusKind.LEGACY_SUCCESS, False),
        ('{"date": "1", "status": "RUNNING"}\n{"date": "2", "sta', StatusKind.MISSING, True),
        ('{"date": "1", "sta', StatusKind.MISSING, False),
        ('{"date": "1"}', StatusKind.MISSING, False),
        ('{"status": "SUCCESS", "message": null, "ray_task_id": "x"}\r\n \r\n', StatusKind.LEGACY_SUCCESS, False),
        ('{"status": "RUNNING"}\nSUCCESS\n', StatusKind.LEGACY_SUCCESS, False),
        ("\ufeff  SUCCESS \t\n\n", StatusKind.LEGACY_SUCCESS, False),
        ("SUCCESSFUL", StatusKind.MISSING, False),
        ("{" * 9999, StatusKind.MISSING, False),
    ],
)
def test_without_a_log_the_token_is_read(tmp_path: Path, token: str, kind: StatusKind, foreign: bool) -> None:
    (tmp_path / ".executor_status").write_text(token)
    status = read_status(str(tmp_path))
    assert (status.kind, status.foreign_run) == (kind, foreign)


def test_an_older_systems_lock_is_told_of_and_not_honoured(tmp_path: Path) -> None:
    (tmp_path / ".executor_status.lock").touch()
    assert read_status(str(tmp_path)).foreign_run
    assert distributed_lock(lambda path: "built")(str(tmp_path)) == "built"


def test_with_a_log_the_token_is_not_believed(tmp_path: Path) -> None:
    distributed_lock(lambda path: 1)(str(tmp_path))
    (tmp_path / ".executor_status").write_text("FAILED")
    assert read_status(str(tmp_path)).kind is StatusKind.SUCCESS


def test_a_finished_output_costs_one_list_and_one_get(tmp_path: Path) -> None:
    distributed_lock(lambda path: 1)(str(tmp_path))
    store = CountingStore()
    assert Driver(store).run(read_state(AttemptLog(str(tmp_path)))).is_finished
    assert store.requests == ["list", "get"]


def test_a_batch_keeps_the_order_and_reads_duplicates_once(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in "bab"]
    distributed_lock(lambda path: 1)(paths[1])
    statuses = read_statuses(paths)
    assert [*statuses] == [paths[0], paths[1]]
    assert [status.kind for status in statuses.values()] == [StatusKind.MISSING, StatusKind.SUCCESS]


def test_a_store_that_is_not_supported_is_named() -> None:
    with pytest.raises(PrefixError, match="ftp:// cannot hold outputs"):
        read_statuses(["ftp://host/a", "ftp://host/b"])


def test_a_truncated_end_is_named(tmp_path: Path) -> None:
    distributed_lock(lambda path: 1)(str(tmp_path))
    end = tmp_path / ".executor" / "000001.end"
    end.write_bytes(end.read_bytes()[:40])
    with pytest.raises(ControlFileError, match=r"000001\.end is truncated or corrupt"):
        read_status(str(tmp_path))


def test_what_is_no_control_file_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    (tmp_path / ".executor").mkdir()
    for name in ("notes.txt", "000002.hb", "x.claim", ".tmp-1"):
        (tmp_path / ".executor" / name).touch()
    assert read_status(str(tmp_path)).kind is StatusKind.MISSING
