"""Versions of steps of the older kind: the rule, on examples worked out by hand.

Each text was written by hand from the rule, and its md5 computed from it with `md5sum`.
"""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum, StrEnum
from pathlib import Path, PurePath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marin_trace import StepRef, deferred, lower, output, step
from marin_trace.errors import ConfigError, ConfigTypeError, CycleError, StepNameError, UnstableValueError
from marin_trace.legacy import (
    THIS_OUTPUT_PATH,
    ExecutorStep,
    InputName,
    VersionedValue,
    ensure_versioned,
    get_executor_step,
    output_path_of,
    this_output_path,
    unwrap_versioned_value,
    versioned,
)

Located = Callable[[str], str]


@dataclass
class Config:
    data: Any = None
    lr: Any = 0.1
    output_path: Any = THIS_OUTPUT_PATH
    rest: Any = field(default_factory=list[Any])


@dataclass(frozen=True)
class Shard:
    count: Any


def work(config: Any) -> None: ...


def text_of(old: ExecutorStep[Any]) -> str:
    assert old.node.foreign is not None
    return old.node.foreign.text


raw = ExecutorStep("raw/web", work, {"tokenizer": versioned("llama3"), "to": this_output_path()})
tiny = ExecutorStep("checkpoints/tiny", work, Config(data=raw / "train", lr=versioned(0.0003)))

RAW_TEXT = '{"config": {"tokenizer": "llama3"}, "dependencies": [], "name": "raw/web"}'
TINY_TEXT = (
    '{"config": {"data": "DEP[0]/train", "lr": 0.0003}, "dependencies": ['
    '{"config": {"tokenizer": "llama3"}, "dependencies": [], "name": "raw/web"}], "name": "checkpoints/tiny"}'
)

EXAMPLES = [
    (ExecutorStep("nothing", work, Config()), '{"config": {}, "dependencies": [], "name": "nothing"}', "5d4a13"),
    (raw, RAW_TEXT, "1b0338"),
    (tiny, TINY_TEXT, "9e4a38"),
    (
        ExecutorStep(
            "mix", work, {"weights": {"en": versioned(0.25)}, "shards": [Shard(versioned(4)), Shard(versioned(8))]}
        ),
        (
            '{"config": {"shards[0].count": 4, "shards[1].count": 8, "weights.en": 0.25}, "dependencies": [], '
            '"name": "mix"}'
        ),
        "6c1246",
    ),
    (
        ExecutorStep("evals/tiny", work, {"data": raw, "watch": (tiny / "checkpoints").nonblocking()}),
        (
            '{"config": {"data": "DEP[0]", "watch": "DEP[1]/checkpoints"}, "dependencies": ['
            '{"config": {"tokenizer": "llama3"}, "dependencies": [], "name": "raw/web"}], "name": "evals/tiny", '
            '"pseudo_dependencies": [{"config": {"data": "DEP[0]/train", "lr": 0.0003}, "dependencies": ['
            '{"config": {"tokenizer": "llama3"}, "dependencies": [], "name": "raw/web"}], "name": "checkpoints/tiny"}]}'
        ),
        "c6fc05",
    ),
    (
        ExecutorStep("twice", work, {"first": raw / "a", "second": raw.cd("b")}),
        (
            '{"config": {"first": "DEP[0]/a", "second": "DEP[1]/b"}, "dependencies": ['
            '{"config": {"tokenizer": "llama3"}, "dependencies": [], "name": "raw/web"}, '
            '{"config": {"tokenizer": "llama3"}, "dependencies": [], "name": "raw/web"}], "name": "twice"}'
        ),
        "bcf6a3",
    ),
    (
        ExecutorStep("from-path", work, {"path": InputName.hardcoded("gs://bucket/data/")}),
        '{"config": {"path": "gs://bucket/data/"}, "dependencies": [], "name": "from-path"}',
        "f2c07e",
    ),
    (
        ExecutorStep(
            "odd",
            work,
            {
                "every": versioned(timedelta(minutes=10)),
                "out": versioned(THIS_OUTPUT_PATH),
                "name": versioned("été"),
                "steps": versioned({10: "a", 2: "b"}),
            },
        ),
        (
            '{"config": {"every": {"days": 0, "microseconds": 0, "seconds": 600}, "name": "\\u00e9t\\u00e9", '
            '"out": "OutputName(name=None)", "steps": {"2": "b", "10": "a"}}, "dependencies": [], "name": "odd"}'
        ),
        "fd9744",
    ),
]


