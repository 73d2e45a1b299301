"""Packages for one job, installed beside the environment and cached: what ``pip_dependency_groups`` asks for locally.

A group is an extra or a dependency group of the project around the working directory, or a requirement as pip takes
it. The packages go into a directory of their own, named by the requirements and the interpreter, which a job finds
first on its path. The launcher's own environment is never changed.
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, cast

from marin_trace.errors import WorkerError, explain
from marin_trace.io import atomic_directory

__all__ = ["overlay_for", "overlay_of", "project_directory", "requirements_of", "split_groups"]

_OUTPUT_TAIL_LINES: Final = 15
_NOT_A_NAME: Final = frozenset("<>=!~@[]; /")


def overlay_for(groups: Sequence[str], *, project: Path | None = None, cache: Path | None = None) -> str | None:
    """The directory with the packages of some groups; installed the first time, which takes as long as pip takes.

    Args:
        groups: Names of extras or dependency groups, or requirements.
        project: The directory of ``pyproject.toml``; default: the nearest one around the working directory.
        cache: Where overlays are kept; default: ``marin_trace`` in the user's cache directory.

    Returns:
        Its path; None without groups.

    Raises:
        WorkerError: A group is unknown, or pip fails or is missing.
    """
    if not groups:
        return None
    return overlay_of(requirements_of(groups, project or project_directory()), cache=cache)


def overlay_of(requirements: Sequence[str], *, cache: Path | None = None) -> str | None:
    """The directory with the packages of some requirements; see `overlay_for`.

    Raises:
        WorkerError: Pip fails or is missing.
    """
    if not requirements:
        return None
    key = json.dumps([sorted(requirements), platform.python_version(), sys.platform, platform.machine()])
    name = hashlib.sha256(key.encode()).hexdigest()[:24]
    target = (cache or _cache_directory()) / "overlays" / name
    if not target.is_dir():
        with atomic_directory(target) as directory:
            _install(requirements, directory)
    return str(target)


def requirements_of(groups: Sequence[str], project: Path | None) -> list[str]:
    """The requirements that some groups stand for.

    Raises:
        WorkerError: A name is neither an extra nor a dependency group of the project.
    """
    tables = _declared_groups(project)
    requirements: list[str] = []
    for group in groups:
        if group in tables:
            requirements += tables[group]
        elif _NOT_A_NAME.intersection(group):
            requirements.append(group)
        else:
            raise WorkerError(
                explain(
                    f"pip_dependency_groups names {group!r}, which the project does not declare",
                    facts={"project": project or "none found", "declared": ", ".join(sorted(tables)) or "none"},
                    hint="add it to [project.optional-dependencies], or write a requirement such as 'numpy>=2'",
                )
            )
    return requirements


def split_groups(groups: Sequence[str], project: Path | None) -> tuple[list[str], list[str]]:
    """Some groups as an engine takes them that installs the project itself: its extras, and requirements beside them.

    Raises:
        WorkerError: A name is neither an extra nor a dependency group of the project.
    """
    declared = _tables(project).get("project", {}).get("optional-dependencies", {})
    extras = [group for group in groups if group in declared]
    return extras, requirements_of([group for group in groups if group not in declared], project)


def _tables(project: Path | None) -> dict[str, Any]:
    if project is None:
        return {}
    import tomllib  # jobs that install nothing do without

    return tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))


def _declared_groups(project: Path | None) -> dict[str, list[str]]:
    table = _tables(project)
    extras = cast("dict[str, list[str]]", table.get("project", {}).get("optional-dependencies", {}))
    groups = cast("dict[str, list[Any]]", table.get("dependency-groups", {}))
    return {**{name: _expanded(name, groups) for name in groups}, **extras}


def _expanded(name: str, groups: dict[str, list[Any]]) -> list[str]:
    requirements: list[str] = []
    for entry in groups[name]:
        requirements += [entry] if isinstance(entry, str) else _expanded(entry["include-group"], groups)
    return requirements


def _install(requirements: Sequence[str], directory: str) -> None:
    if find_spec("pip") is None:
        raise WorkerError(
            explain(
                f"this environment has no pip to install {', '.join(requirements)} with",
                hint="python -m ensurepip, or install the packages yourself and leave pip_dependency_groups out",
            )
        )
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", directory]
    finished = subprocess.run([*command, *requirements], capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        tail = finished.stderr.strip().splitlines()[-_OUTPUT_TAIL_LINES:]
        raise WorkerError(explain(f"pip could not install {', '.join(requirements)}", facts=tail))


def project_directory() -> Path | None:
    """The directory of the nearest ``pyproject.toml`` around the working directory; None: there is none."""
    here = Path.cwd()
    return next((place for place in (here, *here.parents) if (place / "pyproject.toml").is_file()), None)


def _cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "marin_trace"
