"""A place for one trial: a prefix, machines to launch on, the launchers, and the checks of what they left."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marin_trace.runtime.keeper_process import KEEPER_VARIABLE
from marin_trace.runtime.process_tree import await_death, carriers_of, descendants_of, is_stopped, kill_all
from tests.soak.pipeline import JOURNAL_VARIABLE

ROOT = Path(__file__).parents[2]
MARK_VARIABLE = "SOAK_TRIAL"
LOOK_S = 0.01
"""Between two looks at processes."""


def busy() -> float:
    """How many times longer everything takes because this machine has more to do than cores: 1 at the least."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


Row = dict[str, Any]


@dataclass(slots=True, eq=False)
class Launcher:
    """A process of the real command line."""

    process: "subprocess.Popen[bytes]"
    log: Path
    received: list[signal.Signals] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    @property
    def code(self) -> int | None:
        """Its exit code, if it has ended."""
        return self.process.poll()

    def text(self) -> str:
        """What it has printed, with what its keeper said."""
        return self.log.read_text(errors="replace")

    def send(self, number: signal.Signals) -> bool:
        """Sends a signal. False if it has ended before."""
        if not self.lives:
            return False
        self.received.append(number)
        self.process.send_signal(number)
        return True

    def keepers(self) -> set[int]:
        """The processes below it that keep its claims."""
        return descendants_of(self.pid) & carriers_of(f"{KEEPER_VARIABLE}=")

    def is_stopped(self) -> bool:
        return is_stopped(self.pid)


@dataclass(slots=True, eq=False)
class Site:
    """One directory and the processes that work in it. Used as a context: at its end they are dead."""

    directory: Path
    launchers: list[Launcher] = field(default_factory=list)
    script: str = "tests/soak/pipeline.py"
    """The experiment that is launched."""

    @property
    def prefix(self) -> Path:
        return self.directory / "prefix"

    @property
    def place(self) -> str:
        """The prefix as launchers are told it."""
        return str(self.prefix)

    def fetch(self) -> None:
        """Makes sure that what launchers left lies below `prefix`, where the checks look."""

    def local(self, path: str) -> str:
        """Where a path of the prefix lies once it is fetched."""
        return path

    @property
    def clock_tick_ns(self) -> int:
        """How far the times of files may lag behind the clock: a tick of the kernel, 10 ms at most."""
        return 20_000_000

    def control_files(self, group: str) -> list[str]:
        """The paths of all files in logs of attempts at the outputs of a directory, at this moment."""
        return [str(path) for path in self.prefix.glob(f"{group}/*/.executor/*")]

    @property
    def temporary(self) -> Path:
        return self.directory / "tmp"

    @property
    def journal(self) -> Path:
        return self.directory / "journal"

    @property
    def mark(self) -> str:
        """In the environment of every process that was started here, at whatever depth."""
        return f"{MARK_VARIABLE}={self.directory}:"

    def __enter__(self) -> "Site":
        self.directory.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        # Also what one of them starts at this moment.
        kill_all(self.carriers(), self.carriers, limit_s=30.0)
        for launcher in self.launchers:
            launcher.process.wait()

    def launch(
        self, *flags: object, machine: int = 0, leads_group: bool = True, environment: dict[str, str] | None = None
    ) -> Launcher:
        """Starts the experiment. A machine is a runtime directory of its own: nobody knows who lives on another."""
        runtime = self.directory / f"machine-{machine}"
        for directory in (runtime, self.temporary):
            directory.mkdir(exist_ok=True)
        log = self.directory / f"launcher-{len(self.launchers)}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, self.script, "--prefix", self.place, *map(str, flags)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                cwd=ROOT,
                start_new_session=leads_group,
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT),
                    "XDG_RUNTIME_DIR": str(runtime),
                    "TMPDIR": str(self.temporary),
                    MARK_VARIABLE: f"{self.directory}:",
                    JOURNAL_VARIABLE: str(self.journal),
                    **(environment or {}),
                },
            )
        launcher = Launcher(process, log)
        self.launchers.append(launcher)
        return launcher

    def carriers(self) -> set[int]:
        """Everything that was started here and lives."""
        return carriers_of(self.mark)

    def jobs(self) -> set[int]:
        """The processes of steps that have one of their own, their children not among them."""
        return {pid for pid in self.carriers() if "marin_trace.workers.local_main" in command_of(pid)}

    def noted(self) -> list[Row]:
        """The journal's lines."""
        if not self.journal.exists():
            return []
        return [json.loads(line) for line in self.journal.read_text().splitlines()]

    def await_end_of_all(self, limit_s: float) -> list[str]:
        """Waits until nothing that was started here lives any more, on a busy machine longer; says what does."""
        deadline = time.monotonic() + limit_s * busy()
        for pid in self.carriers():
            await_death(pid, limit_s=deadline - time.monotonic())
        return [f"process {pid} is left over: {command_of(pid)}" for pid in self.carriers()]

    def forget(self) -> None:
        """Deletes the directory."""
        shutil.rmtree(self.directory)


def command_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return "gone"


def until(limit_s: float) -> Iterator[None]:
    """Looks again and again: ``for _ in until(5): if …: break``."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        yield
        time.sleep(LOOK_S)


def await_exit(launcher: Launcher, limit_s: float) -> int | None:
    """Waits for a launcher's end: its exit code, or None if it lives on."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return launcher.process.wait(limit_s)
    return None


def verify(site: Site) -> tuple[int, list[Row]]:
    """``marin-trace verify PREFIX``: its exit code and what it says of each output, by its path in `Site.prefix`."""
    shown = subprocess.run(
        [sys.executable, "-m", "marin_trace.cli.main", "verify", "--json", site.place],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    if shown.returncode not in (0, 1):
        return shown.returncode, [{"result": "error", "output": site.place, "detail": shown.stderr, "files": []}]
    rows: list[Row] = json.loads(shown.stdout)
    return shown.returncode, [{**row, "output": site.local(row["output"])} for row in rows]


def run_records(prefix: Path) -> Sequence[Row]:
    """What each launcher says that it did. One that was killed has left none."""
    return [json.loads(path.read_text()) for path in (prefix / "experiments").glob("*.json")]
