"""What is shown of a run while it lasts: counts, what runs since when, the estimate of the rest, the last words."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from marin_trace import StepSpec
from marin_trace.cli.live import last_log_line, table_of
from marin_trace.cli.progress import Progress, RunningStep, Snapshot, usual_seconds
from marin_trace.runtime.options import RunOptions
from marin_trace.runtime.report import OutcomeKind, StepOutcome
from marin_trace.runtime.run_plan import plan_run
from marin_trace.runtime.step_runner import EventKind, RunEvent, StepRunner
from tests.scripts import environment, run_on_terminal, write_script


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def nothing(path: str) -> None: ...


def progress_of(names: list[str], clock: Clock, *, limit: int = 2, **usual_s: float) -> tuple[Progress, dict]:
    specs = {name: StepSpec(name, fn=nothing) for name in names}
    plan = plan_run(specs.values(), RunOptions())
    usual = {specs[name].output_path: seconds for name, seconds in usual_s.items()}
    return Progress(plan, usual_s=usual, limit=limit, clock=clock), specs


def ended(spec: StepSpec, kind: OutcomeKind, seconds: float = 0.0) -> RunEvent:
    return RunEvent(EventKind.ENDED, spec, StepOutcome(spec.name, spec.output_path, kind, seconds))


def test_a_run_is_counted_as_it_goes_on() -> None:
    clock = Clock()
    progress, specs = progress_of(["a", "b", "c", "d"], clock)
    progress.hear(RunEvent(EventKind.STARTED, specs["a"]))
    clock.now += 5
    progress.hear(RunEvent(EventKind.STARTED, specs["b"]))
    progress.hear(RunEvent(EventKind.HELD, specs["b"], message="host (pid 7) runs it"))
    shown = progress.snapshot()
    assert (shown.total, shown.done, shown.failed, shown.skipped) == (4, 0, 0, 0)
    assert [(step.name, step.elapsed_s, step.note) for step in shown.running] == [
        ("a", 5.0, None),
        ("b", 0.0, "host (pid 7) runs it"),
    ]
    progress.hear(ended(specs["a"], OutcomeKind.FAILED))
    progress.hear(ended(specs["c"], OutcomeKind.DEP_FAILED))
    progress.hear(ended(specs["b"], OutcomeKind.SUCCEEDED))
    shown = progress.snapshot()
    assert (shown.total, shown.done, shown.failed, shown.skipped, shown.running) == (4, 3, 1, 1, ())


@pytest.mark.parametrize(
    ("limit", "usual", "left"),
    [
        (2, {"a": 10.0, "b": 4.0, "c": 4.0}, 7.0),  # 6 + 4 + 4, two at a time
        (1, {"a": 10.0, "b": 4.0, "c": 4.0}, 14.0),
        (2, {"a": 10.0, "b": 40.0, "c": 4.0}, 40.0),
        (2, {"a": 1.0, "b": 4.0, "c": 4.0}, 4.0),
        (2, {"a": 10.0, "b": 4.0}, None),
    ],
)
def test_the_rest_is_estimated_from_what_steps_took_before(
    limit: int, usual: dict[str, float], left: float | None
) -> None:
    clock = Clock()
    progress, specs = progress_of(["a", "b", "c"], clock, limit=limit, **usual)
    progress.hear(RunEvent(EventKind.STARTED, specs["a"]))
    clock.now += 4
    assert progress.snapshot().left_s == left


def test_nothing_is_left_at_the_end() -> None:
    clock = Clock()
    progress, specs = progress_of(["a"], clock)
    progress.hear(ended(specs["a"], OutcomeKind.SUCCEEDED, 3.0))
    clock.now += 65
    assert progress.snapshot().left_s == 0.0
    assert progress.final_report() == "1 step in 1 min 5 s: 1 succeeded"


def test_durations_come_from_the_records_of_the_experiment(prefix: str) -> None:
    def spec(name: str) -> StepSpec:
        return StepSpec(name, fn=nothing, output_path_prefix=prefix)

    StepRunner(options=RunOptions(experiment="mine", prefix=prefix)).run([spec("a")])
    StepRunner(options=RunOptions(experiment="theirs", prefix=prefix)).run([spec("b")])
    known = usual_seconds(f"{prefix}/experiments", "mine", {"/a": spec("a"), "/b": spec("b")})
    assert list(known) == ["/a"]
    assert known["/a"] < 60
    assert usual_seconds(f"{prefix}/experiments", None, {"/a": spec("a")}) == {}


@pytest.mark.parametrize(
    ("written", "line"),
    [
        ("first\nlast\n", "last"),
        ("first\nhalf a li", "half a li"),
        ("10 %\r20 %\r30 %", "30 %"),
        ("word\n\n  \n", "word"),
        ("x" * 9_000 + "\nend\n", "end"),
        ("2026-11-22 20:08:07,688 INFO experiments.lib.train: step 7 of 9", "step 7 of 9"),
        ("", None),
    ],
)
def test_the_last_words_of_a_step(tmp_path: Path, written: str, line: str | None) -> None:
    assert last_log_line(str(tmp_path)) is None
    (tmp_path / ".executor").mkdir()
    (tmp_path / ".executor" / "000001.log").write_text("of an earlier attempt")
    (tmp_path / ".executor" / "000002.claim").touch()
    assert last_log_line(str(tmp_path)) is None
    (tmp_path / ".executor" / "000002.log").write_text(written)
    assert last_log_line(str(tmp_path)) == line


def test_a_step_elsewhere_has_no_last_words() -> None:
    assert last_log_line("gs://bucket/step") is None


def shown(snapshot: Snapshot, *, width: int, height: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(table_of(snapshot, height))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_table_keeps_to_the_terminal() -> None:
    running = tuple(RunningStep(f"train/{n} [bold]", "/nowhere", 100.0 - n, "x" * 200) for n in range(20))
    snapshot = Snapshot(40, 10, 2, 3, running, 3_725.0)
    lines = shown(snapshot, width=100, height=30)
    assert lines[0].endswith("10 of 40 steps · 20 running · 2 failed · 3 skipped · about 1 h 2 min left")
    assert lines[1].split()[:4] == ["train/0", "[bold]", "1", "min"]
    assert lines[-1] == "… and 10 more running"
    assert len(lines) == 12
    assert max(map(len, shown(snapshot, width=40, height=10))) <= 40


SCRIPT = """
import logging
import sys
from marin_trace import deferred, executor_main, output, step

