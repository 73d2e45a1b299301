"""Language models that count bytes: a unigram, and interpolated Kneser-Ney of higher order. NumPy only.

Kneser-Ney (Kneser & Ney 1995, in the interpolated form of Chen & Goodman 1999, section 2.7) takes a discount D from
each count and gives what it took to the next lower order. That order counts not how often an n-gram occurs but after
how many different symbols::

    p(w | h) = (max(c(hw) - D, 0) + D · N(h·) · p(w | h')) / c(h·)      N(h·): how many different symbols follow h

with h' the history h without its oldest symbol, D = n₁ / (n₁ + 2 n₂), n₁ and n₂ the n-grams counted once and twice.
Below the lowest order lies the uniform distribution. A history that was never seen leaves the lower order as it is.

An n-gram of bytes is one number, nine bits for each symbol and the newest lowest. So the counts of an order are two
sorted arrays, its history is a shift and its lower order a mask; counting is sorting, and looking up is bisection.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_ORDER", "SYMBOLS", "KneserNey", "count_unigrams", "unigram_bits"]

BOUNDARY = 256
"""The symbol that ends a document, and stands before it as often as a history is long."""

SYMBOLS = 257
"""The bytes and the boundary."""

SYMBOL_BITS = 9
MAX_ORDER = 64 // SYMBOL_BITS
"""So many symbols go into one number."""


@dataclass(frozen=True)
class _Order:
    """The counts of one order, sorted by n-gram."""

    ngrams: NDArray[np.uint64]
    counts: NDArray[np.int64]
    histories: NDArray[np.uint64]
    history_counts: NDArray[np.int64]
    followers: NDArray[np.int64]
    """How many different symbols follow each history."""
    discount: float


class KneserNey:
    """Interpolated Kneser-Ney over bytes.

    Args:
        documents: To count.
        order: How many symbols an n-gram has, from 2 to :data:`MAX_ORDER`.

    Raises:
        ValueError: Another order, or no documents.

    Example:
        >>> model = KneserNey([b"abracadabra"] * 10, order=3)
        >>> bool(model.bits([b"abra"]) < model.bits([b"arba"]))
        True
    """

    def __init__(self, documents: Iterable[bytes], order: int) -> None:
        if not 2 <= order <= MAX_ORDER:
            raise ValueError(f"order must be from 2 to {MAX_ORDER}, not {order}")
        self.order = order
        ngrams, counts = np.unique(_event_ngrams(documents, order), return_counts=True)
        if not len(ngrams):
            raise ValueError("no documents to count n-grams in")
        orders = [_counted(ngrams, counts)]
        for length in range(order - 1, 0, -1):
            ngrams, counts = np.unique(ngrams & _mask(length), return_counts=True)
            orders.append(_counted(ngrams, counts))
        self._orders = orders[::-1]

    def bits(self, documents: Iterable[bytes]) -> float:
        """The information of documents, the end of each included, in bits."""
        return float(-np.log2(self.probabilities(documents)).sum())

    def probabilities(self, documents: Iterable[bytes]) -> NDArray[np.float64]:
        """Of each byte and each end, in order."""
        events = _event_ngrams(documents, self.order)
        probabilities = np.full(len(events), 1 / SYMBOLS)
        for length, order in enumerate(self._orders, start=1):
            ngrams = events & _mask(length)
            counts = _looked_up(order.ngrams, order.counts, ngrams)
            histories = ngrams >> np.uint64(SYMBOL_BITS)
            totals = _looked_up(order.histories, order.history_counts, histories)
            followers = _looked_up(order.histories, order.followers, histories)
            numerator = np.maximum(counts - order.discount, 0) + order.discount * followers * probabilities
            probabilities = np.divide(numerator, totals, out=probabilities, where=totals > 0)
        return probabilities


def count_unigrams(documents: Iterable[bytes]) -> NDArray[np.int64]:
    """How often each symbol occurs, the end of a document among them: [:data:`SYMBOLS`]."""
    counts = np.zeros(SYMBOLS, np.int64)
    for document in documents:
        counts[:BOUNDARY] += np.bincount(np.frombuffer(document, np.uint8), minlength=BOUNDARY)
        counts[BOUNDARY] += 1
    return counts


def unigram_bits(train: NDArray[np.int64], heldout: NDArray[np.int64]) -> float:
    """The information in bits of the symbols in ``heldout``, by their frequency in ``train``, plus one each."""
    return float(-(heldout * np.log2((train + 1) / (train.sum() + SYMBOLS))).sum())


def _event_ngrams(documents: Iterable[bytes], order: int) -> NDArray[np.uint64]:
    """For each byte and each end of a document the n-gram that ends there."""
    start = np.full(order - 1, BOUNDARY, np.uint64)
    streams: list[NDArray[np.uint64]] = []
    for document in documents:
        symbols = np.concatenate([start, np.frombuffer(document, np.uint8), [np.uint64(BOUNDARY)]]).astype(np.uint64)
        ngrams = np.zeros(len(document) + 1, np.uint64)
        for position in range(order):
            ngrams = (ngrams << np.uint64(SYMBOL_BITS)) | symbols[position : position + len(ngrams)]
        streams.append(ngrams)
    return np.concatenate(streams) if streams else np.empty(0, np.uint64)


def _counted(ngrams: NDArray[np.uint64], counts: NDArray[np.int64]) -> _Order:
    # Sorted n-grams are sorted by history: the n-grams of a history follow one another.
    histories, first = np.unique(ngrams >> np.uint64(SYMBOL_BITS), return_index=True)
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    return _Order(
        ngrams,
        counts,
        histories,
        history_counts=np.add.reduceat(counts, first),
        followers=np.diff(first, append=len(ngrams)),
        # A half where nothing rare was seen to estimate it from.
        discount=once / (once + 2 * twice) if once else 0.5,
    )


def _looked_up(keys: NDArray[np.uint64], values: NDArray[np.int64], wanted: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The value of each wanted key; 0 where it is not there."""
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, values[places], 0)


def _mask(length: int) -> np.uint64:
    return np.uint64((1 << (SYMBOL_BITS * length)) - 1)
