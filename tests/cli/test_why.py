"""Laws of ``marin-trace why``: the recipe with what each part contributes, who built it, and what has changed since."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marin_trace.runtime.log_records import EndRecord
from tests.cli.conftest import Command
from tests.cli.site import EXPERIMENT, Site, golden, made_site
from tests.scripts import run_script, tree_of, write_script

CommandJson = Callable[..., tuple[int, dict[str, Any]]]


def failed_count(site: Site) -> str:
    ends = Path(site.prefix, "count").glob("t0-*/.executor/000001.end")
    return next(path.parts[-3] for path in ends if json.loads(path.read_text())["kind"] == "FAILED")


def roles(value: dict[str, Any]) -> dict[str, str]:
    return {part["path"]: part["role"] for part in value["recipe"]}


def test_a_step_of_an_experiment_in_full(site: Site, told: Command) -> None:
    code, out, _ = told("why", "merged", "--prefix", site.prefix, site.script, "--vocab_size", 5)
    assert (code, site.told(out)) == (0, golden("why_experiment"))


def test_a_build_below_a_prefix_in_full(site: Site, told: Command) -> None:
    code, out, _ = told("why", f"count/{failed_count(site)}", site.prefix)
    assert (code, site.told(out)) == (0, golden("why_prefix"))


def test_the_cause_upstream_is_the_one_that_the_plan_names(site: Site, told_json: CommandJson) -> None:
    argv = ("--prefix", site.prefix, site.script, "--vocab_size", 5)
    _, why = told_json("why", "merged", *argv)
    _, plan = told_json("plan", site.script, *argv[:2], *argv[3:])
    steps = {step["name"]: step for step in plan["steps"]}
    planned = steps["merged"]
    assert (why["plan"]["action"], why["plan"]["reason"]) == (planned["action"], planned["reason"])
    assert why["plan"]["cause"] == planned["cause"] == "count/t0"
    assert why["plan"]["changes"] == steps["count/t0"]["changes"]
    assert why["plan"]["changes"] == [{"path": "config.vocab_size", "old": "2048", "new": "5"}]


def test_every_part_says_what_it_contributes(site: Site, told_json: CommandJson) -> None:
    _, value = told_json("why", "count/t0", "--prefix", site.prefix, site.script)
    assert roles(value) == {
        "name": "recipe",
        "function": "recipe",
        "config": "recipe",
        "config.text": "input",
        "config.vocab_size": "recipe",
        "config.sizes": "recipe",
        "config.sizes[0]": "recipe",
        "config.sizes[1]": "recipe",
        "config.names": "recipe",
        "returns": "recipe",
        "config.workers": "unversioned",
    }
    text = next(part for part in value["recipe"] if part["path"] == "config.text")
    assert (text["input"]["state"], text["input"]["is_rebuilt"]) == ("finished", False)


ODD_CONFIG = """
import enum
from dataclasses import dataclass, field
from marin_trace import StepSpec, deferred, executor_main, output, step, unversioned


class Kind(enum.Enum):
    ONE = 1


@dataclass(frozen=True)
class Odd:
    by_number: dict[int, str]
    by_name: dict[str, dict[str, int]]
    by_pair: dict[tuple[int, str], float]
    rows: list[dict[str, list[int]]]
    kinds: tuple[Kind, ...]
    sets: frozenset[tuple[int, int]]
    secret: str
    nothing: None = None
    empty: list[int] = field(default_factory=list)


def first(config, *args, **kwargs): return {"a": 1}
def second(value): ...


@step
def odd():
    config = Odd(
        {1: "a", 2: "b"}, {"a.b": {"c[0]": 1}, "it's": {}}, {(1, "x"): 1.5}, [{"k": [1, 2]}], (Kind.ONE,),
        frozenset({(1, 2)}), "hush"
    )
    value = deferred(first)(config, 1, unversioned(2), flag=True, extra=unversioned({"x": [1, {"y": 2}]}))
    return deferred(second)(value["a"])


