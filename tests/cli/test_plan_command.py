"""Laws of ``marin-trace plan``: the file runs as it would by itself, nothing is written, scripts can rely on it."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from marin_trace.cli.main import main
from marin_trace.planning.plan_json import plan_schema
from tests.scripts import environment, run_script, tree_of, write_script

EXPERIMENT = """
import sys
from dataclasses import dataclass

from marin_trace import StepRef, deferred, executor_main, output, parse_flags, step
from marin_trace.io import atomic_write


@dataclass(frozen=True)
class Flags:
    vocab_size: int = 4096
    json: str = ""


def write(path: str, text: str) -> str:
    with atomic_write(f"{path}/text", "w") as stream:
        stream.write(text)
    return text


def count(text: str, vocab_size: int) -> int:
    return len(text) + vocab_size


@step(name="text/{name}")
def text(name: str) -> StepRef:
    return deferred(write)(output(), name)


@step(name="count/{name}")
def counted(name: str, source: StepRef, vocab_size: int) -> StepRef:
    return deferred(count)(source.artifact, vocab_size)


@step(name="all")
def everything(vocab_size: int):
    for name in ("a", "b"):
        counted(name, text(name), vocab_size)


def main():
    flags = parse_flags(Flags)
    print("words of the experiment", flags)
    executor_main(steps=[everything(flags.vocab_size)])


if __name__ == "__main__":
    main()
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return write_script(tmp_path, EXPERIMENT)


def planned(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str]:
    capsys.readouterr()
    code = main(["plan", *map(str, argv)])
    return code, capsys.readouterr().out


def steps_of(text: str) -> dict[str, Any]:
    plan = json.loads(text)
    jsonschema.validate(plan, plan_schema())
    return {step["name"]: step for step in plan["steps"]}


