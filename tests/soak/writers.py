"""R10: writers that fail or are killed leave nothing partial at a final name, and deleting takes exact keys."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

from marin_trace.io import atomic_directory, atomic_write
from marin_trace.runtime.attempt import empty_output
from marin_trace.storage.control_store import control_store_for
from marin_trace.storage.files import delete_file
from tests.soak.series import Outcome, Series, Terms, run_trials
from tests.soak.site import ROOT, until

KILLS = 150
LINE = b"%012d\n"
NAMES = ("run1", "run2", "run[12]", "run*", "run?")


def write_generations(directory: str, lines: int) -> None:
    """The writer: every file holds one number throughout, a greater one each time; it is killed in the middle."""
    for number in count():
        with atomic_write(f"{directory}/file") as stream:
            write_lines(stream, number, lines)
        with atomic_directory(f"{directory}/parts") as parts:
            for part in range(3):
                with open(f"{parts}/{part}", "wb") as stream:
                    write_lines(stream, number, lines)


def write_lines(stream, number: int, lines: int) -> None:
    for _ in range(lines):
        stream.write(LINE % number)
        stream.flush()


def problems_of_file(path: Path, lines: int) -> list[str]:
    """None: it is not there, or whole."""
    if not path.exists():
        return []
    found = path.read_bytes().splitlines(keepends=True)
    is_whole = len(found) == lines and len(set(found)) == 1
    return [] if is_whole else [f"{path.name} holds {len(found)} lines of {lines}, {len(set(found))} different ones"]


@dataclass(frozen=True, slots=True)
class Trial:
    """What one killed writer left."""

    problems: tuple[str, ...]
    was_mid_write: bool
    """A temporary file lies beside the final name."""


def killed_writer(terms: Terms, number: int) -> Trial:
    """Kills a writer at a random instant."""
    dice = random.Random(f"writers {terms.seed} {number}")
    lines = dice.choice([100, 5_000])
    directory = terms.directory / f"trial-{number}"
    directory.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.soak.writers", str(directory), str(lines)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    for _ in until(60):
        if (directory / "file").exists():
            break
    if dice.random() < 0.9:
        sleep_until_killed(process, dice.uniform(0.0, 0.1))
    process.send_signal(signal.SIGKILL)
    process.wait()
    files = [directory / "file", *(directory / "parts").glob("*")]
    problems = [problem for path in files for problem in problems_of_file(path, lines)]
    if (directory / "parts").exists() and len(list((directory / "parts").iterdir())) != 3:
        problems.append("parts is incomplete")
    return Trial(tuple(f"trial {number}: {problem}" for problem in problems), any(directory.glob(".tmp-*")))


def sleep_until_killed(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return
    raise AssertionError("the writer ended by itself")


class WriterError(Exception):
    """What a failing writer raises."""


def problems_of_failing_writers(directory: Path, seed: int) -> list[str]:
    """A block that raises leaves what was there before, and nothing where nothing was."""
    dice = random.Random(f"failing {seed}")
    problems: list[str] = []
    for number in range(50):
        path = directory / f"failing-{number}"
        had_content = dice.random() < 0.5
        if had_content:
            path.write_bytes(b"old")
        try:
            with atomic_write(path) as stream:
                stream.write(b"x" * dice.randrange(100_000))
                raise WriterError
        except WriterError:
            left = path.read_bytes() if path.exists() else None
        if left != (b"old" if had_content else None):
            problems.append(f"a failing writer left {left!r} at {path.name}")
    problems += [f"a failing writer left {path.name}" for path in directory.glob(".tmp-*")]
    return problems


def problems_of_deleting(directory: Path, base: str) -> list[str]:
    """Deleting one of some names that are patterns of each other leaves the others."""
    problems: list[str] = []
    store = control_store_for(base)
    for deleted in NAMES:
        for name in NAMES:
            store.put(f"{base}/{name}", b"")
            path = directory / "outputs" / name / "data"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        (directory / "file").mkdir(exist_ok=True)
        for name in NAMES:
            (directory / "file" / name).touch()
        store.delete_exact(f"{base}/{deleted}")
        delete_file(str(directory / "file" / deleted))
        empty_output(str(directory / "outputs" / deleted))
        left = {
            "control files": set(store.list(base)),
            "files": set(os.listdir(directory / "file")),
            "outputs": {path.parent.name for path in (directory / "outputs").rglob("data")},
        }
        problems += [
            f"deleting {deleted} among {what} leaves {sorted(names)}"
            for what, names in left.items()
            if names != set(NAMES) - {deleted}
        ]
    return problems


def failing_writers(terms: Terms) -> Outcome:
    """R10."""

    def is_enough(trials: Sequence[Trial]) -> bool:
        return len(trials) >= terms.count(KILLS)

    trials = run_trials(terms, partial(killed_writer, terms), is_enough)
    problems = [problem for trial in trials for problem in trial.problems]
    for place in ("failing", "deleting"):
        (terms.directory / place).mkdir()
    problems += problems_of_failing_writers(terms.directory / "failing", terms.seed)
    problems += problems_of_deleting(terms.directory / "deleting", str(terms.directory / "deleting" / "log"))
    problems += problems_of_deleting(terms.directory / "deleting", f"memory:/{terms.directory}/log")
    return Outcome(
        f"{len(trials)} SIGKILL of writers, 50 that raise, {len(NAMES)} names deleted on each of 2 stores",
        tuple(problems),
        f"{sum(trial.was_mid_write for trial in trials)} of the killed had a file half written",
    )


SERIES = (Series("R10", "failing writers leave nothing, deleting takes exact keys", failing_writers, weight=4),)

if __name__ == "__main__":
    write_generations(sys.argv[1], int(sys.argv[2]))
