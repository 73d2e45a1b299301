"""Laws of the prefix."""

import logging
import os
from pathlib import Path

import pytest

from marin_trace.errors import PrefixError
from marin_trace.runtime import prefix as prefix_module
from marin_trace.runtime.prefix import current_prefix, normalise_prefix, use_prefix


def test_the_block_beats_the_environment(prefix: str) -> None:
    assert current_prefix() == prefix
    with use_prefix("memory://a/"), use_prefix("memory://b/c//") as inner:
        assert current_prefix() == inner == "memory://b/c"
    assert current_prefix() == prefix


def test_the_default_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.delenv("MARIN_PREFIX")
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO)
    assert current_prefix() == current_prefix() == f"{tmp_path}/marin-outputs"
    assert caplog.text.count(f"outputs go to {tmp_path}/marin-outputs") == 1
    assert not Path("marin-outputs").exists()


def test_a_local_prefix_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert normalise_prefix("a/../b/") == f"{tmp_path}/b"
    assert normalise_prefix("~/c") == f"{tmp_path}/c"
    assert normalise_prefix(f"file://{tmp_path}/d/") == f"{tmp_path}/d"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "the prefix is empty"),
        ("memory://", "names no place in its store"),
        ("s3a://bucket", "s3a:// cannot hold outputs"),
        ("zip://a::gs://b/c.zip", "chained URLs cannot hold outputs"),
    ],
)
def test_what_cannot_hold_outputs_is_refused(given: str, message: str) -> None:
    with pytest.raises(PrefixError, match=message):
        normalise_prefix(given)


def test_a_file_is_refused_and_so_is_what_lies_below_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PrefixError, match=f"the prefix {tmp_path}/file is a file"):
        normalise_prefix(str(tmp_path / "file"))
    with pytest.raises(PrefixError, match=f"lies below a file: {tmp_path}/file"):
        normalise_prefix(str(tmp_path / "file" / "below"))


def test_an_unreadable_prefix_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_module.os, "access", lambda path, mode: False)
    with pytest.raises(PrefixError, match=f"cannot be read: no permission for {tmp_path}"):
        normalise_prefix(os.fspath(tmp_path / "new"))