class Mode(Enum):
    FAST = "fast"


class Level(StrEnum):
    HIGH = "high"


@dataclass(frozen=True)
class Nested:
    shards: Any
    mode: Any = None


WORKED = {
    "fields in dicts in lists": (
        {"a": [{"b": Nested([Shard(versioned(1)), {"c": versioned("x")}])}]},
        '{"a[0].b.shards[0].count": 1, "a[0].b.shards[1].c": "x"}',
        [],
    ),
    "lists and tuples in each other": (
        {"z": ([versioned(1), 2], (versioned(3),))},
        '{"z[0][0]": 1, "z[1][0]": 3}',
        [],
    ),
    "keys as they are": (
        {"b c": versioned(1), "a.b": {"": versioned(2)}, "": {"d": versioned(3)}},
        '{"a.b.": 2, "b c": 1, "d": 3}',
        [],
    ),
    "what is None": (
        {"a": None, "b": versioned(None), "c": [None, versioned(False)]},
        '{"b": null, "c[1]": false}',
        [],
    ),
    "members, and dataclasses as they print themselves": (
        {
            "m": versioned(Mode.FAST),
            "l": versioned(Level.HIGH),
            "s": versioned(Shard(3)),
            "p": versioned(PurePath("a/b")),
        },
        '{"l": "high", "m": "Mode.FAST", "p": "a/b", "s": "Shard(count=3)"}',
        [],
    ),
    "floats and large numbers": (
        {"f": versioned([0.1 + 0.2, 1e22, 1e-07, -0.0, 3e-4, float("inf"), 2**70])},
        '{"f": [0.30000000000000004, 1e+22, 1e-07, -0.0, 0.0003, Infinity, 1180591620717411303424]}',
        [],
    ),
    "texts": (
        {"日本": versioned('é\u2028\n"\\😀')},
        '{"\\u65e5\\u672c": "\\u00e9\\u2028\\n\\"\\\\\\ud83d\\ude00"}',
        [],
    ),
    "a step three times, below and as a whole": (
        {"x": raw, "y": [raw / "a" / "b", raw.cd("c/")], "n": versioned(1)},
        '{"n": 1, "x": "DEP[0]", "y[0]": "DEP[1]/a/b", "y[1]": "DEP[2]/c/"}',
        [RAW_TEXT, RAW_TEXT, RAW_TEXT],
    ),
    "where a step that is read writes is no part of it": (
        {"x": raw.with_output_path("gs://bucket/raw"), "o": this_output_path("sub")},
        '{"x": "DEP[0]"}',
        [RAW_TEXT],
    ),
    "paths that no step makes": (
        Nested([InputName.hardcoded("raw/x") / "y", InputName(None, "gs://b/z")], mode=output_path_of(raw, "q")),
        '{"mode": "DEP[0]/q", "shards[0]": "raw/x/y", "shards[1]": "gs://b/z"}',
        [RAW_TEXT],
    ),
    "dicts that are versioned, by key": (
        {"w": versioned({"b": 1, "a": [{"d": None, "c": 0.5}]})},
        '{"w": {"a": [{"c": 0.5, "d": null}], "b": 1}}',
        [],
    ),
}
"""Configs, with what a person wrote down for them: the config and the dependencies of their versions."""


@pytest.mark.parametrize(("config", "written", "entries"), WORKED.values(), ids=WORKED)
def test_a_version_worked_out_by_hand(config: Any, written: str, entries: list[str]) -> None:
    text = f'{{"config": {written}, "dependencies": [{", ".join(entries)}], "name": "by/hand"}}'
    old = ExecutorStep("by/hand", work, config)
    assert text_of(old) == text
    [*_, spec] = lower(old, prefix="gs://bucket")
    assert spec.output_path == f"gs://bucket/by/hand-{hashlib.md5(text.encode()).hexdigest()[:6]}"


