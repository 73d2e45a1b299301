"""Why a step would run: the field that changed first, told once, whatever lies below it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.scripts import run_command, run_script, write_script

LIBRARY = """
from dataclasses import dataclass


@dataclass(frozen=True)
class Tokenizer:
    source: str
    vocab_size: int
    workers: int = 1


def collect(name: str) -> str:
    return name


def fit(config: Tokenizer) -> int:
    return config.vocab_size


def learn(data: str, lr: float) -> float:
    return lr
"""

EXPERIMENT = """
import lib
from marin_trace import StepRef, deferred, executor_main, output, step, unversioned

RAW = "docs"
VOCAB = 4096
WORKERS = 1
LR = 0.1

collect = deferred(lib.collect)
fit = deferred(lib.fit)
learn = deferred(lib.learn)


@step(name="raw/{name}")
def raw(name: str) -> StepRef:
    return collect(name)


@step(name="tokenizer")
def tokenizer(source: StepRef) -> StepRef:
    return fit(lib.Tokenizer(source / "text", VOCAB, unversioned(WORKERS)))


@step(name="train/{name}")
def train(name: str, data: StepRef, lr: float) -> StepRef:
    return learn(data / name, lr)


@step(name="all")
def everything():
    tokens = tokenizer(raw(RAW))
    for name in ("a", "b", "c"):
        train(name, tokens, LR)


if __name__ == "__main__":
    executor_main(steps=[everything()])
"""

Planned = dict[str, dict[str, Any]]


class Project:
    """An experiment with its library, that is edited, run and planned."""

    def __init__(self, directory: Path, prefix: str) -> None:
        self.script = write_script(directory, EXPERIMENT)
        self.library = write_script(directory, LIBRARY, "lib.py")
        self.prefix = prefix

    def edit(self, old: str, new: str) -> None:
        """Replaces a text, in the experiment or in its library: it stands in one of them."""
        (file,) = [file for file in (self.script, self.library) if old in file.read_text()]
        file.write_text(file.read_text().replace(old, new))

    def run(self, *flags: str) -> int:
        return run_script(self.script, *flags, prefix=self.prefix).returncode

    def plan(self, *flags: str) -> Planned:
        ended = run_command(
            "plan", self.script.name, "--json", *flags, prefix=self.prefix, directory=self.script.parent
        )
        assert ended.returncode == 0, ended.stderr
        return {step["name"]: step for step in json.loads(ended.stdout)["steps"]}


@pytest.fixture
def project(tmp_path: Path, prefix: str) -> Project:
    return Project(tmp_path, prefix)


@pytest.fixture
def built(project: Project) -> Project:
    assert project.run() == 0
    return project


def actions(plan: Planned) -> dict[str, str]:
    return {name: step["action"] for name, step in plan.items() if step["kind"] == "step"}


def changes(step: dict[str, Any]) -> list[str]:
    return [f"{change['path']}: {change['old']} → {change['new']}" for change in step["changes"]]


def causes(plan: Planned) -> dict[str, str]:
    return {name: step["cause"] for name, step in plan.items() if step["cause"] is not None}


ALL = ["raw/docs", "tokenizer", "train/a", "train/b", "train/c"]
BELOW = {"tokenizer": "tokenizer", "train/a": "tokenizer", "train/b": "tokenizer", "train/c": "tokenizer"}


def test_the_field_that_changed_first_is_told_once(built: Project) -> None:
    built.edit("VOCAB = 4096", "VOCAB = 2048")
    plan = built.plan()
    assert actions(plan)["raw/docs"] == "hit"
    assert causes(plan) == BELOW
    assert changes(plan["tokenizer"]) == ["config.vocab_size: 4096 → 2048"]
    assert [plan[name]["changes"] for name in ("train/a", "train/b", "train/c")] == [[], [], []]
    assert plan["train/a"]["reason"] == "never built; tokenizer changed"


def test_a_change_is_told_after_a_run_that_failed_with_it(built: Project) -> None:
    built.edit("VOCAB = 4096", "VOCAB = 2048")
    built.edit("    return config.vocab_size", "    return 1 // 0")
    assert built.run() == 1
    plan = built.plan()
    assert causes(plan) == BELOW
    assert plan["tokenizer"]["reason"].startswith("failed before: ZeroDivisionError: ")
    assert changes(plan["tokenizer"]) == ["config.vocab_size: 4096 → 2048"]


def test_a_change_whose_step_is_built_by_now_is_the_cause_of_what_is_not(built: Project) -> None:
    built.edit("VOCAB = 4096", "VOCAB = 2048")
    copy = write_script(built.script.parent, built.script.read_text(), "other.py")
    assert run_script(copy, "--run_only", "tokenizer", prefix=built.prefix).returncode == 0
    plan = built.plan()
    assert actions(plan)["tokenizer"] == "hit"
    assert causes(plan) == BELOW
    assert changes(plan["tokenizer"]) == ["config.vocab_size: 4096 → 2048"]


@pytest.mark.parametrize("records", ["kept", "lost"])
def test_without_a_record_of_the_run_builds_of_the_same_name_are_compared(built: Project, records: str) -> None:
    """Also through steps that are finished: the difference of an input is followed to the input's own."""
    built.edit("VOCAB = 4096", "VOCAB = 2048")
    if records == "lost":
        shutil.rmtree(Path(built.prefix, "experiments"))
    copy = write_script(built.script.parent, built.script.read_text(), "other.py")
    assert run_script(copy, "--run_only", "tokenizer", prefix=built.prefix).returncode == 0
    built.script = write_script(built.script.parent, built.script.read_text(), "third.py")
    plan = built.plan()
    assert causes(plan) == BELOW
    assert changes(plan["tokenizer"]) == ["config.vocab_size: 4096 → 2048"]


