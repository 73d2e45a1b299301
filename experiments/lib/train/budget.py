"""How many training steps fit into so many minutes on this machine.

For choosing ``TrainRecipe.steps`` before an experiment is written down. A recipe that measured its own length would be
another one on every machine and on every day, and no run of it would find what an earlier one had built.

    python -c "from experiments.lib.train.budget import *; print(steps_within(3, TrainRecipe(), vocab_size=2048))"
"""

import time
from dataclasses import replace

from experiments.lib.train.config import Layout, TrainRecipe

__all__ = ["TrainRecipe", "seconds_per_step", "steps_within"]

TIMED_STEPS = 5


def steps_within(minutes: float, recipe: TrainRecipe, *, vocab_size: int, layout: Layout | None = None) -> int:
    """How many steps of a recipe take so many minutes, compiling, validating and saving not counted; at least 1."""
    return max(1, int(60 * minutes / seconds_per_step(recipe, vocab_size=vocab_size, layout=layout)))


def seconds_per_step(recipe: TrainRecipe, *, vocab_size: int, layout: Layout | None = None) -> float:
    """What one step of a recipe takes here, on tokens that are all the same; measured over some steps."""
    import jax
    import numpy as np

    from experiments.lib.train.layout import start_jax
    from experiments.lib.train.train_step import init_state, make_train_step

    layout = layout or Layout()
    # The length matters to the learning rate only, and the warm-up must fit into it.
    recipe = replace(recipe, steps=max(recipe.steps, recipe.optimizer.warmup_steps + 1))
    mesh = start_jax(layout)
    parts = layout.gradient_accumulation
    shape = (parts, recipe.batch_size // parts, recipe.sequence_length + 1)
    batch = mesh.make_batch(shape, lambda rows: np.zeros((len(rows), shape[2]), np.int32), leading_axes=1)
    train_step = make_train_step(recipe, vocab_size, layout=layout, mesh=mesh)
    state, _ = jax.block_until_ready(train_step(init_state(recipe, vocab_size, mesh), batch))
    began = time.perf_counter()
    for _ in range(TIMED_STEPS):
        state, _ = train_step(state, batch)
    jax.block_until_ready(state)
    return (time.perf_counter() - began) / TIMED_STEPS
