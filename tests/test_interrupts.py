"""Experiments on the real command line, ended by signals, closed pipes and failures: exit codes, and nothing left."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from marin_trace.runtime.interrupts import Interrupted, exit_code_of, interrupting_signals
from marin_trace.runtime.status import StatusKind, read_status

ROOT = Path(__file__).parents[1]

SCRIPT = """
import os, pathlib, threading
from marin_trace import ResourceConfig, deferred, executor_main, output, step

def wait(path):
    os.makedirs(path, exist_ok=True)
    pathlib.Path(path, "pid").write_text(str(os.getpid()))
    with open(os.environ["BEGAN"], "w") as began:
        began.write("x")
    while not os.path.exists(os.environ["MAY_END"]):
        threading.Event().wait(0.01)  # runs Python code now and then, as an interrupt needs

def speak(path):
    for number in range(20_000):
        print(f"line {number} of many, so that the pipe is full")

def fail(path):
    raise ValueError("told to fail")

@step(name="waits", override_output_path="waits")
def waits():
    return deferred(wait)(output())

@step(name="own", override_output_path="waits", resources=ResourceConfig.with_cpu(1))
def own():
    return deferred(wait)(output())

@step(name="speaks", override_output_path="speaks")
def speaks():
    return deferred(speak)(output())

@step(name="fails", override_output_path="fails")
def fails():
    return deferred(fail)(output())

if __name__ == "__main__":
    executor_main(steps=[globals()[os.environ["STEP"]]()])
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    (tmp_path / "experiment.py").write_text(SCRIPT)
    os.mkfifo(tmp_path / "began")
    started: list[subprocess.Popen[str]] = []

    def run(step: str, *flags: str, through: str | None = None) -> "subprocess.Popen[str]":
        prefix = str(tmp_path / "out")
        environment = {"STEP": step, "BEGAN": str(tmp_path / "began"), "MAY_END": str(tmp_path / "may_end")}
        process = subprocess.Popen(
            [*filter(None, [through]), sys.executable, str(tmp_path / "experiment.py"), "--prefix", prefix, *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def began(tmp_path: Path) -> None:
    with open(tmp_path / "began") as stream:  # opens when the body does
        assert stream.read() == "x"


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("flags", [(), ("--max_concurrent", "1")], ids=["in a thread", "in the main thread"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_releases_the_steps_and_is_the_exit_code(start: Start, tmp_path: Path, number, flags) -> None:
    process = start("waits", *flags)
    began(tmp_path)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "interrupted: the steps of this machine were released" in errors
    assert "Traceback" not in errors
    assert read_status(str(tmp_path / "out" / "waits")).kind is StatusKind.RELEASED, errors


def test_no_process_outlives_the_run(start: Start, tmp_path: Path) -> None:
    process = start("own")
    began(tmp_path)
    child = int((tmp_path / "out" / "waits" / "pid").read_text())
    assert child != process.pid
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert not is_alive(child)
    assert read_status(str(tmp_path / "out" / "waits")).kind is StatusKind.RELEASED


def test_a_hang_up_that_is_ignored_stays_ignored(start: Start, tmp_path: Path) -> None:
    process = start("waits", through="nohup")
    began(tmp_path)
    process.send_signal(signal.SIGHUP)
    (tmp_path / "may_end").touch()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


def test_a_closed_output_ends_a_dry_run_quietly(start: Start) -> None:
    process = start("speaks", "--dry_run")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    assert process.wait(60) == 141
    assert "BrokenPipe" not in errors


def test_a_closed_output_fails_no_step(start: Start, tmp_path: Path) -> None:
    process = start("speaks")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    assert process.wait(60) == 0, errors
    assert "BrokenPipe" not in errors
    log = tmp_path / "out" / "speaks" / ".executor" / "000001.log"
    assert log.read_text().count("\n") == 20_000


def test_a_failure_is_the_exit_code_though_nobody_reads_about_it(start: Start) -> None:
    process = start("fails")
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()
    assert process.wait(60) == 1


@pytest.mark.parametrize(("step", "flags", "code"), [("speaks", (), 0), ("fails", (), 1), ("fails", ("--no",), 2)])
def test_exit_codes(start: Start, step: str, flags: tuple[str, ...], code: int) -> None:
    process = start(step, *flags)
    process.communicate(timeout=60)
    assert process.returncode == code


def test_the_signals_do_afterwards_what_they_did_before() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]

    def terminated() -> None:
        with interrupting_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()

    with pytest.raises(Interrupted, match="SIGTERM") as caught:
        terminated()
    assert exit_code_of(caught.value) == 143
    assert exit_code_of(KeyboardInterrupt()) == 130
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
