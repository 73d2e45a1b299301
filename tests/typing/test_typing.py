"""What pyright says about wiring code: configs accept refs, and steps keep the types of their parameters."""

import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent


@cache
def diagnostics() -> list[dict[str, Any]]:
    """Pyright's complaints about both files, with the settings of ``experiments``."""
    files = [str(HERE / name) for name in ("accepted.py", "refused.py")]
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return json.loads(done.stdout)["generalDiagnostics"]


def complaints(name: str) -> list[str]:
    return [
        f"{Path(entry['file']).name}:{entry['range']['start']['line'] + 1}: {entry['message']}"
        for entry in diagnostics()
        if Path(entry["file"]).name == name
    ]


needs_pyright = pytest.mark.skipif(
    shutil.which("node") is None and shutil.which("pyright", path=str(Path(sys.executable).parent)) is None,
    reason="pyright is not installed",
)


@needs_pyright
def test_a_config_accepts_refs_and_results_where_it_is_annotated_otherwise() -> None:
    assert complaints("accepted.py") == []


@needs_pyright
def test_steps_and_deferred_functions_keep_the_types_of_their_parameters() -> None:
    lines = (HERE / "refused.py").read_text(encoding="utf-8").splitlines()
    expected = {number for number, line in enumerate(lines, 1) if line.endswith("  # error")}
    found = {int(complaint.split(":")[1]) for complaint in complaints("refused.py")}
    assert found == expected
