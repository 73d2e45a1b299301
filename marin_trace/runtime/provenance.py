"""Where a run comes from: commit, user, host, command line, packages. Looked up once a process."""

import getpass
import os
import platform
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, final

from marin_trace.runtime.redaction import redact_arguments

__all__ = ["Provenance", "current_provenance"]

_GIT_TIMEOUT_S: Final = 5.0
"""A repository on a network disk that takes longer is recorded as unknown: no run waits for it."""


@final
@dataclass(frozen=True, slots=True)
class Provenance:
    """Facts about the launcher. Secrets in the command line are redacted; no environment value is read."""

    git_commit: str | None
    """Of the working directory; None outside a repository."""
    git_dirty: bool | None
    """Whether tracked files differ from the commit."""
    user: str
    host: str
    pid: int
    working_directory: str
    argv: tuple[str, ...]
    """As the process was started: `parse_flags` takes an experiment's own flags out of ``sys.argv``."""
    python: str
    platform: str
    packages: tuple[tuple[str, str], ...] = ()
    """Name and version of each installed distribution."""

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {**asdict(self), "packages": dict(self.packages)}


@cache
def current_provenance() -> Provenance:
    """The provenance of this process: some 20 ms the first time, mostly git."""
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no") if commit else None
    return Provenance(
        git_commit=commit,
        git_dirty=None if changes is None else bool(changes),
        user=_user(),
        host=socket.gethostname(),
        pid=os.getpid(),
        working_directory=os.getcwd(),
        argv=tuple(redact_arguments(sys.orig_argv)),
        python=platform.python_version(),
        platform=f"{sys.platform}-{platform.machine()}",
        packages=_installed_packages(),
    )


def _git(*arguments: str) -> str | None:
    # Without optional locks: looking must not make somebody else's `git commit` fail.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        finished = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=False, env=environment
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return finished.stdout.strip() if finished.returncode == 0 else None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return f"uid {os.getuid()}"


def _installed_packages() -> tuple[tuple[str, str], ...]:
    # Names of .dist-info directories hold name and version; importlib.metadata would parse each file in them.
    versions: dict[str, str] = {}
    for directory in sys.path:
        for entry in _distribution_directories(directory):
            name, separator, version = entry.removesuffix(".dist-info").partition("-")
            if separator:
                versions.setdefault(name, version)
    return tuple(sorted(versions.items()))


def _distribution_directories(directory: str) -> list[str]:
    try:
        names = os.listdir(Path(directory or "."))
    except OSError:  # sys.path may name what is missing, a zip file, or what may not be read
        return []
    return [name for name in names if name.endswith(".dist-info")]
