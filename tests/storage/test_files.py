"""Laws of the data boundary."""

from pathlib import Path

import pytest

from marin_trace.errors import StorageError
from marin_trace.storage import files


@pytest.fixture(params=["local", "memory"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else f"memory:/{tmp_path}"


def test_what_is_written_is_read(base: str) -> None:
    files.write_bytes(f"{base}/a/b", b"content")
    assert files.read_bytes(f"{base}/a/b") == b"content"
    with files.open_data(f"{base}/a/c", "wb") as stream:
        stream.write(b"streamed")
    with files.open_data(f"{base}/a/c") as stream:
        assert stream.read() == b"streamed"


def test_existence_and_kind(base: str) -> None:
    files.write_bytes(f"{base}/a/b", b"")
    assert (files.exists(f"{base}/a"), files.is_file(f"{base}/a")) == (True, False)
    assert (files.exists(f"{base}/a/b"), files.is_file(f"{base}/a/b")) == (True, True)
    assert not files.exists(f"{base}/none")
    with pytest.raises(FileNotFoundError):
        files.read_bytes(f"{base}/none")


def test_every_file_below_a_directory_is_listed(base: str) -> None:
    for name in ("x", "d/.hidden", "d/e/y"):
        files.write_bytes(f"{base}/out/{name}", b"12345")
    found = {file.path.removeprefix(f"{base}/out/"): file.size for file in files.list_files(f"{base}/out")}
    assert found == {"x": 5, "d/.hidden": 5, "d/e/y": 5}
    assert list(files.list_files(f"{base}/none")) == []


def test_delete_takes_one_exact_key(base: str) -> None:
    for name in ("run1", "run[12]"):
        files.write_bytes(f"{base}/{name}", b"")
    files.delete_file(f"{base}/run[12]")
    files.delete_file(f"{base}/run[12]")
    assert files.exists(f"{base}/run1")
    assert not files.exists(f"{base}/run[12]")


def test_join_and_protocol() -> None:
    assert files.join("gs://bucket/run/", "a/", "", "b") == "gs://bucket/run/a/b"
    assert files.join("/", "x") == "/x"
    assert [files.protocol_of(path) for path in ("/a", "file:///a", "s3://b/c")] == ["file", "file", "s3"]


def test_make_directory_makes_parents_where_there_are_directories(tmp_path: Path) -> None:
    files.make_directory(f"file://{tmp_path}/a/b")
    files.make_directory("memory://a/b")
    assert (tmp_path / "a" / "b").is_dir()


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(StorageError, match="cannot open nonsense://x"):
        files.read_bytes("nonsense://x")
