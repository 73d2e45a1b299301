"""Which window of which source is row ``r`` of step ``s``: a pure function of (seed, s, r), with nothing to save.

Sequences are numbered through the whole training: ``s · batch_size + r``. Two things follow from a sequence's number.

*Its source.* Numbers are taken in blocks of :data:`BLOCK`. In each block every source has the same number of slots, as
close to its share as whole numbers get, and the slots are shuffled.

*Its window.* The k-th sequence of a source lies in that source's epoch ``k // windows``, number ``k % windows`` of
that epoch's shuffle: each window is seen exactly once in each epoch.

Neither shuffle is ever written out. Both are :func:`shuffled`: a Feistel network, which is a permutation whatever its
round function is (Luby & Rackoff 1988), over the smallest power of four that holds the range, walked along its cycle
until it falls into the range (Black & Rogaway 2002). A row costs the same wherever in the training it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK", "DataOrder", "Windows", "shuffled", "slots_of_block"]

BLOCK = 1024
"""Sequences within which the shares of the sources are kept exactly. A source with less than half a slot is refused."""

ROUNDS = 6
"""Of the Feistel network. Four make it indistinguishable from a random permutation for any reader of a bounded part;
two more make up for a round function that is a hash of 64 bits and not a cipher."""

GOLDEN = 0x9E3779B97F4A7C15
"""2⁶⁴ divided by the golden ratio, odd: the increment of SplitMix64 (Steele, Lea & Flood 2014)."""


@dataclass(frozen=True)
class Windows:
    """Where the rows of a batch come from; both arrays have one entry for each row."""

    sources: NDArray[np.int64]
    """Which source, by its position."""

    indices: NDArray[np.int64]
    """Which of that source's windows."""


@dataclass(frozen=True)
class DataOrder:
    """The order of a training's data.

    Example:
        >>> order = DataOrder(seed=0, batch_size=4, windows=(10,), slots=(1024,))
        >>> epoch = np.concatenate([order.rows(step, range(4)).indices for step in range(5)])
        >>> sorted(epoch[:10].tolist())
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """

    seed: int
    batch_size: int
    windows: tuple[int, ...]
    """How many windows each source has."""

    slots: tuple[int, ...]
    """How many sequences of each block come from each source; :data:`BLOCK` together."""

    def rows(self, step: int, rows: Sequence[int]) -> Windows:
        """Where these rows of a step's batch come from. Steps count from 0."""
        numbers = step * self.batch_size + np.asarray(rows, np.int64)
        blocks, places = np.divmod(numbers, BLOCK)
        sources = np.empty_like(numbers)
        ordinals = np.empty_like(numbers)
        for block in np.unique(blocks).tolist():
            within = blocks == block
            block_sources, ranks = _block(self.seed, self.slots, block)
            sources[within] = block_sources[places[within]]
            ordinals[within] = ranks[places[within]] + block * np.asarray(self.slots)[sources[within]]
        indices = np.empty_like(numbers)
        for source, windows in enumerate(self.windows):
            chosen = sources == source
            epochs, positions = np.divmod(ordinals[chosen], windows)
            indices[chosen] = shuffled(positions, windows, self.seed, source, epochs)
        return Windows(sources, indices)


# A block is asked for by every step that has rows in it.
@lru_cache(maxsize=4)
def _block(seed: int, slots: tuple[int, ...], block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each place in a block its source, and how many places before it have the same source."""
    places = shuffled(np.arange(BLOCK), BLOCK, seed, -1, np.full(BLOCK, block))
    sources = np.searchsorted(np.cumsum(slots), places, side="right")
    ranks = np.empty(BLOCK, np.int64)
    for source, count in enumerate(slots):
        ranks[sources == source] = np.arange(count)
    return sources, ranks


def slots_of_block(weights: Mapping[str, float]) -> tuple[int, ...]:
    """How many of a block's sequences come from each source, by largest remainder, in the order of the weights.

    Raises:
        ValueError: A weight is so small beside the others that no sequence would come from its source.

    Example:
        >>> slots_of_block({"a": 3, "b": 1})
        (768, 256)
    """
    total = sum(weights.values())
    shares = [BLOCK * weight / total for weight in weights.values()]
    slots = [int(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda index: slots[index] - shares[index])
    for index in by_remainder[: BLOCK - sum(slots)]:
        slots[index] += 1
    if 0 in slots:
        name, weight = list(weights.items())[slots.index(0)]
        raise ValueError(f"the weight of {name}, {weight} of {total}, is less than one sequence in {BLOCK}")
    return tuple(slots)


def shuffled(
    positions: NDArray[np.int64], size: int, seed: int, stream: int, key: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Where each position of 0 … size-1 goes in the permutation named by (seed, stream, key).

    Args:
        positions: Below ``size``.
        size: What is permuted.
        seed: Of the training.
        stream: Separates permutations that share a seed.
        key: An epoch or block for each position: entries with different keys are of different permutations.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    # Arrays throughout: NumPy's scalars warn where they wrap.
    name = _hash(_hash(np.array([seed], np.uint64)) + np.array([stream], np.int64).astype(np.uint64))
    keys = _hash(name + key.astype(np.uint64))
    result = positions.copy()
    outside = np.ones(len(positions), bool)
    while outside.any():
        result[outside] = _feistel(result[outside].astype(np.uint64), half, keys[outside]).astype(np.int64)
        outside = result >= size
    return result


def _feistel(values: NDArray[np.uint64], half: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mask, bits = np.uint64((1 << half) - 1), np.uint64(half)
    left, right = values >> bits, values & mask
    for number in range(ROUNDS):
        mixed = _hash(_hash(keys + np.uint64(number)) + right)
        left, right = right, left ^ (mixed & mask)
    return (left << bits) | right


def _hash(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's step and finaliser: each bit of the result depends on each bit given. Wraps at 2⁶⁴."""
    words = words + np.uint64(GOLDEN)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
