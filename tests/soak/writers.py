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

from marin_trace.io import atomic_directory, atomic_write
from marin_trace.runtime.attempt import empty_output
from marin_trace.storage.control_store import control_store_for
from marin_trace.storage.files import delete_file, exists, list_files, read_bytes, write_bytes
from tests.soak.places import Store
from tests.soak.series import Outcome, Terms, in_each_store, run_trials
from tests.soak.site import ROOT, until

KILLS = {Store.LOCAL: 80, Store.S3: 20, Store.GCS: 20}
FAILING = {Store.LOCAL: 50, Store.S3: 20, Store.GCS: 20}
LINE = b"%012d\n"
PARTS = 3
NAMES = ("run1", "run2", "run[12]", "run*", "run?")


def write_generations(base: str, lines: int) -> None:
    """The writer: every file holds one number throughout, a greater one each time; it is killed in the middle."""
    for number in count():
        with atomic_write(f"{base}/file") as stream:
            write_lines(stream, number, lines)
        with atomic_directory(f"{base}/parts") as parts:
            for part in range(PARTS):
                with open(f"{parts}/{part}", "wb") as stream:
                    write_lines(stream, number, lines)


def write_lines(stream, number: int, lines: int) -> None:
    for _ in range(lines):
        stream.write(LINE % number)
        stream.flush()


def files_below(base: str) -> dict[str, bytes]:
    """The content of every file that has its final name, by its path below a base."""
    paths = [file.path for file in list_files(base) if "/.tmp-" not in file.path]
    return {path.removeprefix(f"{base}/"): read_bytes(path) for path in paths}


def problems_of_file(name: str, content: bytes, lines: int) -> list[str]:
    """None: it is whole."""
    found = content.splitlines(keepends=True)
    is_whole = len(found) == lines and len(set(found)) == 1
    return [] if is_whole else [f"{name} holds {len(found)} lines of {lines}, {len(set(found))} different ones"]


@dataclass(frozen=True, slots=True)
class Trial:
    """What one killed writer left."""

    problems: tuple[str, ...]
    was_mid_write: bool
    """A temporary file lies beside the final name."""


def killed_writer(terms: Terms, number: int) -> Trial:
    """Kills a writer at a random instant."""
    dice = random.Random(f"writers {terms.seed} {number}")
    place, directory = terms.place, terms.directory / f"trial-{number}"
    lines = dice.choice([100, 5_000])
    base = place.path_of(directory)
    directory.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.soak.writers", base, str(lines)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(directory)},
    )
    for _ in until(60):
        if place.has(f"{base}/file"):
            break
    if dice.random() < 0.9:
        sleep_until_killed(process, dice.uniform(0.0, 0.1))
    process.send_signal(signal.SIGKILL)
    process.wait()
    files = files_below(base)
    problems = [problem for name, content in files.items() for problem in problems_of_file(name, content, lines)]
    parts = sum(name.startswith("parts/") for name in files)
    # In a cloud a directory appears file by file, each of them whole.
    if place.store is Store.LOCAL and parts not in (0, PARTS):
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


def problems_of_failing_writers(base: str, writers: int, seed: int) -> list[str]:
    """A block that raises leaves what was there before, and nothing where nothing was."""
    dice = random.Random(f"failing {seed}")
    problems: list[str] = []
    for number in range(writers):
        path = f"{base}/failing-{number}"
        had_content = dice.random() < 0.5
        if had_content:
            write_bytes(path, b"old")
        try:
            with atomic_write(path) as stream:
                stream.write(b"x" * dice.randrange(100_000))
                raise WriterError
        except WriterError:
            left = read_bytes(path) if exists(path) else None
        if left != (b"old" if had_content else None):
            problems.append(f"a failing writer left {left!r} at {path}")
    return problems + [f"a failing writer left {file.path}" for file in list_files(base) if "/.tmp-" in file.path]


def problems_of_deleting(base: str) -> list[str]:
    """Deleting one of some names that are patterns of each other leaves the others."""
    problems: list[str] = []
    store = control_store_for(base)
    for deleted in NAMES:
        for name in NAMES:
            store.put(f"{base}/log/{name}", b"")
            write_bytes(f"{base}/outputs/{name}/data", b"x")
            write_bytes(f"{base}/file/{name}", b"x")
        store.delete_exact(f"{base}/log/{deleted}")
        delete_file(f"{base}/file/{deleted}")
        empty_output(f"{base}/outputs/{deleted}")
        left = {
            "control files": set(store.list(f"{base}/log")),
            "files": set(files_below(f"{base}/file")),
            "outputs": {path.partition("/")[0] for path in files_below(f"{base}/outputs")},
        }
        problems += [
            f"deleting {deleted} among {what} leaves {sorted(names)}"
            for what, names in left.items()
            if names != set(NAMES) - {deleted}
        ]
    return problems


def failing_writers(terms: Terms) -> Outcome:
    """R10."""
    store = terms.place.store

    def is_enough(trials: Sequence[Trial]) -> bool:
        return len(trials) >= terms.count(KILLS[store])

    trials = run_trials(terms, partial(killed_writer, terms), is_enough)
    problems = [problem for trial in trials for problem in trial.problems]
    problems += problems_of_failing_writers(
        terms.place.path_of(terms.directory / "failing"), FAILING[store], terms.seed
    )
    problems += problems_of_deleting(terms.place.path_of(terms.directory / "deleting"))
    if store is Store.LOCAL:
        problems += problems_of_deleting(f"memory:/{terms.directory}")
    return Outcome(
        f"{len(trials)} SIGKILL of writers, {FAILING[store]} that raise, {len(NAMES)} names deleted",
        tuple(problems),
        f"{sum(trial.was_mid_write for trial in trials)} of the killed had a file half written",
    )


SERIES = in_each_store(
    "R10",
    "failing writers leave nothing, deleting takes exact keys",
    failing_writers,
    {Store.LOCAL: 18, Store.S3: 30, Store.GCS: 25},
)

if __name__ == "__main__":
    write_generations(sys.argv[1], int(sys.argv[2]))
