"""Laws of the runner: order, failure, forcing, reports, records."""

import json
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marin_trace.errors import (
    ConfigError,
    CycleError,
    FingerprintMismatchError,
    OutputConflictError,
    PreviousTaskFailedError,
    RunError,
    RunFailedError,
)
from marin_trace.io import running_body
from marin_trace.runtime.artifact import Artifact
from marin_trace.runtime.distributed_lock import distributed_lock
from marin_trace.runtime.options import RunOptions
from marin_trace.runtime.report import OutcomeKind, RunReport
from marin_trace.runtime.status import StatusKind, read_status
from marin_trace.runtime.step_runner import EventKind, RunEvent, StepRunner


def kinds_of(report: RunReport) -> dict[str, str]:
    return {outcome.name: outcome.kind.value for outcome in report.outcomes}


def fail(path: str) -> None:
    raise ValueError(f"no luck at {os.path.basename(path)}")


def report_of(steps: list[Any]) -> RunReport:
    try:
        return StepRunner().run(steps)
    except RunFailedError as error:
        return cast("RunReport", error.report)


def run_failed(*steps: Any, **options: Any) -> tuple[RunFailedError, RunReport]:
    with pytest.raises(RunFailedError, match=r"steps? failed") as caught:
        StepRunner().run(steps, **options)
    assert isinstance(caught.value.report, RunReport)
    return caught.value, caught.value.report


def tree_of(directory: str) -> set[str]:
    return {str(path) for path in Path(directory).rglob("*")}


def test_a_chain_runs_in_order_and_a_second_run_hits(make_step) -> None:
    order: list[str] = []
    first = make_step("first", lambda path: order.append("first"))
    second = make_step("second", lambda path: order.append("second"), deps=[first])
    assert kinds_of(StepRunner().run([second])) == {"first": "succeeded", "second": "succeeded"}
    assert kinds_of(StepRunner().run([second])) == {"first": "hit", "second": "hit"}
    assert order == ["first", "second"]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_graphs_run_each_step_after_its_dependencies(make_step, tmp_path_factory, data) -> None:
    base = tmp_path_factory.mktemp("graph")
    finished, lock = [], threading.Lock()
    failing = data.draw(st.sets(st.integers(0, 7), max_size=2))
    steps: list[Any] = []

    def body_of(number: int) -> Callable[[str], None]:
        def body(path: str) -> None:
            with lock:
                assert {int(dep.name) for dep in steps[number].deps} <= set(finished)
                if number in failing:
                    raise ValueError("told to fail")
                finished.append(number)

        return body

    for number in range(data.draw(st.integers(1, 8))):
        deps = data.draw(st.lists(st.sampled_from(steps), unique_by=id, max_size=3)) if steps else []
        steps.append(make_step(str(number), body_of(number), deps=deps, output_path=f"{base}/{number}"))
    report = report_of(steps)
    assert len(finished) == len(set(finished)) == report.count(OutcomeKind.SUCCEEDED)
    assert {int(outcome.name) for outcome in report.outcomes if outcome.kind == "failed"} <= failing


def test_a_failure_skips_its_dependents_and_nobody_else(make_step) -> None:
    broken = make_step("broken", fail)
    below = make_step("below", deps=[broken])
    further = make_step("further", deps=[below])
    error, report = run_failed(make_step("free"), further)
    assert kinds_of(report) == {"free": "succeeded", "broken": "failed", "below": "dep_failed", "further": "dep_failed"}
    assert report.outcome_of(further).cause == broken.output_path
    assert str(error).startswith("1 of 4 steps failed, 2 skipped because of it: broken")


def test_every_cause_is_raised_once_with_traceback_and_note(make_step) -> None:
    error, _ = run_failed(make_step("a", fail), make_step("b", fail))
    assert sorted(map(str, error.exceptions)) == ["no luck at a", "no luck at b"]
    first = min(error.exceptions, key=str)
    assert first.__notes__[0].startswith("in step a, attempt 1: ")
    assert "\n  at experiments/fake.py:7\n  log: " in first.__notes__[0]
    assert first.__traceback__ is not None


def test_a_skipped_step_leaves_a_token_that_is_no_failure(make_step) -> None:
    below = make_step("below", deps=[make_step("broken", fail)])
    run_failed(below)
    assert Path(below.output_path, ".executor_status").read_text() == "DEP_FAILED"
    assert read_status(below.output_path).kind is StatusKind.MISSING


