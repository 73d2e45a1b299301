"""Several real processes on one directory."""

from collections import Counter
from pathlib import Path

import pytest

from marin_trace.runtime.artifact import Artifact
from marin_trace.runtime.distributed_lock import PreviousTaskFailedError, StepHeldElsewhere, distributed_lock
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


def test_a_killed_launcher_is_taken_over_at_once(launch, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    holder = launch("hold", output)
    assert line_of(holder) == "claimed"
    with pytest.raises(StepHeldElsewhere, match=f"pid {holder.pid}"):
        distributed_lock(lambda path: 1).attempt(output)
    holder.kill()
    holder.wait()
    assert read_status(output).kind is StatusKind.ABANDONED
    assert not (tmp_path / "out" / ".artifact.json").exists()
    assert distributed_lock(lambda path: "mine").finishing(Artifact.save).attempt(output) == "mine"
    assert read_status(output).epoch == 2


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
