import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.lib.train.data_order import BLOCK, DataOrder, shuffled, slots_of_block

ORDER = DataOrder(seed=7, batch_size=16, windows=(37, 500), slots=(BLOCK // 4, 3 * BLOCK // 4))


def drawn(order: DataOrder, sequences: int) -> list[tuple[int, int]]:
    """Source and window of the first sequences of a training."""
    parts = [order.rows(step, range(order.batch_size)) for step in range(-(-sequences // order.batch_size))]
    sources = np.concatenate([part.sources for part in parts]).tolist()
    indices = np.concatenate([part.indices for part in parts]).tolist()
    return list(zip(sources, indices, strict=True))[:sequences]


@given(st.integers(1, 700), st.integers(0, 2**63 - 1), st.integers(-1, 5), st.integers(0, 2**40))
def test_shuffled_is_a_permutation(size: int, seed: int, stream: int, key: int) -> None:
    result = shuffled(np.arange(size), size, seed, stream, np.full(size, key))
    assert sorted(result.tolist()) == list(range(size))


def test_permutations_of_other_seeds_streams_and_keys_differ() -> None:
    def permutation(seed: int, stream: int, key: int) -> list[int]:
        return shuffled(np.arange(100), 100, seed, stream, np.full(100, key)).tolist()

    names = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, -1, 0)]
    assert len({tuple(permutation(*name)) for name in names}) == len(names)
    assert permutation(0, 0, 0) != list(range(100))


def test_positions_are_spread_evenly() -> None:
    size, keys = 16, 4000
    places = shuffled(np.zeros(keys, np.int64), size, 3, 0, np.arange(keys))
    counts = np.bincount(places, minlength=size)
    # Of a chi-squared with 15 degrees of freedom, one in a thousand is above 37.7.
    assert ((counts - keys / size) ** 2 / (keys / size)).sum() < 37.7


def test_each_epoch_of_a_source_sees_each_window_once() -> None:
    of_first = [window for source, window in drawn(ORDER, 4 * BLOCK) if source == 0]
    epochs = [of_first[begin : begin + 37] for begin in range(0, len(of_first) - 36, 37)]
    assert len(epochs) == BLOCK // 37
    assert all(sorted(epoch) == list(range(37)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_every_block_keeps_the_shares() -> None:
    sources = [source for source, _ in drawn(ORDER, 3 * BLOCK)]
    for begin in range(0, 3 * BLOCK, BLOCK):
        assert sources[begin : begin + BLOCK].count(0) == BLOCK // 4


def test_a_row_does_not_depend_on_which_others_are_asked_for() -> None:
    whole = ORDER.rows(5, range(16))
    part = ORDER.rows(5, [11, 3])
    assert part.indices.tolist() == whole.indices[[11, 3]].tolist()
    assert part.sources.tolist() == whole.sources[[11, 3]].tolist()


def test_the_order_does_not_depend_on_the_batch_size() -> None:
    assert drawn(ORDER, 200) == drawn(dataclasses.replace(ORDER, batch_size=5), 200)


def test_the_order_is_what_it_was() -> None:
    """Literal: another order would make every unfinished training another one."""
    assert drawn(ORDER, 6) == [(1, 170), (1, 58), (0, 0), (1, 259), (1, 86), (1, 149)]


def test_slots_are_rounded_by_the_largest_remainder() -> None:
    assert slots_of_block({"a": 1, "b": 1, "c": 1}) == (342, 341, 341)
    assert slots_of_block({"a": 0.1}) == (BLOCK,)


def test_a_source_that_would_never_be_read_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the weight of b, 1e-06 of 1\.000001, is less than one sequence in 1024"):
        slots_of_block({"a": 1, "b": 1e-6})
