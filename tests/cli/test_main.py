"""Laws of the commands: what they find, what they never touch, and what a script can rely on."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from marin_trace.cli.main import main
from marin_trace.errors import LeaseLostError, StepAlreadyDone
from marin_trace.io import atomic_write
from marin_trace.runtime.artifact import Artifact
from marin_trace.runtime.distributed_lock import distributed_lock
from marin_trace.runtime.log_records import AttemptLog, ClaimRecord, JobIdentity, StartRecord
from marin_trace.runtime.maintenance import collect_garbage, delete_garbage, evidence_of
from marin_trace.runtime.options import AttemptOptions
from marin_trace.runtime.status import StatusKind, read_status
from marin_trace.storage.control_store import control_store_for

ROOT = Path(__file__).parents[2]


def write(path: str, text: str = "x") -> None:
    with atomic_write(path, "w") as stream:
        stream.write(text)


def build(output: str, **options: Any) -> None:
    locked = distributed_lock(lambda path: write(f"{path}/part", "abc")).with_options(AttemptOptions(**options))
    locked.finishing(Artifact.save)(output)


def fail(output: str, **options: Any) -> None:
    def body(path: str) -> None:
        write(f"{path}/half")
        raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        distributed_lock(body).with_options(AttemptOptions(**options))(output)


def files_below(directory: str) -> set[str]:
    return {str(path) for path in Path(directory).rglob("*") if path.is_file()}


Shown = list[dict[str, Any]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    def command(*argv: str) -> tuple[int, Shown]:
        capsys.readouterr()
        code = main([*argv, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return command


@pytest.fixture
def held(prefix: str) -> Iterator[str]:
    """An output that this process builds for as long as the test lasts."""
    began, may_end = threading.Event(), threading.Event()

    def body(path: str) -> None:
        began.set()
        assert may_end.wait(30)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(distributed_lock(body).attempt, f"{prefix}/held")
        assert began.wait(30)
        yield f"{prefix}/held"
        may_end.set()
        assert isinstance(running.exception(30), LeaseLostError | None)


DIE_IN_AN_ATTEMPT = """
import dataclasses, os, pathlib, signal, sys
from marin_trace.runtime.attempt import draft_claim
from marin_trace.runtime.log_records import AttemptLog
from marin_trace.storage.control_store import control_store_for

output = sys.argv[1]
log, claim = AttemptLog(output), dataclasses.replace(draft_claim(lease_s=120), epoch=1)
assert control_store_for(output).put_if_absent(log.claim(1), claim.to_bytes())
pathlib.Path(output, "part").write_text("half")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def abandoned(prefix: str) -> str:
    """An output whose builder was killed, with everything that could have released its claim."""
    output = f"{prefix}/abandoned"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    died = subprocess.run([sys.executable, "-c", DIE_IN_AN_ATTEMPT, output], env=environment, check=False)
    assert died.returncode == -signal.SIGKILL
    return output


def test_verify_passes_what_is_as_it_was_committed(prefix: str, run) -> None:
    for name in ("a", "group/b"):
        build(f"{prefix}/{name}")
    code, rows = run("verify")
    assert code == 0
    assert [(row["result"], row["output"], row["detail"]) for row in rows] == [
        ("ok", f"{prefix}/a", "2 files"),
        ("ok", f"{prefix}/group/b", "2 files"),
    ]


def test_verify_names_each_file_that_is_not(prefix: str, run) -> None:
    build(f"{prefix}/a")
    write(f"{prefix}/a/part", "other")
    write(f"{prefix}/a/new")
    code, (row,) = run("verify", f"{prefix}/a")
    assert (code, row["result"], row["detail"]) == (1, "damaged", "2 of 2 files")
    assert row["files"] == [{"path": "new", "change": "added"}, {"path": "part", "change": "changed"}]


def test_what_was_rewritten_with_the_same_bytes_is_told_and_no_damage(prefix: str, run) -> None:
    build(f"{prefix}/a")
    os.utime(f"{prefix}/a/part", ns=(1, 1))
    code, (row,) = run("verify")
    assert (code, row["result"], row["files"]) == (0, "ok", [{"path": "part", "change": "rewritten"}])


@pytest.mark.parametrize(
    ("file", "content", "detail"),
    [
        ("000001.manifest", b'{"epoch": 1, "files": []}', "is not the one that was committed"),
        ("000001.manifest", None, "is missing"),
        ("000001.end", b'{"epoch"', "is truncated or corrupt"),
    ],
)
def test_verify_names_a_control_file_that_was_tampered_with(prefix: str, run, file, content, detail) -> None:
    build(f"{prefix}/a")
    path = Path(prefix, "a", ".executor", file)
    path.unlink() if content is None else path.write_bytes(content)
    code, (row,) = run("verify")
    assert (code, row["result"]) == (1, "corrupt")
    assert f"{path} {detail}" in row["detail"]


