"""Experiments in the older style, in the style of those that the migration guide lists, and what becomes of them.

``corpus/legacy`` is what people have, ``corpus/migrated`` what ``marin-trace migrate`` makes of it, read and judged by
a person. Both are traced, and what they would run is compared step by step.
"""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from marin_trace.migration.lint import lint_files
from marin_trace.migration.migrate import Migrated, migrate_files
from marin_trace.migration.sources import python_files
from tests.migration.mutations import CORPUS
from tests.scripts import ROOT

FILES = sorted(str(path.relative_to(CORPUS / "legacy")) for path in (CORPUS / "legacy").rglob("*.py"))
PLANTED = json.loads((CORPUS / "planted.json").read_text())
"""How often each rule is broken in each file, as a person has checked."""


def copied(directory: Path, kind: str) -> Path:
    """A tree of the corpus as a project of its own."""
    tree = directory / kind
    shutil.copytree(CORPUS / kind, tree)
    (tree / "pyproject.toml").write_text("")
    return tree


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Migrated]:
    """What becomes of each file, by its path below the tree."""
    tree = copied(tmp_path_factory.mktemp("corpus"), "legacy")
    files = migrate_files(python_files([str(tree)]))
    return {str(file.source.path.relative_to(tree)): file for file in files}


def test_the_corpus_is_as_large_as_it_is_said_to_be() -> None:
    lines = [line for name in FILES for line in (CORPUS / "legacy" / name).read_text().splitlines()]
    assert len(FILES) >= 30
    assert len(lines) >= 2_000


@pytest.mark.parametrize("name", FILES)
def test_a_file_becomes_what_a_person_has_judged(name: str, migrated: dict[str, Migrated]) -> None:
    assert migrated[name].text == (CORPUS / "migrated" / name).read_text()


def test_lint_finds_what_was_planted(tmp_path: Path) -> None:
    tree = copied(tmp_path, "legacy")
    found: dict[str, Counter[str]] = {}
    for finding in lint_files(python_files([str(tree)])):
        found.setdefault(str(Path(finding.path).relative_to(tree)), Counter())[finding.code] += 1
    assert {name: dict(sorted(counts.items())) for name, counts in sorted(found.items())} == PLANTED


def test_nine_files_in_ten_are_clean_afterwards(tmp_path: Path, migrated: dict[str, Migrated]) -> None:
    clean = [name for name, file in migrated.items() if not file.left]
    assert len(clean) >= 0.9 * len(FILES)
    findings = lint_files(python_files([str(copied(tmp_path, "migrated"))]))
    assert {str(Path(finding.path).relative_to(tmp_path / "migrated")) for finding in findings} == set(FILES) - set(
        clean
    )


def test_what_has_been_migrated_is_not_changed_again(tmp_path: Path) -> None:
    tree = copied(tmp_path, "migrated")
    assert [file.source.path for file in migrate_files(python_files([str(tree)])) if file.is_changed] == []


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("experiments/")])
def test_a_file_alone_becomes_python_that_stays_as_it_is(name: str, tmp_path: Path) -> None:
    """Its imports cannot be read: what they bring is guessed by its name, or left."""
    path = tmp_path / "experiments" / Path(name).name
    path.parent.mkdir()
    shutil.copy(CORPUS / "legacy" / name, path)
    [first] = migrate_files([path])
    compile(first.text, str(path), "exec")
    path.write_text(first.text)
    [second] = migrate_files([path])
    assert second.text == first.text
    assert [finding.code for finding in second.left] == [finding.code for finding in first.left]


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each experiment of both trees would run."""
    directory = tmp_path_factory.mktemp("pipelines")
    return {kind: printed(copied(directory, kind)) for kind in ("legacy", "migrated")}


def printed(tree: Path) -> dict[str, Any]:
    script = Path(__file__).with_name("print_experiments.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tree)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


EXPERIMENTS = [
    name for name in FILES if re.search(r"^if __name__", (CORPUS / "legacy" / name).read_text(), re.MULTILINE)
]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_both_forms_of_an_experiment_run_the_same_steps(name: str, pipelines: dict[str, dict[str, Any]]) -> None:
    legacy, migrated = pipelines["legacy"][name], pipelines["migrated"][name]
    assert legacy
    assert migrated == legacy
