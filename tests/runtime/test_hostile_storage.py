"""Stores that fail: full disks, no permission, files where directories should be, control files that are damaged.

Every error names the file, no failure is taken for a success, and after the cause is gone a re-run ends well.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from marin_trace.errors import ArtifactError, ControlFileError, PrefixError, RunFailedError, StorageError
from marin_trace.runtime.artifact import Artifact
from marin_trace.runtime.options import RunOptions
from marin_trace.runtime.prefix import normalise_prefix
from marin_trace.runtime.records import read_step_info
from marin_trace.runtime.report import OutcomeKind
from marin_trace.runtime.status import StatusKind, read_status
from marin_trace.runtime.step_runner import StepRunner
from marin_trace.storage.local_store import LocalControlStore

MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Takes all the room that is left, to the last block; returns the file that holds it."""
    filler = disk / "filler"
    with open(filler, "ab", buffering=0) as stream:
        for size in (1 << 16, 1 << 12):
            while True:
                try:
                    stream.write(b"x" * size)
                except OSError:
                    break
    return filler


def run(step: Any, prefix: Path) -> Any:
    return StepRunner(options=RunOptions(prefix=str(prefix))).run([step], max_concurrent=1)


def failure(step: Any, prefix: Path) -> Exception:
    with pytest.raises(RunFailedError, match="1 of 1 steps failed") as caught:
        run(step, prefix)
    return caught.value.exceptions[0]


def never_succeeded(output: str) -> bool:
    names = Path(output, ".executor").glob("*.end") if Path(output).exists() else ()
    return all(json.loads(path.read_text())["kind"] != "SUCCESS" for path in names)


def write_much(path: str) -> None:
    with open(f"{path}/much", "wb") as stream:
        stream.write(b"x" * 2 * MIB)


def fill_and_return(disk: Path, value: Any) -> Callable[[str], Any]:
    def body(path: str) -> Any:
        fill(disk)
        return value

    return body


def test_a_disk_that_is_full_while_the_body_writes(small_disk: Path, make_step) -> None:
    output = str(small_disk / "out")
    error = failure(make_step("a", write_much, output_path=output), small_disk)
    assert isinstance(error, OSError)
    assert "No space left on device" in str(error)
    assert never_succeeded(output)
    os.truncate(f"{output}/much", 0)
    assert run(make_step("a", output_path=output), small_disk).count(OutcomeKind.SUCCEEDED) == 1


def test_a_disk_that_is_full_while_the_artifact_is_saved(small_disk: Path, make_step) -> None:
    output = str(small_disk / "out")
    error = failure(make_step("a", fill_and_return(small_disk, "x" * 100_000), output_path=output), small_disk)
    assert isinstance(error, StorageError)
    assert f"cannot write {output}/.artifact.json: No space left on device" in str(error)
    assert never_succeeded(output)
    assert not Path(output, ".artifact.json").exists()
    (small_disk / "filler").unlink()
    assert run(make_step("a", lambda path: 1, output_path=output), small_disk).count(OutcomeKind.SUCCEEDED) == 1


def test_a_disk_that_is_full_while_a_step_is_claimed(small_disk: Path, make_step) -> None:
    output = str(small_disk / "out")
    filler = fill(small_disk)
    ran: list[str] = []
    error = failure(make_step("a", ran.append, output_path=output), small_disk)
    assert isinstance(error, StorageError | OSError)
    assert "No space left on device" in str(error)
    assert output in str(error)
    assert ran == []
    filler.unlink()
    assert run(make_step("a", ran.append, output_path=output), small_disk).count(OutcomeKind.SUCCEEDED) == 1


