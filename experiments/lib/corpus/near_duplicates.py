"""Finds documents that are nearly equal, by MinHash and locality-sensitive hashing.

The similarity of two documents is the Jaccard index of their sets of shingles, runs of words. Of a random order of all
shingles, two documents have the same smallest one with just that probability (A. Broder, "On the resemblance and
containment of documents", 1997), so the share of agreement over many orders estimates it. Documents whose signatures
agree in a whole band of rows are candidates (Indyk and Motwani, 1998; Leskovec, Rajaraman and Ullman, "Mining of
Massive Datasets", 3.4); candidates are then compared by their whole signatures.

The signatures of documents can be made anywhere in parallel; which document stays depends on their order alone. All
signatures stay in memory, half a kilobyte for each document, and a few times that for the tables of the bands.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["NearDuplicateConfig", "NearDuplicateIndex", "minhash_signature"]

SCHEME: Final = "affine32"
"""How datasketch makes random orders, by its name for it: given rather than left to the default of a release."""


@dataclass(frozen=True)
class NearDuplicateConfig:
    """When two documents count as nearly equal."""

    min_similarity: float = 0.8
    """The Jaccard index from which on they do, as it is estimated."""

    shingle_words: int = 5
    """Words in a shingle; a document with fewer words is one shingle."""

    bands: int = 20
    """With ``rows`` in each, documents of similarity s become candidates with probability 1 - (1 - s^rows)^bands: for
    20 bands of 6 rows 0.998 at s = 0.8 and 0.27 at s = 0.5."""

    rows: int = 6
    """Rows in a band. A signature has ``bands`` · ``rows`` of them, and estimates the similarity to within
    1 / √(``bands`` · ``rows``), 0.09 for 120."""

    seed: int = 1
    """Of the random orders."""

    def __post_init__(self) -> None:
        """Refuses what has no meaning.

        Raises:
            ValueError: A number is out of range.
        """
        if not 0 < self.min_similarity <= 1:
            raise ValueError(f"min_similarity must be above 0 and at most 1, not {self.min_similarity}")
        if min(self.shingle_words, self.bands, self.rows) < 1:
            raise ValueError(
                "shingle_words, bands and rows must be at least 1, "
                f"not {self.shingle_words}, {self.bands} and {self.rows}"
            )


def minhash_signature(text: str, config: NearDuplicateConfig) -> "NDArray[np.unsignedinteger]":
    """The signature of a text: for each random order the smallest of its shingles' hashes."""
    from datasketch import MinHash

    words = text.split()
    starts = range(max(1, len(words) - config.shingle_words + 1))
    shingles = {" ".join(words[start : start + config.shingle_words]).encode() for start in starts}
    minhash = MinHash(num_perm=config.bands * config.rows, seed=config.seed, scheme=SCHEME)
    minhash.update_batch(shingles)
    return minhash.hashvalues


@final
class NearDuplicateIndex:
    """The documents that stay, searchable for similar ones."""

    def __init__(self, config: NearDuplicateConfig) -> None:
        from datasketch import MinHashLSH

        self._config = config
        self._signatures: list[NDArray[np.unsignedinteger]] = []
        # The bands are given rather than derived from a threshold: the derivation integrates numerically.
        self._bands = MinHashLSH(num_perm=config.bands * config.rows, params=(config.bands, config.rows))

    def __len__(self) -> int:
        """How many documents stay."""
        return len(self._signatures)

    def add(self, signature: "NDArray[np.unsignedinteger]") -> int | None:
        """Adds a document unless it is nearly equal to one that stays; returns the number of the first such one."""
        from datasketch import LeanMinHash

        minhash = LeanMinHash(seed=self._config.seed, hashvalues=signature, scheme=SCHEME)
        agreement = self._config.min_similarity * len(signature)
        candidates: list[int] = self._bands.query(minhash)  # pyright: ignore[reportAssignmentType] - what was inserted
        for number in sorted(candidates):
            if (self._signatures[number] == signature).sum() >= agreement:
                return number
        self._bands.insert(len(self._signatures), minhash)
        self._signatures.append(signature)
        return None
