"""A run leaves what the interpreter says, whatever was finished before and however many workers there are."""

import itertools
import logging
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marin_trace.errors import RunFailedError
from marin_trace.ir.graph import EdgeKind, Graph, Group, Node
from marin_trace.ir.passes.inline_groups import steps_of
from marin_trace.ir.passes.prune_completed import Action, prune_completed
from marin_trace.lowering.lower import Lowered, lower_graph
from marin_trace.lowering.step_spec import StepSpec
from marin_trace.runtime.artifact import Artifact
from marin_trace.runtime.options import RunOptions
from marin_trace.runtime.report import OutcomeKind, RunReport
from marin_trace.runtime.run_plan import collect_steps, plan_run
from marin_trace.runtime.status import StatusKind, StepStatus
from marin_trace.runtime.step_runner import StepRunner
from tests.properties.pipelines import PROGRAMS, Program, World, meaning

LAW = settings(deadline=None, derandomize=True, max_examples=40)
PLAN_LAW = settings(LAW, max_examples=100)


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Any:
    """Hundreds of runs would log thousands of lines."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def lowered(program: Program, world: World) -> Lowered:
    return lower_graph(program.graph(), prefix=world.prefix)


def roots_of(low: Lowered) -> list[StepSpec]:
    return [low.spec_by_node[root] for root in low.graph.roots]


def run(specs: Iterable[StepSpec], world: World, workers: int) -> RunReport:
    runner = StepRunner(options=RunOptions(prefix=world.prefix))
    return runner.run(specs, max_concurrent=workers)


def left(low: Lowered, world: World) -> dict[str, Any]:
    artifacts = {spec.output_path.removeprefix(world.prefix): Artifact.load(spec.output_path) for spec in low.specs}
    return {"artifacts": artifacts, "files": world.files}


@pytest.mark.parametrize("workers", [1, 4])
@LAW
@given(program=PROGRAMS)
def test_a_run_leaves_what_the_interpreter_says(workers: int, program: Program) -> None:
    world = World()
    low = lowered(program, world)
    report = run(roots_of(low), world, workers)
    assert left(low, world) == meaning(program.graph())
    assert {outcome.kind for outcome in report.outcomes} == {OutcomeKind.SUCCEEDED}


@LAW
@given(PROGRAMS, st.data())
def test_a_run_after_a_part_of_it_leaves_the_same_and_builds_nothing_twice(
    program: Program, data: st.DataObject
) -> None:
    world = World()
    low = lowered(program, world)
    part = data.draw(st.lists(st.sampled_from(low.specs), min_size=1, max_size=2))
    run(part, world, 4)
    run(roots_of(low), world, 4)
    assert_each_started_once(world)
    needed = {world.prefix + path for path in meaning(program.graph())["artifacts"]}
    assert {path for _, path, _ in world.events} == needed


@LAW
@given(PROGRAMS)
def test_a_second_run_finds_everything_finished(program: Program) -> None:
    world = World()
    low = lowered(program, world)
    run(roots_of(low), world, 4)
    before = list(world.events)
    report = run(roots_of(low), world, 4)
    assert world.events == before
    assert {outcome.kind for outcome in report.outcomes} == {OutcomeKind.HIT}


def assert_each_started_once(world: World) -> None:
    starts = [(path, number) for kind, path, number in world.events if kind == "start"]
    assert len(set(starts)) == len(starts)


@LAW
@given(PROGRAMS)
def test_a_step_starts_once_and_only_after_what_it_waits_for(program: Program) -> None:
    world = World()
    low = lowered(program, world)
    run(reversed(roots_of(low)), world, 4)
    assert_each_started_once(world)
    first = {path: index for index, (_, path, _) in reversed(list(enumerate(world.events)))}
    last = {path: index for index, (_, path, _) in enumerate(world.events)}
    for spec in low.specs:
        assert all(last[path] < first[spec.output_path] for path in spec.dep_paths)


@LAW
@given(PROGRAMS)
def test_groups_are_waited_for_as_they_were_traced(program: Program) -> None:
    world, graph = World(), program.graph()
    low = lower_graph(graph, prefix=world.prefix)
    run(roots_of(low), world, 4)
    first = {path: index for index, (_, path, _) in reversed(list(enumerate(world.events)))}
    last = {path: index for index, (_, path, _) in enumerate(world.events)}
    for before, later in ordered_pairs(graph):
        paths = [low.spec_by_node[node].output_path for node in (before, later)]
        assert paths[0] == paths[1] or last[paths[0]] < first[paths[1]]


def ordered_pairs(graph: Graph) -> Iterable[tuple[Node, Node]]:
    """Which step must end before which begins, read off the traced graph: for groups, each of their steps."""
    for step in (*graph.nodes, *graph.groups):
        for edge in step.after if isinstance(step, Group) else step.edges:
            if edge.kind in (EdgeKind.DATA, EdgeKind.ORDERING):
                yield from itertools.product(all_steps(edge.producer), all_steps(step))


def all_steps(step: Node | Group) -> Iterable[Node]:
    return steps_of(step) if isinstance(step, Group) else (step,)


@LAW
@given(PROGRAMS, st.data())
def test_a_failure_skips_exactly_its_dependents(program: Program, data: st.DataObject) -> None:
    names = sorted({node.name for node in program.graph().nodes})
    world = World(failing=data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=3)))
    low = lowered(program, world)
    with pytest.raises(RunFailedError, match=r"steps failed") as caught:
        run(roots_of(low), world, 4)
    report: Any = caught.value.report
    assert {outcome.output_path: outcome.kind for outcome in report.outcomes} == expected_outcomes(low, world)
    assert len(caught.value.exceptions) == report.count(OutcomeKind.FAILED)


def expected_outcomes(low: Lowered, world: World) -> dict[str, OutcomeKind]:
    kinds: dict[str, OutcomeKind] = {}
    for spec in low.specs:
        if any(kinds[path] is not OutcomeKind.SUCCEEDED for path in spec.dep_paths):
            kinds[spec.output_path] = OutcomeKind.DEP_FAILED
        else:
            failed = spec.name in world.failing
            kinds[spec.output_path] = OutcomeKind.FAILED if failed else OutcomeKind.SUCCEEDED
    return kinds


@PLAN_LAW
@given(PROGRAMS, st.data())
def test_the_plan_of_a_run_is_what_pruning_says(program: Program, data: st.DataObject) -> None:
    low = lowered(program, World())
    finished, forced = (data.draw(st.sets(st.sampled_from(low.graph.nodes))) for _ in range(2))
    paths = {node: low.spec_by_node[node].output_path for node in low.graph.nodes}
    statuses = {
        path: StepStatus(StatusKind.SUCCESS, epoch=1) if node in finished else StepStatus()
        for node, path in paths.items()
    }
    options = RunOptions(forced={paths[node]: statuses[paths[node]].epoch for node in forced})
    plan = plan_run(roots_of(low), options, statuses=statuses)
    actions = prune_completed(low.graph, finished, forced=forced)
    assert set(plan.to_run) == {paths[node] for node, action in actions.items() if action is Action.RUN}


@PLAN_LAW
@given(PROGRAMS)
def test_the_roots_bring_every_step_into_a_run(program: Program) -> None:
    low = lowered(program, World())
    assert set(collect_steps(roots_of(low))) == {spec.output_path for spec in low.specs}
