import random
from dataclasses import replace

import numpy as np
import pytest

from experiments.lib.corpus.near_duplicates import NearDuplicateConfig, NearDuplicateIndex, minhash_signature

CONFIG = NearDuplicateConfig()


def words(count: int, *, seed: int) -> list[str]:
    return [f"w{random.Random(seed * 10_000 + n).randrange(5000)}" for n in range(count)]


def similar_to(original: list[str], similarity: float) -> list[str]:
    """A text of other words at its end, so that the Jaccard index of single words is about that."""
    kept = round(len(original) * 2 * similarity / (1 + similarity))
    return original[:kept] + [f"other{n}" for n in range(len(original) - kept)]


def added(index: NearDuplicateIndex, text: list[str], config: NearDuplicateConfig = CONFIG) -> int | None:
    return index.add(minhash_signature(" ".join(text), config))


def test_agreement_of_signatures_estimates_the_jaccard_index() -> None:
    config = NearDuplicateConfig(shingle_words=1, bands=50, rows=20)
    original = [f"w{n}" for n in range(500)]
    for similarity in (0.2, 0.5, 0.8):
        other = similar_to(original, similarity)
        true = len({*original} & {*other}) / len({*original} | {*other})
        signatures = [minhash_signature(" ".join(text), config) for text in (original, other)]
        assert abs((signatures[0] == signatures[1]).mean() - true) < 3 / np.sqrt(1000)


def test_the_first_of_similar_documents_stays() -> None:
    index = NearDuplicateIndex(CONFIG)
    texts = [words(300, seed=seed) for seed in range(3)]
    assert [added(index, text) for text in texts] == [None, None, None]
    assert [added(index, text[:-3]) for text in reversed(texts)] == [2, 1, 0]
    assert len(index) == 3


def test_documents_that_share_little_all_stay() -> None:
    index = NearDuplicateIndex(CONFIG)
    original = words(300, seed=1)
    assert added(index, original) is None
    assert added(index, similar_to(original, 0.5)) is None
    assert added(index, list(reversed(original))) is None


def test_what_was_not_kept_makes_no_chain() -> None:
    # Each differs from the one before by little, and the last from the first by much.
    chain = [[f"w{n}" for n in range(start, start + 300)] for start in range(0, 300, 25)]
    index = NearDuplicateIndex(CONFIG)
    fates = [added(index, text) for text in chain]
    assert fates[:2] == [None, 0]
    assert 2 <= len(index) < len(chain)


def test_short_documents_are_one_shingle() -> None:
    index = NearDuplicateIndex(CONFIG)
    assert [added(index, text) for text in (["a"], ["a", "b"], ["a"])] == [None, None, 0]


def test_a_signature_depends_on_nothing_but_text_and_config() -> None:
    text, config = "one two three four five six", NearDuplicateConfig(bands=1, rows=4)
    # Pinned: other values here would make every corpus come out otherwise.
    assert minhash_signature(text, config).tolist() == [770573603, 410614461, 164176087, 995638977]
    assert (minhash_signature(text, config) != minhash_signature(text, replace(config, seed=2))).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_similarity": 0}, "min_similarity must be above 0 and at most 1, not 0"),
        ({"min_similarity": 1.1}, r"min_similarity must be above 0 and at most 1, not 1\.1"),
        ({"bands": 0}, "shingle_words, bands and rows must be at least 1, not 5, 0 and 6"),
    ],
)
def test_settings_without_meaning_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NearDuplicateConfig(**options)
