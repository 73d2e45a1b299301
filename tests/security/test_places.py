"""Where things may lie, and who may read them: prefixes, chained URLs, permissions, the runtime directory."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from marin_trace import ResourceConfig, StepSpec, deferred, executor_main, output, step
from marin_trace.errors import PrefixError, StorageError
from marin_trace.io import atomic_directory, atomic_write
from marin_trace.runtime.artifact import Artifact
from marin_trace.runtime.disk_cache import disk_cached
from marin_trace.runtime.liveness import runtime_directory
from marin_trace.runtime.prefix import normalise_prefix
from marin_trace.runtime.step_runner import StepRunner

CHAINED = ["simplecache::http://h/x", "filecache::s3://b/x", "zip://x::gs://b/a.zip", "blockcache::/tmp/x", "a::b://c"]
READ_ONLY = ["http://h/x", "https://h/x", "HTTPS://h/x"]
UNSUPPORTED = ["ftp://h/x", "sftp://h/x", "hf://datasets/x", "github://a:b@c/x", "FILE:///x", "data:,x://y"]
CLIMBING = ["gs://b/../c", "s3://b/a/./c", "gs://b/a/../../c"]
ODD = ["gs://b/x?y=1", "s3://b/x#frag", "/tmp/a\x1b[2J", "gs://b/\u202ex", "/tmp/\ud800"]


@pytest.mark.parametrize("prefix_given", [*CHAINED, *READ_ONLY, *UNSUPPORTED, *CLIMBING, *ODD])
def test_a_prefix_that_cannot_hold_outputs_is_refused(prefix_given: str) -> None:
    with pytest.raises(PrefixError) as caught:
        normalise_prefix(prefix_given)
    str(caught.value).encode()


@pytest.mark.parametrize("url", READ_ONLY)
def test_a_web_server_is_said_to_be_read_only(url: str) -> None:
    with pytest.raises(PrefixError, match=r"cannot hold outputs: .*: it can only be read"):
        normalise_prefix(url)


def write(path: str) -> str:
    with atomic_write(f"{path}/data.txt", "w") as stream:
        stream.write("data")
    with atomic_directory(f"{path}/parts") as parts:
        Path(parts, "0.txt").write_text("part")
    print("a word for the log")
    return path


@pytest.mark.parametrize("url", [*CHAINED, *READ_ONLY])
def test_nothing_is_written_to_a_chained_url_or_a_web_server(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match=r"chained|cannot hold outputs"):
        StepRunner().run([StepSpec("x", fn=write, output_path_prefix=url)])
    with pytest.raises(StorageError, match=r"chained|cannot hold outputs"):
        disk_cached(write, f"{url}/out")
    with pytest.raises(StorageError, match=r"chained|cannot hold outputs"):
        Artifact.save(1, f"{url}/out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["simplecache::http://h/x", "filecache::s3://b/x", "http://h/x", "https://h/x"])
def test_library_code_cannot_write_there_either(url: str) -> None:
    with pytest.raises(StorageError, match="cannot write"), atomic_write(f"{url}/file") as stream:
        stream.write(b"")
    with pytest.raises(StorageError, match="cannot write"), atomic_directory(f"{url}/directory"):
        pass


@step(name="here")
def here():
    return deferred(write)(output())


@step(name="in_a_job", resources=ResourceConfig.with_cpu(1))
def in_a_job():
    return deferred(write)(output())


@pytest.fixture(params=[0o022, 0o002, 0o077, 0o027], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """One that this process has, and its jobs inherit."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_what_a_run_writes_has_the_permissions_that_the_umask_leaves(tmp_path: Path, umask: int) -> None:
    prefix = tmp_path / "prefix"
    executor_main([here(), in_a_job()], argv=["--prefix", str(prefix)])
    found = {path: stat.S_IMODE(path.lstat().st_mode) for path in (prefix, *prefix.rglob("*"))}
    names = {path.suffix or path.name for path in found}
    assert {".claim", ".end", ".manifest", ".log", ".executor_info", ".executor_status", ".json", ".txt"} <= names
    wrong = {
        str(path): oct(mode) for path, mode in found.items() if mode != (0o777 if path.is_dir() else 0o666) & ~umask
    }
    assert wrong == {}


@pytest.fixture
def own_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the runtime directory will lie."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "marin_trace"


@pytest.mark.parametrize("umask_given", [0, 0o077, 0o022])
def test_the_runtime_directory_is_the_user_s_alone(own_runtime: Path, umask_given: int) -> None:
    before = os.umask(umask_given)
    try:
        assert runtime_directory() == own_runtime
    finally:
        os.umask(before)
    assert stat.S_IMODE(own_runtime.stat().st_mode) == 0o700


def test_a_runtime_directory_that_is_a_link_is_refused(own_runtime: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    own_runtime.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match=f"{own_runtime} is not a private directory of"):
        runtime_directory()


def test_a_runtime_directory_that_others_can_enter_is_refused(own_runtime: Path) -> None:
    own_runtime.mkdir()
    own_runtime.chmod(0o755)
    with pytest.raises(StorageError, match=rf"(?s)is not a private directory of.*chmod 700 {own_runtime}"):
        runtime_directory()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_runtime_directory_of_somebody_else_is_refused(own_runtime: Path) -> None:
    own_runtime.mkdir(mode=0o700)
    os.chown(own_runtime, 65534, 65534)
    with pytest.raises(StorageError, match="is not a private directory of"):
        runtime_directory()
