"""Laws of liveness: only what is certainly dead is gone."""

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from marin_trace.errors import StorageError
from marin_trace.runtime import liveness
from marin_trace.runtime.attempt import draft_claim
from marin_trace.runtime.liveness import OWNERS_VARIABLE, owner_is_gone, process_nonce, runtime_directory
from marin_trace.runtime.log_records import ClaimRecord

ROOT = Path(__file__).parents[2]

SAY_NONCE = "from marin_trace.runtime.liveness import process_nonce; print(process_nonce(), flush=True)"


def claim_of(process: str) -> ClaimRecord:
    return ClaimRecord(1, "attempt", "host", 1, process, 120.0, "2026-01-01T00:00:00")


def nonce_of(code: str, **options: object) -> "tuple[str, subprocess.Popen[str]]":
    process = subprocess.Popen(
        [sys.executable, "-c", f"{SAY_NONCE}; {code}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    return process.stdout.readline().strip(), process


def test_a_living_process_is_not_gone_and_a_killed_one_is() -> None:
    nonce, process = nonce_of("input()")
    assert not owner_is_gone(claim_of(nonce))
    process.kill()
    process.communicate()
    assert owner_is_gone(claim_of(nonce))


def test_an_orphan_of_a_dead_owner_keeps_it_from_being_gone() -> None:
    orphan = (
        "import subprocess as s; p = s.Popen(['cat'], stdin=s.PIPE, stdout=s.DEVNULL)\n"
        "print(p.pid, flush=True); input()"
    )
    nonce, process = nonce_of(orphan)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    held_open = os.open(f"/proc/{pid}/fd/0", os.O_WRONLY)
    death = os.pidfd_open(pid)
    process.kill()
    process.communicate()
    assert not owner_is_gone(claim_of(nonce))
    os.close(held_open)
    select.select([death], [], [], 30)
    os.close(death)
    assert owner_is_gone(claim_of(nonce))


def test_a_process_that_ended_its_claims_leaves_no_file() -> None:
    nonce, process = nonce_of("input()")
    assert (runtime_directory() / nonce).exists()
    process.communicate("\n")
    assert not (runtime_directory() / nonce).exists()


def test_a_process_that_left_a_claim_open_leaves_its_file() -> None:
    nonce, process = nonce_of("from marin_trace.runtime import liveness; liveness.leave_claim_open(); input()")
    process.communicate("\n")
    assert owner_is_gone(claim_of(nonce))


def test_what_lived_before_the_last_boot_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nonce, process = nonce_of("input()")
    process.kill()
    process.communicate()
    monkeypatch.setattr(liveness, "_somebody_carries", lambda nonce, since: True)
    assert not owner_is_gone(claim_of(nonce))
    monkeypatch.setattr(liveness, "_boot_id", lambda: "another boot")
    assert owner_is_gone(claim_of(nonce))


def test_what_lives_in_another_pid_namespace_is_not_known_to_be_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    nonce, process = nonce_of("input()")
    process.kill()
    process.communicate()
    monkeypatch.setattr(liveness, "_pid_namespace", lambda: "pid:[another]")
    assert not owner_is_gone(claim_of(nonce))


def test_a_process_of_another_machine_is_not_known_to_be_gone() -> None:
    assert not owner_is_gone(claim_of("never-seen-here"))


def test_an_attempt_of_this_process_is_gone_when_it_has_ended() -> None:
    claim = draft_claim(lease_s=1)
    with liveness.living_attempt(claim.nonce):
        assert not owner_is_gone(claim)
    assert owner_is_gone(claim)


def test_children_inherit_the_nonce() -> None:
    nonce = process_nonce()
    code = f"import os; print(os.environ[{OWNERS_VARIABLE!r}])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert nonce in shown.stdout.strip().split(":")


def test_a_forked_child_is_another_process() -> None:
    code = (
        "import os; from marin_trace.runtime.liveness import process_nonce; first = process_nonce()\n"
        "if os.fork() == 0:\n    os._exit(process_nonce() == first)\n"
        "print(os.waitstatus_to_exitcode(os.wait()[1]))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert shown.stdout.strip() == "0"


def test_a_runtime_directory_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "missing"))
    monkeypatch.setattr(liveness.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(liveness.os, "access", lambda path, mode: False)
    directory = tmp_path / f"marin_trace-{os.getuid()}"
    assert runtime_directory() == directory
    directory.chmod(0o777)
    with pytest.raises(StorageError, match="is not a private directory"):
        runtime_directory()
