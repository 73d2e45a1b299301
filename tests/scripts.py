"""Experiments as users run them: files of their own, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def environment(prefix: str) -> dict[str, str]:
    """What a script's process gets: the checkout, and a prefix."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "MARIN_PREFIX": prefix}


def run_script(script: Path, *flags: object, prefix: str) -> "subprocess.CompletedProcess[str]":
    """Runs a script to its end, in its own directory."""
    return subprocess.run(
        [sys.executable, script.name, *map(str, flags)],
        env=environment(prefix),
        cwd=script.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def run_command(*argv: object, prefix: str, directory: Path) -> "subprocess.CompletedProcess[str]":
    """Runs ``marin-trace`` to its end, in a directory."""
    return subprocess.run(
        [sys.executable, "-m", "marin_trace.cli.main", *map(str, argv)],
        env=environment(prefix),
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def write_script(directory: Path, text: str, name: str = "experiment.py") -> Path:
    """Writes a script and returns its path."""
    script = directory / name
    script.write_text(text)
    return script


def tree_of(directory: str | Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file and directory below one: size, time of its last change, and content."""
    found: dict[str, tuple[int, int, bytes]] = {}
    for path in sorted(Path(directory).rglob("*")):
        state = path.stat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(directory))] = (state.st_size, state.st_mtime_ns, content)
    return found


def line_of(script: Path, text: str) -> str:
    """``file:line`` of the first line of a script that holds a text, as messages write it."""
    number = next(number for number, line in enumerate(script.read_text().splitlines(), 1) if text in line)
    return f"{script.name}:{number}"
