"""Laws of ``marin-trace logs``: which attempt is shown, and that following ends when it is decided."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marin_trace.runtime.log_records import AttemptLog, ClaimRecord, EndKind, EndRecord
from marin_trace.storage.control_store import control_store_for
from tests.cli.conftest import Command
from tests.cli.site import Site
from tests.scripts import environment, tree_of, write_script
from tests.storage.clouds import gcs_cloud

CommandJson = Callable[..., tuple[int, dict[str, Any]]]

AT = "2026-01-31T12:00:00+00:00"


def attempt(output: str, epoch: int, *, kind: EndKind | None = EndKind.SUCCESS, **logs: str) -> str:
    """Leaves an attempt with logs: ``rank_0="text"``."""
    log, store = AttemptLog(output), control_store_for(output)
    store.put(log.claim(epoch), ClaimRecord(epoch, "n", "far-away", 7, "p", 120.0, AT).to_bytes())
    for rank, text in logs.items():
        number = rank.removeprefix("rank_")
        name = f"{epoch:06d}.log" + (f"-{number}" if number != "0" else "")
        store.put(f"{log.directory}/{name}", text.encode())
    if kind is not None:
        store.put(log.end(epoch), EndRecord(epoch, kind, "n", AT).to_bytes())
    return output


def test_the_newest_attempt_of_an_experiments_step_is_printed(site: Site, told: Command) -> None:
    argv = ("--prefix", site.prefix, site.script)
    assert told("logs", "text/t0", *argv)[:2] == (0, "writing t0\n")
    code, out, _ = told("logs", "count/t0", *argv, "--vocab_size", 13)
    assert code == 0
    assert out.startswith("counting 13\nTraceback")
    assert out.endswith("ValueError: an unlucky number\nof entries: 13\n")


def test_another_attempt_can_be_asked_for(tmp_path: Path, told: Command) -> None:
    output = attempt(f"{tmp_path}/a-0123abcd", 1, kind=EndKind.FAILED, rank_0="first\n")
    attempt(output, 2, rank_0="second\n")
    assert told("logs", "a", tmp_path)[:2] == (0, "second\n")
    assert told("logs", "a", "--attempt", "1", tmp_path)[:2] == (0, "first\n")
    code, out, err = told("logs", "a", "--attempt", 3, tmp_path)
    assert (code, out) == (1, "")
    assert "RunError: a has no attempt 3\n  there are: 1 (failed), 2 (success)" in err


def test_processes_of_a_gang_are_told_apart(tmp_path: Path, told: Command) -> None:
    attempt(f"{tmp_path}/a-0123abcd", 1, rank_0="zero\nagain", rank_2="two\n", rank_10="ten\n")
    assert told("logs", "a", tmp_path)[1] == "[0] zero\n[0] again\n[2] two\n[10] ten\n"


def test_silence_is_told_beside_the_output(tmp_path: Path, told: Command) -> None:
    output = attempt(f"{tmp_path}/a-0123abcd", 1, kind=EndKind.FAILED, rank_0="first\n")
    attempt(output, 2)
    assert told("logs", "a", tmp_path) == (
        0,
        "",
        "[attempt 2 (success) has printed nothing; attempts that did: 1]\n",
    )


def test_a_step_that_never_ran_has_no_log(site: Site, told: Command) -> None:
    code, out, err = told("logs", "count/t0", "--prefix", site.prefix, site.script, "--vocab_size", 5)
    assert (code, out) == (1, "")
    assert "RunError: count/t0 has no attempt: " in err


def test_in_an_object_store_an_open_attempts_log_is_still_to_come(told: Command) -> None:
    with gcs_cloud() as cloud:
        attempt(f"{cloud.bucket}/a-0123abcd", 1, kind=None)
        code, out, err = told("logs", "a", cloud.bucket)
        assert (code, out, err) == (0, "", "[attempt 1 is open: its log appears in the store when it ends]\n")
        attempt(f"{cloud.bucket}/a-0123abcd", 1, rank_0="there\n")
        assert told("logs", "-f", "a", cloud.bucket)[:2] == (0, "there\n")


@pytest.mark.parametrize(
    ("kind", "code", "note"),
    [
        (EndKind.SUCCESS, 0, "[attempt 1 finished]\n"),
        (EndKind.FAILED, 1, "[attempt 1 failed]\n"),
        (EndKind.FENCED, 1, "[attempt 1 stopped: its launcher was gone]\n"),
    ],
)
def test_following_ends_with_the_attempts_fate(
    tmp_path: Path, told: Command, kind: EndKind, code: int, note: str
) -> None:
    attempt(f"{tmp_path}/a-0123abcd", 1, kind=kind, rank_0="word\n")
    assert told("logs", "a", "--follow", tmp_path) == (code, "word\n", note)


def test_following_an_attempt_that_others_came_after_says_so(tmp_path: Path, told: Command) -> None:
    output = attempt(f"{tmp_path}/a-0123abcd", 1, kind=EndKind.FAILED)
    attempt(output, 2)
    assert told("logs", "a", "-f", "--attempt", "1", tmp_path) == (1, "", "[attempt 1 was followed by attempt 2]\n")


def test_json_has_the_text_of_each_process(tmp_path: Path, told_json: CommandJson, told: Command) -> None:
    output = attempt(f"{tmp_path}/a-0123abcd", 1, rank_0="zero\n", rank_1="one\n")
    _, value = told_json("logs", "a", tmp_path)
    assert (value["attempt"], value["outcome"], value["host"]) == (1, "success", "far-away")
    assert [(log["rank"], log["text"]) for log in value["logs"]] == [(0, "zero\n"), (1, "one\n")]
    assert value["logs"][1]["path"] == f"{output}/.executor/000001.log-1"
    code, _, err = told("logs", "a", "--json", "-f", tmp_path)
    assert code == 2
    assert "FlagError: --json prints one value, and --follow never has it whole" in err


def test_nothing_is_written(site: Site, told: Command) -> None:
    before = tree_of(site.prefix)
    told("logs", "text/t0", site.prefix)
    told("logs", "-f", "text/t0", site.prefix)
    assert tree_of(site.prefix) == before


SLOW = """
import pathlib, sys, time
from marin_trace import deferred, executor_main, output, step

def wait(path, go):
    print("waiting", flush=True)
    while not pathlib.Path(go).exists():
        time.sleep(0.02)
    print("gone on")

@step
def slow():
    return deferred(wait)(output(), GO)

GO = str(pathlib.Path(__file__).with_name("go"))
executor_main(steps=[slow()])
"""


def test_a_step_is_followed_while_it_runs(tmp_path: Path, prefix: str) -> None:
    script = write_script(tmp_path, SLOW)
    env, quiet = environment(prefix), {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, script.name], cwd=tmp_path, env=env, **quiet) as run:
        assert run.stderr is not None
        assert any("slow" in line and "starts" in line for line in run.stderr)
        command = [sys.executable, "-m", "marin_trace.cli.main", "logs", "-f", "slow", str(script)]
        with subprocess.Popen(
            command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as logs:
            assert logs.stdout is not None
            first = logs.stdout.readline()
            assert first == "waiting\n", logs.communicate()
            (tmp_path / "go").touch()
            rest, notes = logs.communicate(timeout=60)
        run.communicate(timeout=60)
    assert (logs.returncode, rest, notes) == (0, "gone on\n", "[attempt 1 finished]\n")