def test_pseudo_dependencies_are_numbered_with_the_others_and_listed_apart() -> None:
    config = {"watch": [tiny.nonblocking(), (raw / "x").nonblocking()], "data": raw / "y", "last": tiny}
    text = (
        '{"config": {"data": "DEP[2]/y", "last": "DEP[3]", "watch[0]": "DEP[0]", "watch[1]": "DEP[1]/x"}, '
        f'"dependencies": [{RAW_TEXT}, {TINY_TEXT}], "name": "watching", '
        f'"pseudo_dependencies": [{TINY_TEXT}, {RAW_TEXT}]}}'
    )
    assert text_of(ExecutorStep("watching", work, config)) == text


@pytest.mark.parametrize(("old", "text", "md5"), EXAMPLES, ids=[old.name for old, _, _ in EXAMPLES])
def test_a_version_is_written_and_hashed_as_the_rule_says(old: ExecutorStep[Any], text: str, md5: str) -> None:
    assert text_of(old) == text
    spec = lower(old, prefix="/data")[-1]
    assert spec.output_path == f"/data/{old.name}-{md5}"
    assert spec.fingerprint == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "other",
    [
        ExecutorStep("checkpoints/tiny", print, Config(data=raw / "train", lr=versioned(0.0003))),
        ExecutorStep("checkpoints/tiny", work, Config(raw / "train", versioned(0.0003), rest=[object(), work, {1, 2}])),
        ExecutorStep("checkpoints/tiny", work, {"lr": versioned(0.0003), "data": InputName(raw, "train")}),
        ExecutorStep("checkpoints/tiny", work, tiny.config, description="words", override_output_path="elsewhere"),
        tiny.with_output_path("gs://bucket/tiny"),
    ],
)
def test_what_is_not_versioned_is_no_part_of_it(other: ExecutorStep[Any]) -> None:
    assert text_of(other) == TINY_TEXT


@pytest.mark.parametrize(
    "other",
    [
        ExecutorStep("checkpoints/small", work, tiny.config),
        ExecutorStep("checkpoints/tiny", work, Config(data=raw / "train", lr=versioned("0.0003"))),
        ExecutorStep("checkpoints/tiny", work, Config(data=raw / "test", lr=versioned(0.0003))),
        ExecutorStep("checkpoints/tiny", work, Config(data=(raw / "train").nonblocking(), lr=versioned(0.0003))),
        ExecutorStep("checkpoints/tiny", work, Config(data=raw / "train", lr=0.0003)),
    ],
)
def test_what_is_versioned_is(other: ExecutorStep[Any]) -> None:
    assert text_of(other) != TINY_TEXT


def test_an_override_is_relative_to_the_prefix_or_absolute_and_leaves_the_version_alone() -> None:
    below = ExecutorStep("a", work, {"lr": versioned(1)}, override_output_path="kept/a/")
    outside = below.with_output_path("gs://bucket/a")
    assert lower([below, outside], prefix="/data")[0].output_path == "/data/kept/a"
    assert lower(outside, prefix="/data")[0].output_path == "gs://bucket/a"
    assert text_of(below) == text_of(outside) == '{"config": {"lr": 1}, "dependencies": [], "name": "a"}'


def test_a_config_that_is_one_value_has_the_empty_path() -> None:
    assert text_of(ExecutorStep("a", work, versioned(3))) == '{"config": {"": 3}, "dependencies": [], "name": "a"}'


def test_a_traced_step_is_entered_with_name_and_fingerprint() -> None:
    traced = new()
    fingerprint = lower(traced)[-1].fingerprint
    old = ExecutorStep("old", work, {"data": traced / "x", "watch": output_path_of(traced).nonblocking()})
    entry = {"name": "new", "fingerprint": fingerprint}
    expected = {
        "name": "old",
        "config": {"data": "DEP[0]/x", "watch": "DEP[1]"},
        "dependencies": [entry],
        "pseudo_dependencies": [entry],
    }
    assert text_of(old) == json.dumps(expected, sort_keys=True)


