"""``marin-trace adopt``: what a person does who migrated an experiment, and each mistake on the way."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from marin_trace.cli.main import main
from marin_trace.runtime.status import read_status
from tests.scripts import run_script, tree_of, write_script

LIBRARY = """
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class WordsConfig:
    output_path: str
    words: list
    workers: int = 1


@dataclass(frozen=True)
class CountConfig:
    source: str
    output_path: str


def write_words(config):
    Path(config.output_path).mkdir(parents=True, exist_ok=True)
    Path(config.output_path, "words.txt").write_text(" ".join(config.words))


def count_words(config):
    Path(config.output_path).mkdir(parents=True, exist_ok=True)
    number = len(Path(config.source, "words.txt").read_text().split())
    Path(config.output_path, "count.txt").write_text(str(number))
    return number
"""

OLD = """
from library import CountConfig, WordsConfig, count_words, write_words
from marin_trace.legacy import ExecutorStep, executor_main, this_output_path, versioned

words = ExecutorStep(
    name="raw/words",
    fn=write_words,
    config=WordsConfig(output_path=this_output_path(), words=versioned(["a", "b"]), workers=4),
)
counts = [
    ExecutorStep(name=f"count/{number}", fn=count_words, config=CountConfig(words, this_output_path()))
    for number in range(3)
]

if __name__ == "__main__":
    executor_main(steps=counts)
"""

NEW = """
from library import CountConfig, WordsConfig
from library import count_words as _count_words
from library import write_words as _write_words

from marin_trace import StepRef, deferred, executor_main, output, step, unversioned

count_words = deferred(_count_words)
write_words = deferred(_write_words)


@step(name="raw/words")
def words() -> StepRef:
    return write_words(WordsConfig(output_path=output(), words=["a", "b"], workers=unversioned(4)))


@step(name="count/{number}")
def counts(number: int, source: StepRef) -> StepRef:
    return count_words(CountConfig(source, output()))


@step(name="all")
def run_all():
    source = words()
    for number in range(3):
        counts(number, source)


if __name__ == "__main__":
    executor_main(steps=[run_all()])
