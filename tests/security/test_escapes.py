"""Stored text is shown and not obeyed: no escape sequence, C1 control, carriage return or bidirectional control."""

import json
import logging
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marin_trace import deferred, executor_main, lower, output, step
from marin_trace.cli.main import main
from marin_trace.errors import RunFailedError, explain
from marin_trace.executor import _PlainFormatter
from marin_trace.runtime.attempt import draft_claim
from marin_trace.runtime.log_records import AttemptLog, EndKind, EndRecord, StepFailure
from marin_trace.runtime.records import read_step_info
from marin_trace.safe_text import on_one_line, printable
from tests.scripts import run_script, write_script

EVIL = "\x1b[2J\x1b]0;owned\x07\x9b31m\r\u202e\u2066\u200f\x7f\ud800\u2028"
OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)


def test_each_of_them_is_obeyed_by_something() -> None:
    assert len(OBEYED.findall(EVIL)) == len(EVIL) - len("[2J]0;owned31m")


@given(st.text(st.characters(exclude_categories=[])))
def test_no_text_keeps_a_character_that_a_terminal_obeys(text: str) -> None:
    for shown in (printable(text), on_one_line(text), explain(text, at=text, facts={text: text}, hint=text)):
        assert not OBEYED.search(shown)
        shown.encode()
    assert not {"\n", "\t"} & set(on_one_line(text))


@pytest.mark.parametrize("text", ["plain", "two\nlines\tand a tab", "naïve 日本語 🙂‍↔️ עברית"])
def test_what_is_harmless_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


def note(path: str) -> None: ...


@step(name="out")
def entry():
    return deferred(note)(output())


def failed_end(message: str) -> bytes:
    failure = StepFailure(f"builtins.Value{message}Error", message, traceback=message)
    return EndRecord(1, EndKind.FAILED, "n", message, error=failure).to_bytes()


def plant(prefix: str, name: str, content: bytes) -> str:
    path = lower(entry(), prefix=prefix)[0].output_path
    directory = Path(AttemptLog(path).directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(content)
    return path


def harmless_end(prefix: str) -> str:
    record = json.loads(failed_end("x"))
    record["error"] = {"type": f"E{EVIL}", "message": f"first {EVIL}\nsecond", "phase": "body", "traceback": EVIL}
    record["ended_at"] = EVIL
    return plant(prefix, "000001.end", json.dumps(record).encode())


def open_claim(prefix: str) -> str:
    claim = json.loads(replace(draft_claim(lease_s=120.0), epoch=1).to_bytes())
    claim.update(host=f"host{EVIL}", claimed_at=EVIL, process_nonce=f"elsewhere{EVIL}")
    return plant(prefix, "000001.claim", json.dumps(claim).encode())


def test_a_plan_shows_a_stored_error_and_obeys_nothing(prefix: str, capsys: pytest.CaptureFixture[str]) -> None:
    harmless_end(prefix)
    executor_main([entry()], argv=["--prefix", prefix, "--dry_run"])
    shown = capsys.readouterr().out
    assert r"failed before: E\x1b[2J" in shown
    assert not OBEYED.search(shown)


def test_a_plan_shows_a_stored_host_and_obeys_nothing(prefix: str, capsys: pytest.CaptureFixture[str]) -> None:
    open_claim(prefix)
    executor_main([entry()], argv=["--prefix", prefix, "--dry_run"])
    shown = capsys.readouterr().out
    assert r"running on host\x1b[2J" in shown
    assert not OBEYED.search(shown)


def test_an_error_that_quotes_a_stored_one_obeys_nothing(prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    harmless_end(prefix)
    with pytest.raises(RunFailedError) as caught:
        executor_main([entry()], argv=["--prefix", prefix, "--force_run_failed", "false"])
    assert r"first \x1b[2J" in str(caught.value.exceptions[0])
    assert not OBEYED.search(str(caught.value.exceptions[0]) + caplog.text)


@pytest.mark.parametrize("flags", [[], ["--json"]])
@pytest.mark.parametrize("command", ["verify", "gc", "unlock", "cancel"])
def test_no_command_obeys_what_is_stored(
    prefix: str, capsys: pytest.CaptureFixture[str], command: str, flags: list[str]
) -> None:
    path = open_claim(prefix)
    left = Path(AttemptLog(path).directory, ".tmp-\x1b[2J\u202e")
    left.write_text("x")
    os.utime(left, (0, 0))
    main([command, path, *flags])
    captured = capsys.readouterr()
    assert captured.out + captured.err
    assert not OBEYED.search(captured.out + captured.err)


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_names_of_files_are_shown_and_not_obeyed(
    prefix: str, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    ref = entry()
    report = executor_main([ref], argv=["--prefix", prefix])
    evil = "added\x1b[2J\u202e\n  ok  forged"
    Path(report.output_path(ref), evil).write_text("x")
    capsys.readouterr()
    assert main(["verify", prefix, *flags]) == 1
    shown = capsys.readouterr().out
    assert not OBEYED.search(shown)
    if flags:
        assert json.loads(shown)[0]["files"] == [{"path": evil, "change": "added"}]
    else:
        assert r"added\x1b[2J\u202e\n  ok  forged" in shown


def test_leftovers_with_evil_names_are_logged_and_not_obeyed(prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    path = Path(lower(entry(), prefix=prefix)[0].output_path)
    path.mkdir(parents=True)
    (path / "left\x1b[2J\nover").write_text("x")
    executor_main([entry()], argv=["--prefix", prefix])
    assert r"left\x1b[2J\nover" in caplog.text
    assert not OBEYED.search(caplog.text)


def test_the_parts_of_a_recipe_that_was_stored_are_shown_and_not_obeyed(prefix: str) -> None:
    Path(prefix, ".executor_info").write_text(json.dumps({"parts": {"config.x": EVIL}}))
    info: Any = read_step_info(prefix)
    assert not OBEYED.search(info["parts"]["config.x"])


SCRIPT = r"""
from marin_trace import *

def fail(path):
    raise ValueError("said by a server: \x1b[2J\r\x9b1m \u202e https://me:pw@host/x")

@step(name="fails")
def entry():
    return deferred(fail)(output())

executor_main(steps=[entry()])
"""


def test_a_script_prints_what_failed_and_obeys_nothing(tmp_path: Path, prefix: str) -> None:
    done = run_script(write_script(tmp_path, SCRIPT), prefix=prefix)
    assert done.returncode == 1
    assert r"said by a server: \x1b[2J\r\x9b1m \u202e https://[redacted]@host/x" in done.stderr
    assert not OBEYED.search(done.stdout + done.stderr)


def test_the_log_of_a_script_obeys_nothing() -> None:
    record = logging.LogRecord("lib", logging.INFO, "f", 1, "%s", (f"a{EVIL}",), None)
    assert not OBEYED.search(_PlainFormatter("%(message)s").format(record))
