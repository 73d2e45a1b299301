"""Laws of looking at other processes, through /proc and without it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from marin_trace.runtime import process_tree
from marin_trace.runtime.process_tree import await_death, carriers_of, descendants_of, is_stopped, kill_all

PARENT = (
    "import subprocess, sys; print(subprocess.Popen(['cat'], stdin=subprocess.PIPE).pid, flush=True); sys.stdin.read()"
)


@pytest.fixture(params=["proc", "ps"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Linux, or what a system without /proc and pidfds offers."""
    if request.param == "ps":
        monkeypatch.setattr(process_tree, "_PROCESSES", Path("/no/such/directory"))
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    return request.param


@pytest.fixture
def family() -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """A process and its child."""
    environment = {**os.environ, "FAMILY": "a-nonce-of-this-test"}
    pipe = subprocess.PIPE
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=pipe, stdout=pipe, text=True, env=environment)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    yield parent, child
    parent.kill()
    parent.communicate()
    assert await_death(child, limit_s=10)


def test_descendants_are_found(system: str, family) -> None:
    parent, child = family
    assert descendants_of(parent.pid) == {child}
    assert {parent.pid, child} <= descendants_of(os.getpid())
    assert descendants_of(child) == set()


def test_a_stopped_process_is_seen_to_be(system: str, family) -> None:
    _, child = family
    assert not is_stopped(child)
    os.kill(child, signal.SIGSTOP)
    while not is_stopped(child):
        assert not await_death(child, limit_s=0.0)
    os.kill(child, signal.SIGCONT)


def test_all_are_killed_those_that_were_started_meanwhile_included(system: str, family) -> None:
    parent, child = family
    found = [{child}, {parent.pid}]
    assert kill_all(set(), lambda: found.pop() if found else set(), limit_s=10)
    assert parent.wait() == -signal.SIGKILL
    assert await_death(child, limit_s=0.0)
    assert not is_stopped(child)


def test_what_does_not_die_in_time_is_told(system: str, family, monkeypatch: pytest.MonkeyPatch) -> None:
    parent, _ = family
    monkeypatch.setattr(os, "kill", lambda pid, number: None)
    assert not kill_all({parent.pid}, set, limit_s=0.05)


def test_carriers_of_a_nonce_are_found_but_for_those_that_are_spared(family) -> None:
    parent, child = family
    # An interpreter may start something of its own first, which is gone in a moment.
    while (found := carriers_of("a-nonce-of-this-test")) != {parent.pid, child}:
        assert {parent.pid, child} < found
    assert carriers_of("a-nonce-of-this-test", sparing="FAMILY=") == set()


def test_nobody_can_be_asked_for_its_environment_without_proc(monkeypatch: pytest.MonkeyPatch, family) -> None:
    monkeypatch.setattr(process_tree, "_PROCESSES", Path("/no/such/directory"))
    assert carriers_of("a-nonce-of-this-test") == set()
