"""Lowering: which specs a graph becomes, in which order, and what cannot be lowered."""

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from marin_trace import ResourceConfig, StepRef, deferred, lower, output, step, trace, unversioned
from marin_trace.errors import (
    ConfigTypeError,
    CycleError,
    MarinTraceWarning,
    OptionsConflictError,
    OutputConflictError,
)


@deferred
def write(path: str, size: int = 1, workers: int = 1) -> None: ...


@deferred
def read(path: Any, out: str = "") -> None: ...


@deferred
def open_path(path: Path, out: str = "") -> str:
    return type(path).__name__


@step(name="raw/{size}")
def raw(size: int) -> StepRef:
    return write(output(), size)


@step(name="use/{name}")
def use(name: str, *refs: Any) -> StepRef:
    return read(list(refs), out=output())


@step(name="named")
def named(size: int, workers: int = 1) -> StepRef:
    return write(output(), size, unversioned(workers))


def names(specs: Any) -> list[str]:
    return [spec.name for spec in specs]


def test_specs_come_in_the_order_of_the_graph_without_groups() -> None:
    @step(name="group")
    def group() -> dict[str, StepRef]:
        first = raw(1)
        return {"first": first, "second": use("b", first, raw(2))}

    graph = trace(group)
    assert names(lower(graph)) == [node.name for node in graph.nodes] == ["raw/1", "raw/2", "use/b"]


def test_producers_come_first_however_they_are_given() -> None:
    ref = use("b", use("a", raw(1)), raw(2))
    for given in (ref, [ref], {"k": (ref, raw(1))}, [use("a", raw(1)), ref]):
        specs = lower(given)
        for index, spec in enumerate(specs):
            assert all(dep in specs[:index] for dep in spec.deps)


def test_deps_are_what_is_waited_for_each_once() -> None:
    @step(name="all")
    def entry(given: StepRef) -> StepRef:
        raw(3)  # unused: ordering
        return read([raw(1), raw(1) / "a", raw(2).nonblocking(), raw(4), raw(4).nonblocking()], out=output())

    spec = lower(entry(raw(5)))[-1]
    assert sorted(names(spec.deps)) == ["raw/1", "raw/3", "raw/4", "raw/5"]
    assert names(spec.nonblocking_deps) == ["raw/2"]


def test_unversioned_refs_are_waited_for() -> None:
    assert names(lower(use("a", unversioned(raw(1))))[-1].deps) == ["raw/1"]


def test_equal_steps_of_several_traces_are_one() -> None:
    specs = lower([use("a", raw(1)), use("b", raw(1))])
    assert names(specs) == ["raw/1", "use/a", "use/b"]


def test_equal_steps_with_other_output_paths_are_two() -> None:
    specs = lower([raw(1), raw(1).with_output_path("models/final")], prefix="/data")
    assert [spec.output_path for spec in specs] == [f"/data/{specs[0].name_with_hash}", "/data/models/final"]
    assert specs[0].fingerprint == specs[1].fingerprint


def test_a_redirected_step_is_read_where_it_writes(prefix: str) -> None:
    spec = lower(use("a", raw(1).with_output_path("models/final")))[-1]
    assert spec.dep_paths == [f"{prefix}/models/final"]


def test_ordering_edges_of_merged_steps_are_united() -> None:
    @step(name="later")
    def later(after: StepRef) -> StepRef:
        return write(output())

    specs = lower([later(raw(1)), later(raw(2))])
    assert sorted(names(specs)) == ["later", "raw/1", "raw/2"]
    assert sorted(names(next(spec for spec in specs if spec.name == "later").deps)) == ["raw/1", "raw/2"]


def test_a_cycle_made_by_merging_is_an_error_that_names_both_lines() -> None:
    @step(name="one")
    def one(after: Any = None) -> StepRef:
        return write(output(), 1)

    @step(name="two")
    def two(after: Any = None) -> StepRef:
        return write(output(), 2)

    with pytest.raises(CycleError, match="needs itself") as caught:
        lower([one(two()), two(one())])
    assert len(re.findall(r"    (?:one|two)  \S*test_lower\.py:\d+", str(caught.value))) == 2


def test_of_unversioned_values_the_first_wins_with_a_warning_that_names_both_lines() -> None:
    first, second = named(1, workers=1), named(1, workers=2)
    with pytest.warns(MarinTraceWarning) as caught:
        specs = lower([first, second])
    assert len(specs) == 1
    message = str(caught[0].message)
    assert message.startswith(
        "named is called with different unversioned values for write(workers): the first call's win"
    )
    assert len(re.findall(r"test_lower\.py:\d+", message)) == 2
    assert specs[0].record().config["workers"] == 1


def test_equal_unversioned_values_draw_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lower([named(1, workers=2), named(1, workers=2), use("a", unversioned(raw(1))), use("a", unversioned(raw(1)))])


