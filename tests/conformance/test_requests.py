"""How many requests a bucket gets, counted at the server: the figures of docs/performance.md."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from marin_trace import StepRef, deferred, executor_main, output, step
from marin_trace.io import atomic_write
from marin_trace.runtime.attempt import draft_claim
from marin_trace.runtime.distributed_lock import distributed_lock
from marin_trace.runtime.driver import driver_for
from marin_trace.runtime.heartbeat import KeptClaim, beat
from marin_trace.runtime.keeper import dismiss_keeper
from marin_trace.runtime.log_records import AttemptLog
from marin_trace.runtime.operations import Report
from marin_trace.runtime.options import AttemptOptions
from marin_trace.runtime.protocol import Claimed, ClaimPolicy, claim_epoch
from marin_trace.storage.store_probe import check_store
from tests.storage.clouds import Cloud
from tests.storage.faults import Call

COLD = {"write": 7, "list": 5, "read": 4}
"""Of a step that is built; one of the writes is the body's own."""
OF_AN_INPUT = {"list": 1, "read": 1}
"""More of them for each input that a step waits for."""
FINISHED = {"list": 1, "read": 1}
LOOK = {"list": 1, "read": 3}
"""Of a launcher at a step that another one builds."""
BEAT = {"write": 1, "read": 3}
RUN = {"write": 1}
"""The record of a run."""
LEASE_S = 120.0


def write(path: str, source: str | None) -> None:
    with atomic_write(f"{path}/data.txt", "w") as stream:
        stream.write(f"{source}")


@step(name="one/{name}")
def one(name: str, source: StepRef | None = None) -> Any:
    return deferred(write)(output(), source)


@pytest.fixture
def prefix(cloud: Cloud, tmp_path: Path) -> Iterator[str]:
    """Of this test, in a cloud that has been tried and is connected."""
    prefix = f"{cloud.bucket}{tmp_path}"
    check_store(f"{prefix}/probe")
    executor_main([one("warm")], argv=["--prefix", prefix])
    cloud.faults.clear()
    yield prefix
    dismiss_keeper()


def kind_of(call: Call) -> str:
    if call.is_write:
        return "write"
    return "list" if "prefix=" in call.path else "read"


def counted(cloud: Cloud) -> Counter[str]:
    """The requests since it was asked before."""
    kinds = Counter(map(kind_of, cloud.faults.calls))
    cloud.faults.clear()
    return kinds


def times(count: int, *parts: dict[str, int]) -> Counter[str]:
    return Counter({kind: count * number for part in parts for kind, number in part.items()})


@pytest.mark.parametrize("steps", [1, 5])
def test_what_steps_cost_when_they_are_built_and_when_they_are_finished(cloud: Cloud, prefix: str, steps: int) -> None:
    run = [one(f"{number}-of-{steps}") for number in range(steps)]
    executor_main(run, argv=["--prefix", prefix])
    assert counted(cloud) == times(steps, COLD) + Counter(RUN)
    executor_main(run, argv=["--prefix", prefix])
    assert counted(cloud) == times(steps, FINISHED) + Counter(RUN)


def test_what_an_input_costs(cloud: Cloud, prefix: str) -> None:
    executor_main([one("reader", one("source"))], argv=["--prefix", prefix])
    assert counted(cloud) == times(2, COLD) + Counter(OF_AN_INPUT) + Counter(RUN)


def test_no_object_is_written_twice_by_a_step_that_is_built(cloud: Cloud, prefix: str) -> None:
    before = set(cloud.written_ns)
    executor_main([one("written-once")], argv=["--prefix", prefix])
    assert counted(cloud)["write"] == len(set(cloud.written_ns) - before)


def test_what_a_heartbeat_costs(cloud: Cloud, prefix: str) -> None:
    path = f"{prefix}/held"
    driver, log, claim = driver_for(path), AttemptLog(path), draft_claim(lease_s=LEASE_S)
    claimed = driver.run(claim_epoch(log, claim, ClaimPolicy()))
    assert isinstance(claimed, Claimed)
    counted(cloud)
    kept = KeptClaim(path, claimed.claim, claimed.attempt, claimed.sent_at)
    driver.answering({Report: lambda operation: None}).run(beat(kept, 1, claimed.sent_at))
    assert counted(cloud) == Counter(BEAT)


class EnoughError(Exception):
    pass


def test_what_a_launcher_that_waits_costs(cloud: Cloud, prefix: str) -> None:
    path = f"{prefix}/held"
    # By somebody else, who is nowhere to be seen.
    elsewhere = replace(draft_claim(lease_s=LEASE_S), process_nonce="elsewhere")
    driver_for(path).run(claim_epoch(AttemptLog(path), elsewhere, ClaimPolicy()))
    counted(cloud)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if sum(pauses) > 4 * LEASE_S:
            raise EnoughError("waited long enough")

    waiting = replace(distributed_lock(lambda path: None), sleep=pause)
    with pytest.raises(EnoughError, match="waited long enough"):
        waiting.with_options(AttemptOptions(lease_seconds=LEASE_S))(path)
    assert counted(cloud) == times(len(pauses), LOOK)
    # From the time on when it looks as seldom as it ever does.
    settled = [seconds for seconds in pauses if seconds >= LEASE_S / 24]
    assert all(seconds <= LEASE_S / 12 for seconds in settled)
    assert len(pauses) - len(settled) <= 9
