"""A trained model, read back for whatever is done with it next."""

from dataclasses import dataclass
from functools import partial

import jax

from experiments.lib.llama.model import Llama, init_llama
from experiments.lib.train.checkpoints import ModelDescription, load_parameters, read_description
from experiments.lib.train.config import Layout
from experiments.lib.train.layout import DeviceMesh, start_jax

__all__ = ["LoadedModel", "load_model"]


@dataclass(frozen=True)
class LoadedModel:
    """Parameters, where they lie, and what else one must know of them."""

    model: Llama
    description: ModelDescription
    mesh: DeviceMesh


def load_model(model_path: str, step: int, *, layout: Layout) -> LoadedModel:
    """The parameters of one checkpoint, in float32, spread over the devices as a layout says.

    Raises:
        FileNotFoundError: Nothing was trained there, or no such checkpoint was kept.
        DamagedCheckpointError: It cannot be read.
    """
    mesh = start_jax(layout)
    description = read_description(model_path)
    shapes = jax.eval_shape(partial(init_llama, description.config, description.vocab_size), jax.random.key(0))
    return LoadedModel(load_parameters(model_path, step, mesh.placed_shapes(shapes)), description, mesh)
