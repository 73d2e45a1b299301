"""Laws of ``marin-trace history``: past runs, one run, two runs; and records that nobody can read."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Command
from tests.cli.site import Site, golden
from tests.scripts import tree_of

CommandJson = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def runs(site: Site) -> list[str]:
    """The ids of the runs, oldest first."""
    return sorted(path.name.partition(".")[0] for path in Path(site.prefix, "experiments").iterdir())


def record(directory: Path, run_id: str, **facts: Any) -> None:
    directory.mkdir(exist_ok=True)
    (directory / f"{run_id}.json").write_text(json.dumps({"run_id": run_id, "steps": [], **facts}))


def test_runs_are_listed_newest_first(site: Site, told: Command, runs: list[str]) -> None:
    code, out, _ = told("history", site.prefix)
    assert (code, site.told(out)) == (0, golden("history"))
    assert re.findall(r"^\d{8}-\d{6}-\w{9}", out, re.MULTILINE) == runs[::-1]


def test_one_run_in_full(site: Site, told: Command, runs: list[str]) -> None:
    code, out, _ = told("history", runs[1], site.prefix)
    assert (code, site.told(out)) == (0, golden("history_run"))


def test_two_runs_are_compared_by_steps_fields_and_times(site: Site, told: Command, runs: list[str]) -> None:
    code, out, _ = told("history", runs[0], runs[2], site.prefix)
    assert (code, site.told(out)) == (0, golden("history_two"))


def test_a_run_may_be_named_by_a_part_of_its_id(site: Site, told: Command, runs: list[str]) -> None:
    for word in (runs[2][-6:], runs[2][:-1]):
        assert told("history", word, "--prefix", site.prefix)[1].startswith(f"run {runs[2]}\n")
    code, _, err = told("history", runs[2][:4], "--prefix", site.prefix)
    assert code == 1
    assert f"RunError: {runs[2][:4]} is the begin or end of 3 runs' ids\n  {runs[2]}" in err


def test_an_experiment_sees_its_own_runs(site: Site, told_json: CommandJson, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text(site.script.read_text())
    assert len(told_json("history", "--prefix", site.prefix, site.script)[1]["runs"]) == 3
    assert told_json("history", "--prefix", site.prefix, other)[1]["runs"] == []


def test_what_changed_between_runs_is_told_once_and_followed_downstream(
    site: Site, told_json: CommandJson, runs: list[str]
) -> None:
    _, value = told_json("history", runs[0], runs[2], site.prefix)
    steps = {step["name"]: step for step in value["steps"]}
    assert steps["count/t0"]["changes"] == [{"path": "config.vocab_size", "old": "4096", "new": "2048"}]
    assert (steps["merged"]["changes"], steps["merged"]["through"]) == ([], ["count/t0", "count/t1"])
    assert (steps["text/t0"]["recipe"], steps["text/t0"]["new"]["outcome"]) == ("same", "hit")
    assert steps["count/t0"]["old"]["seconds"] > 0


def test_steps_that_came_and_went_are_told(tmp_path: Path, told_json: CommandJson) -> None:
    directory = tmp_path / "experiments"

    def step(name: str, seconds: float = 1.0) -> dict[str, Any]:
        path = f"{tmp_path}/{name}-0123abcd"
        return {
            "name": name,
            "output_path": path,
            "fingerprint": "0123abcd",
            "outcome": "succeeded",
            "seconds": seconds,
        }

    old = {"git_commit": "a" * 40, "packages": {"jax": "1", "gone": "2"}}
    new = {"git_commit": "b" * 40, "packages": {"jax": "2"}}
    record(directory, "20260101-000000-aaaaaa", steps=[step("kept"), step("gone")], provenance=old)
    record(directory, "20260102-000000-bbbbbb", steps=[step("kept", 2.0), step("new")], provenance=new)
    _, value = told_json("history", "aaaaaa", "bbbbbb", "--prefix", tmp_path)
    assert [(pair["name"], pair["recipe"]) for pair in value["steps"]] == [
        ("kept", "same"),
        ("new", "added"),
        ("gone", "removed"),
    ]
    assert [pair["old"]["seconds"] for pair in value["steps"] if pair["old"]] == [1.0, 1.0]
    assert {change["path"]: (change["old"], change["new"]) for change in value["changes"]} == {
        "commit": ("a" * 40, "b" * 40),
        "packages.jax": ("1", "2"),
        "packages.gone": ("2", None),
    }


UNREADABLE = [
    "{",
    "[]",
    "null",
    '{"steps": 3}',
    '{"steps": [null, 3, {}], "provenance": [], "seconds": "x", "started_at": 7, "forced": 3, "outcome": {}}',
    '{"steps": [{"name": 3, "output_path": [], "error": "x", "epoch": {}, "seconds": null, "cause": 4}]}',
]


@pytest.mark.parametrize("content", UNREADABLE)
def test_records_that_cannot_be_read_are_told_and_never_fatal(
    tmp_path: Path, told: Command, told_json: CommandJson, content: str
) -> None:
    record(tmp_path / "experiments", "20260101-000000-aaaaaa", outcome="succeeded")
    (tmp_path / "experiments" / "20260102-000000-bbbbbb.json").write_text(content)
    (tmp_path / "experiments" / "notes.txt").write_text("no record")
    code, out, _ = told("history", tmp_path)
    assert code == 0
    assert [line.split()[0][-6:] for line in out.splitlines()[1:]] == ["bbbbbb", "aaaaaa"]
    assert len(told_json("history", tmp_path)[1]["runs"]) == 2
    told("status", tmp_path)
    for argv in (["bbbbbb"], ["aaaaaa", "bbbbbb"], ["bbbbbb", "aaaaaa"]):
        assert told("history", *argv, "--prefix", tmp_path)[0] in (0, 1)


def test_an_unreadable_run_is_refused_by_its_path(tmp_path: Path, told: Command) -> None:
    record(tmp_path / "experiments", "20260101-000000-aaaaaa")
    path = tmp_path / "experiments" / "20260102-000000-bbbbbb.json"
    path.write_text("{")
    code, out, err = told("history", "bbbbbb", "--prefix", tmp_path)
    assert (code, out) == (1, "")
    assert f"RunError: the record {path} cannot be read" in err


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        ([], 1, "RunError: no run left a record in "),
        (["zzzzzz"], 1, "RunError: no run zzzzzz left a record in "),
        (["a", "b", "c"], 2, "FlagError: history compares two runs, and 3 were given"),
        (["-n", "0"], 2, "FlagError: --limit does not fit: 0 is less than 1"),
    ],
)
def test_mistakes_are_told(told: Command, argv: list[str], code: int, message: str) -> None:
    ended, out, err = told("history", *argv)
    assert (ended, out) == (code, "")
    assert message in err


def test_nothing_is_written(site: Site, told: Command, runs: list[str]) -> None:
    before = tree_of(site.prefix)
    told("history", site.prefix)
    told("history", runs[0], runs[1], site.prefix)
    assert tree_of(site.prefix) == before
