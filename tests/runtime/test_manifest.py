"""Laws of the manifest: what is committed is listed, durable, and found again; what moves meanwhile is refused."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marin_trace.errors import ControlFileError, RunError, StorageError
from marin_trace.io import atomic_write
from marin_trace.runtime import manifest as module
from marin_trace.runtime.artifact import Artifact
from marin_trace.runtime.distributed_lock import LockedCallable, distributed_lock
from marin_trace.runtime.driver import driver_for
from marin_trace.runtime.log_records import AttemptLog, FailurePhase
from marin_trace.runtime.manifest import ChangeKind, Manifest, ManifestEntry, changes_since, data_files, write_manifest
from marin_trace.runtime.options import AttemptOptions
from marin_trace.runtime.status import StatusKind, read_status
from marin_trace.storage.control_store import control_store_for


@pytest.fixture(params=["local", "memory"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "out") if request.param == "local" else f"memory://{tmp_path.name}/{request.node.name}"


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return tmp_path / "out"


def write(path: str, text: str) -> None:
    with atomic_write(path, "w") as stream:
        stream.write(text)


def locked(fn: Callable[[str], Any], **options: Any) -> LockedCallable[Any]:
    return distributed_lock(fn).with_options(AttemptOptions(**options)).finishing(Artifact.save)


def manifest_of(output: str, epoch: int = 1) -> Manifest:
    path = module.manifest_path(AttemptLog(output), epoch)
    return Manifest.from_bytes(control_store_for(output).get(path) or b"", path)


def kinds(output: str, epoch: int = 1) -> dict[str, ChangeKind]:
    return {change.path: change.kind for change in changes_since(manifest_of(output, epoch), output)}


def test_every_data_file_is_listed_and_no_control_file(output: str) -> None:
    def body(path: str) -> int:
        write(f"{path}/deep/er/part.txt", "abc")
        return 7

    locked(body)(output)
    entries = {entry.path: entry for entry in manifest_of(output).files}
    assert sorted(entries) == [".artifact.json", "deep/er/part.txt"]
    part = entries["deep/er/part.txt"]
    assert part.size == 3
    assert (part.checksum == hashlib.sha256(b"abc").hexdigest()) != (part.tag is not None)
    assert not any(entry.is_leftover for entry in entries.values())
    assert kinds(output) == {}


def test_the_end_names_the_digest_of_the_manifest(output: str) -> None:
    locked(lambda path: 1)(output)
    log, store = AttemptLog(output), control_store_for(output)
    content = store.get(module.manifest_path(log, 1)) or b""
    assert hashlib.sha256(content).hexdigest().encode() in (store.get(log.end(1)) or b"")


def test_changed_rewritten_missing_and_added_files_are_told_apart(local: Path) -> None:
    def body(path: str) -> None:
        for name in ("changed", "rewritten", "missing", "same"):
            write(f"{path}/{name}", name)

    locked(body)(str(local))
    (local / "changed").write_text("CHANGED")
    os.utime(local / "rewritten", ns=(1, 1))
    (local / "missing").unlink()
    (local / "added").touch()
    assert kinds(str(local)) == {
        "added": ChangeKind.ADDED,
        "changed": ChangeKind.CHANGED,
        "missing": ChangeKind.MISSING,
        "rewritten": ChangeKind.REWRITTEN,
    }


def test_other_bytes_of_the_same_size_and_time_are_found(local: Path) -> None:
    locked(lambda path: write(f"{path}/x", "abc"))(str(local))
    times = (local / "x").stat()
    (local / "x").write_text("abd")
    os.utime(local / "x", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert kinds(str(local)) == {"x": ChangeKind.CHANGED}


def test_a_large_file_has_no_checksum_and_its_time_decides(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHECKSUM_LIMIT", 4)
    locked(lambda path: write(f"{path}/large", "12345"))(str(local))
    assert manifest_of(str(local)).files[1].checksum is None
    os.utime(local / "large", ns=(1, 1))
    assert kinds(str(local)) == {"large": ChangeKind.CHANGED}


def test_the_bytes_read_for_checksums_are_bounded(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHECKSUM_BUDGET", 5)

    def body(path: str) -> None:
        write(f"{path}/a", "123")
        write(f"{path}/b", "123")

    distributed_lock(body)(str(local))
    assert [entry.checksum is None for entry in manifest_of(str(local)).files] == [False, True]


def test_many_files_are_synced_and_listed_all(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    def body(path: str) -> None:
        for number in range(200):
            Path(path, f"{number:03}").write_text(str(number))
        monkeypatch.setattr(os, "fsync", fsync)

    distributed_lock(body)(str(local))
    names = [f"{number:03}" for number in range(200)]
    assert [entry.path for entry in manifest_of(str(local)).files] == names
    assert {str(local / name) for name in names} <= set(synced)
    assert kinds(str(local)) == {}


def test_files_that_an_earlier_attempt_left_are_marked_and_warned_of(
    local: Path, caplog: pytest.LogCaptureFixture
) -> None:
    attempts: list[int] = []

    def body(path: str) -> None:
        attempts.append(1)
        write(f"{path}/part-{len(attempts)}", "x")
        write(f"{path}/both", "x")
        if len(attempts) == 1:
            raise ValueError("half way")

    locked(body, retries=1)(str(local))
    leftovers = [entry.path for entry in manifest_of(str(local), 2).files if entry.is_leftover]
    assert leftovers == ["part-1"]
    assert "1 file of earlier attempts lie there, untouched by this one: part-1" in caplog.text


def test_a_fresh_attempt_has_no_leftovers(output: str, caplog: pytest.LogCaptureFixture) -> None:
    write(f"{output}/old", "x")
    locked(lambda path: write(f"{path}/new", "x"), fresh=True)(output)
    assert [entry.path for entry in manifest_of(output).files] == [".artifact.json", "new"]
    assert "earlier attempts" not in caplog.text


def test_a_body_that_still_writes_fails_the_attempt(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.data_files

    def listed(path: str) -> Any:
        found = real(path)
        write(f"{path}/late", "x")  # between the two looks of the commit
        return found

    monkeypatch.setattr(module, "data_files", listed)
    with pytest.raises(RunError, match=r"changed while it was committed: late\n(.|\n)*wait for its threads"):
        locked(lambda path: 1)(str(local))
    status = read_status(str(local))
    assert (status.kind, status.error and status.error.phase) == (StatusKind.FAILED, FailurePhase.COMMIT)


def test_a_file_that_vanishes_during_the_commit_is_named(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.data_files

    def listed(path: str) -> Any:
        found = real(path)
        (local / "x").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(module, "data_files", listed)
    with pytest.raises(RunError, match="changed while it was committed: x"):
        distributed_lock(lambda path: write(f"{path}/x", "x"))(str(local))


def test_files_are_synced_before_their_directories_and_both_before_the_end(
    local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}").removeprefix(f"{local}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    distributed_lock(lambda path: write(f"{path}/sub/x", "x"))(str(local))
    before_end, end = synced[:-2], synced[-2:]
    assert before_end[:2] == ["/sub/x", "/.executor/000001.manifest"]
    assert sorted(before_end[2:]) == ["", "/sub"]
    assert end[0].startswith("/.executor/.tmp-")
    assert end[1] == "/.executor"


def test_links_are_listed_as_links_and_pipes_are_not_opened(local: Path) -> None:
    def body(path: str) -> None:
        os.symlink("nowhere", f"{path}/link")
        os.mkfifo(f"{path}/pipe")

    distributed_lock(body)(str(local))
    entries = {entry.path: entry.checksum for entry in manifest_of(str(local)).files}
    assert entries == {"link": hashlib.sha256(b"nowhere").hexdigest(), "pipe": None}
    (local / "link").unlink()
    os.symlink("elsewhr", local / "link")
    assert kinds(str(local)) == {"link": ChangeKind.CHANGED}


def test_a_name_that_is_no_text_survives(local: Path) -> None:
    distributed_lock(lambda path: Path(os.fsdecode(os.fsencode(path) + b"/\xff\n")).touch() or None)(str(local))
    assert [os.fsencode(entry.path) for entry in manifest_of(str(local)).files] == [b"\xff\n"]
    assert kinds(str(local)) == {}


def test_a_manifest_is_write_once(local: Path) -> None:
    log, driver = AttemptLog(str(local)), driver_for(str(local))
    first = write_manifest(driver, log, 1, {})
    assert write_manifest(driver, log, 1, {}) == first
    (local / "x").touch()
    with pytest.raises(ControlFileError, match=r"000001\.manifest exists"):
        write_manifest(driver, log, 1, {})


def test_a_file_that_cannot_be_synced_fails_the_attempt(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    def body(path: str) -> None:
        write(f"{path}/x", "x")
        monkeypatch.setattr(os, "fsync", fsync)

    with pytest.raises(StorageError, match=r"cannot commit .*/x: Input/output error"):
        distributed_lock(body)(str(local))
    monkeypatch.undo()
    assert read_status(str(local)).kind is StatusKind.FAILED


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"epoch": 1, "files": [[1]]}', b'{"epoch": 1, "fil'])
def test_a_corrupt_manifest_is_named(content: bytes) -> None:
    with pytest.raises(ControlFileError, match=r"manifest /a/b is truncated or corrupt"):
        Manifest.from_bytes(content, "/a/b")


def test_a_manifest_reads_back_as_it_was_written() -> None:
    manifest = Manifest(3, (ManifestEntry("a", 1, 2, "c"), ManifestEntry("b", 0, tag="g", is_leftover=True)))
    assert Manifest.from_bytes(manifest.to_bytes(), "x") == manifest


def test_an_input_that_was_built_again_meanwhile_fails_the_attempt(tmp_path: Path) -> None:
    upstream, output = str(tmp_path / "up"), str(tmp_path / "out")
    locked(lambda path: 1)(upstream)
    forced = locked(lambda path: 2, rerun_of=1)
    with pytest.raises(
        RunError, match=rf"{upstream} was built again while {output} read it\n.*was read: *1\n.*now: *2"
    ):
        locked(lambda path: forced(upstream), inputs=(upstream,))(output)
    status = read_status(output)
    assert (status.kind, status.error and status.error.phase) == (StatusKind.FAILED, FailurePhase.COMMIT)
    locked(lambda path: 1, inputs=(upstream,))(output)
    assert read_status(output).inputs == {upstream: 2}


def test_an_input_that_is_being_built_again_is_not_read(tmp_path: Path) -> None:
    upstream, output = str(tmp_path / "up"), str(tmp_path / "out")
    locked(lambda path: 1)(upstream)
    ran: list[str] = []

    def read(path: str) -> None:
        with pytest.raises(RunError, match=rf"{upstream} is being built again, and {output} was about to read it"):
            locked(ran.append, inputs=(upstream,))(output)

    locked(read, rerun_of=1)(upstream)
    assert ran == []
    locked(ran.append, inputs=(upstream,))(output)
    assert ran == [output]


def test_the_data_of_an_output_that_is_not_there_is_nothing(local: Path) -> None:
    assert data_files(str(local)) == {}
