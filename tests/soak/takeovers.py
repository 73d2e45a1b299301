"""R7: how long it takes until somebody goes on where a launcher died."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from marin_trace.runtime.clock import boottime
from marin_trace.runtime.distributed_lock import distributed_lock
from marin_trace.runtime.keeper import dismiss_keeper
from marin_trace.runtime.options import AttemptOptions
from marin_trace.runtime.process_tree import await_death, descendants_of
from marin_trace.runtime.status import StatusKind, read_status
from tests.soak.places import Store
from tests.soak.series import Outcome, Terms, in_each_store
from tests.soak.site import ROOT, busy, until

REPETITIONS = {Store.LOCAL: 8, Store.S3: 3, Store.GCS: 3}
LEASE_S = 3.2
LONG_LEASE_S = 120.0
"""What happens sooner than this has not waited for the lease."""
AT_ONCE_S = 0.5
RELEASE_LIMIT_S = 5.0
SLACK_S = {Store.LOCAL: 0.3, Store.S3: 1.0, Store.GCS: 1.0}
"""For a thread to be scheduled and some ten files to be read; on a busy machine so many times longer."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds a claim, and its keeper."""

    process: "subprocess.Popen[str]"
    keeper: int
    output: str

    def kill_with_keeper(self) -> None:
        """Stops the keeper first, so that it cannot release."""
        os.kill(self.keeper, signal.SIGSTOP)
        self.process.kill()
        self.process.wait()
        os.kill(self.keeper, signal.SIGKILL)
        await_death(self.keeper, limit_s=10)


def holder_of(output: str, *, machine: Path | None, lease_s: float) -> Holder:
    """Starts one, on this machine or on another, and waits until its body runs."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if machine is not None:
        machine.mkdir(parents=True)
        environment["XDG_RUNTIME_DIR"] = str(machine)
    process = subprocess.Popen(
        [sys.executable, "tests/runtime/launcher.py", "hold", output, str(lease_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "claimed\n"
    (keeper,) = descendants_of(process.pid)
    return Holder(process, keeper, output)


def seconds_to_take(output: str, lease_s: float) -> float:
    """From now until the body of a waiting launcher begins: this process's, which has its keeper already."""
    began = boottime()
    took = distributed_lock(lambda path: boottime()).with_options(AttemptOptions(lease_seconds=lease_s))(output)
    return took - began


def seconds_to_release(holder: Holder) -> float:
    began = boottime()
    for _ in until(2 * RELEASE_LIMIT_S):
        if read_status(holder.output).kind is StatusKind.RELEASED:
            break
    return boottime() - began


def killed_with_keeper(directory: Path, output: str, *, elsewhere: bool) -> float:
    machine = directory / "machine" if elsewhere else None
    lease_s = LEASE_S if elsewhere else LONG_LEASE_S
    holder = holder_of(output, machine=machine, lease_s=lease_s)
    holder.kill_with_keeper()
    return seconds_to_take(holder.output, lease_s)


def signalled(directory: Path, output: str, *, number: signal.Signals) -> float:
    holder = holder_of(output, machine=None, lease_s=LONG_LEASE_S)
    holder.process.send_signal(number)
    took = seconds_to_release(holder)
    holder.process.wait()
    return took


@dataclass(frozen=True, slots=True)
class Case:
    """One way to die, and by when somebody may go on."""

    what: str
    limit_s: float
    measured: Callable[[Path, str], float]
    """Of a directory for what is its own, and an output."""
    least_s: float = 0.0


CASES = (
    Case("with its keeper, same machine", AT_ONCE_S, partial(killed_with_keeper, elsewhere=False)),
    Case(
        f"with its keeper, another machine (lease {LEASE_S:g} s)",
        LEASE_S * (1 + 2 / 8),
        partial(killed_with_keeper, elsewhere=True),
        least_s=LEASE_S,
    ),
    Case("SIGKILL alone", RELEASE_LIMIT_S, partial(signalled, number=signal.SIGKILL)),
    Case("SIGTERM", RELEASE_LIMIT_S, partial(signalled, number=signal.SIGTERM)),
)


def takeovers(terms: Terms) -> Outcome:
    """R7. One at a time: it is time that is measured. No seed: nothing is random in it."""
    distributed_lock(lambda path: None)(terms.place.path_of(terms.directory / "first"))
    violations: list[str] = []
    slowest = dict.fromkeys(CASES, 0.0)
    done = 0
    try:
        for number in range(terms.count(REPETITIONS[terms.place.store])):
            if done and terms.is_over:
                break
            for place, case in enumerate(CASES):
                directory = terms.directory / f"{number}-{place}"
                took = case.measured(directory, terms.place.path_of(directory / "out"))
                slowest[case] = max(slowest[case], took)
                limit_s = case.limit_s + SLACK_S[terms.place.store] * busy()
                if not case.least_s <= took <= limit_s:
                    violations.append(
                        f"repetition {number}, {case.what}: {took:.2f} s, not {case.least_s:g} to {limit_s:.2f}"
                    )
            done += 1
    finally:
        dismiss_keeper()
    return Outcome(
        f"{done} of each of {len(CASES)} deaths",
        tuple(violations),
        "at most " + ", ".join(f"{seconds:.2f} s ({case.what})" for case, seconds in slowest.items()),
    )


SERIES = in_each_store("R7", "how long a takeover takes", takeovers, {Store.LOCAL: 40, Store.S3: 45, Store.GCS: 40})
