"""An experiment of two steps that write in a cloud: the first says that it began, and waits until it may end.

The directory that the environment names holds both signs.
"""

import os
import threading
from pathlib import Path
from typing import Any

from marin_trace import StepRef, deferred, executor_main, output, step
from marin_trace.io import atomic_write, check_lease
from marin_trace.storage.files import read_bytes

SIGNS_VARIABLE = "WAITING_SIGNS"


def wait(path: str) -> str:
    signs = Path(os.environ[SIGNS_VARIABLE])
    (signs / f"began-{os.getpid()}").touch()
    while not (signs / "may-end").exists():
        check_lease()
        threading.Event().wait(0.01)
    with atomic_write(f"{path}/word.txt", "w") as stream:
        stream.write("word")
    (signs / f"ended-{os.getpid()}").touch()
    return "word"


def double(path: str, source: str) -> None:
    with atomic_write(f"{path}/words.txt", "wb") as stream:
        stream.write(2 * read_bytes(source))


@step(name="first")
def first() -> Any:
    return deferred(wait)(output())


@step(name="second")
def second(source: StepRef) -> Any:
    return deferred(double)(output(), source / "word.txt")


if __name__ == "__main__":
    executor_main(steps=[second(first())])
