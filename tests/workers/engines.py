"""The engines that run jobs, as the conformance suite sees them: a client, and what only its test can bring about.

An engine is a fixture named ``NAME_engine``; one whose packages are not installed skips with `skip_engine`, so that the
end of the test run says which engines were exercised and why others were not.
"""

import importlib.util
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest

from marin_trace.workers.client import JobClient, JobHandle, JobRequest, JobStatus, job_name
from marin_trace.workers.resources import ResourceConfig

ENGINES = ("local", "ray", "fray")
ENGINE_PROPERTY = "engine"
"""Under which a test says which engine it ran on."""
PATIENCE_S = 120.0
"""For what an engine does by itself, on a busy machine; a test that has to wait so long has failed."""


@dataclass(frozen=True)
class Engine:
    """One engine, ready to run jobs."""

    name: str
    client: JobClient
    restarts_lost_workers: bool = True
    """False: its jobs are processes of the launcher, and there is nobody else to lose."""
    names_signals: bool = True
    """Whether it can tell by which signal a job's process died."""
    lose_worker: Callable[[int], None] = field(default=lambda pid: os.kill(pid, signal.SIGKILL))
    """Takes away what runs the process of this id, as a machine that vanishes would."""

    def submit(self, entrypoint: Callable[[], object], name: str = "job", **fields: object) -> JobHandle:
        """Submits a job under a name of its own; it asks for next to nothing unless told otherwise."""
        request = JobRequest(job_name(name), entrypoint, **{"resources": ResourceConfig.with_cpu(0.1), **fields})
        return self.client.submit(request)


def skip_engine(reason: str) -> NoReturn:
    """Skips the test: this engine is not exercised, for this reason."""
    pytest.skip(f"engine not exercised: {reason}")


def require_module(module: str, distribution: str) -> None:
    """Skips the test where a package of its engine is not installed."""
    if importlib.util.find_spec(module) is None:
        skip_engine(f"{distribution} is not installed")


def ended(handle: JobHandle, patience_s: float = PATIENCE_S) -> JobStatus:
    """The status of a job once it has ended."""
    status = handle.wait(patience_s)
    assert status.is_over, f"{handle.job_id} is {status} after {patience_s:g} s:\n{handle.logs()}"
    return status


def append(path: str, text: str) -> None:
    with open(path, "a") as stream:
        stream.write(f"{text}\n")


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def wait_until(is_so: Callable[[], bool]) -> None:
    """Waits for what an engine does in processes of its own, of which nothing but a look can tell."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def engine_lines(reports: list[Any]) -> list[str]:
    """What a test run says of engines: how many tests ran on each, and why none did.

    Args:
        reports: Of the run's tests, of every phase and outcome.
    """
    counts: dict[str, int] = {}
    reasons: dict[str, dict[str, None]] = {}
    for report in reports:
        engine = dict(getattr(report, "user_properties", ())).get(ENGINE_PROPERTY)
        if engine is None:
            continue
        if getattr(report, "skipped", False):
            text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            reasons.setdefault(engine, {})[text.removeprefix("Skipped: ").removeprefix("engine not exercised: ")] = None
        elif report.when == "call":
            counts[engine] = counts.get(engine, 0) + 1
    lines = []
    for engine in sorted(counts.keys() | reasons.keys()):
        told = "; ".join(reasons.get(engine, ()))
        ran = f"{counts[engine]} tests ran" if engine in counts else "not exercised"
        lines.append(f"{engine}: {ran}" + (f" ({'some skipped: ' if engine in counts else ''}{told})" if told else ""))
    return lines
