"""The splits of a corpus: what is trained on, and what is kept from training to validate on."""

import hashlib
from typing import Final

__all__ = ["TRAIN", "VALIDATION", "split_of"]

TRAIN: Final = "train"
"""The directory of what is trained on, below the output of whatever makes splits."""

VALIDATION: Final = "validation"
"""The directory of what is kept from training."""


def split_of(digest: bytes, *, fraction: float, salt: str = "") -> str:
    """Which split a document is in: it depends on the document alone, and so stays when others come or go.

    Args:
        digest: Of the document's text.
        fraction: The share of documents that is kept from training.
        salt: Another salt makes another split of the same fraction.
    """
    drawn = int.from_bytes(hashlib.sha256(salt.encode() + digest).digest()[:8], "big")
    return VALIDATION if drawn < fraction * 2**64 else TRAIN
