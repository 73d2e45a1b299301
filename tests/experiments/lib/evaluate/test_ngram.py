import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.lib.evaluate.ngram import BOUNDARY, MAX_ORDER, SYMBOLS, KneserNey, count_unigrams, unigram_bits

TEXTS = st.lists(st.binary(max_size=12).map(lambda text: bytes(byte % 3 for byte in text)), min_size=1, max_size=6)


def written_out(train: list[bytes], order: int, history: tuple[int, ...], symbol: int) -> float:
    """The formula as it stands, with dictionaries."""
    grams: list[tuple[int, ...]] = []
    for text in train:
        symbols = [BOUNDARY] * (order - 1) + [*text, BOUNDARY]
        grams += [tuple(symbols[end - order : end]) for end in range(order, len(symbols) + 1)]
    counts = Counter(grams)
    by_length = {order: counts}
    for length in range(order - 1, 0, -1):
        by_length[length] = Counter(gram[1:] for gram in by_length[length + 1])

    probability = 1 / SYMBOLS
    for length in range(1, order + 1):
        counts = by_length[length]
        before = history[order - length :]
        following = {gram: count for gram, count in counts.items() if gram[:-1] == before}
        if not following:
            continue
        once, twice = (sum(count == times for count in counts.values()) for times in (1, 2))
        discount = once / (once + 2 * twice) if once else 0.5
        taken = discount * len(following) * probability
        probability = (max(counts[(*before, symbol)] - discount, 0) + taken) / sum(following.values())
    return probability


@given(TEXTS, TEXTS, st.integers(2, 4))
def test_the_model_is_the_formula(train: list[bytes], heldout: list[bytes], order: int) -> None:
    expected: list[float] = []
    for text in heldout:
        symbols = [BOUNDARY] * (order - 1) + [*text, BOUNDARY]
        for end in range(order, len(symbols) + 1):
            history = tuple(symbols[end - order : end - 1])
            expected.append(written_out(train, order, history, symbols[end - 1]))
    np.testing.assert_allclose(KneserNey(train, order).probabilities(heldout), expected, rtol=1e-9)


def test_after_any_history_probabilities_sum_to_one() -> None:
    model = KneserNey([b"abracadabra", b"abba"], 3)
    for history in (b"", b"a", b"ab", b"zz", b"ra"):
        each = [model.probabilities([history + bytes([byte])])[len(history)] for byte in range(256)]
        end = model.probabilities([history])[len(history)]
        assert math.fsum([*each, end]) == pytest.approx(1)


def test_what_was_seen_costs_less() -> None:
    model = KneserNey([b"def main():\n    return None\n"] * 20, MAX_ORDER)
    assert model.bits([b"return None"]) < model.bits([b"enoN nruter"]) - 20


def test_unigrams_count_every_symbol_and_the_end() -> None:
    counts = count_unigrams([b"aab", b""])
    assert (counts[ord("a")], counts[ord("b")], counts[BOUNDARY], counts.sum()) == (2, 1, 2, 5)
    bits = unigram_bits(counts, count_unigrams([b"a"]))
    assert bits == pytest.approx(-math.log2(3 / 262) - math.log2(3 / 262))


@pytest.mark.parametrize("order", [1, MAX_ORDER + 1])
def test_an_order_that_does_not_fit_is_refused(order: int) -> None:
    with pytest.raises(ValueError, match=f"order must be from 2 to 7, not {order}"):
        KneserNey([b"a"], order)


def test_nothing_to_count_is_refused() -> None:
    with pytest.raises(ValueError, match="no documents"):
        KneserNey([], 3)
