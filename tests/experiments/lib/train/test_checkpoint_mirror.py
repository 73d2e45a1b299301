"""Checkpoints in an object store: whole or not there, and those that Orbax keeps."""

import dataclasses
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from experiments.lib.train.checkpoint_mirror import CheckpointMirror, fetched_checkpoint, mirrored_steps
from experiments.lib.train.checkpoints import saved_steps
from experiments.lib.train.config import Layout
from experiments.lib.train.train import train_model
from experiments.lib.train.trained import load_model
from tests.training_runs import curve, train_config

MARKER = "commit_success.txt"


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Of a directory of checkpoints in a store."""
    return f"memory://{tmp_path.name}/checkpoints"


def files(url: str) -> list[str]:
    store, key = fsspec.core.url_to_fs(url)
    return sorted(name.removeprefix(f"{key}/") for name in store.find(key))


def write_checkpoint(directory: str, step: int) -> None:
    """As Orbax does: under another name until it is whole."""
    temporary = Path(directory, f"{step}.orbax-checkpoint-tmp")
    (temporary / "model").mkdir(parents=True)
    for name in (MARKER, "model/d", "model/_METADATA", "_CHECKPOINT_METADATA"):
        (temporary / name).write_text(f"{name} of {step}")
    temporary.rename(Path(directory, str(step)))


def test_whole_checkpoints_are_copied_and_fetched_again(url: str, tmp_path: Path) -> None:
    mirror = CheckpointMirror(url)
    write_checkpoint(mirror.directory, 4)
    Path(mirror.directory, "8.orbax-checkpoint-tmp").mkdir()
    mirror.close()
    assert mirrored_steps(url) == [4]
    assert files(url) == ["4/_CHECKPOINT_METADATA", f"4/{MARKER}", "4/model/_METADATA", "4/model/d"]
    again = CheckpointMirror(url)
    assert Path(again.directory, "4", "model", "d").read_text() == "model/d of 4"
    again.close()
    fetched_checkpoint(f"{url}/4", str(tmp_path / "part"), items=["progress"])
    assert sorted(path.name for path in (tmp_path / "part").iterdir()) == ["_CHECKPOINT_METADATA", MARKER]


def test_the_marker_is_written_last_and_deleted_first(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = fsspec.core.url_to_fs(url)
    acts: list[str] = []
    for name in ("put_file", "rm_file"):
        original = getattr(MemoryFileSystem, name)

        def noting(self: Any, *paths: str, name: str = name, original: Any = original) -> None:
            acts.append(f"{name} {paths[-1].rpartition('/')[2]}")
            original(self, *paths)

        monkeypatch.setattr(MemoryFileSystem, name, noting)
    mirror = CheckpointMirror(url)
    write_checkpoint(mirror.directory, 4)
    mirror.close()
    assert acts[-1] == f"put_file {MARKER}"
    acts.clear()
    store.pipe_file(f"{url}/5/model/d", b"half")
    store.pipe_file(f"{url}/5/z", b"half")
    CheckpointMirror(url).close()
    assert acts == ["rm_file d", "rm_file z"]


def test_what_a_killed_attempt_left_in_parts_is_deleted_and_nothing_else(url: str) -> None:
    store, _ = fsspec.core.url_to_fs(url)
    for name in ("4/model/d", "48/model/d", f"48/{MARKER}", "4x/other"):
        store.pipe_file(f"{url}/{name}", b"x")
    mirror = CheckpointMirror(url)
    assert files(url) == [f"48/{MARKER}", "48/model/d", "4x/other"]
    mirror.close()
    assert mirrored_steps(url) == [48]


def test_what_is_no_longer_kept_is_deleted_in_the_store(url: str) -> None:
    mirror = CheckpointMirror(url)
    for step in (4, 8):
        write_checkpoint(mirror.directory, step)
    mirror.close()
    mirror = CheckpointMirror(url)
    Path(mirror.directory, "4").rename(Path(mirror.directory, "gone"))
    mirror.close()
    assert mirrored_steps(url) == [8]
    assert not [name for name in files(url) if name.startswith("4/")]


def test_a_store_that_fails_is_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, *paths: str) -> None:
        raise PermissionError("not yours")

    mirror = CheckpointMirror(url)
    monkeypatch.setattr(MemoryFileSystem, "put_file", refuse)
    write_checkpoint(mirror.directory, 4)
    with pytest.raises(PermissionError, match="not yours"):
        mirror.close()
    assert not Path(mirror.directory).exists()
    assert mirrored_steps(url) == []


def test_a_checkpoint_that_was_deleted_cannot_be_fetched(url: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"checkpoints/4 is no checkpoint, or was deleted"):
        fetched_checkpoint(f"{url}/4", str(tmp_path / "part"), items=["model"])


def test_a_training_in_a_store_is_that_on_a_disk_and_goes_on_from_there(
    corpus: Path, trained: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    output, expected = url.rpartition("/")[0], curve(trained / "model")
    config = dataclasses.replace(train_config(corpus), output_path=output)
    train_model(config)
    assert (curve(output), saved_steps(output)) == (expected, [8, 12])
    # As if it had been killed while the last one was copied.
    fsspec.core.url_to_fs(url)[0].rm_file(f"{url}/12/{MARKER}")
    assert saved_steps(output) == [8]
    with caplog.at_level("INFO"):
        train_model(config)
    assert "going on after step 8" in caplog.text
    assert (curve(output), saved_steps(output)) == (expected, [8, 12])
    assert load_model(output, 12, layout=Layout()).description.vocab_size > 0
