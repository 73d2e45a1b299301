"""Experiments as users run them: files of their own, in processes of their own."""

import contextlib
import os
import pty
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


def run_on_terminal(script: Path, *flags: str, prefix: str, typed: str = "") -> tuple[int, str]:
    """Runs a script on a terminal, on which somebody has typed something ahead.

    Returns:
        Its exit code, and all that was shown.
    """
    ours, theirs = pty.openpty()
    os.write(ours, typed.encode())
    process = subprocess.Popen(
        [sys.executable, script.name, *flags],
        cwd=script.parent,
        env={**environment(prefix), "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how Linux says that the other side of a terminal is closed
        while part := os.read(ours, 1 << 16):
            shown += part
    os.close(ours)
    return process.wait(120), shown.decode()


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
