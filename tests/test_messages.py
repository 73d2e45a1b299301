"""What people see whose step fails, or who use a step as if they had called it."""

import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from marin_trace import StepRef, deferred, executor_main, output, step
from marin_trace.errors import ArtifactError, ConfigError, ConfigTypeError, FlagError, UnstableValueError
from marin_trace.ir.location import is_own_file
from marin_trace.planning.plan import PlannedAction
from marin_trace.planning.words import counted
from marin_trace.runtime.options import RunOptions
from marin_trace.runtime.step_runner import StepRunner
from tests.scripts import run_script, write_script

FAILING = """
from marin_trace import deferred, executor_main, step

def divide(by: int) -> float:
    return 1 / by

@step(name="ratio/{by}")
def ratio(by: int):
    return deferred(divide)(by)

if __name__ == "__main__":
    executor_main(steps=[ratio(0)])
"""


def write_number(path: str, number: int) -> int:
    Path(path).mkdir(parents=True, exist_ok=True)
    return number


def double(number: int) -> int:
    return 2 * number


write = deferred(write_number)
doubled = deferred(double)


@step(name="number/{value}")
def number(value: int) -> StepRef:
    return write(output(), value)


@step(name="twice")
def twice(source: Any) -> StepRef:
    return doubled(source.artifact)


def test_a_printed_traceback_begins_in_the_function_that_failed(tmp_path: Path, prefix: str) -> None:
    script = write_script(tmp_path, FAILING)
    ended = run_script(script, prefix=prefix)
    assert ended.returncode == 1
    assert "return 1 / by" in ended.stderr
    assert "ZeroDivisionError: division by zero\nin step ratio/0, attempt 1: " in ended.stderr
    assert not [line for line in ended.stderr.splitlines() if "File " in line and is_own_file(line.split('"')[1])]


def test_an_error_of_ours_is_printed_without_a_traceback(tmp_path: Path, prefix: str) -> None:
    script = write_script(tmp_path, FAILING)
    run_script(script, prefix=prefix)
    ended = run_script(script, "--force_run_failed", "false", prefix=prefix)
    assert "failed before (attempt 1): ZeroDivisionError" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_log_has_one_line_for_a_failure_and_one_for_the_run(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    executor_main(steps=[number(1)], argv=[])
    executor_main(steps=[number(1)], argv=[])
    assert "1 step: 1 built" in caplog.text
    assert "1 step: 1 found finished" in caplog.text


@pytest.mark.parametrize("bound", [0, -3])
def test_a_bound_below_one_step_is_refused(bound: int) -> None:
    with pytest.raises(ConfigError, match="max_concurrent is a whole number of at least 1"):
        StepRunner().run([], max_concurrent=bound)
    with pytest.raises(FlagError, match=f"--max_concurrent does not fit: {bound} is less than 1"):
        executor_main(steps=[number(1)], argv=[f"--max_concurrent={bound}"])
    with pytest.raises(ConfigError, match="max_jobs is a whole number of at least 1"):
        StepRunner(options=RunOptions(max_jobs=bound)).run([])


@pytest.mark.parametrize(
    ("use", "call"),
    [
        (lambda: number / "part", r"number\(\) / 'part'"),
        (lambda: number.artifact, r"number\(\)\.artifact"),  # pyright: ignore[reportFunctionMemberAccess]
        (lambda: twice(number), r"number\(\)\.artifact"),
    ],
)
def test_a_step_that_was_not_called_says_so_at_the_users_line(use: Any, call: str) -> None:
    with pytest.raises(ConfigTypeError, match=rf"(?s)<step number>.*test_messages\.py:\d+.*call it: {call}"):
        use()


def test_a_step_given_as_a_path_says_to_call_it() -> None:
    with pytest.raises(UnstableValueError, match=r"(?s)<step number>.*test_messages\.py:\d+.*call it: number\(\)"):
        step(name="misused")(lambda: write(number, 1))()


def test_the_artifact_of_a_step_that_was_not_needed_says_why_there_is_none() -> None:
    source = number(4)
    run = executor_main(steps=[twice(source)], argv=[])
    shutil.rmtree(run.output_path(source))
    run = executor_main(steps=[twice(source)], argv=[])
    with pytest.raises(ArtifactError, match=r"(?s)number/4 .*not built.*test_messages\.py:\d+"):
        run.artifact(source)


def test_a_function_of_a_script_that_is_piped_in_needs_a_name() -> None:
    script = "from marin_trace import deferred\ndef f(): ...\nprint(deferred(f).identity)\n"
    ended = subprocess.run([sys.executable, "-"], input=script, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "f has no stable identity" in ended.stderr
    assert 'hint: define it with def at the top of a module, or name it: deferred(fn, identity="' in ended.stderr


def test_what_is_skipped_is_counted_as_skipped() -> None:
    assert counted([PlannedAction.SKIP]) == "1 step: 1 skipped"