def test_verify_says_what_it_cannot_check(prefix: str, run) -> None:
    write(f"{prefix}/legacy/.executor_status", "SUCCESS")
    fail(f"{prefix}/failed")
    code, rows = run("verify")
    assert code == 0
    assert [(row["result"], row["detail"]) for row in rows] == [
        ("unfinished", "FAILED"),
        ("unchecked", "it was committed without a manifest"),
    ]


def test_verify_works_in_memory(tmp_path: Path, run) -> None:
    prefix = f"memory://{tmp_path.name}/verify"
    build(f"{prefix}/a")
    assert run("verify", prefix)[1][0]["result"] == "ok"
    write(f"{prefix}/a/part", "abd")
    code, (row,) = run("verify", prefix)
    assert (code, row["files"]) == (1, [{"path": "part", "change": "changed"}])


def test_gc_is_dry_unless_told_otherwise(prefix: str, run) -> None:
    fail(f"{prefix}/failed")
    before = files_below(prefix)
    code, (row,) = run("gc")
    assert (code, row["kind"], row["result"]) == (0, "unfinished", "would be deleted")
    assert f"{prefix}/failed/half" in row["files"]
    assert row["reason"] == "attempt 1 is FAILED, and none has succeeded"
    assert files_below(prefix) == before


def test_gc_says_nothing_of_a_failure_that_left_no_data(prefix: str, run) -> None:
    with pytest.raises(ZeroDivisionError, match="division"):
        distributed_lock(lambda path: 1 / 0)(f"{prefix}/a")
    assert run("gc") == (0, [])


def test_gc_deletes_by_exact_keys_and_leaves_the_log(prefix: str, run) -> None:
    fail(f"{prefix}/run[12]")
    build(f"{prefix}/run1")
    code, rows = run("gc", "--delete")
    assert (code, [row["result"] for row in rows]) == (0, ["deleted"])
    assert not Path(prefix, "run[12]", "half").exists()
    assert read_status(f"{prefix}/run[12]").epoch == 2
    assert read_status(f"{prefix}/run[12]").kind is StatusKind.RELEASED
    assert main(["verify", f"{prefix}/run1"]) == 0
    build(f"{prefix}/run[12]")


def test_gc_never_touches_what_was_committed_once(prefix: str, run) -> None:
    build(f"{prefix}/a")
    build(f"{prefix}/a", rerun_of=1)
    data = {f"{prefix}/a/part", f"{prefix}/a/.artifact.json"}
    code, rows = run("gc", "--delete")
    assert (code, [(row["kind"], row["path"]) for row in rows]) == (
        0,
        [("superseded", f"{prefix}/a/.executor/000001.manifest")],
    )
    assert data <= files_below(prefix)
    assert main(["verify"]) == 0
    fail(f"{prefix}/a", rerun_of=2)
    run("gc", "--delete")
    assert data <= files_below(prefix)


def test_gc_keeps_claims_and_ends_for_ever(prefix: str, run) -> None:
    fail(f"{prefix}/a")
    build(f"{prefix}/a")
    build(f"{prefix}/a", rerun_of=2)
    run("gc", "--delete")
    names = sorted(os.listdir(f"{prefix}/a/.executor"))
    assert [name for name in names if name.endswith(("claim", "end"))] == [
        f"{epoch:06d}.{kind}" for epoch in (1, 2, 3) for kind in ("claim", "end")
    ]
    assert read_status(f"{prefix}/a").epoch == 3


def test_gc_deletes_nothing_that_is_built_again_meanwhile(prefix: str) -> None:
    fail(f"{prefix}/a")
    (garbage,) = collect_garbage(f"{prefix}/a")
    build(f"{prefix}/a")
    with pytest.raises(StepAlreadyDone, match="is finished already"):
        delete_garbage(garbage)
    assert Path(prefix, "a", "part").exists()


def test_gc_finds_temporary_control_files_once_they_are_old(prefix: str, run) -> None:
    build(f"{prefix}/a")
    temporary = Path(prefix, "a", ".executor", ".tmp-1-x-0")
    temporary.touch()
    assert run("gc") == (0, [])
    os.utime(temporary, (0, 0))
    assert run("gc", "--delete")[1][0]["kind"] == "temporary"
    assert not temporary.exists()


def test_gc_leaves_what_runs_alone(held: str, run) -> None:
    write(f"{held}/half")
    assert run("gc", "--delete") == (0, [])
    assert Path(held, "half").exists()


def test_cancel_asks_a_living_owner(held: str, run) -> None:
    code, (row,) = run("cancel", held, "--why", "wrong data")
    assert (code, row["result"]) == (0, "asked")
    request = json.loads(Path(held, ".executor", "000001.cancel").read_text())
    assert request["why"] == "wrong data"
    assert f"(pid {os.getpid()})" in request["by"]
    assert run("cancel", held)[0] == 0
    assert json.loads(Path(held, ".executor", "000001.cancel").read_text()) == request


def test_cancel_ends_what_a_dead_owner_left(abandoned: str, run) -> None:
    code, (row,) = run("cancel", abandoned)
    assert (code, row["result"]) == (0, "ended")
    assert read_status(abandoned).kind in (StatusKind.FENCED, StatusKind.FAILED)


