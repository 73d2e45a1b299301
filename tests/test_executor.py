"""``executor_main``: from what an experiment's steps returned to a finished run."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from marin_trace import StepRef, StepSpec, deferred, executor_main, output, step, trace
from marin_trace.errors import (
    ConfigTypeError,
    CycleError,
    FingerprintChangedError,
    FingerprintMismatchError,
    FlagError,
    MarinTraceError,
    OutputConflictError,
    PrefixError,
    ResourcesUnavailableError,
    RunFailedError,
)
from marin_trace.io import atomic_write
from marin_trace.runtime.artifact import Artifact
from marin_trace.runtime.report import OutcomeKind
from tests.scripts import tree_of


@dataclass
class Words:
    count: int
    longest: str


@dataclass(frozen=True)
class Refs:
    first: Any
    rest: Any


def write(path: str, text: str) -> Words:
    with atomic_write(f"{path}/text.txt", "w") as stream:
        stream.write(text)
    return Words(len(text.split()), max(text.split(), key=len, default=""))


def file_named(path: str, value: str) -> str:
    os.makedirs(path, exist_ok=True)
    Path(path, "marked-\udcff.txt").write_bytes(b"")
    return value


def count(path: str, words: Words | None = None) -> int:
    number = len(Path(path, "text.txt").read_text().split())
    assert words is None or words.count == number
    return number


def fail(path: str) -> None:
    raise ValueError(f"no {Path(path).name[:4]} today")


class Flaky:
    """What fails until it is mended."""

    broken = True


def flaky(path: str) -> int:
    if Flaky.broken:
        raise OSError("out of order")
    return 7


@step(name="text/{name}")
def text(name: str, content: str = "hello wide world") -> StepRef:
    return deferred(write)(output(), content)


@step(name="count/{name}")
def counted(name: str, source: StepRef) -> StepRef:
    return deferred(count)(source, source.artifact)


@step(name="failing")
def failing() -> StepRef:
    return deferred(fail)(output())


@step(name="flaky")
def sometimes() -> StepRef:
    return deferred(flaky)(output())


@step(name="after/{name}")
def after(name: str, source: StepRef) -> StepRef:
    return deferred(write)(output(), source.artifact.longest)


@step(name="default/{name}")
def default_train(name: str) -> StepRef:
    """A helper of the library, as ``default_train`` is: a group that returns its last step."""
    data = text(name)
    counted(name, data)
    return after(name, data)


@step(name="entry")
def entry() -> None:
    default_train("a")
    counted("b", default_train("b"))
    text("alone")


ENTRY = ["text/a", "count/a", "after/a", "text/b", "count/b", "after/b", "count/b", "text/alone"]


@step(name="pair")
def pair() -> dict[str, StepRef]:
    first = text("x")
    return {"first": first, "second": counted("x", first)}


def run(steps: Any, *argv: str, **options: Any) -> Any:
    return executor_main(steps=steps, argv=argv, **options)


def names(report: Any, kind: OutcomeKind | None = None) -> list[str]:
    return [outcome.name for outcome in report.outcomes if kind in (None, outcome.kind)]


def test_an_entry_step_that_only_calls_leaves_loses_none(prefix: str) -> None:
    assert sorted(names(run([entry()], "--dry_run"), OutcomeKind.WOULD_RUN)) == sorted(ENTRY)
    report = run([entry()])
    assert sorted(names(report, OutcomeKind.SUCCEEDED)) == sorted(ENTRY)
    assert sorted(names(run([entry()]), OutcomeKind.HIT)) == sorted(ENTRY)


def test_an_entry_step_traces_to_the_same_steps() -> None:
    assert sorted(node.name for node in trace(entry).nodes) == sorted(ENTRY)


def test_two_traces_of_one_pipeline_are_one_run() -> None:
    assert sorted(names(run([entry(), entry(), pair(), pair()]), OutcomeKind.SUCCEEDED)) == sorted(
        [*ENTRY, "text/x", "count/x"]
    )


def test_a_group_that_returns_a_dict_of_refs_gives_them_to_the_report() -> None:
    refs = pair()
    report = run(refs)
    assert report.artifact(refs["second"]) == 3
    assert report.artifact(refs["first"]) == Words(3, "hello")
    assert Path(report.output_path(refs["first"] / "text.txt")).read_text() == "hello wide world"


def test_one_ref_of_a_group_still_brings_the_others() -> None:
    assert sorted(names(run(pair()["first"], "--dry_run"))) == ["count/x", "text/x"]


def test_a_helper_called_from_a_step_with_calls_of_its_own_is_brought_in() -> None:
    @step(name="outer")
    def outer() -> StepRef:
        return deferred(write)(output() / "sub", default_train("h").artifact.longest)

    assert sorted(names(run(outer()), OutcomeKind.SUCCEEDED)) == ["after/h", "count/h", "outer", "text/h"]


STEPS = {
    "a ref": lambda: text("a"),
    "a list": lambda: [text("a"), [text("b")]],
    "a tuple": lambda: (text("a"), (text("b"), [])),
    "a dict": lambda: {"k": text("a"), "n": {"m": text("b")}},
    "a dataclass": lambda: Refs(text("a"), [text("b"), {"k": text("c")}]),
    "a group's": lambda: [pair(), text("b")],
    "a spec": lambda: StepSpec("s", fn=lambda path: None),
    "mixed": lambda: [text("a"), {"k": StepSpec("s", fn=lambda path: None)}, (pair(), [])],
}
EXPECTED = {
    "a ref": ["text/a"],
    "a list": ["text/a", "text/b"],
    "a tuple": ["text/a", "text/b"],
    "a dict": ["text/a", "text/b"],
    "a dataclass": ["text/a", "text/b", "text/c"],
    "a group's": ["count/x", "text/b", "text/x"],
    "a spec": ["s"],
    "mixed": ["count/x", "s", "text/a", "text/x"],
}


@pytest.mark.parametrize("kind", STEPS)
def test_steps_are_nested_as_you_like(kind: str) -> None:
    assert sorted(names(run(STEPS[kind]()), OutcomeKind.SUCCEEDED)) == EXPECTED[kind]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, r"(?s)was given None, which is no step.*decorate the function"),
        ("text", r"was given 'text', which is no step"),
        (text, r"(?s)was given <step text>, which is no step.*call it: executor_main\(steps=\[text\(\)\]\)"),
        ([7], r"was given 7, which is no step"),
        ([], r"was given no step"),
        ({}, r"was given no step"),
        (Refs(1, 2), r"was given .*no step"),
    ],
)
def test_what_is_no_step_is_an_error_with_its_line(value: Any, message: str, prefix: str) -> None:
    with pytest.raises(ConfigTypeError, match=rf"{message}") as caught:
        run(value)
    assert re.search(r"test_executor\.py:\d+", str(caught.value))
    assert tree_of(prefix) == {}


def test_a_spec_and_a_step_for_one_path_are_an_error(prefix: str) -> None:
    mine = text.with_options(override_output_path="same")("a")
    with pytest.raises(OutputConflictError, match=r"(?s)two steps would write .*/same.*first.*second"):
        run([mine, StepSpec("s", override_output_path="same", fn=print)])
    assert tree_of(prefix) == {}


def test_a_spec_inside_the_output_of_a_step_is_an_error(prefix: str) -> None:
    mine = text.with_options(override_output_path="models")("a")
    with pytest.raises(OutputConflictError, match=r"output of s would lie inside that of text/a"):
        run([mine, StepSpec("s", override_output_path="models/x", fn=print)])
    assert tree_of(prefix) == {}


def test_specs_that_need_each_other_are_an_error(prefix: str) -> None:
    first = StepSpec("first")
    second = StepSpec("second", deps=[first])
    first.deps.append(second)
    with pytest.raises(CycleError, match=r"(?s)first.*second.*test_executor\.py:\d+"):
        run(second)
    assert tree_of(prefix) == {}


def test_a_dry_run_writes_nothing(prefix: str) -> None:
    run(text("x"))
    before = tree_of(prefix)
    report = run(entry(), "--dry_run")
    assert report.dry_run
    assert report.record_path is None
    assert tree_of(prefix) == before


def test_a_dry_run_makes_no_prefix(tmp_path: Path) -> None:
    run(entry(), "--dry_run", "--prefix", str(tmp_path / "absent"))
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_finds_everything_and_runs_nothing(prefix: str) -> None:
    run(pair())
    made = {path: state for path, state in tree_of(prefix).items() if not path.startswith("experiments")}
    assert names(run(pair()), OutcomeKind.HIT) == ["text/x", "count/x"]
    again = {path: state for path, state in tree_of(prefix).items() if not path.startswith("experiments")}
    assert again == made


def test_the_record_of_a_run_says_what_became_of_each_step(prefix: str) -> None:
    report = run(pair(), description="two steps")
    record = json.loads(Path(report.record_path).read_text())
    assert Path(report.record_path).is_relative_to(f"{prefix}/experiments")
    assert record["description"] == "two steps"
    assert [entry["outcome"] for entry in record["steps"]] == ["succeeded", "succeeded"]
    assert run(pair(), "--description", "wins", description="two").run_id != report.run_id


def test_text_that_no_utf_8_can_hold_is_built_recorded_and_found_again(prefix: str) -> None:
    surrogate = "half of a pair: \ud800"

    @step(name="half")
    def half() -> StepRef:
        return deferred(file_named)(output(), surrogate)

    [first] = run([half()]).outcomes
    assert first.kind is OutcomeKind.SUCCEEDED
    assert names(run([half()]), OutcomeKind.HIT) == ["half"]
    written = [path for path in Path(prefix).rglob("*") if path.is_file() and path.name != "marked-\udcff.txt"]
    texts = [path.read_text(encoding="utf-8") for path in written]  # what others read is UTF-8 nevertheless
    assert sum("\\ud800" in text for text in texts) == 2, "in what is said of the step, and in its value"
    assert Artifact.load(first.output_path) == surrogate


def test_the_description_of_the_command_line_wins() -> None:
    report = run(pair(), "--description", "wins", description="two steps")
    assert json.loads(Path(report.record_path).read_text())["description"] == "wins"


def test_records_go_where_the_command_line_says(tmp_path: Path) -> None:
    report = run(pair(), "--executor_info_base_path", str(tmp_path / "records"))
    assert Path(report.record_path).is_relative_to(tmp_path / "records")


def test_force_builds_what_matches_again_and_no_dependent() -> None:
    run(pair())
    report = run(pair(), "--force", "^text/")
    assert names(report, OutcomeKind.SUCCEEDED) == ["text/x"]
    assert names(report, OutcomeKind.HIT) == ["count/x"]


def test_force_from_builds_what_matches_and_what_reads_it_again() -> None:
    run([pair(), text("other")])
    report = run([pair(), text("other")], "--force_from", "^text/x")
    assert sorted(names(report, OutcomeKind.SUCCEEDED)) == ["count/x", "text/x"]
    assert names(report, OutcomeKind.HIT) == ["text/other"]


def test_force_brings_missing_inputs() -> None:
    run(text("x"))
    assert sorted(names(run(pair(), "--force", "count"), OutcomeKind.SUCCEEDED)) == ["count/x"]


def test_force_of_a_group_is_force_of_its_steps() -> None:
    run([pair(), text("other")])
    report = run([pair(), text("other")], "--force", "^pair$")
    assert sorted(names(report, OutcomeKind.SUCCEEDED)) == ["count/x", "text/x"]


def test_a_forced_step_is_forced_once() -> None:
    run(text("x"))
    run(text("x"), "--force", "x")
    assert names(run(text("x")), OutcomeKind.HIT) == ["text/x"]


def test_run_only_builds_what_matches_and_what_it_needs() -> None:
    report = run(entry(), "--run_only", "^count/a$")
    assert sorted(names(report, OutcomeKind.SUCCEEDED)) == ["count/a", "text/a"]


def test_run_only_takes_groups_and_several_patterns() -> None:
    report = run(entry(), "--run_only", "^default/a$", "--run_only", "alone")
    assert sorted(names(report, OutcomeKind.SUCCEEDED)) == ["after/a", "count/a", "text/a", "text/alone"]


def test_run_only_by_a_bracket_is_a_regex() -> None:
    assert len(names(run(entry(), "--dry_run", "--run_only", "[/]"))) == len(ENTRY)


@pytest.mark.parametrize("flag", ["--run_only", "--force", "--force_from"])
def test_a_pattern_that_matches_nothing_is_an_error_with_near_names(flag: str, prefix: str) -> None:
    with pytest.raises(FlagError, match=rf"(?s){flag} 'cuont/a' matches no step or group.*count/a"):
        run(entry(), flag, "cuont/a")
    with pytest.raises(FlagError, match=rf"{flag} '\(' is no regular expression"):
        run(entry(), flag, "(")
    assert tree_of(prefix) == {}


def test_what_failed_is_tried_again() -> None:
    with pytest.raises(RunFailedError, match="1 of 1 steps failed: flaky"):
        run(sometimes())
    Flaky.broken = False
    try:
        assert run(sometimes()).artifact(sometimes()) == 7
    finally:
        Flaky.broken = True


def test_what_failed_is_not_tried_again_where_forbidden(capsys: Any) -> None:
    with pytest.raises(RunFailedError, match="1 of 1"):
        run(failing())
    with pytest.raises(RunFailedError, match="1 of 1") as caught:
        run(failing(), "--force_run_failed", "false")
    assert type(caught.value.exceptions[0]).__name__ == "PreviousTaskFailedError"
    run(failing(), "--dry_run", "--force_run_failed=false")
    assert "--force_run_failed is false" in capsys.readouterr().out


def test_a_failure_raises_what_the_function_raised_with_notes() -> None:
    with pytest.raises(RunFailedError, match=r"1 of 3 steps failed, 1 skipped because of it: failing") as caught:
        run([after("f", failing()), text("ok")])
    error = caught.value.exceptions[0]
    assert type(error) is ValueError
    assert "in step failing, attempt 1" in error.__notes__[0]
    assert re.search(r"test_executor\.py:\d+", error.__notes__[0])
    kinds = {outcome.name: outcome.kind for outcome in caught.value.report.outcomes}
    assert kinds == {"failing": "failed", "after/f": "dep_failed", "text/ok": "succeeded"}


def test_the_traceback_leads_to_the_function_of_the_user() -> None:
    with pytest.raises(RunFailedError, match="failing") as caught:
        run(failing())
    traceback = caught.value.exceptions[0].__traceback__
    frames = []
    while traceback is not None:
        frames.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert frames[-1] == "fail"


@pytest.mark.parametrize(("prefix_text", "message"), [("ftp://h/x", "ftp://"), ("", "empty"), ("a::b", "chained")])
def test_a_prefix_that_cannot_hold_outputs_is_an_error(prefix_text: str, message: str) -> None:
    with pytest.raises(PrefixError, match=message):
        run(text("a"), f"--prefix={prefix_text}")


def test_a_prefix_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for place in (file, file / "below"):
        with pytest.raises(PrefixError, match=r"is a file|lies below a file"):
            run(text("a"), "--prefix", str(place))


def test_a_cluster_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ResourcesUnavailableError, match="there is no cluster 'moon'"):
        run(text("a"), "--cluster", "moon")


def test_the_prefix_of_the_command_line_wins(tmp_path: Path, prefix: str) -> None:
    report = run(text("a"), "--prefix", str(tmp_path / "mine"))
    assert report.output_path(text("a")).startswith(f"{tmp_path}/mine/text/a-")
    assert tree_of(prefix) == {}


def test_a_memory_prefix_works() -> None:
    def remember(path: str) -> int:
        return 1

    @step(name="remember")
    def remembered() -> StepRef:
        return deferred(remember, identity="m:remember")(output())

    assert run(remembered(), "--prefix", "memory://executor").artifact(remembered()) == 1


def test_an_output_built_by_another_recipe_is_an_error_with_the_difference(prefix: str) -> None:
    placed = text.with_options(override_output_path="final")
    run(placed("a", "one"))
    before = tree_of(f"{prefix}/final")
    with pytest.raises(FingerprintMismatchError, match=r"(?s)text: 'one' → 'two'.*--force"):
        run(placed("a", "two"))
    assert tree_of(f"{prefix}/final") == before
    assert names(run(placed("a", "two"), "--force", "text"), OutcomeKind.SUCCEEDED) == ["text/a"]


def test_a_pinned_step_shows_the_difference_to_the_pinned_output() -> None:
    first = text("a", "one")
    pin = Path(run(first).output_path(first)).name.rpartition("-")[2]
    pinned = text.with_options(expect_fingerprint=pin)
    assert names(run(pinned("a", "one")), OutcomeKind.HIT) == ["text/a"]
    with pytest.raises(
        FingerprintChangedError, match=rf"(?s)pins {pin}.*text: 'one' → 'two'.*expect_fingerprint="
    ) as caught:
        run(pinned("a", "two"))
    assert re.search(r"test_executor\.py:\d+", str(caught.value))
    assert "path:" not in str(caught.value)  # what is as it was is not shown


def test_errors_are_raised_where_arguments_are_given() -> None:
    with pytest.raises(FlagError, match="did you mean --dry_run"):
        run(text("a"), "--dryrun")
    with pytest.raises(MarinTraceError, match="no step"):
        run([])


def test_refs_of_other_steps_resolve_too() -> None:
    report = run(text("a"))
    assert report.output_path(text("a") / "text.txt").endswith("/text.txt")
    assert report.output_path(text("other")).startswith(report.output_path(text("a"))[:5])
    assert report.output_path(StepRef.hardcoded("/x")) == "/x"


def test_max_concurrent_one_runs_in_the_calling_thread() -> None:
    import threading

    seen: list[str] = []
    spec = StepSpec("s", fn=lambda path: seen.append(threading.current_thread().name))
    run(spec, "--max_concurrent", "1")
    assert seen == [threading.current_thread().name]


def test_force_beside_run_only_takes_groups_and_only_what_runs() -> None:
    run(entry())
    report = run(entry(), "--run_only", "^default/a$", "--force", "^default/a$")
    assert len(names(report, OutcomeKind.SUCCEEDED)) == len(report.outcomes) > 0
    with pytest.raises(FlagError, match="'alone' matches only steps that --run_only or --until leave out"):
        run(entry(), "--run_only", "^default/a$", "--force", "alone")
