"""What speaks against adopting an output."""

import json
from pathlib import Path
from typing import Any

import pytest

from marin_trace import StepRef, deferred, lower, output, step
from marin_trace.legacy import ExecutorStep, versioned
from marin_trace.planning.contradictions import contradictions


def work(config: Any, data: Any = None) -> None: ...


@step(name="data")
def data(rows: int) -> StepRef:
    return deferred(work)({"rows": rows, "to": output()})


@step(name="train")
def train(config: dict[str, Any], source: Any = None) -> StepRef:
    return deferred(work)({**config, "to": output()}, source)


def spec_of(config: dict[str, Any], rows: int | None = None) -> Any:
    return lower(train(config, None if rows is None else data(rows)))[-1]


def told(directory: Path, record: Any, spec: Any) -> list[str]:
    (directory / ".executor_info").write_text(json.dumps(record))
    return [str(change) for change in contradictions(str(directory), spec)]


def version(config: dict[str, Any], *dependencies: Any) -> dict[str, Any]:
    return {"version": {"name": "train", "config": config, "dependencies": list(dependencies)}}


DATA = {"name": "data", "config": {"rows": 3}, "dependencies": []}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"lr": 0.1}, {"lr": 0.1, "steps": 5}, []),
        ({"lr": 0.1}, {"lr": 0.2}, ["lr: 0.1 → 0.2"]),
        ({"lr": 1}, {"lr": True}, ["lr: 1 → True"]),
        ({"lr": 1}, {"lr": 1.0}, ["lr: 1 → 1.0"]),
        ({"gone": 1}, {"lr": 1}, []),
        ({"tags": ["a"]}, {"tags": ("a",)}, []),
        ({"tags": ["a"]}, {"tags": ["a", "b"]}, ["tags[1]: added 'b'"]),
        ({"tags": ["a", "b"]}, {"tags": ["a"]}, ["tags[1]: removed 'b'"]),
        ({"tags": []}, {"tags": []}, []),
        ({"weights": {"en": 1, "de": 2}}, {"weights": {"de": 2, "en": 1}}, []),
        ({"weights": {"en": 1}}, {"weights": {"en": 2}}, ["weights.en: 1 → 2"]),
        ({"weights.en": 1}, {"weights": {"en": 2}}, ["weights.en: 1 → 2"]),
        ({"path": "gs://bucket/x"}, {"path": StepRef.hardcoded("gs://bucket/y")}, []),
        ({"data": "DEP[0]/x"}, {"data": "plain"}, []),
        ({"": 3}, {"lr": 3}, []),
    ],
)
def test_versioned_values_are_compared_as_far_as_both_tell(
    tmp_path: Path, old: dict[str, Any], new: dict[str, Any], expected: list[str]
) -> None:
    assert told(tmp_path, version(old), spec_of(new)) == expected


def test_a_step_of_the_older_kind_is_compared_with_its_own_version(tmp_path: Path) -> None:
    values = {"tags": ["a", "b"], "weights": {"en": 1}}
    config = {name: versioned(value) for name, value in values.items()}
    [spec] = lower(ExecutorStep("old", print, config), prefix="/data")
    assert told(tmp_path, version(values), spec) == []
    assert told(tmp_path, version({"tags": ["a"]}), spec) != []


def test_what_was_read_is_compared_by_name_and_looked_into(tmp_path: Path) -> None:
    assert told(tmp_path, version({}, DATA), spec_of({}, rows=3)) == []
    assert told(tmp_path, version({}, DATA, DATA), spec_of({}, rows=3)) == []
    assert told(tmp_path, version({}, DATA), spec_of({}, rows=4)) == ["data: rows: 3 → 4"]
    assert told(tmp_path, version({}, DATA), spec_of({})) == ["reads: data → nothing"]
    assert told(tmp_path, version({}), spec_of({}, rows=3)) == ["reads: nothing → data"]


def test_what_was_read_of_this_package_is_compared_by_fingerprint(tmp_path: Path) -> None:
    fingerprint = lower(data(3))[0].fingerprint
    entry = {"name": "data", "fingerprint": fingerprint}
    assert told(tmp_path, version({}, entry), spec_of({}, rows=3)) == []
    [change] = told(tmp_path, version({}, entry), spec_of({}, rows=4))
    assert change.startswith(f"data: fingerprint: {fingerprint[:8]} → ")


def test_outputs_of_this_package_are_compared_by_their_recipes(tmp_path: Path) -> None:
    old = spec_of({"lr": 0.1, "tags": ["a"]}, rows=3)
    record = {"parts": old.recipe_parts()}
    assert told(tmp_path, record, old) == []
    assert told(tmp_path, record, spec_of({"lr": 0.2, "tags": ["b"]}, rows=3)) == [
        "lr: 0.1 → 0.2",
        "tags[0]: 'a' → 'b'",
    ]


@pytest.mark.parametrize("record", [{}, {"version": None, "parts": None}, {"version": {"config": 3}}])
def test_a_record_that_says_nothing_contradicts_nothing(tmp_path: Path, record: Any) -> None:
    assert told(tmp_path, record, spec_of({"lr": 0.1})) == []
    assert contradictions(str(tmp_path / "elsewhere"), spec_of({})) == []