def test_cancel_of_what_does_not_run_is_told(prefix: str, capsys) -> None:
    build(f"{prefix}/a")
    assert main(["cancel", f"{prefix}/a"]) == 1
    assert capsys.readouterr().err == f"RunError: nothing runs at {prefix}/a: SUCCESS\n"


def test_unlock_shows_the_evidence_and_seals_only_when_told(abandoned: str, run) -> None:
    code, (row,) = run("unlock", abandoned)
    assert (code, row["result"], row["owner_is_gone"]) == (1, "open", True)
    assert "that process and all its children are dead" in row["facts"]
    assert any("the newest file of the output was written" in fact for fact in row["facts"])
    assert read_status(abandoned).kind is StatusKind.ABANDONED
    code, (row,) = run("unlock", abandoned, "--yes")
    assert (code, row["result"]) == (0, "FENCED")
    build(abandoned)


def test_an_owner_whose_attempt_was_unlocked_commits_nothing(held: str, run) -> None:
    code, (row,) = run("unlock", held)
    assert (code, row["owner_is_gone"]) == (1, False)
    assert "lives on this machine or cannot be asked about" in row["facts"][1]
    assert run("unlock", held, "--yes")[1][0]["result"] == "FENCED"


def test_an_owner_elsewhere_is_said_to_be_elsewhere(held: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marin_trace.runtime.maintenance.socket.gethostname", lambda: "another")
    evidence = evidence_of(held)
    assert evidence is not None
    assert evidence.facts[1] == "this is another: whether it lives cannot be seen from here"


def claim_for_job(output: str, cluster: str) -> AttemptLog:
    """Leaves an output claimed for a job that has not begun, by a process that is gone."""
    log = AttemptLog(output)
    claim = ClaimRecord(1, "n", "host", 1, "0" * 24, 120.0, "now", job=JobIdentity("train-1", cluster, "digest"))
    control_store_for(output).put_if_absent(log.claim(1), claim.to_bytes())
    return log


def test_a_job_that_has_not_begun_is_not_taken_for_dead(prefix: str, run) -> None:
    claim_for_job(f"{prefix}/a", "ray")
    code, (row,) = run("unlock", f"{prefix}/a")
    assert (code, row["owner_is_gone"]) == (1, False)
    assert row["facts"][1] == "its job, train-1 on ray, has not begun"
    assert "cannot be seen from here" in row["facts"][2]
    assert read_status(f"{prefix}/a").kind is StatusKind.RUNNING


def test_the_process_of_a_job_that_has_begun_is_its_owner(prefix: str, run) -> None:
    log = claim_for_job(f"{prefix}/a", "ray")
    start = StartRecord("n", "attempt", "host", 77, "1" * 24)
    control_store_for(log.output_path).put_if_absent(log.start(1), start.to_bytes())
    assert run("unlock", f"{prefix}/a")[1][0]["facts"][1] == "its job, train-1 on ray, began as process 77 on host"
    assert read_status(f"{prefix}/a").owner.pid == 77


def test_a_claim_whose_start_was_sealed_is_abandoned(prefix: str) -> None:
    log = claim_for_job(f"{prefix}/a", "ray")
    seal = StartRecord("m", "", "host", 77, "1" * 24)
    control_store_for(log.output_path).put_if_absent(log.start(1), seal.to_bytes())
    assert read_status(f"{prefix}/a").kind is StatusKind.ABANDONED


def test_unlock_of_what_is_not_open_is_told(prefix: str, capsys) -> None:
    assert main(["unlock", f"{prefix}/nothing"]) == 1
    assert "no attempt is open at" in capsys.readouterr().err


def test_a_pipe_gets_plain_columns(prefix: str, capsys) -> None:
    build(f"{prefix}/a")
    write(f"{prefix}/a/new")
    assert main(["verify"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "result   output".ljust(len(f"damaged  {prefix}/a/new")) + "  detail",
        f"damaged  {prefix}/a".ljust(len(f"damaged  {prefix}/a/new")) + "  1 of 2 files",
        f"  added  {prefix}/a/new",
    ]


def test_a_terminal_gets_a_table(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    build(f"{prefix}/a")
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert main(["verify"]) == 0
    assert f"{prefix}/a" in sys.stdout.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["verify", "/no/such/place"], 1, "there is no output at or below /no/such/place"),
        (["verify", "ftp://x/y"], 2, "ftp:// cannot hold outputs"),
    ],
)
def test_what_cannot_be_looked_at_is_an_error(argv: list[str], code: int, message: str, capsys) -> None:
    assert main(argv) == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("argv", [[], ["destroy"], ["cancel"]])
def test_a_command_line_that_cannot_be_understood_ends_with_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(argv)


def test_the_console_script_runs_and_a_closed_output_is_quiet(prefix: str) -> None:
    build(f"{prefix}/a")
    process = subprocess.Popen(
        [sys.executable, "-m", "marin_trace.cli.main", "verify", prefix],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(60) in (0, 141)
