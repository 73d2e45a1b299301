"""Writes a trained model the way ``transformers`` reads it: safetensors, ``config.json`` and the tokenizer.

Imports JAX when it is called, not before.
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import fsspec

from experiments.lib.files import copy_file
from marin_trace.io import atomic_write

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from experiments.lib.llama.model import Llama
    from experiments.lib.train.checkpoints import ModelDescription

__all__ = ["ExportConfig", "ExportedModel", "export_model", "huggingface_config", "huggingface_weights"]

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("vocab.json", "merges.txt", "added_tokens.json"),
)
"""What a tokenizer may consist of; those that are there are copied."""


@dataclass(frozen=True)
class ExportConfig:
    """Which checkpoint to export, and where to."""

    model_path: str
    """The output of a training."""

    step: int
    """Which of its checkpoints, such as ``TrainedModel.best_step``."""

    tokenizer_path: str
    """The directory with the ``tokenizer.json`` that the model was trained with."""

    output_path: str
    """The directory that gets the files."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the exported parameters; those of the training are float32."""


@dataclass(frozen=True)
class ExportedModel:
    """What was exported."""

    files: tuple[str, ...]
    """Names below the output path, sorted."""

    parameters: int
    """Numbers in the file of weights: tied embeddings count once."""

    bytes: int
    """Of the weights."""


def export_model(config: ExportConfig) -> ExportedModel:
    """Writes ``model.safetensors``, ``config.json`` and the tokenizer; each file appears when it is complete.

    Raises:
        FileNotFoundError: There is no such checkpoint, or no tokenizer.
    """
    import jax
    from safetensors.numpy import save

    from experiments.lib.train.config import Layout
    from experiments.lib.train.trained import load_model

    loaded = load_model(config.model_path, config.step, layout=Layout())
    weights = huggingface_weights(jax.device_get(loaded.model), dtype=config.dtype)
    tokenizer = _copy_tokenizer(config.tokenizer_path, config.output_path)
    with atomic_write(f"{config.output_path}/model.safetensors") as file:
        # The format is said to be PyTorch's by whoever reads it there.
        file.write(save(weights, metadata={"format": "pt"}))
    with atomic_write(f"{config.output_path}/config.json", "w") as file:
        json.dump(huggingface_config(loaded.description, dtype=config.dtype), file, indent=1)
        file.write("\n")
    return ExportedModel(
        files=tuple(sorted([*tokenizer, "model.safetensors", "config.json"])),
        parameters=sum(array.size for array in weights.values()),
        bytes=sum(array.nbytes for array in weights.values()),
    )


def huggingface_config(description: "ModelDescription", *, dtype: str) -> dict[str, Any]:
    """The content of ``config.json``."""
    config = description.config
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": description.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": description.sequence_length,
        # Twice: the second form is that of transformers 5.
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "rms_norm_eps": config.rms_norm_eps,
        "initializer_range": config.initializer_range,
        "tie_word_embeddings": config.tie_word_embeddings,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": description.end_of_document,
        "eos_token_id": description.end_of_document,
        "torch_dtype": dtype,
    }


def huggingface_weights(model: "Llama", *, dtype: str) -> "dict[str, NDArray[Any]]":
    """The parameters by the names and in the shapes of ``LlamaForCausalLM``: one matrix for each layer, output first.

    Args:
        model: With arrays in the host's memory.
        dtype: Of the result.
    """
    import ml_dtypes
    import numpy as np

    attention, feed_forward = model.layers.attention, model.layers.feed_forward
    width = model.config.hidden_size
    weights: dict[str, Any] = {"model.embed_tokens.weight": model.embed_tokens, "model.norm.weight": model.norm}
    if model.lm_head is not None:
        weights["lm_head.weight"] = model.lm_head
    for layer in range(model.config.num_hidden_layers):
        matrices = {
            "input_layernorm": model.layers.input_norm[layer],
            "self_attn.q_proj": attention.q_proj[layer].reshape(width, -1).T,
            "self_attn.k_proj": attention.k_proj[layer].reshape(width, -1).T,
            "self_attn.v_proj": attention.v_proj[layer].reshape(width, -1).T,
            "self_attn.o_proj": attention.o_proj[layer].reshape(-1, width).T,
            "post_attention_layernorm": model.layers.post_attention_norm[layer],
            "mlp.gate_proj": feed_forward.gate_proj[layer].T,
            "mlp.up_proj": feed_forward.up_proj[layer].T,
            "mlp.down_proj": feed_forward.down_proj[layer].T,
        }
        weights |= {f"model.layers.{layer}.{name}.weight": matrix for name, matrix in matrices.items()}
    target = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float32
    return {name: np.ascontiguousarray(matrix, target) for name, matrix in weights.items()}


def _copy_tokenizer(source: str, destination: str) -> list[str]:
    file_system, root = fsspec.core.url_to_fs(source)
    names = [name for name in TOKENIZER_FILES if file_system.isfile(f"{root}/{name}")]
    if "tokenizer.json" not in names:
        raise FileNotFoundError(f"no tokenizer.json in {source}: a model is of no use without its tokenizer")
    for name in names:
        copy_file(f"{source}/{name}", f"{destination}/{name}")
    return names
