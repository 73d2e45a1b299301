"""Equal configs have equal fingerprints, and a change of any identity leaf changes them."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from marin_trace import StepRef, deferred, lower, step, unversioned


@dataclass(frozen=True)
class Point:
    x: Any
    y: Any = 0


@dataclass(frozen=True)
class Other:
    x: Any
    y: Any = 0


@deferred
def consume(value: Any) -> None: ...


@step(name="one")
def one(value: Any) -> StepRef:
    return consume(value)


LAW = settings(deadline=None, derandomize=True, max_examples=150)

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(),
    st.floats(allow_nan=False, width=32),
    st.text(max_size=4),
    st.binary(max_size=3),
    st.sampled_from(["1", "None", "True", ")", "s1:a"]),
)
KEYS = st.one_of(st.text(max_size=3), st.integers(0, 3))


def containers(inside: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    few = st.lists(inside, max_size=4)
    return st.one_of(few, few.map(tuple), st.dictionaries(KEYS, inside, max_size=4), st.builds(Point, inside, inside))


VALUES = st.recursive(LEAVES, containers, max_leaves=12)


def fingerprint(value: Any) -> str:
    return lower(one(value), prefix="/data")[-1].fingerprint


def typed(value: Any) -> Any:
    """A value of plain tuples that is equal exactly where the two configs mean the same."""
    match value:
        case dict():
            return ("dict", frozenset((typed(key), typed(item)) for key, item in value.items()))
        case list() | tuple():
            return (type(value).__name__, tuple(typed(item) for item in value))
        case _ if is_dataclass(value):
            return (type(value).__name__, *(typed(getattr(value, entry.name)) for entry in fields(value)))
        case _:
            return (type(value).__name__, repr(value))


def shuffled(value: Any, order: random.Random) -> Any:
    match value:
        case dict():
            items = list(value.items())
            order.shuffle(items)
            return {key: shuffled(item, order) for key, item in items}
        case list() | tuple():
            return type(value)(shuffled(item, order) for item in value)
        case _ if is_dataclass(value):
            return replace(value, x=shuffled(value.x, order), y=shuffled(value.y, order))
        case _:
            return value


def variants(value: Any, new: Any) -> Iterator[Any]:
    """The value with one leaf replaced, for each of its leaves."""
    match value:
        case dict():
            for key in value:
                yield from ({**value, key: changed} for changed in variants(value[key], new))
        case list() | tuple():
            for index, item in enumerate(value):
                changes = variants(item, new)
                yield from (type(value)([*value[:index], changed, *value[index + 1 :]]) for changed in changes)
        case _ if is_dataclass(value):
            yield from (replace(value, x=changed) for changed in variants(value.x, new))
            yield from (replace(value, y=changed) for changed in variants(value.y, new))
        case _:
            yield new


@LAW
@given(VALUES, st.integers())
def test_the_order_of_dicts_does_not_matter(value: Any, seed: int) -> None:
    assert fingerprint(shuffled(value, random.Random(seed))) == fingerprint(value)


@LAW
@given(VALUES, VALUES)
def test_fingerprints_are_equal_exactly_where_configs_are(first: Any, second: Any) -> None:
    assert (fingerprint(first) == fingerprint(second)) is (typed(first) == typed(second))


@LAW
@given(VALUES, LEAVES)
def test_a_change_of_any_leaf_changes_the_fingerprint(value: Any, new: Any) -> None:
    before = fingerprint(value)
    for changed in variants(value, new):
        assert (fingerprint(changed) == before) is (typed(changed) == typed(value))


@LAW
@given(VALUES, LEAVES, LEAVES)
def test_a_change_of_an_unversioned_leaf_changes_nothing(value: Any, first: Any, second: Any) -> None:
    for one_way, other_way in zip(
        variants(value, unversioned(first)), variants(value, unversioned(second)), strict=True
    ):
        assert fingerprint(one_way) == fingerprint(other_way)


@LAW
@given(st.frozensets(st.one_of(st.none(), st.integers(), st.text(), st.binary()), max_size=6), st.integers())
def test_sets_have_no_order(items: frozenset[Any], seed: int) -> None:
    again = list(items)
    random.Random(seed).shuffle(again)
    assert fingerprint(set(items)) == fingerprint(set(again)) != fingerprint(items)


@LAW
@given(VALUES, VALUES)
def test_the_class_of_a_config_matters(x: Any, y: Any) -> None:
    assert (
        len({fingerprint(Point(x, y)), fingerprint(Other(x, y)), fingerprint((x, y)), fingerprint({"x": x, "y": y})})
        == 4
    )
