"""StepSpecs written by hand, and what all specs share."""

import copy
import dataclasses
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest

from marin_trace import StepRef, StepSpec, deferred, executor_main, lower, output, step
from marin_trace.errors import ConfigTypeError, FlagError, RunFailedError, StepNameError, UnstableValueError
from marin_trace.runtime.step_runner import StepRunner


@deferred
def write(path: str) -> None: ...


@step(name="raw")
def raw() -> StepRef:
    return write(output())


def chain(length: int) -> StepSpec:
    spec = StepSpec("step")
    for _ in range(length):
        spec = StepSpec("step", deps=[spec])
    return spec


def test_a_fingerprint_is_made_of_name_attrs_and_deps_in_order() -> None:
    a, b = StepSpec("a"), StepSpec("b")
    specs = [a, b, StepSpec("a", hash_attrs={"x": 1}), StepSpec("a", hash_attrs={"x": "1"})]
    specs += [StepSpec("a", [a]), StepSpec("a", [b]), StepSpec("a", [a, b]), StepSpec("a", [b, a])]
    assert len({spec.fingerprint for spec in specs}) == len(specs)
    assert (
        StepSpec("a", hash_attrs={"x": 1, "y": 2}).fingerprint == StepSpec("a", hash_attrs={"y": 2, "x": 1}).fingerprint
    )


def test_fn_prefix_and_override_are_no_part_of_it() -> None:
    plain = StepSpec("a")
    for other in (
        StepSpec("a", fn=print),
        StepSpec("a", output_path_prefix="/x"),
        StepSpec("a", override_output_path="y"),
    ):
        assert other.fingerprint == plain.fingerprint


def test_a_dependency_changes_what_comes_after() -> None:
    first, second = (StepSpec("b", deps=[StepSpec("a", hash_attrs={"x": x})]) for x in (1, 2))
    assert first.fingerprint != second.fingerprint


def test_what_is_derived_from_it() -> None:
    dep = StepSpec("raw", output_path_prefix="/data")
    spec = StepSpec("clean", deps=[dep], output_path_prefix="/data/")
    assert spec.dep_paths == [f"/data/raw-{dep.fingerprint[:8]}"]
    assert spec.name_with_hash == f"clean-{spec.hash_id}" == f"clean-{spec.fingerprint[:8]}"
    assert spec.output_path == f"/data/{spec.name_with_hash}"


def test_equality_and_hash_use_name_fingerprint_and_the_explicit_place() -> None:
    spec = StepSpec("a")
    assert spec == StepSpec("a", fn=print)
    assert hash(spec) == hash(StepSpec("a", fn=print))
    others = [StepSpec("b"), StepSpec("a", hash_attrs={"x": 1}), StepSpec("a", output_path_prefix="/x")]
    others.append(StepSpec("a", override_output_path="y"))
    assert len({spec, *others}) == 5
    assert spec != "a"


def test_a_spec_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError, match="name"):
        StepSpec("a").name = "b"


def test_deps_are_a_copy() -> None:
    deps = [StepSpec("a")]
    spec = StepSpec("b", deps)
    deps.append(StepSpec("c"))
    assert [dep.name for dep in spec.deps] == ["a"]


@pytest.mark.parametrize("length", [0, 50_000])
def test_nothing_recurses_into_deps(length: int) -> None:
    spec = chain(length)
    restored = pickle.loads(pickle.dumps(spec))
    assert len(pickle.dumps(spec)) < 1000
    assert restored == spec
    assert hash(restored) == hash(spec)
    assert repr(spec) == f"<StepSpec step-{spec.hash_id}>"
    assert restored.output_path == spec.output_path
    assert copy.copy(spec) == copy.deepcopy(spec) == spec


def test_a_long_chain_lowers_and_pickles() -> None:
    @step(name="link")
    def link(before: Any) -> StepRef:
        return write(output() if before is None else before)

    ref = None
    for _ in range(1000):
        ref = link(ref)
    spec = lower(ref)[-1]
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert len(lower(ref)) == 1000


@pytest.mark.parametrize("dep", ["raw", None, print, {"a": 1}])
def test_deps_accept_only_specs(dep: object) -> None:
    with pytest.raises(
        ConfigTypeError, match=r"(?s)a dependency of clean is .*takes a list of StepSpecs.*test_step_spec\.py:\d+"
    ):
        StepSpec("clean", deps=[dep])


