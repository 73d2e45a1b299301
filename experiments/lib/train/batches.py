"""The batches of a training, and the held-out sequences that it is validated on."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jax import Array
from numpy.typing import NDArray

from experiments.lib.mixture import open_stores
from experiments.lib.token_store import TokenStore
from experiments.lib.train.config import Layout, TrainConfig, TrainRecipe
from experiments.lib.train.data_order import DataOrder, slots_of_block
from experiments.lib.train.layout import DeviceMesh

__all__ = ["TrainingData", "open_training_data", "window_count"]

logger = logging.getLogger(__name__)

_VALIDATION = "the validation"
"""Beside the names of a mixture's data sets, where their tokenizers are compared."""


@dataclass(frozen=True)
class TrainingData:
    """The open stores of a training and the order in which it reads them."""

    recipe: TrainRecipe
    sources: tuple[TokenStore, ...]
    validation: TokenStore
    order: DataOrder

    @property
    def vocab_size(self) -> int:
        """Of all stores."""
        return self.validation.vocab_size

    @property
    def end_of_document(self) -> int:
        """Of all stores."""
        return self.validation.end_of_document

    @property
    def epochs(self) -> float:
        """Sequences that the training draws, for each one that there is."""
        return self.recipe.steps * self.recipe.batch_size / sum(self.order.windows)

    def batch(self, step: int, *, layout: Layout, mesh: DeviceMesh) -> Array:
        """The batch of a step, counted from 0: int32 [parts, sequences of a part, sequence_length + 1].

        The last token of a sequence is the first of the next window: each one is predicted once.
        """
        parts = layout.gradient_accumulation
        length = self.recipe.sequence_length
        shape = (parts, self.recipe.batch_size // parts, length + 1)

        def read(rows: Sequence[int]) -> NDArray[np.int32]:
            windows = self.order.rows(step, rows)
            return np.stack(
                [
                    self.sources[source].window(index * length, length + 1)
                    for source, index in zip(windows.sources.tolist(), windows.indices.tolist(), strict=True)
                ]
            )

        return mesh.make_batch(shape, read, leading_axes=1)

    def validation_batch(self, first: int, rows: int, *, mesh: DeviceMesh) -> Array:
        """So many of the validation's sequences from the first on: int32 [rows, sequence_length + 1].

        Beyond the last one it is repeated.
        """
        length = self.recipe.sequence_length
        windows = window_count(self.validation, length)

        def read(numbers: Sequence[int]) -> NDArray[np.int32]:
            wanted = [min(first + number, self.validation_sequences - 1) for number in numbers]
            starts = [number * windows // self.validation_sequences * length for number in wanted]
            return np.stack([self.validation.window(start, length + 1) for start in starts])

        return mesh.make_batch((rows, length + 1), read)

    @property
    def validation_sequences(self) -> int:
        """How many there are: what the recipe says, or fewer where the store has fewer."""
        return min(self.recipe.validation_sequences, window_count(self.validation, self.recipe.sequence_length))


def open_training_data(config: TrainConfig, *, mesh: DeviceMesh) -> TrainingData:
    """Opens the stores and checks that they fit the recipe, and the recipe the devices.

    Raises:
        ValueError: A store is too small or of another tokenizer, or the batch cannot be divided as the layout says.
    """
    recipe = config.recipe
    _check_divisible(recipe, config.layout, mesh)
    # By name: a mapping's order is no part of a recipe.
    names = sorted(config.mixture.paths)
    stores = open_stores({**config.mixture.paths, _VALIDATION: config.validation_path})
    for store in stores.values():
        _check_size(store, recipe.sequence_length)
    sources, validation = tuple(stores[name] for name in names), stores[_VALIDATION]
    windows = tuple(window_count(store, recipe.sequence_length) for store in sources)
    slots = slots_of_block({name: config.mixture.weights[name] for name in names})
    data = TrainingData(recipe, sources, validation, DataOrder(recipe.seed, recipe.batch_size, windows, slots))
    tokens = sum(store.num_tokens for store in sources)
    logger.info(f"{tokens:,} tokens of {len(sources)} sources, to be read {data.epochs:.2f} times")
    return data


def window_count(store: TokenStore, sequence_length: int) -> int:
    """How many sequences a store has. Each predicts as many tokens and needs one more to begin with."""
    return (store.num_tokens - 1) // sequence_length


def _check_size(store: TokenStore, sequence_length: int) -> None:
    if not window_count(store, sequence_length):
        raise ValueError(
            f"too small a corpus: {store.path} holds {store.num_tokens:,} tokens, and one sequence takes "
            f"{sequence_length + 1:,}\n\nhint: give it more documents, or the recipe a shorter sequence_length"
        )


def _check_divisible(recipe: TrainRecipe, layout: Layout, mesh: DeviceMesh) -> None:
    parts = layout.gradient_accumulation
    if parts < 1 or recipe.batch_size % (parts * mesh.size):
        raise ValueError(
            f"a batch of {recipe.batch_size} sequences cannot be divided over {parts} parts and {mesh.size} devices: "
            "batch_size must be a multiple of gradient_accumulation times devices"
        )
