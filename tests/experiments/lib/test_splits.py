import hashlib

import pytest

from experiments.lib.splits import TRAIN, VALIDATION, split_of


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5])
def test_about_the_fraction_is_kept_from_training(fraction: float) -> None:
    splits = [split_of(hashlib.sha256(b"%d" % number).digest(), fraction=fraction) for number in range(20_000)]
    assert abs(splits.count(VALIDATION) / 20_000 - fraction) < 0.01


def test_another_salt_is_another_split() -> None:
    digests = [hashlib.sha256(b"%d" % number).digest() for number in range(100)]
    splits = [[split_of(digest, fraction=0.5, salt=salt) for digest in digests] for salt in ("", "x")]
    assert splits[0] != splits[1]


def test_a_document_is_in_the_split_that_it_was_always_in() -> None:
    # Pinned: another answer would train on what earlier corpora kept for validation.
    digests = [hashlib.sha256(text.encode()).digest() for text in ("a", "b", "c", "d")]
    assert [split_of(digest, fraction=0.5) for digest in digests] == [TRAIN, VALIDATION, VALIDATION, TRAIN]
