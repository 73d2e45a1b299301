"""The tutorial as a user runs it: a script in a process of its own, on a small source directory."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "experiments" / "tutorials" / "hello_corpus.py"
STEPS = ["documents/source", "corpus/source", "statistics/source", "reports/source"]

FIGURES = """\
  4 files collected, 1 unreadable
  2 documents kept; dropped: 1 duplicates, 1 empty
  20 bytes in 2 lines
  3 identifiers, 4 occurrences
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "pkg").mkdir(parents=True)
    (root / "pkg" / "a.py").write_text("x = x + y\r\n")
    (root / "pkg" / "b.py").write_text("x = x + y\n\n")
    (root / "pkg" / "empty.py").write_text("\n")
    (root / "notes.txt").write_text("words 123\n")
    (root / "image.bin").write_bytes(b"\x89\x00\xff")
    return root


def run_script(*flags: object, prefix: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, flags)],
        env={**os.environ, "MARIN_PREFIX": prefix},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def run_well(*flags: object, prefix: str, cwd: Path = ROOT) -> str:
    done = run_script(*flags, prefix=prefix, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def figures_of(stdout: str) -> str:
    return stdout.partition("\nreport: ")[2].partition("\n")[2]


def tree_of(path: str | Path) -> dict[str, int]:
    """When each file below a directory was written; without the records of runs, which every run adds to."""
    files = (file for file in Path(path).rglob("*") if file.is_file())
    relative = {str(file.relative_to(path)): file.stat().st_mtime_ns for file in files}
    return {name: written for name, written in relative.items() if not name.startswith("experiments/")}


def output_directories(prefix: str) -> list[str]:
    return sorted({"/".join(name.split("/")[:2]) for name in tree_of(prefix)})


def test_a_run_ends_with_the_report_and_its_figures(source: Path, prefix: str) -> None:
    stdout = run_well("--source", source, prefix=prefix)
    report = re.search(r"^report: (\S+)$", stdout, re.MULTILINE)
    assert report is not None
    page = Path(report[1]).read_text()
    assert report[1].startswith(prefix)
    assert page.startswith("# The corpus source\n")
    assert "- image.bin" in page.replace("`", "")
    assert figures_of(stdout) == FIGURES
    assert [directory.rpartition("-")[0] for directory in output_directories(prefix)] == sorted(STEPS)


def test_a_second_run_prints_the_same_and_writes_nothing_anew(source: Path, prefix: str) -> None:
    first = run_well("--source", source, prefix=prefix)
    before = tree_of(prefix)
    second = run_well("--source", source, "--workers", 1, prefix=prefix)
    assert tree_of(prefix) == before
    assert figures_of(second) == figures_of(first)


def test_a_relative_source_is_the_same_source(source: Path, prefix: str) -> None:
    run_well("--source", source, prefix=prefix)
    before = output_directories(prefix)
    run_well("--source", "./source", prefix=prefix, cwd=source.parent)
    assert output_directories(prefix) == before


def test_other_shards_rebuild_the_corpus_and_not_the_documents(source: Path, prefix: str) -> None:
    run_well("--source", source, prefix=prefix)
    before = tree_of(prefix)
    run_well("--source", source, "--shards", 1, prefix=prefix)
    after = tree_of(prefix)
    built = {name.split("-")[0] for name in after.keys() - before.keys()}
    assert {name: after[name] for name in before} == before
    assert built == set(STEPS) - {"documents/source"}


def test_a_dry_run_names_every_step_and_writes_nothing(source: Path, tmp_path: Path) -> None:
    stdout = run_well("--source", source, "--dry_run", prefix=str(tmp_path / "absent"), cwd=tmp_path)
    assert [name for name in STEPS if name not in stdout] == []
    assert "report: " not in stdout
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_run_until_an_early_step_ends_well_and_without_a_report(source: Path, prefix: str) -> None:
    stdout = run_well("--source", source, "--until", "^corpus/", prefix=prefix)
    assert "report:" not in stdout
    assert [path for path in STEPS if list(Path(prefix).glob(f"{path}-*"))] == STEPS[:2]


def test_a_missing_source_fails_with_its_name(prefix: str) -> None:
    done = run_script("--source", "/absent/source", prefix=prefix)
    assert done.returncode != 0
    assert "no such file or directory: /absent/source" in done.stdout + done.stderr
    assert "report: " not in done.stdout


def test_an_unknown_flag_names_the_nearest_and_starts_nothing(prefix: str) -> None:
    done = run_script("--sorce", "x", prefix=prefix)
    assert done.returncode != 0
    assert "--sorce" in done.stderr
    assert "--source" in done.stderr
    assert tree_of(prefix) == {}


def test_help_shows_the_flags_of_the_experiment_and_of_the_run(prefix: str) -> None:
    stdout = run_well("--help", prefix=prefix)
    assert [flag for flag in ("--source", "--shards", "--workers", "--dry_run", "--prefix") if flag not in stdout] == []


def test_a_killed_run_goes_on_from_what_is_committed(tmp_path: Path, prefix: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(40):  # 4 MB: half a second of measuring, in which to be killed
        (source / f"{number}.py").write_text(f"name_{number} = a + b\n" * 5000)
    killed_when_step_starts("statistics/source", "--source", source, prefix=prefix)
    before = tree_of(prefix)
    # The step that ran may have been claimed, and then is released.
    committed = {name for name in before if name.endswith(".manifest")}
    assert {name.split("-")[0] for name in committed} == set(STEPS[:2])
    done = run_script("--source", source, prefix=prefix)
    after = tree_of(prefix)
    assert done.returncode == 0, done.stderr
    assert {name: after[name] for name in before if name.startswith(("documents/", "corpus/"))} == {
        name: written for name, written in before.items() if name.startswith(("documents/", "corpus/"))
    }
    assert "40 documents kept" in done.stdout


def killed_when_step_starts(step: str, *flags: object, prefix: str) -> None:
    command = [sys.executable, str(SCRIPT), *map(str, flags)]
    environment = {**os.environ, "MARIN_PREFIX": prefix}
    with subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        seen = [
            line for line in iter(process.stderr.readline, "") if kill_if(process, step in line and "starts" in line)
        ]
    assert seen, f"{step} never started"
    assert process.returncode == -signal.SIGKILL


def kill_if(process: subprocess.Popen[str], due: bool) -> bool:
    if due:
        process.kill()
    return due


def test_importing_the_experiment_does_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import experiments.tutorials.hello_corpus as module; print(module.corpus_name('a/b*'))",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "a\n", "")
    assert list(tmp_path.iterdir()) == []