def test_a_ref_is_no_dependency() -> None:
    with pytest.raises(ConfigTypeError, match=r"a dependency of clean is <StepRef raw>"):
        StepSpec("clean", deps=[raw()])


@pytest.mark.parametrize("deps", [StepSpec("a"), "raw", None, 7, iter([])])
def test_deps_are_a_list(deps: object) -> None:
    with pytest.raises(ConfigTypeError, match=r"(?s)takes a list of StepSpecs.*test_step_spec\.py:\d+"):
        StepSpec("clean", deps=deps)


def test_an_attr_without_identity_is_an_error_with_its_path() -> None:
    with pytest.raises(
        UnstableValueError,
        match=r"(?s)hash_attrs\['k'\]\[0\] of a has no stable identity: .*lock.*test_step_spec\.py:\d+",
    ):
        StepSpec("a", hash_attrs={"k": [threading.Lock()]})


def test_attrs_are_text_keyed_plain_data() -> None:
    with pytest.raises(UnstableValueError, match=r"hash_attrs\['data'\] of a has no stable identity: raw"):
        StepSpec("a", hash_attrs={"data": raw()})


def test_replace_recomputes_the_fingerprint_of_a_handwritten_spec() -> None:
    spec = StepSpec("a", hash_attrs={"x": 1})
    assert dataclasses.replace(spec, hash_attrs={"x": 2}) == StepSpec("a", hash_attrs={"x": 2})
    assert dataclasses.replace(spec, name="b") == StepSpec("b", hash_attrs={"x": 1})
    assert dataclasses.replace(spec, fn=print).fn is print


def test_replace_keeps_the_recipe_of_a_lowered_spec() -> None:
    spec = lower(raw(), prefix="/data")[0]
    moved = dataclasses.replace(spec, output_path_prefix="/other/")
    assert moved.fingerprint == spec.fingerprint
    assert moved.output_path == f"/other/{spec.name_with_hash}"
    assert dataclasses.replace(spec, override_output_path="x/y").output_path == "/data/x/y"


@pytest.mark.parametrize("change", [{"name": "../x"}, {"name": "experiments/x"}, {"override_output_path": "../x"}])
def test_replace_checks_what_it_is_given(change: dict[str, str]) -> None:
    for spec in (StepSpec("a"), lower(raw())[0]):
        with pytest.raises(StepNameError, match=r"test_step_spec\.py:\d+"):
            dataclasses.replace(spec, **change)


def test_a_spec_without_fn_can_be_hit_and_fails_clearly_when_it_must_run(prefix: str) -> None:
    made = StepSpec("a", fn=lambda path: Path(path).mkdir(parents=True, exist_ok=True))
    StepRunner().run([made])
    assert executor_main(steps=[StepSpec("a")], argv=[]).outcome_of(StepSpec("a")).kind == "hit"
    with pytest.raises(RunFailedError, match="1 of 1 steps failed: b") as caught:
        executor_main(steps=[StepSpec("b")], argv=[])
    message = str(caught.value.exceptions[0])
    assert message.startswith("b must be built, and has no function to build it")
    assert "test_step_spec.py:" in message


def test_a_handwritten_spec_runs_after_its_deps_and_returns_an_artifact(prefix: str) -> None:
    order: list[str] = []
    first = StepSpec("first", fn=lambda path: order.append("first"))
    second = StepSpec("second", deps=[first], fn=lambda path: order.append("second") or {"n": 2})
    report = executor_main(steps=[second], argv=[])
    assert order == ["first", "second"]
    assert report.artifact(second) == {"n": 2}
    assert report.output_path(first) == f"{prefix}/{first.name_with_hash}"


def test_a_lowered_spec_can_be_a_dependency(prefix: str) -> None:
    spec = StepSpec("after", deps=lower(raw()), fn=lambda path: None)
    report = executor_main(steps=[spec], argv=["--dry_run"])
    assert [outcome.name for outcome in report.outcomes] == ["raw", "after"]


def test_flags_reach_handwritten_specs(prefix: str) -> None:
    a, b = StepSpec("a", fn=lambda path: None), StepSpec("b", fn=lambda path: None)
    report = executor_main(steps=[a, b], argv=["--run_only", "a"])
    assert [outcome.name for outcome in report.outcomes] == ["a"]
    with pytest.raises(FlagError, match="--force 'zzz' matches no step or group"):
        executor_main(steps=[a, b], argv=["--force", "zzz"])
