"""Laws of what library code may import: whole or not at all, and a lease that can be asked for."""

import os
import stat
from pathlib import Path
from typing import Any

import fsspec
import pytest

from marin_trace import io
from marin_trace.errors import LeaseLostError, StorageError
from marin_trace.io import atomic_directory, atomic_write, check_lease


@pytest.fixture(params=["local", "memory"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else f"memory:/{tmp_path}"


def read(path: str) -> bytes:
    content: bytes = fsspec.filesystem(path.partition("://")[0] if "://" in path else "file").cat_file(path)
    return content


def names_in(base: str) -> list[str]:
    filesystem, key = fsspec.core.url_to_fs(base)
    return sorted(filesystem.find(key)) if filesystem.exists(key) else []


def test_a_file_appears_when_the_block_ends(base: str) -> None:
    with atomic_write(f"{base}/a/b.txt", "w") as stream:
        stream.write("grüße")
        assert names_in(f"{base}/a/b.txt") == []
    assert read(f"{base}/a/b.txt") == "grüße".encode()
    with atomic_write(f"{base}/a/b.txt") as stream:
        stream.write(b"again")
    assert read(f"{base}/a/b.txt") == b"again"


def test_a_failing_writer_leaves_nothing_and_keeps_what_was_there(base: str) -> None:
    def write(content: bytes, *, fails: bool) -> None:
        with atomic_write(f"{base}/x") as stream:
            stream.write(content)
            if fails:
                raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        write(b"half", fails=True)
    assert names_in(base) == []
    write(b"whole", fails=False)
    with pytest.raises(ValueError, match="in the middle"):
        write(b"half", fails=True)
    assert read(f"{base}/x") == b"whole"
    assert len(names_in(base)) == 1


def test_other_modes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="takes the modes 'w' and 'wb', not 'a'"), atomic_write(tmp_path / "x", "a"):
        pass


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "file"), atomic_directory(tmp_path / "directory"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "directory").stat().st_mode) == 0o750


def fill(path: str, **contents: str) -> None:
    with atomic_directory(path) as directory:
        Path(directory, "sub").mkdir()
        for name, content in contents.items():
            Path(directory, "sub", name).write_text(content)
        assert names_in(path) == [] or "old" not in contents
        if "fail" in contents:
            raise ValueError("in the middle")


def test_a_directory_appears_when_the_block_ends(base: str) -> None:
    fill(f"{base}/parts", a="1", b="2")
    assert [read(f"{base}/parts/sub/{name}") for name in "ab"] == [b"1", b"2"]
    assert all("/parts/sub/" in name for name in names_in(base))


def test_a_failing_directory_leaves_nothing(base: str) -> None:
    with pytest.raises(ValueError, match="in the middle"):
        fill(f"{base}/parts", fail="")
    assert names_in(base) == []


def test_a_local_directory_is_replaced_whole(tmp_path: Path) -> None:
    fill(str(tmp_path / "parts"), old="1")
    fill(str(tmp_path / "parts"), new="2")
    assert [path.name for path in (tmp_path / "parts" / "sub").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]


def test_a_directory_does_not_replace_a_file(tmp_path: Path) -> None:
    (tmp_path / "parts").write_text("kept")
    with pytest.raises(NotADirectoryError):
        fill(str(tmp_path / "parts"), a="1")
    assert (tmp_path / "parts").read_text() == "kept"


def test_a_failed_upload_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded: list[str] = []
    upload = io._upload

    def fail_second(source: str, target: str) -> None:
        if uploaded:
            raise ConnectionError("cut off")
        uploaded.append(target)
        upload(source, target)

    monkeypatch.setattr(io, "_upload", fail_second)
    with pytest.raises(ConnectionError, match="cut off"):
        fill(f"memory:/{tmp_path}/parts", a="1", b="2")
    assert names_in(f"memory:/{tmp_path}/parts") == []


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(StorageError, match="cannot open nonsense://x"), atomic_write("nonsense://x"):
        pass


def test_the_lease_can_be_asked_for_and_is_nobodys_outside_a_step() -> None:
    def lost() -> None:
        raise LeaseLostError("gone")

    check_lease()
    token: Any = io.lease_check.set(lost)
    with pytest.raises(LeaseLostError, match="gone"):
        check_lease()
    io.lease_check.reset(token)
    check_lease()