def test_a_step_of_the_older_kind_enters_a_fingerprint_with_the_sha256_of_its_version() -> None:
    same = ExecutorStep("raw/web", print, {"tokenizer": versioned("llama3"), "to": "elsewhere"})
    other = ExecutorStep("raw/web", work, {"tokenizer": versioned("llama2"), "to": this_output_path()})
    first, second, third = (lower(reading(source))[-1].fingerprint for source in (raw, same, other))
    assert first == second != third
    assert lower(reading(raw))[0].fingerprint == hashlib.sha256(RAW_TEXT.encode()).hexdigest()


@deferred
def read(path: Any, output_path: str) -> None: ...


@step(name="reading")
def reading(source: Any) -> StepRef:
    return read(source / "train", output())


@step(name="new")
def new() -> StepRef:
    return read("x", output())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def expected_version(old: ExecutorStep[Any]) -> dict[str, Any]:
    """The rule again, with a walk of its own."""
    config: dict[str, Any] = {}
    steps: list[tuple[ExecutorStep[Any], bool]] = []

    def walk(value: Any, path: str) -> None:
        match value:
            case VersionedValue():
                config[path] = value.value
            case ExecutorStep():
                walk(InputName(value, None), path)
            case InputName(step=None):
                config[path] = value.name
            case InputName():
                config[path] = f"DEP[{len(steps)}]" + (f"/{value.name}" if value.name else "")
                steps.append((get_executor_step(value), value.block_on_step))
            case Config():
                for name in ("data", "lr", "output_path", "rest"):
                    walk(getattr(value, name), f"{path}.{name}" if path else name)
            case list() | tuple():
                for index, item in enumerate(value):
                    walk(item, f"{path}[{index}]")
            case dict():
                for key, item in value.items():
                    walk(item, f"{path}.{key}" if path else key)
            case _:
                pass

    walk(old.config, "")
    waited, watched = ([expected_version(step) for step, blocks in steps if blocks is kind] for kind in (True, False))
    version = {"name": old.name, "config": config, "dependencies": waited}
    return version | ({"pseudo_dependencies": watched} if watched else {})


keys = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=3).filter(lambda key: key != "{}")
leaves = st.one_of(
    st.builds(versioned, json_values),
    st.builds(this_output_path),
    st.just(InputName.hardcoded("gs://bucket/x/")),
    st.tuples(st.just("step"), st.integers(0, 9), st.sampled_from(["", "a", "b/*.gz", "c/"]), st.booleans()),
    st.none() | st.integers() | st.text(),
)
configs = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=3)
        | st.builds(Config, inner, inner, rest=inner)
    ),
    max_leaves=10,
)


def with_steps(value: Any, steps: list[ExecutorStep[Any]]) -> Any:
    """A config with the steps that its placeholders mean."""
    match value:
        case ("step", int(number), str(below), bool(blocks)):
            found = steps[number % len(steps)]
            found = found / below if below else found
            return found if blocks else found.nonblocking()
        case list() | tuple():
            return type(value)(with_steps(item, steps) for item in value)
        case dict():
            return {key: with_steps(item, steps) for key, item in value.items()}
        case Config():
            fields = (value.data, value.lr, value.output_path, value.rest)
            return Config(*(with_steps(item, steps) for item in fields))
        case _:
            return value


@given(st.lists(configs, max_size=4))
def test_the_text_is_that_of_json_dumps(generated: list[Any]) -> None:
    steps = [ExecutorStep("s0", work, {})]
    for config in generated:
        steps.append(ExecutorStep(f"s{len(steps)}", work, with_steps(config, steps)))
    text = json.dumps(expected_version(steps[-1]), sort_keys=True)
    assert text_of(steps[-1]) == text
    [*_, spec] = lower(steps, prefix="/data")
    assert spec.output_path == f"/data/{spec.name}-{hashlib.md5(text.encode()).hexdigest()[:6]}"


def test_a_deep_chain_needs_no_recursion() -> None:
    last = ExecutorStep("s", work, {})
    for number in range(1200):
        last = ExecutorStep(f"s{number}", work, {"before": last})
    assert len(lower(last)) == 1201


