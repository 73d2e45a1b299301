"""Laws of scheduling, over random graphs."""

from collections.abc import Collection

from hypothesis import given
from hypothesis import strategies as st

from marin_trace.runtime.schedule import Schedule, find_cycle, post_order, wanted

Deps = dict[int, list[int]]


@st.composite
def acyclic_graphs(draw: st.DrawFn) -> Deps:
    size = draw(st.integers(1, 12))
    return {node: sorted(draw(st.sets(st.integers(0, node - 1)))) if node else [] for node in range(size)}


def upstream_of(deps: Deps, node: int) -> set[int]:
    found = {dep for dep in deps[node] if dep in deps}
    return found.union(*(upstream_of(deps, dep) for dep in found))


@given(acyclic_graphs(), st.randoms(use_true_random=False), st.sets(st.integers(0, 11)))
def test_a_step_starts_after_its_dependencies_and_at_most_once(deps: Deps, random, failing: Collection[int]) -> None:
    schedule, started, running, succeeded = Schedule(deps), [], [], set()
    while not schedule.is_over:
        while schedule.peek() is not None and (not running or random.random() < 0.7):
            node = schedule.take()
            assert set(deps[node]) <= succeeded
            started.append(node)
            running.append(node)
        node = running.pop(random.randrange(len(running)))
        if node in failing:
            schedule.fail(node)
        else:
            schedule.succeed(node)
            succeeded.add(node)
    assert len(started) == len(set(started))


@given(acyclic_graphs(), st.sets(st.integers(0, 11)))
def test_a_failure_skips_exactly_its_dependents(deps: Deps, failing: Collection[int]) -> None:
    schedule, succeeded, skipped = Schedule(deps), set(), []
    while not schedule.is_over:
        node = schedule.take()
        if node in failing:
            skipped += schedule.fail(node)
        else:
            schedule.succeed(node)
            succeeded.add(node)
    assert set(skipped) == {node for node in deps if upstream_of(deps, node) & (set(failing) - set(skipped))}
    assert len(skipped) == len(set(skipped))
    assert succeeded == set(deps) - set(failing) - set(skipped)


@given(acyclic_graphs(), st.sets(st.integers(0, 11)), st.sets(st.integers(0, 11), min_size=1))
def test_nothing_upstream_of_a_finished_key_is_wanted_for_it(deps: Deps, finished: set[int], roots: set[int]) -> None:
    roots &= deps.keys()
    chosen = wanted(roots, is_finished=finished.__contains__, needs=deps.__getitem__)
    assert not chosen & finished
    unfinished = {node for node in deps if node not in finished}
    assert chosen == {
        node for node in unfinished if node in roots or any(node in deps[dependent] for dependent in chosen)
    }


@given(acyclic_graphs())
def test_post_order_puts_children_first(deps: Deps) -> None:
    order = post_order(reversed(deps), deps.__getitem__)
    assert sorted(order) == sorted(deps)
    assert all(order.index(dep) < order.index(node) for node in deps for dep in deps[node])


@given(acyclic_graphs(), st.data())
def test_a_cycle_is_found_as_a_chain_that_returns(deps: Deps, data: st.DataObject) -> None:
    assert find_cycle(deps) is None
    node = data.draw(st.sampled_from(sorted(deps)))
    start = data.draw(st.sampled_from(sorted(upstream_of(deps, node) | {node})))
    deps[start] = [*deps[start], node]
    cycle = find_cycle(deps)
    assert cycle is not None
    assert cycle[0] == cycle[-1]
    assert all(cycle[n + 1] in deps[cycle[n]] for n in range(len(cycle) - 1))


def test_what_goes_first_goes_before_what_was_ready_earlier() -> None:
    schedule = Schedule({"slow": [], "a": [], "watched": ["slow"]}, first={"watched"})
    assert schedule.take() == "slow"
    schedule.succeed("slow")
    assert [schedule.take(), schedule.take()] == ["watched", "a"]


def test_a_key_that_failed_before_it_started_is_not_handed_out() -> None:
    schedule = Schedule({"unbuildable": [], "fine": [], "below": ["unbuildable"]})
    assert schedule.fail("unbuildable") == ["below"]
    assert schedule.peek() == "fine"
    schedule.succeed(schedule.take())
    assert (schedule.peek(), schedule.is_over) == (None, True)


def test_a_lane_hides_no_other() -> None:
    schedule = Schedule({"job": [], "local": []}, lane_of={"job": "elsewhere", "local": "local"})
    assert (schedule.peek("local"), schedule.peek("elsewhere"), schedule.peek()) == ("local", "job", None)


def test_a_key_that_was_put_back_is_handed_out_again() -> None:
    schedule = Schedule({"held": []})
    schedule.put_back(schedule.take())
    assert schedule.take() == "held"
    assert schedule.peek() is None


def test_a_chain_of_100_000_steps_needs_no_stack() -> None:
    deps = {node: [node - 1] if node else [] for node in range(100_000)}
    assert post_order([99_999], deps.__getitem__) == list(range(100_000))
    assert find_cycle(deps) is None
    schedule = Schedule(deps)
    assert len(schedule.fail(schedule.take())) == 99_999
    assert schedule.is_over
