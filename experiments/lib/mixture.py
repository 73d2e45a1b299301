"""Mixtures: several tokenised data sets, and how much of each to train on.

The interface between data and training: training reads the paths and the weights, and opens the stores.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.lib.token_store import TokenStore

__all__ = ["MixtureConfig", "open_stores"]


@dataclass(frozen=True)
class MixtureConfig:
    """Token stores to train on by name, all of one tokenizer."""

    paths: Mapping[str, str]
    """The store of each data set: local or an fsspec URL. Their order has no meaning."""

    weights: Mapping[str, float]
    """How much each data set counts: the probability that a sequence to train on is taken from it is its weight's
    share of their sum."""

    def __post_init__(self) -> None:
        """Refuses names that do not agree and weights without meaning, before anything is run.

        Raises:
            ValueError: There is no data set, one has no weight or none but a weight, or a weight is not a positive
                number.
        """
        if not self.weights:
            raise ValueError("a mixture of nothing: give it data sets and their weights")
        if self.paths.keys() != self.weights.keys():
            raise ValueError(f"there are the data sets {sorted(self.paths)}, and weights of {sorted(self.weights)}")
        for name, weight in self.weights.items():
            if not (math.isfinite(weight) and weight > 0):
                raise ValueError(
                    f"the weight of {name} must be a positive number, not {weight}; leave out what is not to count"
                )


def open_stores(paths: Mapping[str, str]) -> "dict[str, TokenStore]":
    """Opens the stores of a mixture, and compares what they were tokenised with.

    Raises:
        FileNotFoundError: There is no store at a path.
        CorruptShardError: A store is damaged.
        ValueError: Two stores were not made with the same tokenizer.
    """
    from experiments.lib.token_store import TokenStore

    store_by_name = {name: TokenStore.open(path) for name, path in paths.items()}
    recipe_by_name = {
        name: (store.vocab_size, store.end_of_document, store.tokenizer_sha256) for name, store in store_by_name.items()
    }
    first = next(iter(recipe_by_name), "")
    for name, recipe in recipe_by_name.items():
        if recipe != recipe_by_name[first]:
            raise ValueError(
                f"{first} and {name} were not tokenised with the same tokenizer\n"
                f"  {_described(first, recipe_by_name[first])}\n"
                f"  {_described(name, recipe)}\n\n"
                "hint: tokenise both with one: default_tokenize(…, tokenizer=tokenizer)"
            )
    return store_by_name


def _described(name: str, recipe: tuple[int, int, str]) -> str:
    vocab_size, end_of_document, digest = recipe
    return f"{name}: {vocab_size:,} tokens, end token {end_of_document}, SHA-256 {digest[:12] or 'unknown'}"