def work(path: str) -> int:
    print("words of a step")
    logging.getLogger("mine").info("logged words")
    return 1

@step(name="made/{number}")
def made(number: int):
    return deferred(work)(output())

if __name__ == "__main__":
    executor_main(steps=[made(number) for number in range(3)])
"""


def test_on_a_terminal_a_table_and_elsewhere_lines(tmp_path: Path, prefix: str) -> None:
    script = write_script(tmp_path, SCRIPT)
    code, text = run_on_terminal(script, prefix=prefix)
    assert code == 0
    assert "of 3 steps" in text
    assert "words of a step" in text
    assert text.count("logged words") >= 3  # also as the last words in the table
    assert [log.read_text().count("logged words") for log in Path(prefix).rglob("*.log")] == [1, 1, 1]
    assert "3 steps in " in text
    assert ": starts" not in text
    _, text = run_on_terminal(script, "--force", "made", "--yes", "--max_concurrent", "1", prefix=prefix)
    assert "of 3 steps" not in text
    command = [sys.executable, script.name, "--force", "made"]
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment(prefix), capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stderr.count(": starts") == 3
    assert ended.stderr.count("logged words") == 3
    assert ended.stderr.count(": succeeded after ") == 3
    assert "3 steps: 3 built" in ended.stderr