def test_an_explicit_option_beats_none_in_either_order() -> None:
    for refs in ([raw(1), raw.with_options(retries=2)(1)], [raw.with_options(retries=2)(1), raw(1)]):
        assert [spec.options.retries for spec in lower(refs)] == [2]


def test_options_of_merged_steps_are_united() -> None:
    refs = [raw.with_options(retries=2)(1), raw.with_options(timeout=5.0)(1), raw.with_options(description="d")(1)]
    options = lower(refs)[0].options
    assert (options.retries, options.timeout, options.description) == (2, 5.0, "d")


@pytest.mark.parametrize(
    ("option", "first", "second"),
    [
        ("retries", 1, 2),
        ("timeout", 1.0, 2.0),
        ("fresh", True, False),
        ("env_vars", {"A": "1"}, {"A": "2"}),
        ("pip_dependency_groups", ["a"], ["b"]),
        ("resources", ResourceConfig.with_cpu(1), ResourceConfig.with_cpu(2)),
    ],
)
def test_two_different_explicit_options_are_an_error_that_names_both_lines(
    option: str, first: Any, second: Any
) -> None:
    refs = [raw.with_options(**{option: value})(1) for value in (first, second)]
    with pytest.raises(
        OptionsConflictError, match=rf"(?s)raw/1 is called with two different {option}\n.*first.*second"
    ):
        lower(refs)


def test_two_equal_explicit_options_are_one() -> None:
    assert len(lower([raw.with_options(env_vars={"A": "1"})(1) for _ in range(2)])) == 1


def test_two_recipes_for_one_path_are_an_error_that_names_both_call_sites() -> None:
    first = raw.with_options(override_output_path="same")(1)
    second = raw.with_options(override_output_path="same")(2)
    with pytest.raises(OutputConflictError) as caught:
        lower([first, second], prefix="/data")
    message = str(caught.value)
    assert message.startswith("two steps would write /data/same\n")
    lines = [int(number) for number in re.findall(r"test_lower\.py:(\d+)", message)]
    assert lines == [lines[0], lines[0] + 1]


def test_an_output_inside_another_output_is_an_error() -> None:
    outer = raw.with_options(override_output_path="models")(1)
    inner = raw.with_options(override_output_path="models/a/b")(2)
    for refs in ([outer, inner], [inner, outer]):
        with pytest.raises(
            OutputConflictError, match=r"(?s)output of raw/2 would lie inside that of raw/1.*first.*second"
        ):
            lower(refs, prefix="/data")


def test_outputs_beside_each_other_are_none() -> None:
    paths = ["models", "models2", "models-x/a", "/elsewhere/models", "memory://m/models"]
    refs = [raw.with_options(override_output_path=path)(size) for size, path in enumerate(paths)]
    assert len(lower(refs, prefix="/data")) == len(paths)


def test_an_absolute_override_below_the_prefix_conflicts_too() -> None:
    refs = [raw.with_options(override_output_path=path)(size) for size, path in enumerate(("a", "/data/a/b"))]
    with pytest.raises(OutputConflictError, match="would lie inside"):
        lower(refs, prefix="/data")


def test_a_leaf_annotated_path_gets_a_path_on_a_local_disk(tmp_path: Path) -> None:
    @step(name="local")
    def local() -> StepRef:
        return open_path(output() / "x")

    spec = lower(local(), prefix=str(tmp_path))[0]
    assert spec.fn(spec.output_path) == type(tmp_path).__name__


@dataclass(frozen=True)
class PathConfig:
    data: Path
    either: str | Path
    text: str


@deferred
def kinds(config: PathConfig) -> dict[str, str]:
    return {name: type(getattr(config, name)).__name__ for name in ("data", "either", "text")}


def test_only_a_leaf_that_accepts_no_text_gets_a_path(tmp_path: Path) -> None:
    @step(name="kinds")
    def all_kinds() -> StepRef:
        return kinds(PathConfig(output(), StepRef.hardcoded("/a"), raw(1)))

    spec = lower(all_kinds(), prefix=str(tmp_path))[-1]
    assert spec.fn(spec.output_path) == {"data": type(tmp_path).__name__, "either": "str", "text": "str"}


@pytest.mark.parametrize("prefix", ["memory://data", "gs://bucket/data"])
def test_a_leaf_annotated_path_is_an_error_on_an_object_store(prefix: str) -> None:
    @step(name="local")
    def local() -> StepRef:
        return open_path(output() / "x")

    with pytest.raises(
        ConfigTypeError, match=rf"(?s)open_path\(path\) is annotated .*{prefix}/local-.*test_lower\.py:\d+"
    ):
        lower(local(), prefix=prefix)


