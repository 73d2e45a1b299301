"""Whatever a file holds: it is judged or called no Python, and what is made of it is Python."""

import ast
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from marin_trace.migration.findings import SYNTAX_ERROR
from marin_trace.migration.lint import lint_file
from marin_trace.migration.migrate import migrate_files
from marin_trace.migration.module import Project
from tests.migration.mutations import mutated


def is_python(data: bytes) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(data)
    except (SyntaxError, ValueError):
        return False
    return True


@pytest.fixture(autouse=True)
def nothing_is_kept_for_a_bug(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert "please report" not in caplog.text


def check(seed: int, directory: Path) -> None:
    path = directory / "experiments" / f"exp{seed}.py"
    path.parent.mkdir(exist_ok=True)
    data = mutated(seed).encode()
    path.write_bytes(data)
    findings = lint_file(path, Project())
    [migrated] = migrate_files([path])
    assert path.read_bytes() == data
    if not is_python(data):
        assert [finding.code for finding in findings] == [SYNTAX_ERROR]
        assert not migrated.is_changed
        assert [finding.code for finding in migrated.left] == [SYNTAX_ERROR]
        return
    assert is_python(migrated.text.encode())
    path.write_text(migrated.text)
    [again] = migrate_files([path])
    assert again.text == migrated.text


@pytest.mark.parametrize("seed", range(40))
def test_a_file_as_nobody_would_write_it(seed: int, tmp_path: Path) -> None:
    check(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("hundred", range(10))
def test_a_thousand_files_as_nobody_would_write_them(hundred: int, tmp_path: Path) -> None:
    for seed in range(1_000 + 100 * hundred, 1_100 + 100 * hundred):
        check(seed, tmp_path)