def test_two_changes_are_both_told(built: Project) -> None:
    built.edit("LR = 0.1", "LR = 0.2")
    built.edit('("a", "b", "c")', '("a", "b")')
    plan = built.plan()
    assert causes(plan) == {"train/a": "train/a", "train/b": "train/b"}
    assert changes(plan["train/a"]) == ["lr: 0.1 → 0.2"]


def test_a_renamed_step_is_compared_with_what_was_there_before(built: Project) -> None:
    built.edit('RAW = "docs"', 'RAW = "documents"')
    plan = built.plan()
    assert causes(plan) == {"raw/documents": "raw/documents"} | dict.fromkeys(BELOW, "raw/documents")
    assert changes(plan["raw/documents"]) == ["@step(name): raw/docs → raw/documents", "name: 'docs' → 'documents'"]


def test_a_step_that_is_new_has_no_cause(built: Project) -> None:
    built.edit('("a", "b", "c")', '("a", "b", "c", "d")')
    plan = built.plan()
    assert causes(plan) == {}
    assert (plan["train/d"]["action"], plan["train/d"]["reason"]) == ("run", "never built")


def test_what_was_deleted_is_told_and_is_no_change(built: Project) -> None:
    shutil.rmtree(built.plan()["train/b"]["output_path"])
    plan = built.plan()
    assert causes(plan) == {}
    assert plan["train/b"]["reason"] == "was built by an earlier run, and is gone"


def test_a_function_that_was_renamed_is_told(built: Project) -> None:
    built.edit("def learn(", "def learn_more(")
    built.edit("lib.learn", "lib.learn_more")
    plan = built.plan()
    assert causes(plan) == {f"train/{name}": f"train/{name}" for name in "abc"}
    assert changes(plan["train/a"]) == ["function: lib:learn → lib:learn_more"]


def test_a_function_that_was_moved_under_its_old_identity_changes_nothing(built: Project) -> None:
    moved = built.library.read_text()
    write_script(built.library.parent, moved, "moved.py")
    built.edit("deferred(lib.learn)", 'deferred(moved.learn, identity="lib:learn")')
    built.edit("import lib\n", "import lib\nimport moved\n")
    plan = built.plan()
    assert {step["reason"] for step in plan.values() if step["kind"] == "step"} == {"finished"}


def test_another_source_is_warned_of_on_a_hit(built: Project) -> None:
    built.edit("    return lr", "    return lr + 0")
    plan = built.plan()
    assert set(actions(plan).values()) == {"hit"}
    assert plan["train/a"]["reason"] == "finished; the source of lib:learn has changed since"
    assert plan["tokenizer"]["reason"] == "finished"


def test_another_unversioned_value_is_warned_of_on_a_hit(built: Project) -> None:
    built.edit("WORKERS = 1", "WORKERS = 8")
    plan = built.plan()
    assert plan["tokenizer"]["reason"] == "finished; unversioned values have changed since: config.workers: 1 → 8"
    assert plan["train/a"]["reason"] == "finished"


def test_a_field_that_is_left_out_at_its_default_changes_nothing(built: Project) -> None:
    built.edit("    workers: int = 1", "    workers: int = 1\n    lowercase: bool = False")
    built.edit("deferred(lib.fit)", 'deferred(lib.fit, omit_when={"config.lowercase": False})')
    plan = built.plan()
    assert {step["reason"] for step in plan.values() if step["kind"] == "step"} == {"finished"}
    built.edit('deferred(lib.fit, omit_when={"config.lowercase": False})', "deferred(lib.fit)")
    plan = built.plan()
    assert causes(plan) == BELOW
    assert changes(plan["tokenizer"]) == ["config.lowercase: None → False"]


def test_under_another_prefix_everything_is_missing_and_nothing_has_changed(built: Project, tmp_path: Path) -> None:
    before = built.plan()
    built.prefix = str(tmp_path / "elsewhere")
    after = built.plan()
    assert {name: step["reason"] for name, step in after.items() if step["kind"] == "step"} == dict.fromkeys(
        ALL, "never built"
    )
    assert causes(after) == {}
    assert [Path(after[name]["output_path"]).name for name in ALL] == [
        Path(before[name]["output_path"]).name for name in ALL
    ]


def test_a_damaged_record_is_told_and_hides_no_plan(built: Project) -> None:
    built.edit("VOCAB = 4096", "VOCAB = 2048")
    for record in Path(built.prefix, "experiments").iterdir():
        record.write_text("{")
    assert causes(built.plan()) == BELOW
    for info in Path(built.prefix).rglob(".executor_info"):
        info.write_text("[]")
    assert built.plan()["tokenizer"]["changes"] == []