by_hand = StepSpec("hand", hash_attrs={"rows": [1, 2], "table": {"k": {"n": 3}}, "text": "t"}, fn=second)
executor_main(steps=[odd(), by_hand])
"""


def test_only_what_is_in_no_fingerprint_is_called_unversioned(tmp_path: Path, told_json: CommandJson) -> None:
    script = write_script(tmp_path, ODD_CONFIG)
    _, value = told_json("why", "odd", script)
    unversioned = {part["path"]: part["value"] for part in value["recipe"] if part["role"] == "unversioned"}
    assert unversioned == {
        "first.args[1]": "2",
        "first.kwargs.extra.x[0]": "1",
        "first.kwargs.extra.x[1].y": "2",
    }
    assert set(roles(told_json("why", "hand", script)[1]).values()) == {"recipe"}


def test_what_is_recorded_says_the_same_as_the_experiment(site: Site, told_json: CommandJson) -> None:
    for name in ("count/t0", "merged", "text/t1"):
        _, of_experiment = told_json("why", name, "--prefix", site.prefix, site.script)
        _, of_prefix = told_json("why", of_experiment["output_path"], site.prefix)
        for key in ("recipe", "fingerprint", "functions", "built", "attempts", "state"):
            assert of_prefix[key] == of_experiment[key], (name, key)


def test_every_earlier_build_is_compared_with_the_step(site: Site, told_json: CommandJson) -> None:
    _, value = told_json("why", "count/t0", "--prefix", site.prefix, site.script, "--vocab_size", 99)
    changes = [build["changes"] for build in value["earlier_builds"]]
    assert changes == [[{"path": "config.vocab_size", "old": old, "new": "99"}] for old in ("2048", "13", "4096")]
    assert [build["state"] for build in value["earlier_builds"]] == ["finished", "failed", "finished"]
    assert all(build["built"]["by"].count("@") == 1 for build in value["earlier_builds"])


def test_a_renamed_step_is_compared_with_what_it_was(site: Site, tmp_path: Path, told_json: CommandJson) -> None:
    text = EXPERIMENT.replace('merged([counted(f"t', 'merged([counted(f"renamed-t')
    script = write_script(tmp_path, text)
    _, value = told_json("why", "count/renamed-t0", "--prefix", site.prefix, script)
    assert {"path": "name", "old": "count/t0", "new": "count/renamed-t0"} in value["earlier_builds"][0]["changes"]


def test_an_input_that_was_built_again_is_told(tmp_path: Path, told: Command) -> None:
    site = made_site(tmp_path)
    done = run_script(site.script, "--force", "text/t0", "--run_only", "text/t0", "--yes", prefix=site.prefix)
    assert done.returncode == 0, done.stderr
    _, out, _ = told("why", "count/t0", "--prefix", site.prefix, site.script)
    assert re.search(r"input, finished, built again since +config\.text = text/t0-\w+/text\n", out)
    assert re.search(r"attempt +outcome +began", told("why", "text/t0", site.prefix)[1])


def test_changed_source_speaks_against_a_hit(site: Site, tmp_path: Path, told_json: CommandJson) -> None:
    script = write_script(tmp_path, EXPERIMENT.replace('print("writing", text)', "pass"))
    _, value = told_json("why", "text/t0", "--prefix", site.prefix, script)
    assert value["plan"]["action"] == "hit"
    assert "the source of experiment:write has changed since" in value["plan"]["reason"]


def test_an_output_of_another_recipe_is_refused_with_the_reason(
    site: Site, tmp_path: Path, told_json: CommandJson
) -> None:
    built = next(Path(site.prefix, "text").glob("t0-*"))
    content = (built / ".executor" / "000001.end").read_bytes()
    end = EndRecord.from_bytes(content, "end")
    copied = tmp_path / built.parent.name / built.name / ".executor"
    copied.mkdir(parents=True)
    (copied / "000001.end").write_text(content.decode().replace(end.record["fingerprint"], "0" * 64))
    _, value = told_json("why", "text/t0", "--prefix", tmp_path, site.script)
    assert value["plan"]["action"] == "refuse"
    assert "was built by another recipe" in value["plan"]["reason"]
    assert told_json("status", "--prefix", tmp_path, site.script)[1]["counts"] == {"waiting": 4, "finished": 1}


def test_an_output_without_records_is_shown_as_far_as_it_is_known(tmp_path: Path, told: Command) -> None:
    (tmp_path / "old-1a2b3c").mkdir()
    (tmp_path / "old-1a2b3c" / ".executor_status").write_text("SUCCESS")
    code, out, _ = told("why", "old-1a2b3c", tmp_path)
    assert (code, out) == (
        0,
        f"old-1a2b3c\n  output  {tmp_path}/old-1a2b3c\n  state   finished: by an older system\n",
    )


def test_an_input_at_a_chosen_path_is_known_by_its_record(tmp_path: Path, prefix: str, told_json: CommandJson) -> None:
    text = EXPERIMENT.replace(
        '@step(name="text/{name}")', '@step(name="text/{name}", override_output_path="at/{name}")'
    )
    script = write_script(tmp_path, text)
    assert run_script(script, prefix=prefix).returncode == 0
    _, of_experiment = told_json("why", "count/t0", script)
    _, of_prefix = told_json("why", "count/t0")
    assert of_prefix["recipe"] == of_experiment["recipe"]
    assert roles(of_prefix)["config.text"] == "input"


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{",
        '{"parts": 3, "config": 3, "deps": {}, "functions": 7, "provenance": 1, "location": []}',
        '{"parts": {"a": 1, "b": null, "c": "x"}, "config": [[1], null, {"a": {}}], "deps": [3, null]}',
        '{"provenance": {"user": 3, "git_commit": 5, "argv": "x", "working_directory": 7}, "fingerprint": 4}',
    ],
)
def test_a_record_of_another_shape_is_shown_as_far_as_it_goes(tmp_path: Path, told: Command, content: str) -> None:
    for name in ("a-0123abcd", "a-0123abce"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".executor_status").write_text("SUCCESS")
        (tmp_path / name / ".executor_info").write_text(content)
    code, out, _ = told("why", "a-0123abcd", tmp_path)
    assert code == 0
    assert "state" in out
    assert "earlier build a-0123abce: finished" in out
    assert told("graph", tmp_path)[0] == 0


def test_secrets_are_not_shown(tmp_path: Path, told: Command) -> None:
    text = EXPERIMENT.replace("workers: int = 2", 'workers: int = 2\n    api_key: str = "hush"')
    script = write_script(tmp_path, text)
    _, out, _ = told("why", "count/t0", script)
    assert "hush" not in out
    assert "[redacted]" in out


def test_nothing_is_written(site: Site, told: Command) -> None:
    before = tree_of(site.prefix)
    told("why", "merged", "--prefix", site.prefix, site.script, "--vocab_size", 5)
    told("why", "text/t0", site.prefix)
    assert tree_of(site.prefix) == before
