"""Laws of captured output: each attempt's words beside its own output, shown as before, and nothing left behind."""

import contextvars
import io
import logging
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from marin_trace.errors import RunFailedError, StorageError
from marin_trace.runtime.capture import captured, existing_log, routed_output
from marin_trace.runtime.distributed_lock import distributed_lock
from marin_trace.runtime.log_records import AttemptLog
from marin_trace.runtime.options import RunOptions
from marin_trace.runtime.remote import remote
from marin_trace.runtime.step_runner import EventKind, RunEvent, StepRunner
from marin_trace.storage.control_store import control_store_for

logger = logging.getLogger(__name__)


def log_of(step: Any, epoch: int = 1) -> str:
    return Path(step.output_path, ".executor", f"{epoch:06d}.log").read_text()


def test_what_steps_side_by_side_print_and_log_is_kept_apart_and_shown(make_step, capsys) -> None:
    together = threading.Barrier(2)

    def body(path: str) -> None:
        name = path[-1]
        for _ in range(50):
            together.wait(30)
            print(f"out {name}")
            print(f"err {name}", file=sys.stderr)
        logger.warning(f"logged {name}")

    steps = [make_step("a", body), make_step("b", body)]
    StepRunner().run(steps, max_concurrent=2)
    for step in steps:
        lines = log_of(step).splitlines()
        assert lines[:-1] == [f"out {step.name}", f"err {step.name}"] * 50
        assert lines[-1].endswith(f"WARNING {__name__}: logged {step.name}")
    shown = capsys.readouterr()
    assert shown.out.count("out a") == shown.out.count("out b") == 50
    assert shown.err.count("err a") == 50


def test_a_silent_step_has_no_log(make_step) -> None:
    step = make_step("silent")
    StepRunner().run([step])
    assert existing_log(step.output_path, 1) is None
    assert existing_log(step.output_path, None) is None


def test_streams_and_handlers_are_put_back(make_step) -> None:
    before = (sys.stdout, sys.stderr, list(logging.getLogger().handlers))
    StepRunner().run([make_step("a", lambda path: print("a"))])
    with pytest.raises(RunFailedError, match="1 of 1 steps failed"):
        StepRunner().run([make_step("b", lambda path: 1 / 0)])
    assert (sys.stdout, sys.stderr, logging.getLogger().handlers) == before


def test_a_stream_that_a_body_has_replaced_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    mine = io.StringIO()
    with routed_output():
        sys.stdout = mine
    assert sys.stdout is mine


def test_routing_is_nested_and_ends_with_the_last(tmp_path: Path) -> None:
    before, log = sys.stdout, AttemptLog(str(tmp_path))
    Path(log.directory).mkdir()
    first, second = routed_output(), routed_output()
    first.__enter__()
    routed = sys.stdout
    second.__enter__()
    assert sys.stdout is routed
    first.__exit__(None, None, None)
    with captured(log, 1):
        print("still kept")
    second.__exit__(None, None, None)
    assert sys.stdout is before
    assert Path(log.directory, "000001.log").read_text() == "still kept\n"


def test_each_attempt_has_a_log_of_its_own_that_ends_with_its_traceback(make_step) -> None:
    attempts: list[int] = []

    def body(path: str) -> None:
        attempts.append(1)
        print(f"attempt {len(attempts)}")
        if len(attempts) == 1:
            raise ValueError("once")

    step = make_step("a", body, retries=1)
    StepRunner().run([step])
    first = log_of(step, 1)
    assert first.startswith("attempt 1\nTraceback")
    assert first.endswith("ValueError: once\n")
    assert log_of(step, 2) == "attempt 2\n"


def test_a_thread_that_was_given_the_context_is_kept_and_what_comes_late_is_not(make_step) -> None:
    may_print, threads = threading.Event(), []

    def late() -> None:
        assert may_print.wait(30)
        print("late")

    def body(path: str) -> None:
        context = contextvars.copy_context()
        helper = threading.Thread(target=context.run, args=(print, "from a thread"))
        helper.start()
        helper.join()
        threads.append(threading.Thread(target=contextvars.copy_context().run, args=(late,)))
        threads[0].start()

    step = make_step("a", body)
    StepRunner().run([step])
    may_print.set()
    threads[0].join()
    assert log_of(step) == "from a thread\n"