def test_what_was_run_by_itself_is_a_hit_under_the_command(
    script: Path, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_script(script, prefix=prefix).returncode == 0
    steps = steps_of(planned(capsys, "--json", script)[1])
    assert {step["action"] for step in steps.values()} == {"hit"}
    assert sorted(steps) == ["all", "count/a", "count/b", "text/a", "text/b"]


@pytest.mark.parametrize("directory", [".", "..", "experiments"])
def test_the_command_in_its_own_process_agrees_from_any_directory(tmp_path: Path, prefix: str, directory: str) -> None:
    folder = tmp_path / "project" / "experiments"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "sibling.py").write_text("VOCAB = 7")
    script = write_script(folder, EXPERIMENT.replace("import sys", "import sys\nfrom sibling import VOCAB"))
    assert run_script(script, prefix=prefix).returncode == 0
    where = folder if directory == "." else (folder.parent if directory == ".." else tmp_path)
    command = [sys.executable, "-m", "marin_trace.cli.main", "plan", "--exit-code", str(script)]
    ended = subprocess.run(
        command, cwd=where, env=environment(prefix), capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_flags_of_the_experiment_reach_it(script: Path, prefix: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script(script, prefix=prefix).returncode == 0
    _, text = planned(capsys, script, "--vocab_size", 7, "--json")
    steps = steps_of(text)
    assert {name: step["action"] for name, step in steps.items()} == {
        "text/a": "hit",
        "count/a": "run",
        "text/b": "hit",
        "count/b": "run",
        "all": "run",
    }


def test_names_of_the_command_reach_the_experiment_after_two_dashes(
    script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["plan", str(script), "--", "--json", "given"])
    captured = capsys.readouterr()
    assert "json='given'" in captured.err
    assert "would run" in captured.out


def test_what_the_file_prints_is_kept_out_of_the_output(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", str(script), "--json"])
    captured = capsys.readouterr()
    steps_of(captured.out)
    assert "words of the experiment" in captured.err


def test_a_plan_writes_nothing(script: Path, prefix: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_script(script, prefix=prefix)
    before = tree_of(prefix)
    planned(capsys, script, "--vocab_size", 9)
    assert tree_of(prefix) == before


def test_groups_stand_as_their_steps_do(script: Path, prefix: str, capsys: pytest.CaptureFixture[str]) -> None:
    run_script(script, "--run_only", "a$", prefix=prefix)
    steps = steps_of(planned(capsys, script, "--json")[1])
    group = steps["all"]
    assert (group["kind"], group["output_path"], group["action"]) == ("group", None, "run")
    assert group["reason"] == "4 steps: 2 finished, 2 would run"
    assert group["deps"] == [step["output_path"] for step in steps.values() if step["kind"] == "step"]


def test_deps_are_output_paths(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = steps_of(planned(capsys, script, "--json")[1])
    assert steps["count/a"]["deps"] == [steps["text/a"]["output_path"]]


@pytest.mark.parametrize(
    ("flags", "code"), [(["--exit-code"], 2), (["--exit-code", "--run_only", "text"], 0), ([], 0), (["--bogus"], 2)]
)
def test_exit_codes(script: Path, prefix: str, capsys: pytest.CaptureFixture[str], flags: list[str], code: int) -> None:
    run_script(script, "--run_only", "text", prefix=prefix)
    assert planned(capsys, script, *flags)[0] == code


@pytest.mark.parametrize("flags", [["--bogus"], ["--run_only", "nothing"], ["--prefix", ""], ["--force", "nothing"]])
def test_an_error_is_no_plan_for_a_script_that_looks_at_exit_codes(
    script: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    assert planned(capsys, script, "--exit-code", *flags) == (1, "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "ExperimentError: {file} never called executor_main"),
        ("def f(:", "ExperimentError: {file} is no Python: .*\n  at {file}:1"),
        ("a = 1\nraise ValueError('no')", "failed before it called executor_main: ValueError\n  at {file}:2"),
        (
            EXPERIMENT + "    executor_main(steps=[everything(1)])\n",
            "{file} called executor_main 2 times, .*\n  .*experiment.py:44\n  .*experiment.py:49\n",
        ),
        ("from marin_trace import executor_main\nexecutor_main(steps=[None])", "ConfigTypeError: .*None, .* no step"),
    ],
)
def test_a_file_that_is_no_experiment_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    file = write_script(tmp_path, text)
    assert main(["plan", str(file)]) == 1
    shown = capsys.readouterr().err
    pattern = message.replace("{file}", str(file))
    assert re.search(pattern, shown), shown


def test_a_missing_file_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "no/such/file.py"]) == 1
    assert "cannot read the experiment no/such/file.py: No such file" in capsys.readouterr().err


def test_a_failing_file_shows_its_own_lines_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_script(tmp_path, "def f():\n    return 1 / 0\nf()")
    main(["plan", str(file)])
    shown = capsys.readouterr().err
    assert 'File "' + str(file) + '", line 2, in f\n    return 1 / 0' in shown
    assert "experiment.py" in shown
    assert "cli/experiment" not in shown


def test_a_file_that_calls_executor_main_in_a_thread_is_planned_and_runs_nothing(
    tmp_path: Path, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"import threading\nimport time\n{EXPERIMENT}".replace(
        "    main()\n", "    threading.Thread(target=lambda: (time.sleep(0.1), main())).start()\n"
    )
    code, shown = planned(capsys, write_script(tmp_path, text))
    assert code == 0
    assert "4 steps: 4 would run" in shown
    assert list(Path(prefix).iterdir()) == []


def test_a_file_that_wants_results_is_planned_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    text = EXPERIMENT.replace("    executor_main(", "    run = executor_main(") + "    raise ValueError('no results')\n"
    file = write_script(tmp_path, text)
    code, shown = planned(capsys, file)
    assert code == 0
    assert "4 steps: 4 would run" in shown
    assert "went on after executor_main and failed: ValueError: no results" in caplog.text


def test_afterwards_the_process_is_as_it_was(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (sys.modules["__main__"], sys.argv, list(sys.path))
    planned(capsys, script)
    assert (sys.modules["__main__"], sys.argv, sys.path) == before