def test_a_step_has_one_node_and_equal_steps_run_once() -> None:
    again = ExecutorStep("raw/web", work, {"tokenizer": versioned("llama3"), "to": this_output_path()})
    assert tiny.node.edges[0].producer is raw.node
    assert len(lower([raw, again, tiny])) == 2


def at_this_line(old: Any) -> str:
    return f"{Path(__file__).name}:{old.location.line}"


REFUSED = [
    (lambda: {"x": versioned([raw])}, ConfigError, r"config\['x'\] of bad has <ExecutorStep raw/web> inside"),
    (lambda: {"x": versioned({"y": raw / "z"})}, ConfigError, "inside versioned"),
    (lambda: {"x": versioned(object())}, UnstableValueError, "differs in each process"),
    (lambda: {"x": versioned([{"b", "a"}])}, UnstableValueError, "differs in each process"),
    (lambda: {"x": versioned({1: 2, "b": 3})}, ConfigError, "is no JSON"),
    (lambda: {"x": {raw, tiny}}, ConfigError, "in a set, or as the key of a dict"),
    (lambda: {raw: 1}, ConfigError, "in a set, or as the key of a dict"),
    (lambda: {"x": new().artifact}, ConfigError, "which only a traced step can use"),
]


@pytest.mark.parametrize(("config", "error", "message"), REFUSED)
def test_what_has_no_version_is_refused_with_the_step_and_the_line(
    config: Callable[[], Any], error: type[Exception], message: str
) -> None:
    bad = ExecutorStep("bad", work, config())
    with pytest.raises(error, match=message) as caught:
        lower(bad)
    assert at_this_line(bad) in str(caught.value)
    assert "bad" in str(caught.value).splitlines()[0]


def test_configs_that_were_changed_into_a_circle_are_refused() -> None:
    config: dict[str, Any] = {}
    first = ExecutorStep("first", work, config)
    config["second"] = ExecutorStep("second", work, {"first": first})
    with pytest.raises(CycleError, match="needs itself"):
        lower(first)


@pytest.mark.parametrize("subpath", ["", "/x", "../x", "a/../b", "gs://x", "a\n", 3])
def test_a_path_below_an_output_stays_there(subpath: Any) -> None:
    for below in (raw.cd, this_output_path, lambda path: output_path_of(raw, path), lambda path: raw / path):
        with pytest.raises(StepNameError, match=re.escape(f"{subpath!r} is not a path below an output")):
            below(subpath)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: versioned(versioned(1)), ConfigError, "versioned already"),
        (lambda: versioned(raw / "x"), ConfigError, "a reference to a step is part of the version by itself"),
        (lambda: ensure_versioned(raw), ConfigError, "a reference to a step"),
        (lambda: get_executor_step(InputName.hardcoded("gs://x")), ConfigTypeError, "leads to no ExecutorStep"),
        (lambda: output_path_of("raw"), ConfigTypeError, "takes a step, not 'raw'"),
        (lambda: ExecutorStep("x", "fn", {}), ConfigTypeError, "the fn of x cannot be called"),
        (lambda: ExecutorStep(None, work, {}), ConfigTypeError, "the name of a step is text"),
        (lambda: InputName.hardcoded("../x"), StepNameError, "holds '..'"),
        (lambda: lower(ExecutorStep("x y", work, {})), StepNameError, "'x y' is not a step name"),
        (lambda: lower(ExecutorStep("x", work, {}, override_output_path="../y")), StepNameError, "holds '..'"),
        (lambda: lower(ExecutorStep("x", work, {}, resources="tpu")), ConfigTypeError, "x has options that cannot"),
    ],
)
def test_misuse_is_named_with_its_line(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        make()
    assert Path(__file__).name in str(caught.value)


def test_values_are_wrapped_once_and_unwrapped() -> None:
    assert ensure_versioned(ensure_versioned(3)) == versioned(3)
    assert unwrap_versioned_value(versioned(3)) == unwrap_versioned_value(3) == 3
    assert get_executor_step(raw / "x") is get_executor_step(raw) is raw
