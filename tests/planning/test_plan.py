"""What a dry run says about each step: action, path, dependencies, and why."""

import re
import threading
from pathlib import Path
from typing import Any

import pytest

from marin_trace import StepRef, StepSpec, deferred, executor_main, output, step
from marin_trace.errors import RunFailedError
from marin_trace.planning.plan import Plan, PlannedAction, PlannedStep, readers_of
from marin_trace.planning.render import render_plan
from tests.scripts import tree_of


def touch(path: str) -> int:
    Path(path).mkdir(parents=True, exist_ok=True)
    return 1


def fail(path: str) -> None:
    raise ValueError("first line\nlast line")


@step(name="raw/{name}")
def raw(name: str) -> StepRef:
    return deferred(touch)(output())


@step(name="use/{name}")
def use(name: str, *refs: Any) -> StepRef:
    return deferred(use_all)(output(), list(refs))


def use_all(path: str, refs: list[Any]) -> int:
    return touch(path)


@step(name="broken")
def broken() -> StepRef:
    return deferred(fail)(output())


@step(name="inner")
def inner() -> StepRef:
    raw("b")
    return use("b", raw("b"))


@step(name="outer")
def outer() -> None:
    use("a", raw("a"))
    inner()


def run(steps: Any, *argv: str) -> Any:
    return executor_main(steps=steps, argv=argv)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], prefix: str) -> Any:
    """What a dry run prints, without the prefix and hashes, and that it wrote nothing."""

    def dry(steps: Any, *argv: str) -> str:
        before = tree_of(prefix)
        capsys.readouterr()
        run(steps, "--dry_run", *argv)
        assert tree_of(prefix) == before
        return capsys.readouterr().out

    return dry


def said_of(name: str, text: str) -> str:
    """Action and reason of one step."""
    found = re.findall(rf"(?m)(hit|run|wait|skip) +{name} +(.*)$", text)
    assert len(found) == 1, text
    return " ".join(found[0])


def test_a_step_that_was_never_built_would_run(said: Any) -> None:
    assert said_of("raw/a", said(raw("a"))) == "run never built"


def test_a_finished_step_is_a_hit(said: Any) -> None:
    run(raw("a"))
    assert said_of("raw/a", said(raw("a"))) == "hit finished"


def test_a_step_that_failed_would_run_again_and_shows_the_first_line_of_its_error(said: Any) -> None:
    with pytest.raises(RunFailedError, match="broken"):
        run(broken())
    assert said_of("broken", said(broken())) == "run failed before: ValueError: first line"


def test_a_step_that_failed_would_be_skipped_where_forcing_is_off(said: Any) -> None:
    with pytest.raises(RunFailedError, match="broken"):
        run(broken())
    text = said(use("x", broken()), "--force_run_failed", "false")
    assert said_of("broken", text).startswith("skip failed before (ValueError: first line)")
    assert said_of("use/x", text) == "skip needs broken, which will not be built"


def test_a_dependent_of_a_failed_step_was_never_built(said: Any) -> None:
    with pytest.raises(RunFailedError, match="broken"):
        run(use("x", broken()))
    text = said(use("x", broken()), "--force_run_failed", "false")
    assert "never built" not in said_of("broken", text)
    assert said_of("use/x", said(use("x", broken()))) == "run never built"


def test_a_forced_step_says_so(said: Any) -> None:
    run(use("a", raw("a")))
    text = said(use("a", raw("a")), "--force", "raw")
    assert said_of("raw/a", text) == "run forced"
    assert said_of("use/a", text) == "hit finished"


def test_a_step_forced_through_another_says_so(said: Any) -> None:
    run(use("a", raw("a")))
    assert said_of("use/a", said(use("a", raw("a")), "--force_from", "raw")).startswith("run forced")


def test_a_hit_whose_input_was_built_again_is_told_of(said: Any) -> None:
    run(use("a", raw("a")))
    run(use("a", raw("a")), "--force", "raw")
    assert said_of("use/a", said(use("a", raw("a")))) == "hit finished; built before raw/a was built again"


