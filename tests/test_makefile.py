"""The set-up that `make` does: which Python it takes, what it says where there is none, and that it does it once."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")

WORKING = f"""\
#!/bin/sh
case "$*" in
  "-m venv "*) mkdir -p "$3/bin"; echo "made by $0" > "$3/bin/python" ;;
  *) exec {sys.executable} "$@" ;;
esac
"""
WITHOUT_VENV = f"""\
#!/bin/sh
case "$*" in
  *ensurepip*) echo "No module named ensurepip" >&2; exit 1 ;;
  *) exec {sys.executable} "$@" ;;
esac
"""
TOO_OLD = """\
#!/bin/sh
exit 1
"""
BROKEN_SHIM = """\
#!/bin/sh
echo "pyenv: command not found" >&2
exit 127
"""
CANNOT_FINISH = f"""\
#!/bin/sh
case "$*" in
  "-m venv "*) mkdir -p "$3/bin"; touch "$3/bin/python"; exit 1 ;;
  *) exec {sys.executable} "$@" ;;
esac
"""


def run_make(command: list[str]) -> subprocess.CompletedProcess[str]:
    # What an outer `make test` hands down (its own variables, -n, a job server) is not this call's.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTHON"))
    }
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def make_environment(tmp_path: Path, **scripts: str) -> subprocess.CompletedProcess[str]:
    """What ``make`` does to get an environment, where these are the Pythons that it may try."""
    for name, script in scripts.items():
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    candidates = " ".join(str(tmp_path / name) for name in [*scripts, "absent"])
    venv = tmp_path / "venv"
    command = ["make", f"VENV={venv}", f"PYTHON={candidates}", f"{venv}/bin/python"]
    return run_make(command)


def test_the_first_python_that_works_is_taken(tmp_path: Path) -> None:
    done = make_environment(tmp_path, shim=BROKEN_SHIM, old=TOO_OLD, bare=WITHOUT_VENV, good=WORKING, later=WORKING)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "venv" / "bin" / "python").read_text() == f"made by {tmp_path}/good\n"
    assert (tmp_path / "venv" / ".checkout").read_text() == str(ROOT)


def test_without_a_python_it_says_what_to_install(tmp_path: Path) -> None:
    done = make_environment(tmp_path, shim=BROKEN_SHIM, old=TOO_OLD)
    assert done.returncode != 0
    assert "error: no Python 3.11 or newer found" in done.stderr
    assert "apt install python3 python3-venv" in done.stderr


def test_without_the_venv_module_it_says_what_to_install(tmp_path: Path) -> None:
    done = make_environment(tmp_path, bare=WITHOUT_VENV)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert done.returncode != 0
    assert f"bare (Python {version}) cannot make environments" in done.stderr
    assert f"apt install python{version}-venv" in done.stderr


def test_a_half_built_environment_does_not_stay(tmp_path: Path) -> None:
    done = make_environment(tmp_path, good=CANNOT_FINISH)
    assert done.returncode != 0
    assert not (tmp_path / "venv").exists()


def test_help_lists_every_command() -> None:
    done = run_make(["make"])
    targets = ["tutorial", "test", "lint", "bench", "soak", "clean"]
    assert [target for target in targets if f"make {target}" not in done.stdout] == []
