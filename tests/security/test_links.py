"""Symbolic links below a prefix: nothing is written, emptied or deleted through one that leads out of it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from marin_trace import ResourceConfig, StepSpec, deferred, executor_main, output, step
from marin_trace.cli.main import main
from marin_trace.errors import ArtifactError, RunFailedError, StorageError
from marin_trace.runtime.artifact import Artifact
from marin_trace.runtime.disk_cache import disk_cached
from marin_trace.runtime.distributed_lock import distributed_lock
from tests.scripts import tree_of


def write(path: str) -> int:
    Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path, "data").write_text("data")


@step(name="raw/data")
def plain():
    return deferred(write)(output())


@step(name="raw/data", fresh=True)
def fresh():
    return deferred(write)(output())


@step(name="raw/data", resources=ResourceConfig.with_cpu(1))
def remote():
    return deferred(write)(output())


@step(name="raw/data")
def broken():
    return deferred(fail)(output())


def fail(path: str) -> None:
    raise ValueError("no")


@step(name="raw/next")
def after(ref: object):
    return deferred(write)(output())


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of somebody's, with files that a run would delete or overwrite if it could."""
    place = tmp_path / "outside"
    (place / "sub").mkdir(parents=True)
    (place / "mine.txt").write_text("mine")
    (place / "000001.log").write_text("mine")
    (place / ".tmp-1-old").write_text("mine")
    os.utime(place / ".tmp-1-old", (0, 0))
    return place


def output_of(entry: Callable[[], object], prefix: str) -> Path:
    from marin_trace import lower

    return Path(lower(entry(), prefix=prefix)[0].output_path)


def plant(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)


PLACES: dict[str, Callable[[Path], Path]] = {
    "output": lambda output: output,
    "log": lambda output: output / ".executor",
    "parent": lambda output: output.parent,
}


@pytest.mark.parametrize("entry", [plain, fresh, remote], ids=["plain", "fresh", "job"])
@pytest.mark.parametrize("place", PLACES)
def test_nothing_is_built_through_a_link(place: str, entry: Callable[[], object], prefix: str, outside: Path) -> None:
    link = PLACES[place](output_of(entry, prefix))
    plant(link, outside)
    before = tree_of(outside)
    with pytest.raises(RunFailedError) as caught:
        executor_main([entry()], argv=["--prefix", prefix])
    (error,) = caught.value.exceptions
    assert isinstance(error, StorageError)
    assert f"{link} is a link that leads out of " in str(error)
    assert f"leads to: {outside}" in str(error)
    assert tree_of(outside) == before


@pytest.mark.parametrize("place", PLACES)
def test_a_dangling_link_makes_nothing(place: str, prefix: str, tmp_path: Path) -> None:
    link = PLACES[place](output_of(plain, prefix))
    plant(link, tmp_path / "nowhere" / "deep")
    with pytest.raises(RunFailedError) as caught:
        executor_main([plain()], argv=["--prefix", prefix])
    assert "is a link that leads out of" in str(caught.value.exceptions[0])
    assert not (tmp_path / "nowhere").exists()


def test_a_skipped_step_leaves_no_token_through_a_link(prefix: str, outside: Path) -> None:
    skipped = output_of(lambda: after(broken()), prefix).parent / "next"
    from marin_trace import lower

    skipped = Path(lower(after(broken()), prefix=prefix)[-1].output_path)
    plant(skipped, outside)
    before = tree_of(outside)
    with pytest.raises(RunFailedError):
        executor_main([after(broken())], argv=["--prefix", prefix])
    assert tree_of(outside) == before


