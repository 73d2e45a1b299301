"""Laws of ``marin-trace status``: how steps stand, of an experiment and of a prefix, and what is never read for it."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marin_trace.runtime.log_records import AttemptLog, ClaimRecord, EndKind, EndRecord, JobIdentity
from marin_trace.storage.control_store import control_store_for
from tests.cli.conftest import Command
from tests.cli.site import Site, golden
from tests.scripts import environment, tree_of
from tests.storage.clouds import gcs_cloud

CommandJson = Callable[..., tuple[int, dict[str, Any]]]


def states_of(value: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["state"] for step in value["steps"]}


def test_a_prefix_in_a_pipe_is_plain_columns(site: Site, told: Command) -> None:
    code, out, _ = told("status", site.prefix)
    assert (code, site.told(out)) == (1, golden("status_prefix"))


def test_an_experiment_shows_its_own_steps_only(site: Site, told: Command) -> None:
    code, out, _ = told("status", "--prefix", site.prefix, site.script, "--vocab_size", 13)
    assert (code, site.told(out)) == (1, golden("status_experiment"))


def test_what_was_never_run_waits_for_what_it_needs(site: Site, told_json: CommandJson) -> None:
    code, value = told_json("status", "--prefix", site.prefix, site.script, "--vocab_size", 5)
    assert code == 0
    assert value["counts"] == {"waiting": 3, "finished": 2}
    by_name = {step["name"]: step for step in value["steps"]}
    assert by_name["merged"]["waits_for"] == [by_name[name]["output_path"] for name in ("count/t0", "count/t1")]
    assert by_name["count/t0"]["waits_for"] == []


def test_what_is_upstream_of_finished_steps_is_not_needed(site: Site, tmp_path: Path, told_json: CommandJson) -> None:
    for path in Path(site.prefix).glob("merged-*"):
        copy = tmp_path / path.name
        copy.mkdir()
        (copy / ".executor").symlink_to(path / ".executor")
    _, value = told_json("status", "--prefix", tmp_path, site.script)
    assert states_of(value) == {
        "text/t0": "unneeded",
        "text/t1": "unneeded",
        "count/t0": "unneeded",
        "count/t1": "unneeded",
        "merged": "finished",
    }


def test_a_running_step_has_its_owner_and_age(tmp_path: Path, told_json: CommandJson, told: Command) -> None:
    log = AttemptLog(f"{tmp_path}/train/big-0123abcd")
    job = JobIdentity("big-7", "ray", "d")
    claim = ClaimRecord(1, "n", "far-away", 77, "p", 120.0, "2026-01-31T12:00:00+00:00", job=job)
    control_store_for(log.output_path).put(log.claim(1), claim.to_bytes())
    code, value = told_json("status", tmp_path)
    (step,) = value["steps"]
    assert (code, step["name"], step["state"]) == (0, "train/big", "running")
    assert step["owner"] == {"host": "far-away", "pid": 77, "job": "big-7"}
    assert step["age_seconds"] > 0
    assert re.search(r"running  train/big-0123abcd  \d.*  far-away pid 77 job big-7\n", told("status", tmp_path)[1])


@pytest.mark.parametrize(
    ("kind", "state"), [(EndKind.RELEASED, "stopped"), (EndKind.FENCED, "stopped"), (EndKind.SUCCESS, "finished")]
)
def test_every_end_has_a_state(tmp_path: Path, told_json: CommandJson, kind: EndKind, state: str) -> None:
    log = AttemptLog(f"{tmp_path}/a-0123abcd")
    control_store_for(log.output_path).put(log.end(1), EndRecord(1, kind, "n", "2026-01-31T12:00:00+00:00").to_bytes())
    assert states_of(told_json("status", tmp_path)[1]) == {"a": state}


def test_an_older_systems_token_counts(tmp_path: Path, told_json: CommandJson) -> None:
    for name, token in (("old-1a2b3c", "SUCCESS"), ("broken-1a2b3c", "FAILED"), ("odd-1a2b3c", "RUNNING")):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".executor_status").write_text(token)
    code, value = told_json("status", tmp_path)
    assert (code, states_of(value)) == (
        1,
        {"broken-1a2b3c": "failed", "odd-1a2b3c": "waiting", "old-1a2b3c": "finished"},
    )


def test_a_damaged_log_is_told_and_hides_nothing(tmp_path: Path, told: Command) -> None:
    (tmp_path / "bad-0123abcd" / ".executor").mkdir(parents=True)
    (tmp_path / "bad-0123abcd" / ".executor" / "000001.end").write_text("{")
    (tmp_path / "good-0123abcd").mkdir()
    (tmp_path / "good-0123abcd" / ".executor_status").write_text("SUCCESS")
    code, out, _ = told("status", tmp_path)
    assert code == 1
    assert re.search(r"unreadable  bad-0123abcd .*000001\.end is truncated or corrupt\n", out)
    assert "2 steps: 1 unreadable, 1 finished\n" in out


def test_a_damaged_log_hides_no_other_step_of_an_experiment(tmp_path: Path, site: Site, told_json: CommandJson) -> None:
    where = ("--prefix", tmp_path, site.script)
    path = Path(told_json("path", "text/t0", *where)[1]["output_path"])
    (path / ".executor").mkdir(parents=True)
    (path / ".executor" / "000001.claim").write_text("no claim")
    code, value = told_json("status", *where)
    assert (code, value["counts"]) == (1, {"unreadable": 1, "waiting": 4})
    why = told_json("why", "text/t0", *where)[1]
    assert (why["state"], why["plan"]["action"]) == ("unreadable", "refuse")
    assert "000001.claim is truncated or corrupt" in why["attempts"][0]["problem"]


def test_only_some_states_can_be_shown(site: Site, told: Command) -> None:
    _, out, _ = told("status", site.prefix, "--state", "failed", "--state", "waiting")
    assert [line.split()[0] for line in out.splitlines()[1:3]] == ["failed", "failed"]
    assert "\nfinished" not in out
    assert out.endswith("\n10 steps: 2 failed, 8 finished\n")


def test_what_an_experiments_newest_run_skipped_is_waiting(tmp_path: Path, told_json: CommandJson) -> None:
    def step(name: str, outcome: str, cause: str | None = None) -> dict[str, Any]:
        return {"name": name, "output_path": f"{tmp_path}/{name}-0123abcd", "outcome": outcome, "cause": cause}

    def record(name: str, *steps: dict[str, Any]) -> None:
        (tmp_path / "experiments" / f"{name}.json").write_text(json.dumps({"steps": steps}))

    (tmp_path / "experiments").mkdir()
    failed = step("tokenize", "failed")
    record("20260101-000000-aaaaaa.one", step("obsolete", "dep_failed"))
    record("20260102-000000-bbbbbb.one", failed, step("train", "dep_failed", failed["output_path"]))
    record("20260103-000000-cccccc.two", step("other", "interrupted"), step("built", "succeeded"))
    _, value = told_json("status", tmp_path)
    assert {step["name"]: step["detail"] for step in value["steps"]} == {
        "train": "for tokenize",
        "other": "since run 20260103-000000-cccccc",
    }


def test_a_long_list_is_folded_on_a_terminal_only(
    tmp_path: Path, told: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(60):
        (tmp_path / f"s{number:02}-1a2b3c").mkdir()
        (tmp_path / f"s{number:02}-1a2b3c" / ".executor_status").write_text("SUCCESS")
    assert len(told("status", tmp_path)[1].splitlines()) == 60 + 3
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert "… and 50 finished: --full shows them" in told("status", tmp_path)[1]
    assert told("status", "--full", tmp_path)[1].count("1a2b3c") == 60


def test_whoever_reads_may_go_away(tmp_path: Path) -> None:
    for number in range(500):
        (tmp_path / f"s{number:03}-1a2b3c").mkdir()
        (tmp_path / f"s{number:03}-1a2b3c" / ".executor_status").write_text("SUCCESS")
    command = [sys.executable, "-m", "marin_trace.cli.main", "status", "--json", str(tmp_path)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment(str(tmp_path)), **pipes) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"{\n"
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (141, b"")


def test_nothing_is_written(site: Site, told: Command) -> None:
    before = tree_of(site.prefix)
    told("status", site.prefix)
    told("status", "--prefix", site.prefix, site.script)
    assert tree_of(site.prefix) == before


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["/no/such/place"], 1, "RunError: there is no output below /no/such/place"),
        (["no_such.py"], 1, "ExperimentError: cannot read the experiment no_such.py"),
        (["ftp://host/x"], 2, "PrefixError: ftp:// cannot hold outputs"),
        (["--prefix", ""], 2, "PrefixError: the prefix is empty"),
    ],
)
def test_mistakes_are_told(told: Command, argv: list[str], code: int, message: str) -> None:
    ended, out, err = told("status", *argv)
    assert (ended, out) == (code, "")
    assert message in err


@pytest.mark.parametrize("argv", [["a", "b"], ["--state", "odd"], ["--bogus"], ["x", "--bogus"]])
def test_words_that_fit_nothing_end_with_the_usage(told: Command, argv: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        told("status", *argv)


def test_on_an_object_store_data_is_never_listed(told_json: CommandJson) -> None:
    outputs = 12
    with gcs_cloud() as cloud:
        prefix = f"{cloud.bucket}/p"
        store = control_store_for(prefix)
        for number in range(outputs):
            log = AttemptLog(f"{prefix}/group/step{number}-0123abcd")
            end = EndRecord(1, EndKind.SUCCESS, "n", "2026-01-31T12:00:00+00:00")
            store.put(log.end(1), end.to_bytes())
            for part in range(3):
                store.put(f"{log.output_path}/data/shard-{part}", b"x")
        cloud.faults.clear()
        _, value = told_json("status", prefix)
        asked = [call.path for call in cloud.faults.calls]
    assert value["counts"] == {"finished": outputs}
    assert not any("shard" in path or "data" in path for path in asked)
    # Two for each output; the directories above are looked at for a log, a token and a lock, and listed; run records.
    assert len(asked) <= 2 * outputs + 2 * 4 + 4
