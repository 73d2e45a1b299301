"""One update of the parameters, compiled once, and the loss without an update."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array

from experiments.lib.llama.model import Llama, cross_entropy, init_llama
from experiments.lib.train.config import Layout, TrainRecipe
from experiments.lib.train.layout import DeviceMesh
from experiments.lib.train.optimizer import learning_rate_schedule, make_optimizer

__all__ = ["StepMetrics", "TrainState", "abstract_state", "init_state", "make_loss", "make_train_step"]


class TrainState(eqx.Module):
    """All that changes from step to step."""

    step: Array
    """int32: how many updates were made."""
    model: Llama
    optimizer: Any
    """As optax keeps it."""


class StepMetrics(NamedTuple):
    """Scalars of one step, on the device until somebody reads them."""

    loss: Array
    """Mean over the batch, in nats per token, before the update."""
    grad_norm: Array
    """Over all parameters, before clipping."""
    learning_rate: Array


def init_state(recipe: TrainRecipe, vocab_size: int, mesh: DeviceMesh) -> TrainState:
    """The state before the first step, each device making its own part of it."""
    make = partial(_new_state, recipe, vocab_size)
    # The key is an argument: one program serves all seeds.
    key = jax.random.key(recipe.seed)
    return jax.jit(make, out_shardings=mesh.state_shardings(_state_shapes(recipe, vocab_size)))(key)


def abstract_state(recipe: TrainRecipe, vocab_size: int, mesh: DeviceMesh) -> TrainState:
    """Shapes, types and places of the state's arrays, and no arrays."""
    return mesh.placed_shapes(_state_shapes(recipe, vocab_size))


def make_train_step(
    recipe: TrainRecipe, vocab_size: int, *, layout: Layout, mesh: DeviceMesh
) -> Callable[[TrainState, Array], tuple[TrainState, StepMetrics]]:
    """The function from (state, batch) to (next state, metrics). The given state's memory is used up.

    A batch is int32 [parts, sequences of a part, sequence_length + 1]: the parts are taken one after the other and
    their gradients averaged, which is the gradient of the whole batch, since all parts have as many tokens.
    """
    # Any tree of arrays is a tree of parameters to optax, whatever its annotations say.
    optimizer: Any = make_optimizer(recipe.optimizer, recipe.steps)
    schedule = learning_rate_schedule(recipe.optimizer, recipe.steps)
    mean_loss = partial(_mean_loss, dtype=jnp.dtype(recipe.compute_dtype), layout=layout, mesh=mesh)

    def train_step(state: TrainState, batch: Array) -> tuple[TrainState, StepMetrics]:
        loss, gradients = _accumulated(jax.value_and_grad(mean_loss), state.model, batch)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.model)
        model: Any = jax.tree.map(jnp.add, state.model, updates)
        metrics = StepMetrics(loss, optax.tree.norm(gradients), jnp.asarray(schedule(state.step)))
        return TrainState(state.step + 1, model, optimizer_state), metrics

    # The places of the result are those of the argument: else the second call would compile once more.
    places = mesh.state_shardings(_state_shapes(recipe, vocab_size))
    return jax.jit(train_step, donate_argnums=0, out_shardings=(places, mesh.replicated))


def make_loss(recipe: TrainRecipe, mesh: DeviceMesh) -> Callable[[Llama, Array], Array]:
    """The compiled function from (model, sequences [B, sequence_length + 1]) to their losses [B], on every device."""
    dtype = jnp.dtype(recipe.compute_dtype)

    def loss(model: Llama, sequences: Array) -> Array:
        logits = model(sequences[:, :-1], dtype=dtype, constrain=mesh.constrain_activations)
        return cross_entropy(logits, sequences[:, 1:]).mean(axis=1)

    return jax.jit(loss, out_shardings=mesh.replicated)


def _new_state(recipe: TrainRecipe, vocab_size: int, key: Array) -> TrainState:
    model = init_llama(recipe.model, vocab_size, key)
    optimizer: Any = make_optimizer(recipe.optimizer, recipe.steps)
    return TrainState(jnp.int32(0), model, optimizer.init(model))


def _state_shapes(recipe: TrainRecipe, vocab_size: int) -> Any:
    return jax.eval_shape(partial(_new_state, recipe, vocab_size), jax.random.key(0))


def _mean_loss(model: Llama, sequences: Array, *, dtype: Any, layout: Layout, mesh: DeviceMesh) -> Array:
    logits = model(
        sequences[:, :-1], dtype=dtype, recompute=layout.recompute_layers, constrain=mesh.constrain_activations
    )
    return cross_entropy(logits, sequences[:, 1:]).mean()


def _accumulated(
    value_and_grad: Callable[[Llama, Array], tuple[Array, Llama]], model: Llama, batch: Array
) -> tuple[Array, Llama]:
    """Loss and gradient, averaged over the parts of a batch."""
    if batch.shape[0] == 1:
        return value_and_grad(model, batch[0])

    def add(total: tuple[Array, Llama], part: Array) -> tuple[tuple[Array, Llama], None]:
        return jax.tree.map(jnp.add, total, value_and_grad(model, part)), None

    nothing = (jnp.float32(0), jax.tree.map(jnp.zeros_like, model))
    total, _ = jax.lax.scan(add, nothing, batch)
    return jax.tree.map(lambda summed: summed / batch.shape[0], total)