def test_a_hardcoded_relative_path_lies_under_the_prefix() -> None:
    spec = lower(use("a", StepRef.hardcoded("raw/web") / "*.txt", StepRef.hardcoded("gs://b/c")), prefix="/data")[0]
    assert spec.record().config["path"] == ["/data/raw/web/*.txt", "gs://b/c"]


def test_lowering_does_no_io(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = tmp_path / "absent"
    monkeypatch.setenv("MARIN_PREFIX", str(absent))
    lower(use("a", raw(1)))
    lower(use("a", raw(1)), prefix=str(tmp_path / "other"))
    assert list(tmp_path.iterdir()) == []


def test_two_lowerings_are_equal() -> None:
    ref = use("a", raw(1))
    assert lower(ref) == lower(ref)
    assert lower(ref, prefix="/a") != lower(ref, prefix="/b")


def test_every_spec_knows_its_line() -> None:
    spec = lower(raw(1))[0]
    assert re.fullmatch(r".*test_lower\.py:\d+", spec.location)


def test_groups_of_several_traces_whose_steps_are_equal_lower() -> None:
    @step(name="group")
    def group(after: StepRef) -> None:
        raw(1)

    @step(name="all")
    def entry() -> StepRef:
        group(raw(2))
        return write(output())

    specs = lower([entry(), entry(), group(raw(2))])
    assert names(specs) == ["raw/2", "raw/1", "all"]
    assert [names(spec.deps) for spec in specs] == [[], ["raw/2"], ["raw/1"]]


def test_merged_steps_come_after_the_groups_that_they_wait_for() -> None:
    @step(name="group")
    def group() -> None:
        raw(1)

    @step(name="later")
    def later(after: Any = None) -> StepRef:
        return write(output())

    first, second = later(), later(group())
    specs = lower([first, second])
    assert names(specs) == ["raw/1", "later"]
    assert names(specs[1].deps) == ["raw/1"]


def test_a_long_chain_of_groups_lowers() -> None:
    @step(name="group/{number}")
    def group(number: int, after: Any = None) -> None:
        raw(number)

    def pipeline() -> None:
        before = None
        for number in range(2000):
            before = group(number, before)

    assert len(lower(trace(pipeline))) == 2000


def test_a_step_waits_for_all_members_of_a_group_and_brings_in_those_that_nobody_reads() -> None:
    @step(name="group")
    def group() -> None:
        use("reader", raw(1))

    @step(name="all")
    def entry() -> StepRef:
        group()
        return write(output())

    spec = lower(entry())[-1]
    assert sorted(names(spec.deps)) == ["raw/1", "use/reader"]
    assert names(spec.order_only_deps) == ["raw/1"]


def test_every_member_of_a_group_runs_after_its_unused_refs() -> None:
    @step(name="inner")
    def inner() -> None:
        raw(2)

    @step(name="group")
    def group(after: StepRef) -> None:
        raw(1)
        inner()

    specs = lower(trace(group, use("first")))
    assert {spec.name: names(spec.deps) for spec in specs} == {
        "use/first": [],
        "raw/1": ["use/first"],
        "raw/2": ["use/first"],
    }


@pytest.mark.parametrize("outer", ["/data/m2", "/data/m", "/data"])
def test_an_override_beside_or_above_the_prefix_may_hold_no_other_output(outer: str) -> None:
    refs = [raw.with_options(override_output_path=outer)(1), raw.with_options(override_output_path=f"{outer}/x")(2)]
    with pytest.raises(OutputConflictError, match=r"raw/2 would lie inside that of raw/1(?s:.*)test_lower"):
        lower(refs, prefix="/data/m")
    if outer != "/data/m2":
        with pytest.raises(OutputConflictError, match="raw/3 would lie inside that of raw/1"):
            lower([refs[0], raw(3)], prefix="/data/m")


def test_a_file_url_becomes_the_path_object_of_its_file() -> None:
    seen: list[Any] = []

    def look(path: Path) -> None:
        seen.append(path)

    @step
    def body() -> None:
        deferred(look, identity="tests:look")(StepRef.hardcoded("file:///data/x"))

    [spec] = lower(trace(body), prefix="/p")
    assert spec.fn is not None
    spec.fn("/out")
    assert seen == [Path("/data/x")]


def test_two_pins_of_one_step_that_contradict_each_other_are_an_error() -> None:
    fingerprint = lower(raw(1))[0].fingerprint
    short, longer, wrong = (raw.with_options(expect_fingerprint=pin) for pin in (fingerprint[:8], fingerprint, "0" * 8))
    assert lower([short(1), longer(1), short(1)])[0].options.expect_fingerprint == fingerprint
    with pytest.raises(OptionsConflictError, match=r"two different expect_fingerprint(?s:.*)test_lower"):
        lower([short(1), wrong(1)])
