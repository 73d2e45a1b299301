"""The parameters of a Llama-style decoder, and its forward pass.

Pre-normalised blocks of grouped-query attention with rotary positions and of a SwiGLU feed-forward layer (Touvron et
al. 2023). The parameters of all layers are stacked along a leading axis and scanned over, so that the time to compile
does not grow with the depth.

Shapes are written with B sequences, T positions, L layers, D the hidden size, F the intermediate size, H query heads,
K key-value heads of size C, V tokens in the vocabulary. Parameters are kept in float32; the forward pass is computed in
the type that the caller chooses, except for what loses most by it: norms, rotations, attention weights and logits.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from experiments.lib.llama.config import LlamaConfig

__all__ = ["Attention", "Block", "FeedForward", "Llama", "cross_entropy", "init_llama", "rms_norm", "rotate"]


UNROLLED_LAYERS = 4
"""Layers that are compiled one after the other in each turn of the loop over layers. More take longer to compile; fewer
cost a small model on a processor up to a tenth of its time, since what the backward pass needs is copied in and out."""


class Attention(eqx.Module):
    """Causal self-attention in which groups of query heads share keys and values (Ainslie et al. 2023)."""

    q_proj: Array
    """[D, H, C]"""
    k_proj: Array
    """[D, K, C]"""
    v_proj: Array
    """[D, K, C]"""
    o_proj: Array
    """[H, C, D]"""

    def __call__(self, x: Array, rope_theta: float) -> Array:
        """[B, T, D] → [B, T, D]."""
        query = rotate(jnp.einsum("btd,dhc->bthc", x, self.q_proj), rope_theta)
        key = rotate(jnp.einsum("btd,dkc->btkc", x, self.k_proj), rope_theta)
        value = jnp.einsum("btd,dkc->btkc", x, self.v_proj)
        # Weighs in float32 whatever the type of its arguments.
        mixed = jax.nn.dot_product_attention(query, key, value, is_causal=True)
        return jnp.einsum("bthc,hcd->btd", mixed, self.o_proj)


class FeedForward(eqx.Module):
    """A feed-forward layer gated by SiLU: SwiGLU (Shazeer 2020)."""

    gate_proj: Array
    """[D, F]"""
    up_proj: Array
    """[D, F]"""
    down_proj: Array
    """[F, D]"""

    def __call__(self, x: Array) -> Array:
        """[B, T, D] → [B, T, D]."""
        return (jax.nn.silu(x @ self.gate_proj) * (x @ self.up_proj)) @ self.down_proj


class Block(eqx.Module):
    """One layer; in :attr:`Llama.layers` every array has a leading axis L."""

    input_norm: Array
    """[D]"""
    attention: Attention
    post_attention_norm: Array
    """[D]"""
    feed_forward: FeedForward

    def __call__(self, x: Array, config: LlamaConfig) -> Array:
        """[B, T, D] → [B, T, D]."""
        x = x + self.attention(rms_norm(x, self.input_norm, config.rms_norm_eps), config.rope_theta)
        return x + self.feed_forward(rms_norm(x, self.post_attention_norm, config.rms_norm_eps))


class Llama(eqx.Module):
    """The decoder: a tree of arrays, and its shape as static data."""

    embed_tokens: Array
    """[V, D]"""
    layers: Block
    """All layers, stacked."""
    norm: Array
    """[D]"""
    lm_head: Array | None
    """[V, D]; None where it is the embedding."""
    config: LlamaConfig = eqx.field(static=True)

    def __call__(
        self,
        tokens: Array,
        *,
        dtype: Any = jnp.float32,
        recompute: bool = False,
        constrain: Callable[[Array], Array] = lambda activations: activations,
    ) -> Array:
        """The logits of the token after each position: int32 [B, T] → float32 [B, T, V].

        Args:
            tokens: Token ids below V.
            dtype: What the layers compute in.
            recompute: Keep only what enters each layer for the backward pass, and compute the rest again: less memory
                for a third more work.
            constrain: Says how activations [B, T, D] are laid out on devices; applied between layers.
        """
        compute: Llama = jax.tree.map(lambda array: array.astype(dtype), self)

        def layer(x: Array, block: Block) -> tuple[Array, None]:
            return constrain(block(x, self.config)), None

        x = constrain(compute.embed_tokens[tokens])
        x, _ = jax.lax.scan(jax.checkpoint(layer) if recompute else layer, x, compute.layers, unroll=UNROLLED_LAYERS)
        x = rms_norm(x, compute.norm, self.config.rms_norm_eps)
        head = compute.embed_tokens if compute.lm_head is None else compute.lm_head
        return jnp.einsum("btd,vd->btv", x, head, preferred_element_type=jnp.float32)


def init_llama(config: LlamaConfig, vocab_size: int, key: Array) -> Llama:
    """Fresh float32 parameters, normally distributed; norms are 1.

    What is added to the residual stream starts smaller by √(2L), so that the stream's variance does not grow with the
    depth (Radford et al. 2019, section 2.3).
    """
    depth, width, heads, groups = (
        config.num_hidden_layers,
        config.hidden_size,
        config.num_attention_heads,
        config.num_key_value_heads,
    )
    keys = iter(jax.random.split(key, 9))

    def normal(*shape: int, scale: float = 1.0) -> Array:
        return config.initializer_range * scale * jax.random.normal(next(keys), shape, jnp.float32)

    residual = (2 * depth) ** -0.5
    return Llama(
        embed_tokens=normal(vocab_size, width),
        layers=Block(
            input_norm=jnp.ones((depth, width)),
            attention=Attention(
                q_proj=normal(depth, width, heads, config.head_dim),
                k_proj=normal(depth, width, groups, config.head_dim),
                v_proj=normal(depth, width, groups, config.head_dim),
                o_proj=normal(depth, heads, config.head_dim, width, scale=residual),
            ),
            post_attention_norm=jnp.ones((depth, width)),
            feed_forward=FeedForward(
                gate_proj=normal(depth, width, config.intermediate_size),
                up_proj=normal(depth, width, config.intermediate_size),
                down_proj=normal(depth, config.intermediate_size, width, scale=residual),
            ),
        ),
        norm=jnp.ones(width),
        lm_head=None if config.tie_word_embeddings else normal(vocab_size, width),
        config=config,
    )


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """X / √(mean of x² + eps) · weight along the last axis (Zhang & Sennrich 2019); in float32 within."""
    wide = x.astype(jnp.float32)
    scale = jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + eps)
    return (wide * scale).astype(x.dtype) * weight


def rotate(x: Array, theta: float) -> Array:
    """Rotary position embedding (Su et al. 2021) of [B, T, heads, C].

    Dimension i of the first half and dimension i of the second are the coordinates of a point that turns by
    position · theta^(-2i/C): the pairing that Llama's published weights expect.
    """
    positions, size = x.shape[1], x.shape[3]
    frequencies = theta ** (-jnp.arange(0, size, 2, dtype=jnp.float32) / size)
    angles = jnp.arange(positions, dtype=jnp.float32)[:, None, None] * frequencies
    cosine, sine = jnp.cos(angles), jnp.sin(angles)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return turned.astype(x.dtype)


def cross_entropy(logits: Array, targets: Array) -> Array:
    """Of each target its negative log probability, in nats: float [B, T, V] and int [B, T] → float32 [B, T]."""
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen
