"""AdamW with warm-up, cosine decay, clipping, and weight decay of matrices only."""

import jax
import optax

from experiments.lib.llama.model import Llama
from experiments.lib.train.config import OptimizerConfig

__all__ = ["decayed_parameters", "learning_rate_schedule", "make_optimizer"]


def learning_rate_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """From the number of a step, counted from 0, to its learning rate.

    Linear to the peak over the warm-up, whose first step has a part of it already; then half a cosine down to
    ``final_fraction`` of the peak at the last step (Loshchilov & Hutter 2017).

    Raises:
        ValueError: The warm-up takes all steps.
    """
    if not 0 <= config.warmup_steps < steps:
        raise ValueError(f"warmup_steps={config.warmup_steps} must be fewer than the {steps} steps of the training")
    peak = config.learning_rate
    warmup = config.warmup_steps
    return optax.join_schedules(
        [
            optax.linear_schedule(peak / (warmup + 1), peak, warmup),
            optax.cosine_decay_schedule(peak, max(1, steps - 1 - warmup), config.final_fraction),
        ],
        [warmup],
    )


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """The optimiser; its state has one moment of each order for each parameter."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            learning_rate_schedule(config, steps),
            b1=config.beta1,
            b2=config.beta2,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            mask=decayed_parameters,
        ),
    )


def decayed_parameters(model: Llama) -> Llama:
    """The model with True for each array that weight decay applies to: all but the norms."""
    return jax.tree_util.tree_map_with_path(lambda path, _: not path[-1].name.endswith("norm"), model)
