"""Where a test says that an error points: at its own line, marked by a comment."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def at(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """From the comment that ends one line of the test's file to that line's ``file:line``."""

    def location(comment: str) -> str:
        lines = Path(request.path).read_text(encoding="utf-8").splitlines()
        [number] = [number for number, line in enumerate(lines, 1) if line.endswith(f"  # {comment}")]
        return f"{Path(request.path).name}:{number}"

    return location
