"""Steps of the older kind, run: alone, and beside traced steps and specs."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from marin_trace import StepRef, StepSpec, deferred, executor_main, lower, output, step, trace, unversioned
from marin_trace.errors import ConfigError, RunFailedError
from marin_trace.executor import resolve_executor_step
from marin_trace.io import atomic_write
from marin_trace.legacy import (
    THIS_OUTPUT_PATH,
    ExecutorStep,
    InputName,
    output_path_of,
    this_output_path,
    versioned,
)
from marin_trace.runtime.report import OutcomeKind


@dataclass(frozen=True)
class WriteConfig:
    words: Any
    output_path: str = THIS_OUTPUT_PATH  # type: ignore[assignment]


@dataclass(frozen=True)
class CountConfig:
    sources: Any
    out: Any
    keep: Any = None


class Seen:
    """What the functions of the older kind were given."""

    configs: list[Any]


@pytest.fixture(autouse=True)
def seen() -> type[Seen]:
    Seen.configs = []
    return Seen


def put(path: str, text: str) -> None:
    with atomic_write(path, "w") as stream:
        stream.write(text)


def write(config: WriteConfig) -> object:
    Seen.configs.append(config)
    put(f"{config.output_path}/words.txt", " ".join(config.words))
    return object()  # the older executor did not keep what a function returned


def count(config: CountConfig) -> None:
    Seen.configs.append(config)
    put(config.out, str(sum(len(Path(source).read_text().split()) for source in config.sources)))


def count_words(source: str, path: str) -> int:
    number = len(Path(source).read_text().split())
    put(f"{path}/words.txt", "x " * number)
    return number


def fail(config: Any) -> None:
    raise ValueError("no luck")


@step(name="new/{source.name}")
def counted(source: Any) -> StepRef:
    return deferred(count_words)(source / "words.txt", output())


words = ExecutorStep("raw/words", write, WriteConfig(versioned(["a", "b"])))
total = ExecutorStep("total", count, CountConfig([words / "words.txt"], this_output_path("total.txt")))


def kinds(run: Any) -> dict[str, str]:
    return {outcome.name: str(outcome.kind) for outcome in run.outcomes}


def test_functions_get_paths_and_plain_values(prefix: str, seen: type[Seen]) -> None:
    run = executor_main(steps=[total], argv=[])
    out = run.output_path(words)
    assert out.startswith(f"{prefix}/raw/words-")
    assert seen.configs == [
        WriteConfig(["a", "b"], out),
        CountConfig([f"{out}/words.txt"], f"{run.output_path(total)}/total.txt"),
    ]
    assert Path(run.output_path(total), "total.txt").read_text() == "2"
    assert run.output_path(total / "total.txt") == f"{run.output_path(total)}/total.txt"


def test_what_is_finished_is_a_hit_also_in_a_new_process(prefix: str) -> None:
    executor_main(steps=[total], argv=[])
    same = ExecutorStep("raw/words", fail, WriteConfig(versioned(["a", "b"]), "not versioned"))
    again = ExecutorStep("total", fail, CountConfig([same / "words.txt"], None))
    assert kinds(executor_main(steps=[again], argv=[])) == {"raw/words": "hit", "total": "hit"}


@pytest.mark.parametrize("token", ["SUCCESS", '{"date": "1", "status": "RUNNING"}\n{"date": "2", "status": "SUCCESS"}'])
def test_an_output_of_the_older_executor_is_a_hit(prefix: str, token: str, caplog: pytest.LogCaptureFixture) -> None:
    left = Path(resolve_executor_step(words, prefix=prefix).output_path)
    put(f"{left}/words.txt", "from long ago")
    put(f"{left}/.executor_status", token)
    run = executor_main(steps=[total], argv=[])
    assert kinds(run) == {"raw/words": "hit", "total": "succeeded"}
    assert Path(run.output_path(total), "total.txt").read_text() == "3"
    assert "have no recorded fingerprint and are taken as they are" in caplog.text


def test_old_and_new_steps_and_specs_read_each_other(prefix: str) -> None:
    new = counted(words)
    old = ExecutorStep("old", count, CountConfig([new / "words.txt", words / "words.txt"], this_output_path("n")))
    newest = counted(old)
    spec = StepSpec("spec", deps=[resolve_executor_step(words)], fn=lambda path: path)
    run = executor_main(steps={"old": [old, words / "words.txt"], "spec": spec}, argv=[])
    assert kinds(run) == {
        "raw/words": "succeeded",
        "new/raw/words": "succeeded",
        "old": "succeeded",
        "spec": "succeeded",
    }
    assert Path(run.output_path(old), "n").read_text() == "4"
    assert run.artifact(new) == 2
    with pytest.raises(RunFailedError):  # there is no words.txt in the output of "old"
        executor_main(steps=[newest], argv=[])
    assert set(kinds(executor_main(steps=[old, new, spec], argv=["--dry_run"])).values()) == {"hit"}


def test_a_graph_shows_them_as_other_steps() -> None:
    new = counted(words)
    graph = trace(lambda: ExecutorStep("old", print, [new / "a", words.nonblocking()]))
    assert [node.name for node in graph.nodes] == ["raw/words", "new/raw/words", "old"]
    assert str(graph).endswith(" = print([b/'a', ?a]) -> None")


def test_an_old_module_changes_one_import_line() -> None:
    from marin_trace import legacy

    names = "ExecutorStep InputName THIS_OUTPUT_PATH ensure_versioned executor_main get_executor_step output_path_of "
    names += "this_output_path unwrap_versioned_value versioned"
    assert set(names.split()) <= set(legacy.__all__)
    assert legacy.executor_main is executor_main
    with pytest.raises(AttributeError, match="has no attribute 'Executor'"):
        _ = legacy.Executor


def test_a_copied_step_has_a_config_of_its_own() -> None:
    first = ExecutorStep("a", print, {"lr": versioned(1), "data": words})
    same = copy.copy(first)
    before = [spec.output_path for spec in lower([first, same])]
    second = copy.deepcopy(first)
    second.config["lr"] = versioned(2)
    assert len(before) == 2
    assert len(lower([first, same, second])) == 3
    assert second.config["data"].name == "raw/words"


def test_a_versioned_value_is_itself_in_the_name_of_a_step() -> None:
    @step(name="train/{lr:.2f}")
    def train(lr: Any) -> StepRef:
        return deferred(write)(WriteConfig([str(lr)], output()))

    assert train(versioned(0.5)).name == "train/0.50"


def test_groups_return_them() -> None:
    @step(name="all")
    def everything() -> Any:
        return {"words": words, "counted": counted(words)}

    returned = everything()
    assert {ref.name for ref in returned.values()} == {"raw/words", "new/raw/words"}
    assert len(executor_main(steps=[returned], argv=[]).outcomes) == 2


def test_a_step_is_waited_for_unless_it_is_nonblocking() -> None:
    for watched, kind in ((words, "deps"), (words.nonblocking(), "nonblocking_deps")):
        spec = lower(ExecutorStep("watch", print, {"checkpoints": watched}))[-1]
        assert [dep.name for dep in getattr(spec, kind)] == ["raw/words"]
        assert len([*spec.deps, *spec.nonblocking_deps]) == 1


def test_a_traced_step_waits_for_one_that_it_does_not_read() -> None:
    @step(name="after")
    def after(before: Any) -> StepRef:
        return deferred(put)(output(), "x")

    assert [dep.name for dep in lower(after(words))[-1].deps] == ["raw/words"]
    assert [dep.name for dep in lower(after(unversioned(words)))[-1].deps] == ["raw/words"]


def test_failures_and_forcing_work_as_for_other_steps() -> None:
    bad = ExecutorStep("bad", fail, {"after": words})
    with pytest.raises(RunFailedError, match="1 of 2 steps failed: bad") as caught:
        executor_main(steps=[bad], argv=[])
    [error] = caught.value.exceptions
    assert "no luck" in str(error)
    assert f"{Path(__file__).name}:{bad.location.line}" in "".join(error.__notes__)
    run = executor_main(steps=[words], argv=["--force", "raw/"])
    assert run.outcomes[0].kind is OutcomeKind.SUCCEEDED


def test_a_step_without_a_function_is_done_at_once() -> None:
    assert kinds(executor_main(steps=[ExecutorStep("marker", None, None)], argv=[])) == {"marker": "succeeded"}


def test_a_hardcoded_path_is_relative_to_the_prefix_or_absolute(prefix: str, seen: type[Seen]) -> None:
    put(f"{prefix}/given/a.txt", "one two")
    put(f"{prefix}/b.txt", "three")
    sources = [InputName.hardcoded("given") / "a.txt", InputName.hardcoded(f"{prefix}/b.txt")]
    run = executor_main(steps=[ExecutorStep("sum", count, CountConfig(sources, this_output_path("n")))], argv=[])
    assert seen.configs[0].sources == [f"{prefix}/given/a.txt", f"{prefix}/b.txt"]
    assert Path(run.outcomes[0].output_path, "n").read_text() == "3"


def test_a_path_in_an_annotated_config_stays_text(prefix: str, seen: type[Seen]) -> None:
    @dataclass
    class Annotated:
        out: Path

    executor_main(steps=[ExecutorStep("a", seen.configs.append, Annotated(this_output_path()))], argv=[])
    assert seen.configs[0].out == resolve_executor_step(ExecutorStep("a", print, {})).output_path


def test_this_output_path_means_nothing_in_a_traced_step() -> None:
    @step(name="mixed")
    def mixed() -> StepRef:
        return deferred(write)(WriteConfig(versioned(["a"])))

    with pytest.raises(ConfigError, match=r"this_output_path\(\) was given to a traced step"):
        mixed()


def test_versioned_values_in_a_traced_step_are_the_values() -> None:
    @step(name="a")
    def traced(words: Any) -> StepRef:
        return deferred(write)(WriteConfig(words, output()))

    plain, wrapped = (lower(traced(value))[0].fingerprint for value in (["a"], versioned(["a"])))
    assert plain == wrapped


def test_the_record_says_what_the_version_is_made_of(prefix: str) -> None:
    import json

    run = executor_main(steps=[total], argv=[])
    info = json.loads(Path(run.output_path(words), ".executor_info").read_text())
    assert info["parts"] == {"name": "raw/words", "config.words": "['a', 'b']"}
    assert info["config"]["config"] == {"words": ["a", "b"], "output_path": run.output_path(words)}
    assert info["functions"] == [f"{__name__}:write"]


def test_output_path_of_leads_to_steps_of_both_kinds() -> None:
    assert output_path_of(words, "x") == words / "x"
    assert output_path_of(counted(words), "x").name == "new/raw/words"