"""


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """A directory with a library, an experiment in its old form, and its migrated form."""
    for name, text in (("library", LIBRARY), ("old", OLD), ("new", NEW)):
        write_script(tmp_path, text, f"{name}.py")
    return tmp_path


@pytest.fixture
def adopt(experiment: Path, prefix: str, capsys: pytest.CaptureFixture[str]) -> Any:
    def command(*argv: str) -> tuple[int, list[dict[str, Any]]]:
        capsys.readouterr()
        code = main(["adopt", "--json", *(str(experiment / part) if part.endswith(".py") else part for part in argv)])
        shown = capsys.readouterr()
        return code, json.loads(shown.out) if shown.out else [{"error": shown.err}]

    return command


def run_old(experiment: Path, prefix: str, *flags: str) -> None:
    done = run_script(experiment / "old.py", *flags, prefix=prefix)
    assert done.returncode == 0, done.stderr


def age_as_left_by_the_older_executor(prefix: str) -> None:
    """Replaces what this package wrote beside outputs by what the older executor wrote, 41 days ago."""
    for token in Path(prefix).rglob(".executor_status"):
        for file in (token.parent / ".executor").iterdir():
            file.unlink()
        (token.parent / ".executor").rmdir()
        info = json.loads((token.parent / ".executor_info").read_text())
        kept = {"name": info["name"], "fn_name": "write", "version": info["version"], "config": info["config"]}
        (token.parent / ".executor_info").write_text(json.dumps(kept))
        (token.parent / ".artifact.json").unlink()
        then = time.time() - 41 * 86_400
        os.utime(token, (then, then))


def dry_run(experiment: Path, prefix: str) -> str:
    done = run_script(experiment / "new.py", "--dry_run", prefix=prefix)
    assert done.returncode == 0, done.stderr
    return done.stdout


def results(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {row["step"]: row["result"] for row in rows}


ALL = ["raw/words", "count/0", "count/1", "count/2"]


@pytest.mark.parametrize("was_old", [False, True], ids=["run by us", "run by the older executor"])
def test_an_experiment_that_was_run_in_its_old_form_is_adopted_and_all_steps_are_hits(
    experiment: Path, prefix: str, adopt: Any, was_old: bool
) -> None:
    run_old(experiment, prefix)
    if was_old:
        age_as_left_by_the_older_executor(prefix)
    before = tree_of(prefix)
    code, rows = adopt("--from-legacy", "new.py")
    assert (code, results(rows)) == (0, dict.fromkeys(ALL, "would adopt"))
    assert [row["size"] for row in rows[1:]] == [1 if was_old else len("2null")] * 3
    assert tree_of(prefix) == before
    code, rows = adopt("--from-legacy", "new.py", "--yes")
    assert (code, results(rows)) == (0, dict.fromkeys(ALL, "adopted"))
    plan = dry_run(experiment, prefix)
    assert "4 steps: 4 finished" in plan
    assert plan.count("adopted from") == 4
    after = tree_of(prefix)
    moved = {path for path, state in before.items() if "/." not in path and Path(prefix, path).is_file()}
    assert all(after[path] == before[path] for path in moved)
    assert main(["verify", prefix]) == 0
    assert main(["gc", prefix, "--delete"]) == 0
    assert "4 steps: 4 finished" in dry_run(experiment, prefix)


def test_a_dry_run_of_a_migrated_experiment_tells_what_could_be_adopted(experiment: Path, prefix: str) -> None:
    run_old(experiment, prefix)
    age_as_left_by_the_older_executor(prefix)
    plan = dry_run(experiment, prefix)
    assert "; an output of this name exists: " in plan
    assert "3 B, 41 days old: adopt it?" in plan


def test_who_reads_an_adopted_step_reads_what_was_adopted(experiment: Path, prefix: str, adopt: Any) -> None:
    run_old(experiment, prefix)
    [left] = Path(prefix, "raw").iterdir()
    (left / "words.txt").write_text("one two three four")
    assert adopt("raw/words", str(left), "--experiment", "new.py")[0] == 0
    done = run_script(experiment / "new.py", prefix=prefix)
    assert done.returncode == 0, done.stderr
    [built] = [path for path in Path(prefix, "count").glob("0-*") if len(path.name) == len("0-12345678")]
    assert (built / "count.txt").read_text() == "4"
    end = json.loads((built / ".executor" / "000001.end").read_text())
    assert str(left) in end["inputs"]


def test_a_step_is_named_by_its_name_its_name_with_hash_or_its_path(experiment: Path, prefix: str, adopt: Any) -> None:
    run_old(experiment, prefix)
    [left] = Path(prefix, "raw").iterdir()
    code, [row] = adopt("raw/words", f"raw/{left.name}", "--experiment", "new.py", "--prefix", prefix)
    assert (code, row["result"], row["output"]) == (0, "adopted", str(left))
    [own] = [path for path in Path(prefix, "raw").iterdir() if path != left]
    for name in (f"raw/{own.name}", str(own)):
        assert adopt(name, str(left), "--experiment", "new.py")[1][0]["result"] == "stands"
    assert adopt(str(own), str(left))[1][0]["result"] == "stands"


def run_with_other_words(experiment: Path, prefix: str) -> None:
    changed = OLD.replace('versioned(["a", "b"])', 'versioned(["a", "b", "c"])')
    done = run_script(write_script(experiment, changed, "changed.py"), prefix=prefix)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("was_old", [False, True])
def test_of_several_outputs_of_a_name_the_one_that_fits_is_adopted(
    experiment: Path, prefix: str, adopt: Any, was_old: bool
) -> None:
    run_old(experiment, prefix)
    run_with_other_words(experiment, prefix)
    if was_old:
        age_as_left_by_the_older_executor(prefix)
    assert "2 outputs of this name exist, the newest" in dry_run(experiment, prefix)
    code, rows = adopt("--from-legacy", "new.py", "--yes")
    assert (code, results(rows)) == (0, dict.fromkeys(ALL, "adopted"))
    outputs = {row["step"]: row["output"] for row in rows}
    assert Path(outputs["raw/words"], "words.txt").read_text() == "a b"
    assert Path(outputs["count/1"], "count.txt").read_text() == "2"


def test_several_outputs_of_a_name_that_tell_nothing_are_left_to_choose_from(
    experiment: Path, prefix: str, adopt: Any
) -> None:
    run_old(experiment, prefix)
    run_with_other_words(experiment, prefix)
    for info in Path(prefix).rglob(".executor_info"):
        info.unlink()
    code, rows = adopt("--from-legacy", "new.py", "--yes")
    assert (code, {row["result"] for row in rows}, len(rows)) == (1, {"ambiguous"}, 8)
    assert rows[0]["detail"] == f"marin-trace adopt raw/words {rows[0]['output']} --experiment FILE.py"
    code, rows = adopt("--from-legacy", "new.py", "--old", str(experiment / "old.py"), "--yes")
    assert (code, results(rows)) == (0, dict.fromkeys(ALL, "adopted"))
    outputs = {row["step"]: row["output"] for row in rows}
    assert Path(outputs["raw/words"], "words.txt").read_text() == "a b"


@pytest.mark.parametrize("was_old", [False, True])
def test_what_was_built_with_other_values_or_from_other_inputs_is_told_and_left(
    experiment: Path, prefix: str, adopt: Any, was_old: bool
) -> None:
    run_old(experiment, prefix)
    if was_old:
        age_as_left_by_the_older_executor(prefix)
    write_script(experiment, NEW.replace('["a", "b"]', '["a", "z", "c"]'), "new.py")
    before = tree_of(prefix)
    code, rows = adopt("--from-legacy", "new.py", "--yes")
    assert (code, results(rows)) == (1, dict.fromkeys(ALL, "differs"))
    assert rows[0]["detail"] == "words[1]: 'b' → 'z'; words[2]: added 'c'"
    assert rows[1]["detail"] == "raw/words: words[1]: 'b' → 'z'; raw/words: words[2]: added 'c'"
    assert tree_of(prefix) == before
    code, [row] = adopt("raw/words", rows[0]["output"], "--experiment", "new.py")
    assert (code, row["result"], row["detail"]) == (0, "adopted", rows[0]["detail"])


def test_what_is_not_finished_and_what_was_never_built_is_told(experiment: Path, prefix: str, adopt: Any) -> None:
    run_old(experiment, prefix, "--run_only", "count/[01]")
    age_as_left_by_the_older_executor(prefix)
    [unfinished] = Path(prefix, "count").glob("1-*")
    (unfinished / ".executor_status").write_text("FAILED")
    code, rows = adopt("--from-legacy", "new.py", "--old", str(experiment / "old.py"), "--yes")
    assert code == 1
    assert results(rows) == {"raw/words": "adopted", "count/0": "adopted", "count/1": "none", "count/2": "none"}
    assert rows[2]["detail"] == f"{unfinished} is not finished"


def test_an_input_without_an_output_is_not_missed_where_nothing_reads_it(
    experiment: Path, prefix: str, adopt: Any
) -> None:
    run_old(experiment, prefix)
    [left] = Path(prefix, "raw").iterdir()
    left.rename(left.parent / "renamed")
    code, rows = adopt("--from-legacy", "new.py")
    assert (code, results(rows)) == (0, dict.fromkeys(ALL, "would adopt") | {"raw/words": "not needed"})
    [evaluated] = Path(prefix, "count").glob("2-*")
    evaluated.rename(evaluated.parent / "renamed")
    code, rows = adopt("--from-legacy", "new.py", "--yes")
    assert (code, results(rows)) == (1, dict.fromkeys(ALL, "adopted") | {"raw/words": "none", "count/2": "none"})
    assert "4 steps: 2 finished, 2 would run" in dry_run(experiment, prefix)


def test_an_output_of_another_recipe_at_the_steps_own_path_is_adopted_in_place(
    experiment: Path, prefix: str, adopt: Any
) -> None:
    run_old(experiment, prefix)
    [left] = Path(prefix, "raw").iterdir()
    kept = NEW.replace('@step(name="raw/words")', f'@step(name="raw/words", override_output_path="raw/{left.name}")')
    write_script(experiment, kept, "new.py")
    code, rows = adopt("--from-legacy", "new.py", "--yes")
    assert (code, results(rows)) == (0, dict.fromkeys(ALL, "adopted"))
    assert rows[0]["output"] == str(left)
    assert results(adopt("--from-legacy", "new.py")[1]) == dict.fromkeys(ALL, "hit")
    assert "4 steps: 4 finished" in dry_run(experiment, prefix)


def test_many_adopted_outputs_are_one_row_of_a_plan(experiment: Path, prefix: str, adopt: Any) -> None:
    for name, text in (("old", OLD), ("new", NEW)):
        write_script(experiment, text.replace("range(3)", "range(8)"), f"{name}.py")
    run_old(experiment, prefix)
    lines = [line for line in dry_run(experiment, prefix).splitlines() if "count/{number} x 8" in line]
    assert "outputs of these names exist: adopt them?" in lines[0]
    assert adopt("--from-legacy", "new.py", "--yes")[0] == 0
    [line] = [line for line in dry_run(experiment, prefix).splitlines() if "count/" in line and "hit" in line]
    assert line.split("hit")[1].split() == ["count/{number}", "x", "8", "adopted"]


def test_an_override_path_keeps_an_old_output(experiment: Path, prefix: str, adopt: Any) -> None:
    run_old(experiment, prefix)
    [left] = Path(prefix, "raw").iterdir()
    kept = NEW.replace('@step(name="raw/words")', f'@step(name="raw/words", override_output_path="raw/{left.name}")')
    write_script(experiment, kept, "new.py")
    done = run_script(experiment / "new.py", "--dry_run", prefix=prefix)
    assert done.returncode == 1
    assert f"marin-trace adopt raw/words {left} --experiment FILE.py" in done.stderr
    assert adopt("raw/words", str(left), "--experiment", "new.py")[1][0]["result"] == "adopted"
    assert "hit  raw/words  " in dry_run(experiment, prefix)
    assert (left / "words.txt").read_text() == "a b"


def test_an_override_path_accepts_what_the_older_executor_left(experiment: Path, prefix: str) -> None:
    run_old(experiment, prefix)
    age_as_left_by_the_older_executor(prefix)
    [left] = Path(prefix, "raw").iterdir()
    kept = NEW.replace('@step(name="raw/words")', f'@step(name="raw/words", override_output_path="raw/{left.name}")')
    done = run_script(write_script(experiment, kept, "new.py"), prefix=prefix)
    assert done.returncode == 0, done.stderr
    assert "1 finished outputs have no recorded fingerprint and are taken as they are" in done.stderr
    assert read_status(str(left)).epoch == 0


def test_an_adopted_output_that_is_gone_is_missed_only_where_it_is_read(
    experiment: Path, prefix: str, adopt: Any
) -> None:
    run_old(experiment, prefix)
    assert adopt("--from-legacy", "new.py", "--yes")[0] == 0
    [left] = [path for path in Path(prefix, "raw").iterdir() if len(path.name) == len("words-123456")]
    left.rename(left.parent / "elsewhere")
    assert "4 steps: 4 finished" in dry_run(experiment, prefix)
    done = run_script(experiment / "new.py", "--force", "count/0", prefix=prefix)
    assert done.returncode == 1
    assert f"the output that raw/words adopted is not finished any more: {left}" in done.stderr
    done = run_script(experiment / "new.py", "--force", "count/0", "--force", "raw/words", prefix=prefix)
    assert done.returncode == 0, done.stderr


def test_an_adopted_output_that_was_built_again_is_told(experiment: Path, prefix: str, adopt: Any) -> None:
    run_old(experiment, prefix)
    assert adopt("--from-legacy", "new.py", "--yes")[0] == 0
    run_old(experiment, prefix, "--force", "count/2")
    done = run_script(experiment / "new.py", "--dry_run", prefix=prefix)
    [left] = [path for path in Path(prefix, "count").glob("2-*") if len(path.name) == len("2-123456")]
    assert f"the output that count/2 adopted was built again since: {left}" in done.stderr
    assert "count/1 adopted" not in done.stderr


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["raw/wrods", "left", "--experiment", "new.py"], 1, "the experiment has no step 'raw/wrods'"),
        (["all", "left", "--experiment", "new.py"], 1, "a group has no output of its own"),
        (["raw/words", "nowhere", "--experiment", "new.py"], 1, "cannot be adopted: no output lies there"),
        (["raw/words", __file__, "--experiment", "new.py"], 1, "cannot be adopted: no output lies there"),
        (["raw/words", "http://x/y", "--experiment", "new.py"], 2, "http:// cannot hold outputs"),
        (["raw/words", "left"], 1, "has recorded what its recipe is"),
        (["raw/words"], 2, "adopt takes a step and a path"),
        (["raw/words", "left", "--yes"], 2, "--old and --yes go with --from-legacy"),
        (["raw/words", "left", "--experiment"], 2, "no experiment is given"),
        (["raw/words", "left", "--from-legacy", "new.py"], 2, "--from-legacy looks at all steps"),
        (["--from-legacy", "missing.py"], 1, "cannot read the experiment"),
    ],
)
def test_each_mistake_is_named(adopt: Any, prefix: str, argv: list[str], code: int, message: str) -> None:
    before = tree_of(prefix)
    assert adopt(*argv)[0] == code
    _, [row] = adopt(*argv)
    assert message in row["error"]
    assert tree_of(prefix) == before


def test_people_are_shown_sizes_and_ages_and_what_comes_next(
    experiment: Path, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run_old(experiment, prefix)
    age_as_left_by_the_older_executor(prefix)
    assert main(["adopt", "--from-legacy", str(experiment / "new.py")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["result", "step", "output", "size", "age", "detail"]
    assert lines[1].split("  ")[:2] == ["would adopt", "raw/words"]
    assert lines[1].endswith("3 B   41 days old")
    assert lines[-1] == "--yes adopts 4 outputs: no data is moved"