def test_what_failed_is_not_run_again_unless_forced(make_step) -> None:
    runs: list[str] = []
    step = make_step("a", lambda path: runs.append(path) or fail(path))
    run_failed(step)
    error, _ = run_failed(step, force_run_failed=False)
    assert isinstance(error.exceptions[0], PreviousTaskFailedError)
    assert len(runs) == 1
    run_failed(step)
    assert len(runs) == 2


def test_nothing_upstream_of_a_finished_step_is_built(make_step) -> None:
    source = make_step("source")
    middle = make_step("middle", deps=[source])
    top = make_step("top", deps=[middle])
    StepRunner().run([middle])
    for name in ("source", "middle"):
        for path in sorted(Path(top.output_path).parent.joinpath(name).rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    StepRunner().run([source, middle])
    Path(source.output_path, ".executor", "000001.end").unlink()
    Path(source.output_path, ".executor", "000001.claim").unlink()
    Path(source.output_path, ".executor_status").unlink()
    assert kinds_of(StepRunner().run([top])) == {"source": "not_needed", "middle": "hit", "top": "succeeded"}


def test_a_forced_step_runs_again_and_its_dependents_stay(make_step) -> None:
    source = make_step("source")
    top = make_step("top", deps=[source])
    StepRunner().run([top])
    options = RunOptions(forced={source.output_path: 1})
    assert kinds_of(StepRunner(options=options).run([top])) == {"source": "succeeded", "top": "hit"}
    assert kinds_of(StepRunner(options=options).run([top])) == {"source": "hit", "top": "hit"}
    assert read_status(source.output_path).epoch == 2


def test_a_nonblocking_producer_goes_first_and_fails_alone(make_step) -> None:
    order: list[str] = []
    watched = make_step("watched", lambda path: order.append("watched") or fail(path))
    other = make_step("other", lambda path: order.append("other"))
    watcher = make_step("watcher", lambda path: order.append("watcher"), nonblocking_deps=[watched])
    _, report = run_failed(other, watcher, max_concurrent=1)
    assert order == ["watched", "other", "watcher"]
    assert kinds_of(report) == {"other": "succeeded", "watched": "failed", "watcher": "succeeded"}


def test_an_order_only_dependency_is_waited_for_only_where_it_runs_anyway(make_step) -> None:
    order: list[str] = []
    before = make_step("before", lambda path: order.append("before"))
    step = make_step("after", lambda path: order.append("after"), deps=[before], order_only_deps=[before])
    assert kinds_of(StepRunner().run([step])) == {"after": "succeeded"}
    again = make_step("again", lambda path: order.append("again"), deps=[before], order_only_deps=[before])
    StepRunner().run([again, before])
    assert order == ["after", "before", "again"]


def test_a_dry_run_writes_nothing(make_step, prefix: str) -> None:
    done = make_step("done")
    StepRunner().run([done])
    before = tree_of(prefix)
    unbuildable = make_step("unbuildable", can_run=False)
    report = StepRunner().run([make_step("new", deps=[done]), unbuildable], dry_run=True)
    assert kinds_of(report) == {"done": "hit", "new": "would_run", "unbuildable": "would_fail"}
    assert str(report) == "3 steps: 1 found finished, 1 would run, 1 would fail"
    assert tree_of(prefix) == before


def test_a_step_without_a_function_fails_clearly_where_it_must_run(make_step) -> None:
    missing = make_step("raw/web", can_run=False)
    error, report = run_failed(make_step("free"), make_step("top", deps=[missing]))
    assert kinds_of(report)["free"] == "succeeded"
    assert isinstance(error.exceptions[0], RunError)
    assert "raw/web must be built, and has no function to build it\n  at experiments/fake.py:7" in str(
        error.exceptions[0]
    )
    assert kinds_of(report)["top"] == "dep_failed"


def test_an_output_of_another_recipe_is_an_error_with_the_field(make_step) -> None:
    StepRunner().run([make_step("tok", parts={"config.tokenizer": "llama2", "config.hf_token": "s3cr3t"})])
    changed = make_step("tok", parts={"config.tokenizer": "llama3", "config.hf_token": "other"})
    with pytest.raises(FingerprintMismatchError, match=r"config\.tokenizer: llama2 → llama3") as caught:
        StepRunner().run([changed])
    assert "experiments/fake.py:7" in str(caught.value)
    assert "hf_token" not in str(caught.value)
    options = RunOptions(forced={changed.output_path: 1})
    assert kinds_of(StepRunner(options=options).run([changed])) == {"tok": "succeeded"}


def test_an_output_without_a_fingerprint_is_taken_with_a_warning(make_step, caplog: pytest.LogCaptureFixture) -> None:
    step = make_step("old")
    os.makedirs(step.output_path)
    Path(step.output_path, ".executor_status").write_text("SUCCESS")
    assert kinds_of(StepRunner().run([step])) == {"old": "hit"}
    assert "1 finished outputs have no recorded fingerprint" in caplog.text


def test_a_cycle_is_named_as_a_chain(make_step) -> None:
    a = make_step("a")
    b = make_step("b", deps=[a])
    a.deps = [b]
    with pytest.raises(CycleError, match=r"steps wait for each other: (a → b → a|b → a → b)") as caught:
        StepRunner().run([b])
    assert "experiments/fake.py:7" in str(caught.value)


def test_two_recipes_for_one_path_are_an_error(make_step, prefix: str) -> None:
    steps = [make_step(name, output_path=f"{prefix}/same") for name in ("first", "second")]
    with pytest.raises(OutputConflictError, match=f"two steps would write {prefix}/same"):
        StepRunner().run(steps)


def test_what_cannot_start_is_told_before_anything_runs(make_step) -> None:
    def refuse(executable: object) -> Any:
        raise ConfigError("no such cluster")

    runs: list[str] = []
    first = make_step("first", runs.append)
    with pytest.raises(ConfigError, match="no such cluster"):
        StepRunner().run([make_step("second", deps=[first], wrap=refuse)])
    with pytest.raises(RunFailedError, match="2 steps cannot start; nothing has run"):
        StepRunner().run([first, make_step("x", wrap=refuse), make_step("y", wrap=refuse)])
    assert runs == []


def test_at_one_bodies_run_in_the_calling_thread(make_step) -> None:
    seen: list[tuple[threading.Thread, bool]] = []
    note = lambda path: seen.append((threading.current_thread(), running_body.get()))  # noqa: E731
    StepRunner().run([make_step("a", note)], max_concurrent=1)
    StepRunner().run([make_step("b", note)], max_concurrent=2)
    assert seen[0] == (threading.main_thread(), True)
    assert seen[1][0] is not threading.main_thread()
    assert seen[1][1]
    assert not running_body.get()


def test_max_concurrent_bounds_what_runs_at_once(make_step) -> None:
    lock, now, most = threading.Lock(), [0], [0]
    together = threading.Barrier(2)

    def body(path: str) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        together.wait(30)
        with lock:
            now[0] -= 1

    StepRunner().run([make_step(str(n), body) for n in range(6)], max_concurrent=2)
    assert most == [2]


def test_declared_cpus_count_and_more_than_the_bound_runs_alone(make_step) -> None:
    lock, now, seen = threading.Lock(), set(), []

    def body(path: str) -> None:
        with lock:
            now.add(path[-1])
            seen.append(frozenset(now))
        with lock:
            now.discard(path[-1])

    steps = [make_step("a", body, declared_cpu=9), make_step("b", body), make_step("c", body, declared_cpu=2.5)]
    StepRunner().run(steps, max_concurrent=3)
    assert all(len(group) == 1 for group in seen)


def test_the_report_finds_paths_and_artifacts(make_step) -> None:
    step = make_step("a", lambda path: {"n": 3})
    report = StepRunner(resolve=lambda ref: step if ref == "ref" else ref).run([step])
    assert report.output_path("ref") == step.output_path
    assert report.artifact("ref") == report.artifact(step) == {"n": 3}
    assert str(report).startswith("1 step: 1 built (")
    with pytest.raises(KeyError, match="nowhere"):
        report.outcome_of(make_step("nowhere"))


def test_the_run_record_holds_every_step_and_its_cause(make_step, prefix: str) -> None:
    below = make_step("below", deps=[make_step("broken", fail)])
    _, report = run_failed(below, make_step("free"))
    assert report.record_path == f"{prefix}/experiments/{report.run_id}.json"
    record = json.loads(Path(report.record_path).read_text())
    assert record["outcome"] == "failed"
    steps = {step["name"]: step for step in record["steps"]}
    assert steps["below"]["cause"].endswith("/broken")
    assert steps["broken"]["error"]["message"] == "no luck at broken"
    assert steps["free"]["epoch"] == 1
    assert record["provenance"]["user"]


def test_an_interrupt_releases_the_claims_and_is_recorded(make_step, prefix: str) -> None:
    began, before = threading.Event(), threading.enumerate()

    def body(path: str) -> None:
        began.set()
        while True:
            began.wait(0.01)

    def interrupt(event: Any) -> None:
        if event.kind is EventKind.STARTED and event.step.name == "last":
            began.wait(30)
            raise KeyboardInterrupt

    first, last = make_step("first", body), make_step("last")
    with pytest.raises(KeyboardInterrupt):
        StepRunner(on_event=interrupt, stop_grace_s=30).run([first, last])
    assert read_status(first.output_path).kind is StatusKind.RELEASED
    (record,) = Path(prefix, "experiments").iterdir()
    steps = {step["name"]: step["outcome"] for step in json.loads(record.read_text())["steps"]}
    assert steps == {"first": "interrupted", "last": "interrupted"}
    assert not [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]


def test_an_interrupt_in_the_main_threads_body_goes_through(make_step) -> None:
    def body(path: str) -> None:
        raise KeyboardInterrupt

    step = make_step("a", body)
    with pytest.raises(KeyboardInterrupt):
        StepRunner().run([step], max_concurrent=1)
    assert read_status(step.output_path).kind is StatusKind.RELEASED


def test_a_step_held_in_this_process_is_looked_at_when_that_attempt_ends(make_step, prefix, monkeypatch) -> None:
    monkeypatch.setattr("marin_trace.runtime.step_runner.random.uniform", lambda low, high: 3600.0)
    step = make_step("held")
    began, may_end = threading.Event(), threading.Event()
    holder = distributed_lock(lambda path: (began.set(), may_end.wait(30))).finishing(Artifact.save)

    def let_it_end(event: RunEvent) -> None:
        if event.kind is EventKind.HELD:
            may_end.set()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(holder, step.output_path)
        assert began.wait(30)
        report = StepRunner(on_event=let_it_end).run([step])
        running.result(30)
    assert kinds_of(report) == {"held": "hit"}


def test_a_step_held_elsewhere_is_started_again_and_found_finished(make_step, launch, caplog) -> None:
    caplog.set_level(logging.INFO)
    step = make_step("held", parts={})
    holder = launch("hold", step.output_path)
    assert holder.stdout.readline() == "claimed\n"

    def release(event: Any) -> None:
        if event.kind is EventKind.HELD:
            holder.stdin.write("\n")
            holder.stdin.flush()

    report = StepRunner(on_event=release).run([step])
    assert kinds_of(report) == {"held": "hit"}
    assert caplog.text.count("is being built by another attempt") == 1
    assert Artifact.load(step) == f"by {holder.pid}"


def test_a_hold_in_memory_is_a_run_in_memory(make_step) -> None:
    step = make_step("m", lambda path: 5, output_path="memory://runner/m")
    options = RunOptions(prefix="memory://runner")
    report = StepRunner(options=options).run([step])
    assert report.artifact(step) == 5
    assert report.record_path is not None
    assert report.record_path.startswith("memory://runner/experiments/")


def test_retries_are_the_steps_and_the_report_names_the_last_attempt(make_step) -> None:
    error, report = run_failed(make_step("a", fail, retries=1))
    assert report.outcomes[0].epoch == 2
    assert "attempt 2" in error.exceptions[0].__notes__[0]


def test_the_report_of_a_failure_has_exception_place_and_log(make_step) -> None:
    below = make_step("below", deps=[make_step("broken", fail)])
    _, report = run_failed(below)
    (failed,) = report.failed
    assert (str(failed.error), failed.location) == ("no luck at broken", "experiments/fake.py:7")
    assert failed.log_path == f"{failed.output_path}/.executor/000001.log"
    assert "ValueError: no luck at broken" in Path(failed.log_path).read_text()
    assert report.cause_of(below) == failed
    assert report.cause_of(failed) is None


def test_fail_fast_starts_nothing_more_and_lets_finish_what_runs(make_step) -> None:
    began, has_failed = threading.Event(), threading.Event()

    def slow(path: str) -> None:
        began.set()
        assert has_failed.wait(30)

    def broken(path: str) -> None:
        assert began.wait(30)
        fail(path)

    def tell(event: Any) -> None:
        if event.kind is EventKind.ENDED and event.step.name == "broken":
            has_failed.set()

    steps = [make_step("slow", slow), make_step("broken", broken), make_step("later")]
    runner = StepRunner(options=RunOptions(fail_fast=True), on_event=tell)
    with pytest.raises(RunFailedError, match="1 of 3 steps failed, 1 not started: broken") as caught:
        runner.run(steps, max_concurrent=2)
    report = cast("RunReport", caught.value.report)
    assert kinds_of(report) == {"slow": "succeeded", "broken": "failed", "later": "not_started"}
    assert not Path(steps[2].output_path).exists()


def test_a_second_interrupt_waits_no_longer(make_step, caplog: pytest.LogCaptureFixture) -> None:
    may_end, began = threading.Event(), threading.Event()

    def stubborn(path: str) -> None:
        began.set()
        while not may_end.is_set():
            try:
                may_end.wait(30)
            except KeyboardInterrupt:
                interrupted.set()

    interrupted = threading.Event()
    times: list[float] = []

    def clock() -> float:
        # The runner asks for the time when it begins to wait for what it has interrupted.
        if times and interrupted.is_set():
            times.clear()
            raise KeyboardInterrupt
        return 0.0

    def interrupt(event: Any) -> None:
        if event.kind is EventKind.STARTED:
            assert began.wait(30) or event.step.name == "last"
            times.append(1)
            interrupted.set()
            raise KeyboardInterrupt

    step = make_step("first", stubborn)
    began.set()
    with pytest.raises(KeyboardInterrupt):
        StepRunner(on_event=interrupt, clock=clock, stop_grace_s=30).run([step, make_step("last")], max_concurrent=2)
    may_end.set()
    assert "interrupted again, not waiting" in caplog.text


def test_1_000_steps_of_which_every_third_fails(make_step) -> None:
    ran: list[str] = []

    def body(path: str) -> None:
        ran.append(path)
        if int(os.path.basename(path)) % 3 == 0:
            fail(path)

    steps: list[Any] = []
    for number in range(1_000):
        # Chains of two: every step with an odd number reads the one before it.
        steps.append(make_step(str(number), body, deps=[steps[-1]] if number % 2 else []))
    error, report = run_failed(*steps)
    failing = {n for n in range(0, 1_000, 3) if not (n % 2 and (n - 1) % 3 == 0)}
    skipped = {n for n in range(1, 1_000, 2) if (n - 1) % 3 == 0}
    assert sorted(int(str(cause).rpartition(" ")[2]) for cause in error.exceptions) == sorted(failing - skipped)
    assert {int(outcome.name) for outcome in report.outcomes if outcome.kind == "dep_failed"} == skipped
    assert report.count(OutcomeKind.SUCCEEDED) == 1_000 - len(failing | skipped)
    assert len(ran) == len(set(ran)) == 1_000 - len(skipped)
    ran.clear()
    error, report = run_failed(*steps, force_run_failed=False)
    assert ran == []
    assert {type(cause) for cause in error.exceptions} == {PreviousTaskFailedError}
    assert "failed before (attempt 1): ValueError: no luck at" in str(error.exceptions[0])
    assert report.count(OutcomeKind.HIT) == 1_000 - len(failing | skipped)


def test_events_tell_start_and_end(make_step) -> None:
    events: list[str] = []
    StepRunner(on_event=lambda event: events.append(f"{event.kind} {event.step.name}")).run([make_step("a")])
    assert events == ["started a", "ended a"]


def test_a_chain_of_20_000_finished_or_foreseen_steps_needs_no_stack(make_step) -> None:
    step = make_step("0")
    for number in range(1, 20_000):
        step = make_step(str(number), deps=[step])
    report = StepRunner().run([step], dry_run=True)
    assert report.count(OutcomeKind.WOULD_RUN) == 20_000
