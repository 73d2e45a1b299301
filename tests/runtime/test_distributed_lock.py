"""Laws of the lock: one at a time, once to success, and a verdict for every attempt."""

import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from marin_trace.errors import ArtifactError, LeaseLostError, RunError
from marin_trace.io import check_lease
from marin_trace.runtime.artifact import Artifact
from marin_trace.runtime.attempt import attempt_of
from marin_trace.runtime.disk_cache import Cached
from marin_trace.runtime.distributed_lock import (
    LockedCallable,
    PreviousTaskFailedError,
    StepAlreadyDone,
    StepHeldElsewhere,
    distributed_lock,
)
from marin_trace.runtime.driver import driver_for
from marin_trace.runtime.keeper import wait_for_an_end
from marin_trace.runtime.log_records import AttemptLog, ClaimRecord, EndKind, EndRecord
from marin_trace.runtime.options import AttemptOptions
from marin_trace.runtime.protocol import Held, Sighting
from marin_trace.runtime.status import StatusKind, read_status
from marin_trace.storage.control_store import control_store_for


@pytest.fixture(params=["local", "memory"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "out") if request.param == "local" else f"memory://{tmp_path.name}/{request.node.name}"


def fail(path: str) -> None:
    raise ValueError("no\nluck")


def with_options(fn: Any, **options: Any) -> LockedCallable[Any]:
    return distributed_lock(fn).with_options(AttemptOptions(**options))


def ends_of(output: str) -> list[EndRecord]:
    store, log = control_store_for(output), AttemptLog(output)
    names = [f"{log.directory}/{name}" for name in store.list(log.directory) if name.endswith(".end")]
    return [EndRecord.from_bytes(store.get(name) or b"", name) for name in names]


def test_success_is_committed_once(output: str) -> None:
    locked = with_options(lambda path: path, record={"fingerprint": "f"}, run_id="r")
    assert locked(output) == output
    status = read_status(output)
    assert (status.kind, status.epoch, status.fingerprint) == (StatusKind.SUCCESS, 1, "f")
    with pytest.raises(StepAlreadyDone, match=r"is finished already \(attempt 1\)"):
        locked(output)


def test_a_failure_keeps_its_type_and_is_recorded(output: str) -> None:
    with pytest.raises(ValueError, match="luck"):
        distributed_lock(fail)(output)
    status = read_status(output)
    assert status.kind is StatusKind.FAILED
    assert status.error is not None
    assert (status.error.type, status.error.last_line) == ("ValueError", "ValueError: luck")
    assert "in fail" in status.error.traceback


def test_what_failed_runs_again_only_if_forced(output: str) -> None:
    with pytest.raises(ValueError, match="luck"):
        distributed_lock(fail)(output)
    with pytest.raises(PreviousTaskFailedError, match=r"failed before \(attempt 1\): ValueError: no"):
        distributed_lock(lambda path: 1, force_run_failed=False)(output)
    assert distributed_lock(lambda path: 1)(output) == 1


def test_each_retry_is_an_epoch_and_only_the_last_one_fails(output: str) -> None:
    with pytest.raises(ValueError, match="luck"):
        with_options(fail, retries=2)(output)
    assert [end.kind for end in ends_of(output)] == [EndKind.RELEASED, EndKind.RELEASED, EndKind.FAILED]
    assert all(end.error is not None and end.error.type == "ValueError" for end in ends_of(output))


def test_a_retry_may_succeed(output: str) -> None:
    outcomes = iter([ValueError("first"), None])

    def body(path: str) -> str:
        error = next(outcomes)
        if error is not None:
            raise error
        return "second"

    assert with_options(body, retries=1)(output) == "second"
    assert [end.kind for end in ends_of(output)] == [EndKind.RELEASED, EndKind.SUCCESS]


def test_the_save_happens_before_the_commit(output: str) -> None:
    seen: list[StatusKind] = []
    distributed_lock(lambda path: 5).finishing(lambda value, path: seen.append(read_status(path).kind))(output)
    assert seen == [StatusKind.RUNNING]


def test_a_failing_save_fails_the_attempt(output: str) -> None:
    def save(value: object, path: str) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        distributed_lock(lambda path: 5).finishing(save)(output)
    status = read_status(output)
    assert status.kind is StatusKind.FAILED
    assert status.error is not None
    assert status.error.phase == "save"


def test_a_value_that_cannot_be_stored_is_not_retried(output: str) -> None:
    runs: list[str] = []
    body = with_options(lambda path: runs.append(path) or object(), retries=3)
    with pytest.raises(ArtifactError, match="artifact cannot be stored: it is a object"):
        Cached(body, Artifact.save, Artifact.load)(output)
    assert len(runs) == 1


def test_an_interrupt_releases_the_claim(output: str) -> None:
    def body(path: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distributed_lock(body)(output)
    assert read_status(output).kind is StatusKind.RELEASED


def test_sys_exit_in_a_body_is_a_failure(output: str) -> None:
    def body(path: str) -> None:
        raise SystemExit(3)

    with pytest.raises(RunError, match=r"called sys\.exit\(3\)"):
        distributed_lock(body)(output)
    assert read_status(output).kind is StatusKind.FAILED


def test_a_lock_inside_a_body_is_not_taken_for_the_bodys_own(output: str, tmp_path: Path) -> None:
    inner = distributed_lock(lambda path: 1)
    inner(str(tmp_path / "inner"))
    with pytest.raises(RunError, match=r"the body of .* raised StepAlreadyDone"):
        Cached(distributed_lock(lambda path: inner(str(tmp_path / "inner"))), Artifact.save, Artifact.load)(output)


def test_an_owner_that_was_fenced_commits_nothing(output: str) -> None:
    def body(path: str) -> str:
        fenced = EndRecord(1, EndKind.FENCED, "observer", "2026-01-01T00:00:00")
        control_store_for(path).put_if_absent(AttemptLog(path).end(1), fenced.to_bytes())
        return "late"

    with pytest.raises(LeaseLostError, match="ended as FENCED"):
        distributed_lock(body)(output)
    assert read_status(output).kind is StatusKind.FENCED


def test_a_body_may_ask_whether_it_still_owns_its_step(tmp_path: Path) -> None:
    output = f"memory://{tmp_path.name}/out"  # on a disk the keeper would kill this process at once

    def body(path: str) -> None:
        check_lease()
        fenced = EndRecord(1, EndKind.FENCED, "observer", "2026-01-01T00:00:00")
        control_store_for(path).put_if_absent(AttemptLog(path).end(1), fenced.to_bytes())
        while True:
            check_lease()

    with pytest.raises(LeaseLostError, match="ended as FENCED") as caught:
        with_options(body, lease_seconds=0.2)(output)
    assert [frame.name for frame in caught.traceback].count("check_lease") == 1
    check_lease()


def test_forcing_voids_one_epoch_only(output: str) -> None:
    distributed_lock(lambda path: 1)(output)
    forced = with_options(lambda path: 2, rerun_of=1)
    assert forced(output) == 2
    with pytest.raises(StepAlreadyDone, match="attempt 2"):
        forced(output)


def test_a_claim_whose_attempt_is_over_is_taken_over(output: str) -> None:
    def body(path: str) -> None:
        raise ValueError("and the store fails as well")

    log = AttemptLog(output)
    with pytest.raises(ValueError, match="as well"):
        distributed_lock(body)(output)
    control_store_for(output).delete_exact(log.end(1))
    assert read_status(output).kind is StatusKind.ABANDONED
    assert distributed_lock(lambda path: "next")(output) == "next"
    assert [end.kind for end in ends_of(output)] == [EndKind.FENCED, EndKind.SUCCESS]


def test_a_holder_is_waited_for_and_its_result_taken(output: str) -> None:
    began, may_end = threading.Event(), threading.Event()
    slow = distributed_lock(lambda path: (began.set(), may_end.wait(30), "slow")[2])
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(slow, output)
        began.wait(30)
        with pytest.raises(StepHeldElsewhere, match="is being built by another attempt"):
            distributed_lock(lambda path: 1).attempt(output)

        def end_it() -> None:
            may_end.set()
            running.result(30)

        waiting = LockedCallable(lambda path: 1, sleep=lambda seconds: end_it())
        with pytest.raises(StepAlreadyDone, match="attempt 1"):
            waiting(output)
        assert running.result(30) == "slow"


@pytest.mark.parametrize(
    ("age", "said"),
    [(0, "(0 s ago)"), (60, "(60 s ago)"), (600, "(10 min ago)"), (9000, "(2 h ago)"), (-50, "(0 s ago)")],
)
def test_who_holds_an_output_and_since_when_is_said(age: float, said: str) -> None:
    since = (datetime.now(UTC) - timedelta(seconds=age)).isoformat()
    claim = ClaimRecord(1, "n", "there", 7, "p", 120.0, since)
    held = Held(claim, Sighting(1, "n", None, None, 0.0))
    with pytest.raises(StepHeldElsewhere, match="there, pid 7, since") as caught:
        attempt_of(driver_for("/out"), AttemptLog("/out"), held)
    assert said in str(caught.value)
    held = replace(held, claim=replace(claim, claimed_at="yesterday"))
    with pytest.raises(StepHeldElsewhere, match=r"since yesterday$"):
        attempt_of(driver_for("/out"), AttemptLog("/out"), held)


def test_a_failure_seen_while_waiting_is_the_waiters_own(output: str) -> None:
    began, may_end = threading.Event(), threading.Event()
    slow = distributed_lock(lambda path: (began.set(), may_end.wait(30), fail(path)))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(slow, output)
        began.wait(30)

        def end_it() -> None:
            may_end.set()
            running.exception(30)

        waiting = LockedCallable(lambda path: 1, sleep=lambda seconds: end_it())
        with pytest.raises(PreviousTaskFailedError, match=r"while this one waited for it: ValueError"):
            waiting(output)


def test_fresh_empties_the_output_and_nothing_else(tmp_path: Path) -> None:
    output, sibling = tmp_path / "run[12]", tmp_path / "run1"
    sibling.mkdir()
    (sibling / "kept").touch()
    (output / "sub").mkdir(parents=True)
    (output / "sub" / "old").touch()
    seen: list[bool] = []
    with_options(lambda path: seen.append((output / "sub" / "old").exists()), fresh=True)(str(output))
    assert seen == [False]
    assert (sibling / "kept").exists()
    assert read_status(str(output)).kind is StatusKind.SUCCESS


def test_the_epochs_of_the_inputs_are_recorded(tmp_path: Path) -> None:
    upstream, output = str(tmp_path / "a"), str(tmp_path / "b")
    distributed_lock(lambda path: 1)(upstream)
    with_options(lambda path: 1, inputs=(upstream,))(output)
    assert read_status(output).inputs == {upstream: 1}


def test_a_locked_callable_pickles(output: str) -> None:
    locked = pickle.loads(pickle.dumps(distributed_lock(fail).finishing(Artifact.save)))
    with pytest.raises(ValueError, match="luck"):
        locked(output)
    assert locked.__wrapped__ is fail


def test_who_waits_is_woken_by_an_end_in_this_process(output: str) -> None:
    began, may_end = threading.Event(), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(lambda: [began.wait(30), may_end.set(), wait_for_an_end(1_000)])
        distributed_lock(lambda path: [began.set(), may_end.wait(30)])(output)
        while not waiting.done():
            with pytest.raises(StepAlreadyDone):
                distributed_lock(lambda path: 1)(output)
            distributed_lock(lambda path: 1)(f"{output}-{len(ends_of(output))}-{time.monotonic_ns()}")


INTERRUPTED_WHILE_CLAIMING = """
import sys
from marin_trace.runtime import distributed_lock, protocol

def interrupted(log, draft, policy, seen):
    yield from protocol.claim_epoch(log, draft, policy, seen)
    raise KeyboardInterrupt

distributed_lock.claim_epoch = interrupted
try:
    distributed_lock.distributed_lock(lambda path: 1)(sys.argv[1])
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_claim_whose_process_was_interrupted_while_it_claimed_is_taken_over_at_once(tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    command = [sys.executable, "-c", INTERRUPTED_WHILE_CLAIMING, output]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "interrupted\n"
    assert read_status(output).kind is StatusKind.ABANDONED
    assert distributed_lock(lambda path: "next")(output) == "next"
