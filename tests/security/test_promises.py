"""SECURITY.md: every test that it names exists, and every promise has one."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text()
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ") and "---" not in line][1:]
NAMED = re.findall(r"`((?:tests/[a-z/]+/)?test_\w+\.py)::(test_\w+)`", TEXT)


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED)))
def test_a_test_that_is_named_exists(file: str, name: str) -> None:
    path = ROOT / (file if file.startswith("tests/") else f"tests/security/{file}")
    assert re.search(rf"^def {name}\(", path.read_text(), re.MULTILINE)


def test_every_promise_names_a_test() -> None:
    assert len(ROWS) >= 15
    assert [row for row in ROWS if "::test_" not in row.rsplit("|", 2)[1]] == []


@pytest.mark.parametrize("heading", ["Reporting", "What you must trust", "What is promised", "Supported versions"])
def test_the_file_keeps_its_sections(heading: str) -> None:
    assert f"\n## {heading}\n" in TEXT
