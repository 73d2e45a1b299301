"""Experiments in processes of their own: exit codes, messages, nothing half-written, and kills at the worst moment."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts import environment, line_of, run_script, tree_of, write_script

HEAD = """
import os
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marin_trace import *
from marin_trace import StepSpec, executor_main, lower
from marin_trace.io import atomic_write


def write(path: str, text: Any = "text") -> int:
    with atomic_write(f"{path}/text.txt", "w") as stream:
        return stream.write(str(text))


def explode(path: str) -> None:
    raise ValueError("the disk of the user is round")


@step(name="text/{name}")
def text(name: str, value: Any = "text"):
    return deferred(write)(output(), value)


@step(name="broken")
def broken():
    return deferred(explode)(output())

"""

BAD_INPUT = {
    "a value that cannot be fingerprinted": (
        "ref = text('a', [threading.Lock()])  # here",
        r"UnstableValueError: write\(text\[0\]\) has no stable identity: <.*lock.*",
        "deferred(write)(output(), value)",
    ),
    "a lambda as a value": (
        "ref = text('a', lambda: 1)  # here",
        r"UnstableValueError: write\(text\) has no stable identity: .*lambda",
        "deferred(write)(output(), value)",
    ),
    "a step name with two dots": (
        "ref = text('../../escaped')  # here",
        r"StepNameError: 'text/\.\./\.\./escaped' is not a step name: it holds '\.\.'",
        "# here",
    ),
    "an absolute step name": (
        "ref = text.with_options(name='/etc/{name}')('x')  # here",
        r"StepNameError: '/etc/x' is not a step name: it is absolute",
        "# here",
    ),
    "two recipes for one path": (
        "place = text.with_options(override_output_path='same')\nref = [\n    place('a'),  # here\n    place('b'),\n]",
        r"OutputConflictError: two steps would write .*/same\n",
        "# here",
    ),
    "a step that calls itself": (
        "@step(name='loop')\ndef loop():\n    return loop()  # here\n\nref = loop()",
        r"CycleError: loop calls itself with the same arguments",
        "# here",
    ),
    "two steps that call each other": (
        "@step\ndef ping():\n    return pong()\n\n@step\ndef pong():\n    return ping()  # here\n\nref = ping()",
        r"CycleError: ping calls itself with the same arguments",
        "# here",
    ),
    "a hand-built cycle": (
        "a = StepSpec('a')  # here\nb = StepSpec('b', deps=[a])\na.deps.append(b)\nref = [b]",
        r"CycleError: steps wait for each other: .*a.*b.*",
        "# here",
    ),
    "no step at all": (
        "@step\ndef empty(): ...\nref = 7",
        r"ConfigTypeError: executor_main was given 7, which is no step",
        "executor_main(steps",
    ),
    "a ref in an f-string": (
        "ref = text('b', f'{text(\"a\")}/train')  # here",
        r"ConcretizationError: cannot format <StepRef text/a>: it has no path until the step is lowered",
        "# here",
    ),
    "an argument that the function does not have": (
        "@step\ndef wrong():\n    return deferred(write)(output(), textt=1)  # here\n\nref = wrong()",
        r"ConfigTypeError: write\(\): got an unexpected keyword argument 'textt'",
        "# here",
    ),
}


@pytest.fixture
def code(tmp_path: Path) -> Path:
    directory = tmp_path / "code"
    directory.mkdir()
    return directory


def experiment(code: Path, body: str) -> Path:
    return write_script(code, f'{HEAD}\n{body}\n\nif __name__ == "__main__":\n    executor_main(steps=ref)\n')


@pytest.mark.parametrize("kind", BAD_INPUT)
def test_bad_input_is_a_clear_error_with_the_line_and_leaves_nothing(kind: str, code: Path, prefix: str) -> None:
    body, message, where = BAD_INPUT[kind]
    script = experiment(code, body)
    done = run_script(script, prefix=prefix)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert line_of(script, where) in done.stderr
    assert tree_of(prefix) == {}


def test_a_prefix_that_is_a_file_is_an_error(code: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    done = run_script(experiment(code, "ref = text('a')"), "--prefix", file, prefix=str(tmp_path))
    assert done.returncode == 1
    assert (
        done.stderr
        == f"PrefixError: the prefix {file} is a file\n\nhint: give a directory: it is made if it is missing\n"
    )
    assert file.read_text() == "mine"


def test_an_unknown_protocol_is_an_error(code: Path, prefix: str) -> None:
    done = run_script(experiment(code, "ref = text('a')"), "--prefix", "ftp://host/x", prefix=prefix)
    assert (done.returncode, done.stderr.split(":")[0]) == (1, "PrefixError")
    assert "ftp://host/x" in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_prefix_is_an_error(code: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    done = run_script(experiment(code, "ref = text('a')"), "--prefix", closed, prefix=str(tmp_path))
    assert done.returncode == 1
    assert f"PrefixError: the prefix {closed} cannot be read" in done.stderr


def test_an_exception_in_a_function_shows_its_traceback_and_the_step(code: Path, prefix: str) -> None:
    script = experiment(code, "ref = [text('ok'), broken()]")
    done = run_script(script, prefix=prefix)
    assert done.returncode == 1
    assert re.search(r'experiment\.py", line \d+, in explode\n', done.stderr)
    assert "ValueError: the disk of the user is round\nin step broken, attempt 1: " in done.stderr
    assert f"at {line_of(script, 'ref = [')}" in done.stderr
    assert done.stderr.rstrip().endswith("1 of 2 steps failed: broken")
    assert [path for path in tree_of(prefix) if path.endswith("text.txt")] == [
        path for path in tree_of(prefix) if re.fullmatch(r"text/ok-\w+/text\.txt", path)
    ]


def test_a_run_that_goes_well_ends_with_0_and_so_does_the_next(code: Path, prefix: str) -> None:
    script = experiment(code, "ref = {'a': text('a'), 'b': [text('b')]}")
    assert [run_script(script, prefix=prefix).returncode for _ in range(2)] == [0, 0]


def test_the_record_holds_the_whole_command_line_without_its_secrets(code: Path, prefix: str) -> None:
    flags = (
        "@dataclass\nclass Flags:\n    words: str = ''\n    api_key: str = ''\n\nref = text(parse_flags(Flags).words)"
    )
    script = experiment(code, flags)
    run_script(script, "--words", "two", "--api_key", "c4n4ry", "--max_concurrent", 2, prefix=prefix).check_returncode()
    (record,) = Path(prefix, "experiments").iterdir()
    argv = json.loads(record.read_text())["provenance"]["argv"]
    assert argv[1:] == [script.name, "--words", "two", "--api_key", "[redacted]", "--max_concurrent", "2"]


def test_running_and_importing_a_script_agree_on_fingerprints(code: Path, prefix: str) -> None:
    script = experiment(code, "ref = text('a')\nprint(lower(ref)[0].fingerprint)")
    other = write_script(code, "import experiment\n", "other.py")
    as_main, imported = (run_script(each, "--dry_run", prefix=prefix).stdout for each in (script, other))
    assert as_main.splitlines()[0] == imported.splitlines()[0]


def test_a_dry_run_changes_no_file_and_no_time(code: Path, prefix: str) -> None:
    run_script(experiment(code, "ref = text('a')"), prefix=prefix)
    before = tree_of(prefix)
    done = run_script(experiment(code, "ref = [text('a'), text('b')]"), "--dry_run", prefix=prefix)
    assert done.returncode == 0
    assert re.search(r"(?s)hit +text/a +finished\n.*run +text/b +never built\n", done.stdout)
    assert tree_of(prefix) == before


WAITING = """
def wait(path: str) -> str:
    if not os.path.exists("go"):
        print("waiting", flush=True)
        while True:
            threading.Event().wait(0.01)
    return "done"


