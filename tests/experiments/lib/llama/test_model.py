from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.lib.llama.config import LlamaConfig, flops_per_token, parameter_count
from experiments.lib.llama.devices import peak_flops_per_second
from experiments.lib.llama.model import Llama, cross_entropy, init_llama, rms_norm, rotate
from tests.training_runs import MODEL, VOCAB_SIZE

TOKENS = np.random.default_rng(0).integers(0, VOCAB_SIZE, (2, 9)).astype(np.int32)


@cache
def model() -> Llama:
    return init_llama(MODEL, VOCAB_SIZE, jax.random.key(1))


def test_no_logit_depends_on_a_later_token() -> None:
    changed = TOKENS.copy()
    changed[:, 5] = (changed[:, 5] + 1) % VOCAB_SIZE
    before, after = np.asarray(model()(TOKENS)), np.asarray(model()(changed))
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert (before[:, 5:] != after[:, 5:]).any(axis=-1).all()


def test_heads_of_one_group_share_keys_and_values() -> None:
    """With the keys and values of each group written out for each head, every head is a group of its own."""
    attention = model().layers.attention
    repeated = [jnp.repeat(array, 2, axis=2) for array in (attention.k_proj, attention.v_proj)]
    written_out = init_llama(replace(MODEL, num_key_value_heads=4), VOCAB_SIZE, jax.random.key(0))
    written_out = jax.tree.map(
        lambda _, array: array,
        written_out,
        jax.tree.unflatten(
            jax.tree.structure(written_out),
            [
                repeated[0] if leaf is attention.k_proj else repeated[1] if leaf is attention.v_proj else leaf
                for leaf in jax.tree.leaves(model())
            ],
        ),
    )
    np.testing.assert_allclose(written_out(TOKENS), model()(TOKENS), atol=1e-5)


def test_rotated_products_depend_on_the_distance_only() -> None:
    query, key = np.random.default_rng(1).normal(size=(2, 8)).astype(np.float32)
    queries, keys = (rotate(jnp.tile(vector, (1, 12, 1, 1)), 100.0)[0, :, 0] for vector in (query, key))
    products = np.asarray(queries @ keys.T)
    for distance in range(-5, 6):
        np.testing.assert_allclose(np.diagonal(products, distance), np.diagonal(products, distance)[0], rtol=1e-4)


def test_a_normed_vector_has_unit_mean_square() -> None:
    x = np.random.default_rng(2).normal(size=(3, 64)).astype(np.float32) * 100
    np.testing.assert_allclose(np.square(rms_norm(x, jnp.ones(64), 1e-6)).mean(axis=1), 1, rtol=1e-5)


def test_a_fresh_model_knows_nothing() -> None:
    losses = cross_entropy(model()(TOKENS[:, :-1]), TOKENS[:, 1:])
    np.testing.assert_allclose(losses.mean(), np.log(VOCAB_SIZE), atol=0.05)


@pytest.mark.parametrize("tied", [True, False])
def test_the_count_is_that_of_the_parameters(tied: bool) -> None:
    config = replace(MODEL, tie_word_embeddings=tied)
    shapes = jax.eval_shape(lambda: init_llama(config, VOCAB_SIZE, jax.random.key(0)))
    assert parameter_count(config, VOCAB_SIZE) == sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_operations_are_those_of_a_hand_count() -> None:
    config = LlamaConfig(
        hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1
    )
    matrices = 8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 16 + 10 * 8
    assert flops_per_token(config, vocab_size=10, sequence_length=4) == 6 * matrices + 12 * 8 * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 0}, "at least 1, not num_hidden_layers=0"),
        ({"num_attention_heads": 3}, "hidden_size=16 does not give 3 attention heads an even size"),
        ({"num_key_value_heads": 3}, "4 attention heads cannot share 3 key-value heads"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(MODEL, **changes)


def test_the_longest_name_of_a_device_wins() -> None:
    assert peak_flops_per_second("TPU v5 lite") == 197e12
    assert peak_flops_per_second("cpu") is None
