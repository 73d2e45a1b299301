"""Steps and launchers for the runtime's tests: plain stand-ins of what lowering makes."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from marin_trace.runtime.artifact import Artifact
from marin_trace.runtime.disk_cache import Cached
from marin_trace.runtime.distributed_lock import distributed_lock
from marin_trace.runtime.executable import Executable
from marin_trace.runtime.options import AttemptOptions, RunOptions
from marin_trace.runtime.records import StepRecord

ROOT = Path(__file__).parents[2]


def do_nothing(output_path: str) -> None:
    """The body of a step that has none."""


@dataclass(eq=False)
class FakeStep:
    """What the runner sees of a step."""

    name: str
    output_path: str
    fn: Callable[[str], Any] = do_nothing
    deps: Sequence["FakeStep"] = ()
    nonblocking_deps: Sequence["FakeStep"] = ()
    order_only_deps: Sequence["FakeStep"] = ()
    parts: Mapping[str, str] = field(default_factory=dict)
    location: str | None = "experiments/fake.py:7"
    template: str | None = None
    functions: Sequence[str] = ()
    declared_cpu: float | None = None
    can_run: bool = True
    retries: int = 0
    fresh: bool = False
    wrap: Callable[[Executable], Executable] = lambda executable: executable

    @property
    def name_with_hash(self) -> str:
        return self.name

    @property
    def fingerprint(self) -> str:
        return f"{'-'.join(self.parts.values())}-{self.name}".rjust(64, "0")

    def recipe_parts(self) -> Mapping[str, str]:
        return self.parts

    def executable(self, options: RunOptions) -> Executable:
        attempt = AttemptOptions.for_step(
            self.output_path,
            options,
            info=StepRecord(self.name, self.fingerprint, self.parts),
            inputs=tuple(dep.output_path for dep in self.deps),
            retries=self.retries,
            fresh=self.fresh,
        )
        return self.wrap(Cached(distributed_lock(self.fn).with_options(attempt), Artifact.save, Artifact.load))


MakeStep = Callable[..., FakeStep]


@pytest.fixture
def make_step(prefix: str) -> MakeStep:
    """Makes a step below the test's prefix."""

    def make(name: str, fn: Callable[[str], Any] = do_nothing, **fields: Any) -> FakeStep:
        return FakeStep(name, fields.pop("output_path", f"{prefix}/{name}"), fn, **fields)

    return make


Launch = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def launch() -> Iterator[Launch]:
    """Starts `launcher.py` as another process would; kills what is left at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("launcher.py")), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
