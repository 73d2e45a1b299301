"""The log probability that a model gives to the tokens of a document, however long it is."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from experiments.lib.llama.model import Llama, cross_entropy
from experiments.lib.train.trained import LoadedModel

__all__ = ["Window", "document_losses", "document_windows"]


class Window(NamedTuple):
    """A part of a document, as long as the model can read, of which only the targets from ``first`` on count."""

    tokens: NDArray[np.int32]
    """Inputs and, one further, targets; at most sequence_length + 1."""

    first: int
    """The first target that no earlier window has predicted."""


def document_losses(
    loaded: LoadedModel, documents: Iterable[NDArray[np.int32]], *, batch_size: int
) -> Iterator[tuple[float, int]]:
    """The loss of some windows at a time: the sum in nats, and how many tokens it is of.

    Args:
        loaded: The model.
        documents: Token ids of each, without the end token.
        batch_size: How many windows at a time; rounded up to a multiple of the devices.
    """
    length = loaded.description.sequence_length
    end = loaded.description.end_of_document
    rows = -(-batch_size // loaded.mesh.size) * loaded.mesh.size
    losses_of = jax.jit(_masked_losses, out_shardings=loaded.mesh.replicated)
    windows = (window for document in documents for window in document_windows(document, end, length))
    while batch := list(islice(windows, rows)):
        tokens, mask = _padded(batch, rows, length, end)
        sequences = loaded.mesh.make_batch(tokens.shape, lambda wanted, tokens=tokens: tokens[list(wanted)])
        losses = np.asarray(losses_of(loaded.model, sequences))
        yield float(losses.sum(where=mask, dtype=np.float64)), int(mask.sum())


def document_windows(document: NDArray[np.int32], end_of_document: int, length: int) -> Iterator[Window]:
    """A document in windows that overlap by half: all but its beginning is predicted from half a window or more.

    The end token stands before the document, as in training, and after it, to be predicted.
    """
    tokens = np.concatenate([[end_of_document], document, [end_of_document]]).astype(np.int32)
    stride = max(1, length // 2)
    predicted = 0
    for start in range(0, len(tokens) - 1, stride):
        window = tokens[start : start + length + 1]
        yield Window(window, predicted - start)
        predicted = start + len(window) - 1
        if predicted == len(tokens) - 1:
            return


def _padded(
    windows: Sequence[Window], rows: int, length: int, filler: int
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """The windows as one array [rows, length + 1], and which targets [rows, length] count."""
    tokens = np.full((rows, length + 1), filler, np.int32)
    mask = np.zeros((rows, length), bool)
    for row, window in enumerate(windows):
        tokens[row, : len(window.tokens)] = window.tokens
        mask[row, window.first : len(window.tokens) - 1] = True
    return tokens, mask


def _masked_losses(model: Llama, sequences: Array) -> Array:
    return cross_entropy(model(sequences[:, :-1], dtype=jnp.float32), sequences[:, 1:])
