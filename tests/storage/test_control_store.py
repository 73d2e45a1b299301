"""Laws of the control store on a local disk; those of every store are in `tests/conformance`."""

import os
from pathlib import Path

import pytest

from marin_trace.errors import PrefixError, StorageError
from marin_trace.storage import local_store
from marin_trace.storage.control_store import control_store_for
from tests.storage.racer import winners_among_processes


def test_sixteen_processes_race_and_one_wins_each_round(tmp_path: Path) -> None:
    assert winners_among_processes(str(tmp_path), 16, 20) == [1] * 20
    assert {name for round_directory in tmp_path.iterdir() for name in os.listdir(round_directory)} == {"claim"}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "ftp://host/x",
            "ftp:// cannot hold outputs: ftp://host/x\n  supported: a local directory, gs://, s3:// or memory://",
        ),
        ("simplecache::gs://bucket/x", "chained URLs cannot hold outputs"),
    ],
)
def test_an_unknown_store_is_refused_by_name(path: str, message: str) -> None:
    with pytest.raises(PrefixError, match=message):
        control_store_for(path)


def test_a_store_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = control_store_for(str(tmp_path))
    with pytest.raises(StorageError, match=rf"cannot write {tmp_path}/file/log/claim: Not a directory"):
        store.put_if_absent(f"{tmp_path}/file/log/claim", b"")
    with pytest.raises(StorageError, match=rf"cannot read {tmp_path}"):
        store.get(str(tmp_path))


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(descriptor: int, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    store = control_store_for(str(tmp_path))
    monkeypatch.setattr(local_store.os, "write", no_space)
    with pytest.raises(StorageError, match="claim: No space left on device"):
        store.put_if_absent(f"{tmp_path}/claim", b"x")
    with pytest.raises(StorageError, match="token: No space left on device"):
        store.put(f"{tmp_path}/token", b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_hard_links_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(source: str, target: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(local_store.os, "link", no_links)
    with pytest.raises(PrefixError, match="has no hard links"):
        control_store_for(str(tmp_path)).put_if_absent(f"{tmp_path}/claim", b"x")


def test_only_what_must_be_durable_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(local_store.os, "fsync", synced.append)
    store = control_store_for(str(tmp_path))
    store.put_if_absent(f"{tmp_path}/claim", b"")
    store.put(f"{tmp_path}/token", b"")
    assert synced == []
    store.put_if_absent(f"{tmp_path}/end", b"", durable=True)
    assert len(synced) == 2


def test_what_a_killed_writer_leaves_lies_with_the_log_and_not_among_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*paths: str) -> None:
        raise SystemExit

    (tmp_path / ".executor").mkdir()
    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(SystemExit):
        control_store_for(str(tmp_path)).put(f"{tmp_path}/.executor_status", b"SUCCESS")
    assert [path.name for path in tmp_path.iterdir()] == [".executor"]
    (left,) = (tmp_path / ".executor").iterdir()
    assert left.name.startswith(".tmp-")


def test_nothing_is_written_through_a_link_in_the_place_of_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*paths: str) -> None:
        raise SystemExit

    output, elsewhere = tmp_path / "output", tmp_path / "elsewhere"
    output.mkdir()
    elsewhere.mkdir()
    (output / ".executor").symlink_to(elsewhere)
    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(SystemExit):
        control_store_for(str(output)).put(f"{output}/.executor_status", b"FAILED")
    assert list(elsewhere.iterdir()) == []
