"""Draws tokens from a model, one after the other."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from experiments.lib.llama.model import Llama
from experiments.lib.train.trained import LoadedModel

__all__ = ["generate"]


def generate(
    loaded: LoadedModel, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, temperature: float, seed: int
) -> list[list[int]]:
    """New tokens after each prompt, always ``max_new_tokens`` of them.

    The whole text so far is read again for every token: simple, and fast enough for a few samples.

    Args:
        loaded: The model.
        prompts: Token ids, each at least one.
        max_new_tokens: Less than the model's sequence length.
        temperature: Divides the logits; 0 takes the most probable token.
        seed: Of what is drawn.

    Raises:
        ValueError: There is no room for so many tokens, or the temperature is negative.
    """
    length = loaded.description.sequence_length
    if not 0 < max_new_tokens < length:
        raise ValueError(
            f"max_new_tokens must be from 1 to {length - 1}, what the model can read, not {max_new_tokens}"
        )
    if temperature < 0:
        raise ValueError(f"temperature must not be negative, like {temperature}")
    kept = [list(prompt)[-(length - max_new_tokens) :] for prompt in prompts]
    tokens = np.zeros((len(kept), length), np.int32)
    for row, prompt in enumerate(kept):
        tokens[row, : len(prompt)] = prompt
    lengths = np.array([len(prompt) for prompt in kept], np.int32)
    draw = jax.jit(
        partial(_generate, count=max_new_tokens, temperature=temperature), out_shardings=loaded.mesh.replicated
    )
    # The same on every process, and few: nothing to split.
    everywhere = partial(jax.device_put, device=loaded.mesh.replicated)
    written = np.asarray(draw(loaded.model, everywhere(tokens), everywhere(lengths), jax.random.key(seed)))
    return [written[row, start : start + max_new_tokens].tolist() for row, start in enumerate(lengths)]


def _generate(model: Llama, tokens: Array, lengths: Array, key: Array, *, count: int, temperature: float) -> Array:
    rows = jnp.arange(tokens.shape[0])

    def extend(number: int, tokens: Array) -> Array:
        logits = model(tokens)[rows, lengths + number - 1]
        if temperature:
            chosen = jax.random.categorical(jax.random.fold_in(key, number), logits / temperature)
        else:
            chosen = jnp.argmax(logits, axis=-1)
        return tokens.at[rows, lengths + number].set(chosen.astype(tokens.dtype))

    return jax.lax.fori_loop(0, count, extend, tokens)