def test_what_an_interrupted_body_says_last_is_kept(make_step) -> None:
    began = threading.Event()

    def body(path: str) -> None:
        began.set()
        try:
            while True:
                began.wait(0.01)
        finally:
            print("cleaned up")

    def interrupt(event: RunEvent) -> None:
        if event.kind is EventKind.STARTED and event.step.name == "last":
            assert began.wait(30)
            raise KeyboardInterrupt

    step = make_step("first", body)
    with pytest.raises(KeyboardInterrupt):
        StepRunner(on_event=interrupt, stop_grace_s=30).run([step, make_step("last")])
    assert log_of(step) == "cleaned up\n"


class ClosedPipe(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_closed_pipe_fails_no_step(make_step, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", ClosedPipe())

    def body(path: str) -> None:
        print("one")
        print("two", flush=True)

    step = make_step("a", body)
    StepRunner().run([step])
    assert log_of(step) == "one\ntwo\n"


def test_a_log_that_cannot_be_written_is_said_once_and_fails_no_step(make_step, caplog) -> None:
    def body(path: str) -> None:
        Path(path, ".executor", "000001.log").mkdir()
        print("one")
        print("two")

    StepRunner().run([make_step("a", body)])
    assert caplog.text.count("000001.log cannot be written: [Errno 21] Is a directory") == 1


def test_a_log_has_an_end(make_step, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marin_trace.runtime.capture._LIMIT_CHARACTERS", 4)
    step = make_step("a", lambda path: print("123\n456\n789"))
    StepRunner().run([step])
    assert log_of(step) == "123\n\n[the rest is not kept: this log is full]\n"


def test_in_memory_the_log_appears_at_the_end(make_step) -> None:
    step = make_step("a", lambda path: print("said"), output_path="memory://capture/a")
    StepRunner(options=RunOptions(prefix="memory://capture")).run([step])
    path = existing_log(step.output_path, 1)
    assert path is not None
    assert control_store_for(path).get(path) == b"said\n"


def test_a_store_that_refuses_the_log_fails_no_step(make_step, caplog, monkeypatch: pytest.MonkeyPatch) -> None:
    store = control_store_for("memory://capture/b")
    real = type(store).put

    def put(self: Any, path: str, content: bytes) -> None:
        if path.endswith(".log"):
            raise StorageError("no room")
        real(self, path, content)

    monkeypatch.setattr(type(store), "put", put)
    StepRunner(options=RunOptions(prefix="memory://capture")).run(
        [make_step("b", lambda path: print("said"), output_path="memory://capture/b")]
    )
    assert "000001.log cannot be written: no room" in caplog.text


def everything(path: str) -> None:
    import os
    import subprocess

    print("python")
    os.write(1, b"descriptor\n")
    subprocess.run(["sh", "-c", "echo child; echo error >&2"], check=True)
    logging.getLogger("x").warning("logged")
    raise ValueError("last")


def test_everything_that_an_own_process_says_is_kept(make_step) -> None:
    step = make_step("own", everything, wrap=lambda executable: remote(executable))
    with pytest.raises(RunFailedError, match="own") as caught:
        StepRunner().run([step])
    log = log_of(step)
    assert [word for word in ("python", "descriptor", "child", "error", "WARNING x: logged") if word not in log] == []
    assert log.rstrip().endswith("ValueError: last")
    assert isinstance(caught.value.exceptions[0], ValueError)


def die(path: str) -> None:
    import os

    print("last words")
    os.kill(os.getpid(), 9)


def test_a_killed_process_leaves_its_last_words_in_its_log_and_its_error(make_step) -> None:
    step = make_step("own", die, wrap=lambda executable: remote(executable))
    with pytest.raises(RunFailedError, match="own") as caught:
        StepRunner().run([step])
    assert log_of(step) == "last words\n"
    assert f"log: {step.output_path}/.executor/000001.log\n  last words" in str(caught.value.exceptions[0])


def test_a_lock_outside_a_run_captures_nothing(tmp_path: Path, capsys) -> None:
    distributed_lock(lambda path: print("said"))(str(tmp_path / "out"))
    assert capsys.readouterr().out == "said\n"
    assert existing_log(str(tmp_path / "out"), 1) is None
