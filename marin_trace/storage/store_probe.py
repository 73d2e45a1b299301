"""Whether a store keeps the one promise that everything rests on: of many that create a file, one has created it.

Some emulators and compatible services take the condition of a create and ignore it. So a store is tried before a run
writes its first claim there: eight threads create the same file, five times. Local disks and memory are this package's
own doing, and the real clouds are known; neither is tried. The answer is kept for the process, and jobs inherit it
through the environment.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from marin_trace.errors import PrefixError, StorageError, StoreUnavailableError, explain
from marin_trace.storage.control_store import ControlStore, control_store_for, is_object_store
from marin_trace.storage.files import join
from marin_trace.storage.patient_store import PatientStore

__all__ = ["PROBED_VARIABLE", "check_store"]

logger = logging.getLogger(__name__)

PROBED_VARIABLE: Final = "MARIN_TRACE_PROBED_STORES"
"""The stores that a process above this one has tried, or was told to use all the same; separated by spaces."""
_THREADS: Final = 8
_ROUNDS: Final = 5
_PATIENCE_S: Final = 20.0
"""For one question about what the threads have left; which of them created a file is asked once."""
_lock = threading.Lock()


def check_store(directory: str, *, allow_unsafe: bool = False) -> None:
    """Tries the store of a directory, unless that was done or is not needed. Blocks for some twenty requests' time.

    What it writes it deletes again.

    Args:
        directory: Where control files will be written: the caller may write there.
        allow_unsafe: Warn of a store that lies, instead of refusing it.

    Raises:
        PrefixError: More than one of several concurrent creates of one file were said to have created it.
        StorageError: It cannot be written.
    """
    if not is_object_store(directory):
        return
    # Its imports take a tenth of what a job's process takes to begin.
    from marin_trace.storage.object_store import ObjectControlStore

    store = control_store_for(directory)
    if not isinstance(store, ObjectControlStore) or store.is_genuine:
        return
    name = f"{store.endpoint}/{directory.partition('://')[2].partition('/')[0]}"
    with _lock:
        if name in os.environ.get(PROBED_VARIABLE, "").split():
            return
        lie = _lie_of(store, join(directory, f"probe-{os.urandom(6).hex()}"))
        if lie is not None and not allow_unsafe:
            raise PrefixError(
                explain(
                    f"the store of {directory} cannot hold claims: {lie}",
                    facts={"endpoint": store.endpoint},
                    hint="another --prefix; with --allow_unsafe_store, one launcher at a time is safe, and no more",
                )
            )
        if lie is not None:
            logger.warning(f"{store.endpoint}: {lie}: no second launcher may use {directory.partition('/.')[0]}")
        os.environ[PROBED_VARIABLE] = f"{os.environ.get(PROBED_VARIABLE, '')} {name}".strip()


def _lie_of(store: ControlStore, base: str) -> str | None:
    """What the store did wrong; None: nothing."""
    paths = [f"{base}-{number}" for number in range(_ROUNDS)]
    try:
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="marin-trace-probe") as pool:
            barrier = threading.Barrier(_THREADS)
            racers = [pool.submit(_compete, store, paths, number, barrier) for number in range(_THREADS)]
            answers = [racer.result() for racer in racers]
        # Who was stopped in the middle of a request, or met a store that was busy, asks again.
        patient = PatientStore(store, patience_s=_PATIENCE_S)
        lies = (_judge(patient, path, won) for path, won in zip(paths, zip(*answers, strict=True), strict=True))
        return next((lie for lie in lies if lie is not None), None)
    finally:
        for path in paths:
            with contextlib.suppress(StorageError):
                store.delete_exact(path)


def _compete(store: ControlStore, paths: Sequence[str], number: int, barrier: threading.Barrier) -> list[bool | None]:
    """For each path whether this thread has created it; None: the store did not say."""
    answers: list[bool | None] = []
    try:
        for path in paths:
            barrier.wait()
            try:
                answers.append(store.put_if_absent(path, f"{number}".encode()))
            except StoreUnavailableError:
                answers.append(None)
    except StorageError:
        # The others must not wait for this one.
        barrier.abort()
        raise
    except threading.BrokenBarrierError:
        answers += [None] * (len(paths) - len(answers))
    return answers


def _judge(store: ControlStore, path: str, answers: Sequence[bool | None]) -> str | None:
    winners = [number for number, won in enumerate(answers) if won]
    if len(winners) > 1:
        return f"{len(winners)} of {len(answers)} that created the same file were told that they had"
    if store.put_if_absent(path, b"late"):
        # Nothing lay there: every request may have failed before it was applied.
        return None if all(won is None for won in answers) else "a file that was there was created again"
    standing = store.get(path)
    if winners and standing != f"{winners[0]}".encode():
        return f"a file that was created as {winners[0]} holds {standing!r}"
    return None
