"""Several real processes on one directory."""

import contextlib
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from marin_trace.runtime.artifact import Artifact
from marin_trace.runtime.clock import boottime
from marin_trace.runtime.distributed_lock import PreviousTaskFailedError, StepHeldElsewhere, distributed_lock
from marin_trace.runtime.driver import driver_for
from marin_trace.runtime.log_records import AttemptLog, CancelRecord
from marin_trace.runtime.options import AttemptOptions
from marin_trace.runtime.process_tree import await_death, carriers_of, descendants_of
from marin_trace.runtime.protocol import request_cancel
from marin_trace.runtime.status import StatusKind, read_status


def line_of(process) -> str:
    return process.stdout.readline().strip()


def say(process, text: str = "") -> None:
    process.stdin.write(f"{text}\n")
    process.stdin.flush()


def test_three_launchers_at_once_run_each_step_once(launch, tmp_path: Path) -> None:
    log = tmp_path / "log"
    launchers = [launch("run", str(tmp_path / "out"), str(log)) for _ in range(3)]
    assert [line_of(launcher) for launcher in launchers] == ["ready"] * 3
    for launcher in launchers:
        say(launcher)
    assert [line_of(launcher) for launcher in launchers] == ["done"] * 3
    assert set(Counter(log.read_text().splitlines()).values()) == {1}
    assert [read_status(str(path)).epoch for path in sorted((tmp_path / "out").iterdir())] == [1] * 10


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_killed_launcher_held_is_released_by_its_keeper(launch, tmp_path: Path, number: signal.Signals) -> None:
    output = str(tmp_path / "out")
    holder = launch("hold", output)
    assert line_of(holder) == "claimed"
    with pytest.raises(StepHeldElsewhere, match=f"pid {holder.pid}"):
        distributed_lock(lambda path: 1).attempt(output)
    (keeper,) = descendants_of(holder.pid)
    holder.send_signal(number)
    holder.wait()
    assert await_death(keeper, limit_s=5)
    status = read_status(output)
    assert status.kind is StatusKind.RELEASED
    assert status.error is not None
    assert "the process that ran it" in status.error.message
    assert not (tmp_path / "out" / ".artifact.json").exists()
    assert distributed_lock(lambda path: "mine").finishing(Artifact.save).attempt(output) == "mine"
    assert read_status(output).epoch == 2


def test_a_launcher_that_was_killed_with_its_keeper_is_taken_over_at_once(launch, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    holder = launch("hold", output)
    assert line_of(holder) == "claimed"
    (keeper,) = descendants_of(holder.pid)
    kill_together(holder, keeper)
    assert read_status(output).kind is StatusKind.ABANDONED
    assert distributed_lock(lambda path: "mine").finishing(Artifact.save).attempt(output) == "mine"
    assert read_status(output).epoch == 2


def test_a_launcher_of_another_machine_is_taken_over_after_its_lease(launch, tmp_path: Path, monkeypatch) -> None:
    output, lease_s = str(tmp_path / "out"), 0.8
    holder = launch("hold", output, str(lease_s))
    assert line_of(holder) == "claimed"
    (keeper,) = descendants_of(holder.pid)
    kill_together(holder, keeper)
    began = boottime()
    elsewhere = tmp_path / "machine"
    elsewhere.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(elsewhere))
    taking = distributed_lock(lambda path: boottime()).with_options(AttemptOptions(lease_seconds=lease_s))
    took = taking(output) - began
    assert lease_s <= took <= lease_s * (1 + 2 / 8) + 1.0  # and a keeper to start, on a busy machine
    assert read_status(output).epoch == 2