@pytest.mark.parametrize("kind", ["manifest", "end"])
def test_a_disk_that_is_full_while_a_step_is_committed(
    small_disk: Path, make_step, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    output = str(small_disk / "out")
    real = LocalControlStore.put_if_absent

    def put_if_absent(self: Any, path: str, content: bytes, *, durable: bool = False) -> bool:
        if path.endswith(f".{kind}"):
            fill(small_disk)
        return real(self, path, content, durable=durable)

    monkeypatch.setattr(LocalControlStore, "put_if_absent", put_if_absent)
    error = failure(make_step("a", lambda path: 1, output_path=output), small_disk)
    assert isinstance(error, StorageError)
    assert f"cannot write {output}/.executor/000001.{kind}: No space left on device" in str(error)
    monkeypatch.undo()
    assert never_succeeded(output)
    (small_disk / "filler").unlink()
    assert run(make_step("a", lambda path: 1, output_path=output), small_disk).count(OutcomeKind.SUCCEEDED) == 1
    assert Artifact.load(output) == 1


def test_a_disk_that_is_full_while_the_run_is_recorded(small_disk: Path, make_step, caplog) -> None:
    step = make_step("a", lambda path: 1, output_path=str(small_disk / "out"))
    (small_disk / "experiments").touch()
    report = run(step, small_disk)
    assert report.count(OutcomeKind.SUCCEEDED) == 1
    assert report.record_path is None
    assert "its record could not be written: cannot write" in caplog.text


@pytest.fixture
def read_only(small_disk: Path) -> Path:
    """A prefix on a disk that was mounted read-only."""
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    return small_disk


def test_a_read_only_prefix_is_named(read_only: Path, make_step) -> None:
    error = failure(make_step("a", output_path=str(read_only / "out")), read_only)
    assert "Read-only file system" in str(error)
    assert str(read_only / "out") in str(error)


def test_a_prefix_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PrefixError, match=f"the prefix {tmp_path}/file is a file"):
        normalise_prefix(f"{tmp_path}/file")
    with pytest.raises(PrefixError, match=rf"the prefix {tmp_path}/file/below lies below a file: {tmp_path}/file"):
        normalise_prefix(f"{tmp_path}/file/below")


def test_an_output_path_that_is_a_file_is_named(make_step, prefix: str) -> None:
    Path(prefix, "a").write_text("mine")
    error = failure(make_step("a"), Path(prefix))
    assert isinstance(error, OSError)
    assert f"{prefix}/a" in str(error)
    assert Path(prefix, "a").read_text() == "mine"


DAMAGES = {"empty": b"", "truncated": b'{"epoch":1,"ki', "no object": b"[]", "other": b"{}", "binary": b"\xff\xfe\x00"}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_end_is_named_and_nothing_runs(make_step, prefix: str, damage: str) -> None:
    ran: list[str] = []
    step = make_step("a", ran.append)
    run(step, Path(prefix))
    path = Path(step.output_path, ".executor", "000001.end")
    path.write_bytes(DAMAGES[damage])
    with pytest.raises(ControlFileError, match=f"control file {path} is truncated or corrupt"):
        run(step, Path(prefix))
    assert len(ran) == 1
    assert path.read_bytes() == DAMAGES[damage]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_claim_is_named_and_nothing_runs(make_step, prefix: str, damage: str) -> None:
    ran: list[str] = []
    step = make_step("a", ran.append)
    path = Path(step.output_path, ".executor", "000001.claim")
    path.parent.mkdir(parents=True)
    path.write_bytes(DAMAGES[damage])
    with pytest.raises(ControlFileError, match=f"control file {path} is truncated or corrupt"):
        run(step, Path(prefix))
    assert ran == []


@pytest.mark.parametrize("damage", ["empty", "truncated", "no object", "binary"])
def test_a_damaged_info_is_named(make_step, prefix: str, damage: str) -> None:
    step = make_step("a")
    run(step, Path(prefix))
    path = Path(step.output_path, ".executor_info")
    path.write_bytes(DAMAGES[damage])
    with pytest.raises(ControlFileError, match=str(path)):
        read_step_info(step.output_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is truncated or corrupt"),
        (b'{"rows": 1', "is truncated or corrupt"),
        (b"\xff\xfe", "is truncated or corrupt"),
    ],
)
def test_an_artifact_that_was_damaged_is_named(make_step, prefix: str, content: bytes, message: str) -> None:
    step = make_step("a", lambda path: {"rows": 1})
    run(step, Path(prefix))
    path = Path(step.output_path, ".artifact.json")
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=f"the artifact {path} {message}"):
        Artifact.load(step.output_path)


@pytest.mark.parametrize("content", [b"garbage", b"", b"\xff"])
def test_a_token_is_never_read_as_truth_where_there_is_a_log(make_step, prefix: str, content: bytes) -> None:
    step = make_step("a", lambda path: 1)
    run(step, Path(prefix))
    Path(step.output_path, ".executor_status").write_bytes(content)
    assert read_status(step.output_path).kind is StatusKind.SUCCESS
    assert run(step, Path(prefix)).count(OutcomeKind.HIT) == 1
