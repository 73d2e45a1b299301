"""``unversioned=``, ``omit_when=``, ``identity=`` and ``expect_fingerprint``: growing without recomputing."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from marin_trace import StepRef, deferred, lower, output, step, trace, unversioned
from marin_trace.errors import ConfigError, FingerprintChangedError


@dataclass(frozen=True)
class Shard:
    host: str
    path: str


@dataclass(frozen=True)
class Config:
    tokenizer: str = "llama3"
    workers: int = 4
    new_flag: bool = False
    shards: tuple[Shard, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


def work(config: Any, **more: Any) -> Any: ...


def spec_of(config: Any, *, function: Any = None, **options: Any) -> Any:
    @step(name="made")
    def body() -> StepRef:
        return (function or deferred(work, **options))(config)

    return lower(trace(body))[-1]


def fingerprint(config: Any, **options: Any) -> str:
    return spec_of(config, **options).fingerprint


def test_an_unversioned_path_is_no_part_of_the_identity() -> None:
    rule = {"unversioned": ("config.workers",)}
    assert fingerprint(Config(workers=1), **rule) == fingerprint(Config(workers=2), **rule)
    assert fingerprint(Config(tokenizer="a"), **rule) != fingerprint(Config(tokenizer="b"), **rule)
    assert fingerprint(Config(workers=1)) != fingerprint(Config(workers=2))


def test_a_single_unversioned_path_may_be_plain_text() -> None:
    assert fingerprint(Config(workers=1), unversioned="config.workers") == fingerprint(
        Config(workers=2), unversioned="config.workers"
    )


def test_an_unversioned_rule_means_what_unversioned_at_the_call_means() -> None:
    by_rule = fingerprint(Config(workers=1), unversioned=("config.workers",))
    assert by_rule == fingerprint(dataclasses.replace(Config(), workers=unversioned(9)))


@pytest.mark.parametrize(
    "path", ["config.shards[*].host", "config.shards[0].host", 'config.options["k"]', "config.options['k']"]
)
def test_a_path_may_lead_through_sequences_and_mappings(path: str) -> None:
    def of(value: str) -> str:
        return fingerprint(Config(shards=(Shard(value, "p"),), options={"k": "x"}), unversioned=(path,))

    assert (of("a") == of("b")) is ("host" in path)

    def of_options(value: str) -> str:
        return fingerprint(Config(shards=(Shard("h", "p"),), options={"k": value}), unversioned=(path,))

    assert (of_options("a") == of_options("b")) is ("options" in path)


def test_what_is_omitted_at_a_value_counts_at_every_other() -> None:
    rule = {"omit_when": {"config.new_flag": False}}

    @dataclass(frozen=True)
    class Before:
        tokenizer: str = "llama3"
        workers: int = 4
        shards: tuple[Shard, ...] = ()
        options: dict[str, Any] = field(default_factory=dict)

    Before.__marin_trace_identity__ = "Config"  # type: ignore[attr-defined]
    before = fingerprint(Before())
    assert fingerprint(Config(), **rule) == before
    assert fingerprint(Config(new_flag=True), **rule) != before
    assert fingerprint(Config(new_flag=0), **rule) != before  # type: ignore[arg-type]


def test_a_new_parameter_of_the_function_can_be_omitted() -> None:
    def new(config: Any, mode: str = "fast") -> Any: ...

    def old(config: Any) -> Any: ...

    before = fingerprint(1, function=deferred(old, identity="lib:fn"))
    after = deferred(new, identity="lib:fn", omit_when={"mode": "fast"})
    assert fingerprint(1, function=after) == before


def test_omitted_values_reach_the_function_all_the_same() -> None:
    seen: list[Any] = []

    def look(config: Any) -> None:
        seen.append(config)

    rules = {"omit_when": {"config.new_flag": False}, "unversioned": ("config.workers",)}
    spec = spec_of(Config(workers=9), function=deferred(look, identity="look", **rules))
    spec.fn("/somewhere")
    assert seen == [Config(workers=9)]


def test_a_ref_at_an_unversioned_path_leaves_an_ordering_edge() -> None:
    @step(name="data")
    def data() -> StepRef:
        return deferred(work)(output())

    @step(name="made")
    def body() -> StepRef:
        return deferred(work, unversioned=("config.tokenizer",))(Config(tokenizer=data()))  # type: ignore[arg-type]

    [edge] = trace(body).nodes[-1].edges
    assert edge.kind.value == "ordering"
    assert lower(trace(body))[-1].fingerprint == fingerprint(Config(), unversioned=("config.tokenizer",))


@pytest.mark.parametrize("options", [{"unversioned": ["config.wokers"]}, {"omit_when": {"config.wokers": 1}}])
def test_a_rule_about_a_field_that_does_not_exist_is_an_error(options: Any, at: Callable[[str], str]) -> None:
    @step
    def body() -> StepRef:
        return deferred(work, **options)(Config())  # ruled

    with pytest.raises(
        ConfigError, match=r"work has nothing at the config path 'config.wokers': there is no 'wokers'"
    ) as error:
        body()
    assert at("ruled") in str(error.value)
    assert "hint: did you mean 'workers'?" in str(error.value)


@pytest.mark.parametrize("path", ["", ".config", "[0]", "config..x", "config[", "config[x]", "a b", 3])
def test_a_path_that_cannot_be_read_is_refused_where_it_is_given(path: Any) -> None:
    with pytest.raises(ConfigError, match="is not a config path") as error:
        deferred(work, unversioned=[path])
    assert "test_identity_rules.py:" in str(error.value)
    assert "config.shards[*].host" in str(error.value).split("hint: ")[1]


def test_an_identity_keeps_the_outputs_of_a_moved_function() -> None:
    def moved(config: Any, **more: Any) -> Any: ...

    assert fingerprint(1, function=deferred(moved, identity=f"{work.__module__}:work")) == fingerprint(1)
    assert fingerprint(1, function=deferred(moved, identity="x:y")) != fingerprint(1)


def test_a_renamed_class_keeps_its_identity_by_an_attribute() -> None:
    @dataclass(frozen=True)
    class Renamed:
        host: str
        path: str
        __marin_trace_identity__ = "Shard"

    class Child(Renamed):
        pass

    assert fingerprint(Renamed("h", "p")) == fingerprint(Shard("h", "p"))
    assert fingerprint(Child("h", "p")) != fingerprint(Shard("h", "p"))


def test_a_pinned_fingerprint_that_changed_is_an_error_with_the_recipe(at: Callable[[str], str]) -> None:
    @step(name="made")
    def body(config: Any) -> StepRef:
        return deferred(work)(config)

    pinned = body.with_options(expect_fingerprint=fingerprint(1)[:8])
    assert len(lower(pinned(1))) == 1
    ref = pinned(2)  # pinned
    with pytest.raises(
        FingerprintChangedError, match=r"made has the fingerprint [0-9a-f]{8}, and pins [0-9a-f]{8}"
    ) as error:
        lower(ref)
    assert at("pinned") in str(error.value)
    assert "config:" in str(error.value)
    assert 'expect_fingerprint="' in str(error.value).split("hint: ")[1]