def test_a_stopped_launcher_is_killed_before_its_lease_ends(launch, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    holder = launch("hold", output, "0.8")
    assert line_of(holder) == "claimed"
    (keeper,) = descendants_of(holder.pid)
    os.kill(holder.pid, signal.SIGSTOP)
    assert await_death(holder.pid, limit_s=10)
    assert holder.wait() == -signal.SIGKILL
    assert await_death(keeper, limit_s=10)
    status = read_status(output)
    assert status.kind is StatusKind.RELEASED
    assert status.error is not None
    assert "killed by its lease keeper" in status.error.message


def test_a_dead_keeper_is_replaced_and_the_claim_lives_on(launch, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    holder = launch("hold", output, "2")
    assert line_of(holder) == "claimed"
    (keeper,) = descendants_of(holder.pid)
    os.kill(keeper, signal.SIGKILL)
    assert await_death(keeper, limit_s=10)
    deadline = boottime() + 10
    while not (descendants_of(holder.pid) - {keeper}):
        assert boottime() < deadline
    say(holder)
    assert line_of(holder) == "done"
    assert read_status(output).kind is StatusKind.SUCCESS


def test_children_of_a_killed_launcher_die_before_its_claim_is_released(launch, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    holder = launch("hold", output, "120", "child")
    child = int(line_of(holder))
    assert line_of(holder) == "claimed"
    (keeper,) = descendants_of(holder.pid) - {child}
    holder.kill()
    holder.wait()
    assert await_death(keeper, limit_s=10)
    assert await_death(child, limit_s=0)
    assert read_status(output).kind is StatusKind.RELEASED


@pytest.mark.parametrize(("act", "code"), [("spin", 1), ("defy", -signal.SIGKILL)])
def test_a_cancelled_step_is_stopped_and_has_failed(launch, tmp_path: Path, act: str, code: int) -> None:
    output = str(tmp_path / "out")
    holder = launch(act, output, "1.5")
    assert line_of(holder) == "claimed"
    (keeper,) = descendants_of(holder.pid)
    driver_for(output).run(request_cancel(AttemptLog(output), 1, CancelRecord("somebody", "too slow")))
    assert holder.wait(20) == code
    assert await_death(keeper, limit_s=10)
    status = read_status(output)
    assert status.kind is StatusKind.FAILED
    assert status.error is not None
    assert status.error.message == "cancelled by somebody: too slow"


@pytest.mark.parametrize(("act", "code"), [("spin", 1), ("defy", -signal.SIGKILL)])
def test_a_step_whose_keeper_is_silent_is_stopped(launch, tmp_path: Path, act: str, code: int) -> None:
    output = str(tmp_path / "out")
    holder = launch(act, output, "1.5")
    assert line_of(holder) == "claimed"
    (keeper,) = descendants_of(holder.pid)
    os.kill(keeper, signal.SIGSTOP)
    assert await_death(holder.pid, limit_s=20)
    with contextlib.suppress(ProcessLookupError):  # a launcher that ends by itself ends its keeper too
        os.kill(keeper, signal.SIGCONT)
    assert holder.wait() == code
    assert await_death(keeper, limit_s=10)
    assert read_status(output).kind is StatusKind.RELEASED


def test_a_notebooks_kernel_lives_on_and_commits_nothing(launch, tmp_path: Path) -> None:
    output, lease_s = str(tmp_path / "out"), 0.8
    kernel = launch("kernel", output, str(lease_s))
    assert line_of(kernel) == "claimed"
    began = boottime()
    driver_for(output).run(request_cancel(AttemptLog(output), 1, CancelRecord("somebody", "too slow")))
    assert line_of(kernel) == "told"
    assert not await_death(kernel.pid, limit_s=began + 2 * lease_s - boottime())
    say(kernel)
    assert line_of(kernel) == "refused"
    assert kernel.wait(20) == 0
    assert read_status(output).kind is StatusKind.FAILED


def test_finished_outputs_start_no_keeper(launch, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    distributed_lock(lambda path: 1).finishing(Artifact.save)(output)
    holder = launch("hold", output)
    assert line_of(holder) == "done"
    assert line_of(holder) == "children: 0"


def kill_together(holder, keeper: int) -> None:
    """Stops the keeper first, so that it cannot release."""
    os.kill(keeper, signal.SIGSTOP)
    holder.kill()
    holder.wait()
    os.kill(keeper, signal.SIGKILL)
    assert await_death(keeper, limit_s=10)


def test_what_another_launcher_made_is_read(launch, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    holder = launch("hold", output)
    assert line_of(holder) == "claimed"
    say(holder)
    assert line_of(holder) == "done"
    assert Artifact.load(output) == f"by {holder.pid}"


def test_another_launchers_failure_is_shown_with_its_error(launch, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    holder = launch("hold", output)
    assert line_of(holder) == "claimed"
    waiting = distributed_lock(lambda path: 1)
    with pytest.raises(StepHeldElsewhere, match="is being built"):
        waiting.attempt(output)
    say(holder, "fail")
    holder.wait()
    with pytest.raises(PreviousTaskFailedError, match="while this one waited for it: ValueError: told to fail"):
        waiting.attempt(output)


@pytest.fixture
def running_job(launch, tmp_path: Path):
    """A launcher whose job runs: the launcher, the output, the process of the job and what lets it go on."""
    ready, go, output = str(tmp_path / "ready"), str(tmp_path / "go"), str(tmp_path / "out")
    os.mkfifo(ready)
    os.mkfifo(go)
    launcher = launch("job", output, "2", ready, go)
    with open(ready) as stream:
        pid = int(stream.read())
    return launcher, output, pid, lambda: Path(go).write_text("go")


def test_a_job_of_this_machine_dies_with_its_killed_launcher_and_is_released(running_job) -> None:
    launcher, output, pid, _ = running_job
    keepers = descendants_of(launcher.pid) - {pid}
    launcher.kill()
    launcher.wait()
    assert await_death(pid, limit_s=5)
    assert all(await_death(keeper, limit_s=5) for keeper in keepers)
    assert read_status(output).kind is StatusKind.RELEASED
    assert distributed_lock(lambda path: "mine").finishing(Artifact.save).attempt(output) == "mine"


def test_a_job_whose_launcher_and_its_keeper_are_killed_goes_on_and_is_waited_for(running_job) -> None:
    launcher, output, pid, let_go = running_job
    (keeper,) = keepers_of(launcher.pid)
    kill_together(launcher, keeper)
    waiting = distributed_lock(lambda path: 1)
    with pytest.raises(StepHeldElsewhere):
        waiting.attempt(output)
    let_go()
    assert await_death(pid, limit_s=10)
    assert Artifact.load(output) == pid


def test_a_stopped_launcher_does_not_stop_its_job(running_job) -> None:
    launcher, output, pid, let_go = running_job
    launcher.send_signal(signal.SIGSTOP)
    let_go()
    deadline = boottime() + 20
    while read_status(output).kind is not StatusKind.SUCCESS:
        assert boottime() < deadline
    launcher.send_signal(signal.SIGCONT)
    assert line_of(launcher) == "done"
    assert Artifact.load(output) == pid


def test_a_job_whose_keeper_is_killed_has_another_and_commits(running_job) -> None:
    launcher, output, pid, let_go = running_job
    (keeper,) = keepers_of(pid)
    os.kill(keeper, signal.SIGKILL)
    assert await_death(keeper, limit_s=10)
    let_go()
    assert line_of(launcher) == "done"
    assert Artifact.load(output) == pid


def test_a_cancelled_job_is_ended_and_has_failed(running_job) -> None:
    launcher, output, pid, _ = running_job
    driver_for(output).run(request_cancel(AttemptLog(output), 1, CancelRecord("somebody", "too slow")))
    assert await_death(pid, limit_s=20)
    assert launcher.wait(20) == 1
    status = read_status(output)
    assert status.kind is StatusKind.FAILED
    assert status.error is not None
    assert status.error.message == "cancelled by somebody: too slow"


def keepers_of(pid: int) -> list[int]:
    """The lease keepers that a process has started itself."""
    return [child for child in carriers_of("MARIN_TRACE_KEEPER=") if parent_of(child) == pid]


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
