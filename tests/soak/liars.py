"""R9: a store whose create-if-absent is none is refused before the first claim, and nothing is left there.

A local disk is not tried before a run: its create is `link(2)`. There the trial itself is tried, on stores that lie.
"""

import contextlib
import io
import os
import time
from pathlib import Path

from marin_trace import deferred, executor_main, output, step
from marin_trace.errors import PrefixError
from marin_trace.io import atomic_write
from marin_trace.storage import store_probe
from marin_trace.storage.files import list_files, write_bytes
from marin_trace.storage.local_store import LocalControlStore
from tests.soak.places import Store
from tests.soak.series import Outcome, Terms, in_each_store

TRIALS = {Store.LOCAL: 20, Store.S3: 10, Store.GCS: 10}


class OverwritingStore(LocalControlStore):
    """Takes the condition of a create, and ignores it."""

    def put_if_absent(self, path: str, content: bytes, *, durable: bool = False) -> bool:
        self.put(path, content)
        return True


class LookingStore(LocalControlStore):
    """Looks, and then writes, as fsspec does on a local disk."""

    def put_if_absent(self, path: str, content: bytes, *, durable: bool = False) -> bool:
        if os.path.exists(path):
            return False
        # As long as a request to a disk of the network.
        time.sleep(0.001)
        write_bytes(path, content)
        return True


def write_word(path: str) -> None:
    with atomic_write(f"{path}/word.txt", "w") as stream:
        stream.write("word")


@step(name="word")
def word():
    return deferred(write_word)(output())


def problems_of_probe(directory: Path) -> list[str]:
    """Both liars are found out, and the honest store is believed."""
    directory.mkdir()
    lies = {
        store.__name__: store_probe._lie_of(store(), f"{directory}/{store.__name__}")
        for store in (LocalControlStore, OverwritingStore, LookingStore)
    }
    problems = [f"{name} is believed" for name in ("OverwritingStore", "LookingStore") if lies[name] is None]
    if lies["LocalControlStore"] is not None:
        problems.append(f"the local store is said to lie: {lies['LocalControlStore']}")
    return problems + [f"{name} is left" for name in os.listdir(directory)]


def problems_of_refusal(prefix: str) -> list[str]:
    """A dry run goes through, a run is refused, and neither leaves a file."""
    with contextlib.redirect_stdout(io.StringIO()):
        executor_main([word()], argv=["--prefix", prefix, "--dry_run"])
    problems: list[str] = []
    try:
        executor_main([word()], argv=["--prefix", prefix])
        problems.append("the run was not refused")
    except PrefixError as error:
        if "cannot hold claims" not in str(error):
            problems.append(f"the refusal does not say why: {error}")
    return problems + [f"{file.path} is left" for file in list_files(prefix)]


def liars(terms: Terms) -> Outcome:
    """R9. Which thread wins is nobody's choice: there is no seed in it."""
    numbers = range(terms.count(TRIALS[terms.place.store]))
    if terms.place.cloud is None:
        what = "times stores that look and then write, and that overwrite, are found out"
        return outcome_of([problems_of_probe(terms.directory / f"{number}") for number in numbers], what)
    terms.place.cloud.lie()
    prefixes = [terms.place.path_of(terms.directory / f"{number}") for number in numbers]
    return outcome_of(list(map(problems_of_refusal, prefixes)), "runs refused by a server that ignores conditions")


def outcome_of(trials: list[list[str]], what: str) -> Outcome:
    problems = (f"trial {number}: {problem}" for number, found in enumerate(trials) for problem in found)
    return Outcome(f"{len(trials)} {what}", tuple(problems))


SERIES = in_each_store("R9", "a store that lies is refused", liars, {Store.LOCAL: 3, Store.S3: 12, Store.GCS: 10})