def test_the_record_of_a_run_is_not_written_through_a_link(
    prefix: str, outside: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plant(Path(prefix, "experiments"), outside)
    before = tree_of(outside)
    report = executor_main([plain()], argv=["--prefix", prefix])
    assert report.record_path is None
    assert "is a link that leads out of" in caplog.text
    assert tree_of(outside) == before


@pytest.mark.parametrize("command", [["gc", "--delete"], ["unlock", "--yes"], ["cancel"]])
def test_no_command_deletes_or_writes_through_a_link(
    command: list[str], prefix: str, outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = Path(prefix, "out")
    with pytest.raises(KeyboardInterrupt):
        distributed_lock(interrupt)(str(target))
    (target / ".executor" / "000001.end").unlink()
    for file in (target / ".executor").iterdir():
        file.rename(outside / file.name)
    (target / ".executor").rmdir()
    (target / ".executor").symlink_to(outside)
    before = tree_of(outside)
    name, *flags = command
    assert main([name, str(target), *flags]) == 3
    assert "is a link that leads out of" in capsys.readouterr().err
    assert tree_of(outside) == before


def interrupt(path: str) -> None:
    raise KeyboardInterrupt


def test_a_directory_that_is_a_link_is_no_output_for_gc(prefix: str, outside: Path) -> None:
    with pytest.raises(ValueError, match="no"):
        distributed_lock(fail_with_data)(str(outside / "sub"))
    plant(Path(prefix, "linked"), outside)
    before = tree_of(outside)
    assert main(["gc", prefix, "--delete"]) == 1
    assert tree_of(outside) == before


def fail_with_data(path: str) -> None:
    write(path)
    raise ValueError("no")


def test_an_unlocked_function_is_not_run_through_a_link(tmp_path: Path, outside: Path) -> None:
    plant(tmp_path / "out" / ".executor", outside)
    with pytest.raises(StorageError, match="is a link that leads out of"):
        disk_cached(write, str(tmp_path / "out"))
    assert not (tmp_path / "out" / "data").exists()


@pytest.mark.parametrize("name", [".artifact.json", ".executor_info", ".executor_status"])
def test_a_file_that_is_a_link_is_replaced_and_not_followed(name: str, prefix: str, outside: Path) -> None:
    plant(output_of(plain, prefix) / name, outside / "mine.txt")
    executor_main([plain()], argv=["--prefix", prefix])
    assert (outside / "mine.txt").read_text() == "mine"
    assert not (output_of(plain, prefix) / name).is_symlink()


def say(path: str) -> None:
    print("a word")


@step(name="raw/loud")
def loud():
    return deferred(say)(output())


def test_what_a_step_says_is_not_appended_to_a_link(
    prefix: str, outside: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plant(output_of(loud, prefix) / ".executor" / "000001.log", outside / "mine.txt")
    executor_main([loud()], argv=["--prefix", prefix])
    assert "000001.log cannot be written" in caplog.text
    assert (outside / "mine.txt").read_text() == "mine"


def test_what_a_job_says_is_not_appended_to_a_link(prefix: str, outside: Path) -> None:
    def entry() -> object:
        return loud.with_options(env_vars={"A": "b"})()

    plant(output_of(entry, prefix) / ".executor" / "000001.log", outside / "mine.txt")
    with pytest.raises(RunFailedError) as caught:
        executor_main([entry()], argv=["--prefix", prefix])
    assert "000001.log" in str(caught.value.exceptions[0])
    assert (outside / "mine.txt").read_text() == "mine"


def test_an_artifact_that_is_a_link_elsewhere_tells_nothing_of_it(prefix: str) -> None:
    report = executor_main([plain()], argv=["--prefix", prefix])
    file = output_of(plain, prefix) / ".artifact.json"
    file.unlink()
    file.symlink_to("/etc/passwd")
    with pytest.raises(ArtifactError, match=f"the artifact {file} is truncated or corrupt") as caught:
        Artifact.load(str(file.parent))
    assert "root:" not in str(caught.value)
    with pytest.raises(ArtifactError, match="is truncated or corrupt"):
        report.artifact(plain())


def test_a_finished_output_may_be_a_link(prefix: str, tmp_path: Path) -> None:
    executor_main([plain()], argv=["--prefix", prefix])
    place = output_of(plain, prefix)
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    ref = plain()
    assert executor_main([ref], argv=["--prefix", prefix]).artifact(ref) == 4


def test_a_prefix_that_is_a_link_is_the_user_s_word(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "prefix").symlink_to(tmp_path / "disk")
    ref = remote()
    assert executor_main([ref], argv=["--prefix", str(tmp_path / "prefix")]).artifact(ref) == 4
    assert list((tmp_path / "disk" / "raw").iterdir())


def test_a_link_within_the_prefix_is_no_way_out(prefix: str) -> None:
    Path(prefix, "big").mkdir()
    plant(Path(prefix, "raw"), Path(prefix, "big"))
    ref = plain()
    assert executor_main([ref], argv=["--prefix", prefix]).artifact(ref) == 4


def test_a_spec_with_a_prefix_of_its_own_is_watched_as_well(tmp_path: Path, outside: Path) -> None:
    from marin_trace.runtime.step_runner import StepRunner

    plant(tmp_path / "own" / "raw", outside)
    before = tree_of(outside)
    with pytest.raises(RunFailedError):
        StepRunner().run([StepSpec("raw/x", fn=write, output_path_prefix=str(tmp_path / "own"))])
    assert tree_of(outside) == before