def test_an_input_whose_consumer_is_finished_is_not_built(said: Any, prefix: str) -> None:
    spec = StepSpec("late", deps=[StepSpec("early", fn=touch)], fn=touch)
    run(StepSpec("late", deps=[StepSpec("early", fn=touch)], fn=touch))
    early = next(Path(prefix).glob("early-*"))
    early.rename(early.with_name("gone"))
    text = said(spec)
    assert said_of("early", text) == "skip never built, and nothing unfinished needs it"
    assert said_of("late", text) == "hit finished"


def test_a_spec_without_a_function_cannot_be_built(said: Any) -> None:
    text = said(StepSpec("user", deps=[StepSpec("given")], fn=touch))
    assert said_of("given", text) == "skip never built, and has no function to build it"
    assert said_of("user", text) == "skip needs given, which will not be built"


def test_an_output_of_an_older_system_is_a_hit(said: Any, prefix: str) -> None:
    spec = StepSpec("old", fn=touch)
    directory = Path(prefix, spec.name_with_hash)
    directory.mkdir()
    (directory / ".executor_status").write_text("SUCCESS")
    assert said_of("old", said(spec)) == "hit finished by an older system"


def test_a_step_that_runs_in_another_launcher_is_waited_for(said: Any) -> None:
    begun, end = threading.Event(), threading.Event()

    def body(path: str) -> None:
        begun.set()
        end.wait()

    spec = StepSpec("long", fn=body)
    thread = threading.Thread(target=lambda: executor_main(steps=spec, argv=[]))
    thread.start()
    begun.wait()
    text = said(spec)
    end.set()
    thread.join()
    assert said_of("long", text).startswith("wait running on ")


def test_the_plan_is_a_tree_of_groups(said: Any, prefix: str) -> None:
    text = said(outer()).replace(prefix, "PREFIX")
    hashed = {spec.name: spec.name_with_hash for spec in _specs(outer())}
    assert text == (
        "outer  (4 steps: 4 would run)\n"
        " ├─ run  raw/a  never built\n"
        f" │       PREFIX/{hashed['raw/a']}\n"
        " ├─ run  use/a  never built\n"
        f" │       PREFIX/{hashed['use/a']}  needs raw/a\n"
        " └─ inner  (2 steps: 2 would run)\n"
        "    ├─ run  raw/b  never built\n"
        f"    │       PREFIX/{hashed['raw/b']}\n"
        "    └─ run  use/b  never built\n"
        f"            PREFIX/{hashed['use/b']}  needs raw/b\n"
        "\n"
        "4 steps: 4 would run\n"
    )


def _specs(ref: Any) -> Any:
    from marin_trace import lower

    return lower(ref)


def test_totals_count_each_action(said: Any) -> None:
    run(raw("a"))
    assert said([use("a", raw("a")), raw("c")]).splitlines()[-1] == "3 steps: 1 finished, 2 would run"


def test_a_plan_of_nothing_says_so() -> None:
    assert render_plan(Plan(())) == "nothing to do\n0 steps: nothing to do"


def test_a_plan_counts_actions() -> None:
    steps = tuple(PlannedStep(str(n), action, "why", f"/{n}", ()) for n, action in enumerate(PlannedAction))
    assert {action: Plan(steps).count(action) for action in PlannedAction} == dict.fromkeys(PlannedAction, 1)


def test_dependents_are_found_through_any_number_of_steps() -> None:
    specs = [StepSpec("s0")]
    for number in range(1, 5):
        specs.append(StepSpec(f"s{number}", deps=[specs[-1]]))
    other = StepSpec("other")
    steps = {spec.output_path: spec for spec in [*specs, other]}
    reached = readers_of(steps, [specs[2].output_path])
    assert reached == {specs[2].output_path: None, specs[3].output_path: "s2", specs[4].output_path: "s2"}