@step(name="waiting")
def waiting():
    text("first")
    return deferred(wait)(output())


ref = waiting()
"""


def started(script: Path, *flags: str, prefix: str) -> "subprocess.Popen[str]":
    """The script's process, once its second step waits."""
    process = subprocess.Popen(
        [sys.executable, script.name, *flags],
        env=environment(prefix),
        cwd=script.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    return process


def test_killed_in_the_middle_it_goes_on_from_what_is_committed(code: Path, prefix: str) -> None:
    script = experiment(code, WAITING)
    with started(script, prefix=prefix) as process:
        process.kill()
        process.communicate()
    before = tree_of(prefix)
    dry = run_script(script, "--dry_run", prefix=prefix)
    assert re.search(
        r"(?s)hit +text/first +finished.*run +waiting +(the launcher that ran it is gone|an attempt was given up)",
        dry.stdout,
    )
    (code / "go").touch()
    done = run_script(script, prefix=prefix)
    after = tree_of(prefix)
    assert done.returncode == 0, done.stderr
    committed = {path: state for path, state in before.items() if path.startswith("text/first")}
    assert {path: after[path] for path in committed} == committed
    assert any(re.fullmatch(r"waiting-\w+/\.artifact\.json", path) for path in after)


@pytest.mark.parametrize("flags", [(), ("--max_concurrent", "1")])
def test_ctrl_c_ends_with_130_and_releases_the_step(flags: tuple[str, ...], code: Path, prefix: str) -> None:
    script = experiment(code, WAITING)
    with started(script, *flags, prefix=prefix) as process:
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stderr.endswith("interrupted: the steps of this machine were released\n")
    assert "Traceback" not in stderr
    dry = run_script(script, "--dry_run", prefix=prefix)
    assert re.search(r"run +waiting +an attempt was given up before its end", dry.stdout), dry.stdout


def test_a_step_that_another_launcher_runs_would_be_waited_for(code: Path, prefix: str) -> None:
    script = experiment(code, WAITING)
    with started(script, prefix=prefix) as process:
        dry = run_script(script, "--dry_run", prefix=prefix)
        assert re.search(rf"wait +waiting +running on \S+ \(pid {process.pid}\) since ", dry.stdout), dry.stdout
        process.kill()
        process.communicate()
