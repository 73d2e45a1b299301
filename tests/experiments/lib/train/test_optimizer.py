from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.lib.llama.model import init_llama
from experiments.lib.train.config import OptimizerConfig
from experiments.lib.train.optimizer import decayed_parameters, learning_rate_schedule
from tests.training_runs import MODEL, VOCAB_SIZE


def test_the_rate_rises_to_its_peak_and_falls_to_its_end() -> None:
    schedule = learning_rate_schedule(OptimizerConfig(learning_rate=1.0, warmup_steps=4, final_fraction=0.1), 25)
    rates = [float(jnp.asarray(schedule(step))) for step in range(25)]
    np.testing.assert_allclose(rates[:5], [0.2, 0.4, 0.6, 0.8, 1.0], rtol=1e-6)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    np.testing.assert_allclose([rates[14], rates[24]], [0.55, 0.1], rtol=1e-6)


def test_a_warm_up_as_long_as_the_training_is_refused() -> None:
    with pytest.raises(ValueError, match="warmup_steps=10 must be fewer than the 10 steps"):
        learning_rate_schedule(OptimizerConfig(warmup_steps=10), 10)


def test_norms_are_not_decayed_and_all_else_is() -> None:
    model = jax.eval_shape(partial(init_llama, MODEL, VOCAB_SIZE), jax.random.key(0))
    decayed = decayed_parameters(model)
    named = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(decayed)}
    assert {name for name, leaf in named.items() if not leaf} == {
        ".layers.input_norm",
        ".layers.post_attention_norm",
        ".norm",
    }
