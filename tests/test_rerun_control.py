"""What is run again and how far a run goes: ``--until``, ``--force`` with its consent, ``--strict``."""

from pathlib import Path
from typing import Any

import pytest

from marin_trace import StepRef, StepSpec, deferred, executor_main, output, step, unversioned
from marin_trace.errors import FlagError, OutdatedOutputError
from marin_trace.runtime.report import OutcomeKind
from tests.scripts import run_on_terminal, run_script, tree_of, write_script


def make(path: str, inputs: list[Any]) -> int:
    return len(inputs)


@step(name="{name}")
def made(name: str, *inputs: StepRef) -> StepRef:
    return deferred(make)(output(), list(inputs))


@step(name="early")
def early() -> StepRef:
    return made("data/b", made("data/a"))


@step(name="pipeline")
def pipeline() -> None:
    data = early()
    model = made("model", data)
    made("report", model, made("aside"))
    made("apart")


def run(steps: Any, *argv: str) -> Any:
    return executor_main(steps=steps, argv=argv)


def built(*argv: str) -> list[str]:
    report = run(pipeline(), *argv)
    return sorted(outcome.name for outcome in report.outcomes if outcome.kind is OutcomeKind.SUCCEEDED)


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["^data/a$"], ["apart", "aside", "data/a"]),
        (["^data/b$"], ["apart", "aside", "data/a", "data/b"]),
        (["^early$"], ["apart", "aside", "data/a", "data/b"]),
        (["model"], ["apart", "aside", "data/a", "data/b", "model"]),
        (["data/a", "model"], ["apart", "aside", "data/a", "data/b", "model"]),
        (["report"], ["apart", "aside", "data/a", "data/b", "model", "report"]),
    ],
)
def test_until_leaves_out_what_comes_after(patterns: list[str], names: list[str]) -> None:
    assert built(*(part for pattern in patterns for part in ("--until", pattern))) == names


def test_until_beside_run_only_keeps_what_both_keep() -> None:
    assert built("--run_only", "report", "--until", "model") == ["aside", "data/a", "data/b", "model"]


def test_until_takes_specs_that_were_written_by_hand() -> None:
    first = StepSpec("first", fn=lambda path: None)
    last = StepSpec("last", deps=[first], fn=lambda path: None)
    report = run([last], "--until", "first")
    assert [outcome.name for outcome in report.outcomes] == ["first"]


def test_until_that_matches_nothing_names_what_is_near(prefix: str) -> None:
    with pytest.raises(FlagError, match=r"(?s)--until 'modle' matches no step or group.*model"):
        run(pipeline(), "--until", "modle")
    with pytest.raises(FlagError, match="--force 'report' matches only steps that --run_only or --until leave out"):
        run(pipeline(), "--until", "model", "--force", "report")
    assert tree_of(prefix) == {}


def test_groups_of_what_is_left_out_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    run(pipeline(), "--dry_run", "--until", "model")
    assert "report" not in capsys.readouterr().out


SCRIPT = """
from marin_trace import deferred, executor_main, output, step, unversioned

def make(path: str, workers: int) -> int:
    return 1

@step(name="made/{number}")
def made(number: int):
    return deferred(make)(output(), unversioned(WORKERS))

WORKERS = 1

if __name__ == "__main__":
    executor_main(steps=[made(0), made(1)])
"""


@pytest.fixture
def script(tmp_path: Path, prefix: str) -> Path:
    script = write_script(tmp_path, SCRIPT)
    assert run_script(script, prefix=prefix).returncode == 0
    return script


@pytest.mark.parametrize(
    ("answer", "flags", "code"), [("y\n", [], 0), ("n\n", [], 1), ("\n", [], 1), ("", ["--yes"], 0)]
)
def test_force_shows_the_list_and_asks_on_a_terminal(
    script: Path, prefix: str, answer: str, flags: list[str], code: int
) -> None:
    before = tree_of(prefix)
    ended, shown = run_on_terminal(script, "--force", "made/1", *flags, prefix=prefix, typed=answer)
    assert ended == code
    assert "built again by force: 1 finished output\r\n  made/1  " in shown
    assert ("go on?" in shown) == (not flags)
    assert (tree_of(prefix) == before) == bool(code)


def test_force_in_a_pipe_shows_the_list_and_goes_on(script: Path, prefix: str) -> None:
    ended = run_script(script, "--force", "made", prefix=prefix)
    assert ended.returncode == 0
    assert "built again by force: 2 finished outputs\n  made/0  " in ended.stderr
    assert "go on?" not in ended.stderr


def test_force_over_nothing_finished_shows_no_list(capsys: pytest.CaptureFixture[str]) -> None:
    run(pipeline(), "--force", "model")
    assert "built again" not in capsys.readouterr().err


def test_a_long_list_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    steps = [made(f"many/{number}") for number in range(30)]
    run(steps)
    capsys.readouterr()
    run(steps, "--force", "many")
    shown = capsys.readouterr().err
    assert "30 finished outputs" in shown
    assert "… and 10 more" in shown


def test_strict_refuses_hits_that_are_outdated_and_a_run_without_it_tells(script: Path, prefix: str) -> None:
    script.write_text(SCRIPT.replace("WORKERS = 1", "WORKERS = 8").replace("return 1", "return 2 - 1"))
    told = run_script(script, prefix=prefix)
    assert told.returncode == 0
    assert "2 finished outputs are taken though a source or an unversioned value has changed since" in told.stderr
    refused = run_script(script, "--strict", prefix=prefix)
    assert refused.returncode == 1
    assert "OutdatedOutputError: --strict refuses 2 finished outputs\n  made/0: the source of experiment:make" in (
        refused.stderr
    )
    assert "unversioned values have changed since: workers: 1 → 8" in refused.stderr
    assert run_script(script, "--strict", "--force", "made", prefix=prefix).returncode == 0
    assert run_script(script, "--strict", prefix=prefix).returncode == 0


def test_strict_refuses_after_the_plan_was_shown(capsys: pytest.CaptureFixture[str], prefix: str) -> None:
    values = iter((1, 2))

    @step(name="changing")
    def changing() -> StepRef:
        return deferred(make)(output(), unversioned([next(values)]))

    run(changing())
    with pytest.raises(OutdatedOutputError, match=r"(?s)--strict refuses 1 finished output.*--force '\^changing"):
        run(changing(), "--dry_run", "--strict")
    assert "hit  changing  finished; unversioned values" in capsys.readouterr().out
