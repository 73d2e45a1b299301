"""What is exported is the model, whoever reads it."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from experiments.lib.llama.export import ExportConfig, export_model, huggingface_weights
from experiments.lib.llama.model import init_llama
from experiments.lib.train.config import Layout
from experiments.lib.train.trained import load_model
from tests.training_runs import MODEL, VOCAB_SIZE, write_tokenizer

TOKENS = np.random.default_rng(0).integers(0, VOCAB_SIZE, (2, 11)).astype(np.int32)


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("exported")
    write_tokenizer(root / "tokenizer")
    model = export_model(ExportConfig(str(trained / "model"), 12, str(root / "tokenizer"), str(root / "out")))
    assert model.files == ("config.json", "model.safetensors", "tokenizer.json")
    assert model.bytes == 4 * model.parameters
    return root / "out"


@pytest.fixture(scope="module")
def logits(trained: Path) -> NDArray[Any]:
    return np.asarray(load_model(str(trained / "model"), 12, layout=Layout()).model(TOKENS))


def forward(path: Path, tokens: NDArray[Any]) -> NDArray[Any]:
    """A Llama read from its files and computed in float64, head by head: an independent account of the same model."""
    config = json.loads((path / "config.json").read_text())
    weights = {name: array.astype(np.float64) for name, array in load_file(path / "model.safetensors").items()}
    size, heads, groups = config["head_dim"], config["num_attention_heads"], config["num_key_value_heads"]
    x = weights["model.embed_tokens.weight"][tokens]

    def norm(x: NDArray[Any], name: str) -> NDArray[Any]:
        return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + config["rms_norm_eps"]) * weights[f"{name}.weight"]

    def turned(x: NDArray[Any]) -> NDArray[Any]:
        """As complex numbers: dimension i and i + size / 2 are one number's parts."""
        numbers = x[..., : size // 2] + 1j * x[..., size // 2 :]
        frequencies = config["rope_theta"] ** (-2 * np.arange(size // 2) / size)
        numbers = numbers * np.exp(1j * np.arange(x.shape[1])[:, None] * frequencies)
        return np.concatenate([numbers.real, numbers.imag], axis=-1)

    def attention(x: NDArray[Any], name: str) -> NDArray[Any]:
        query, key, value = (x @ weights[f"{name}.{part}_proj.weight"].T for part in "qkv")
        mixed: list[NDArray[Any]] = []
        for head in range(heads):
            group = head // (heads // groups)
            part, shared = slice(head * size, (head + 1) * size), slice(group * size, (group + 1) * size)
            scores = turned(query[..., part]) @ turned(key[..., shared]).swapaxes(1, 2) / np.sqrt(size)
            scores = np.where(np.tri(x.shape[1], dtype=bool), scores, -np.inf)
            chances = np.exp(scores - scores.max(axis=-1, keepdims=True))
            mixed.append(chances / chances.sum(axis=-1, keepdims=True) @ value[..., shared])
        return np.concatenate(mixed, axis=-1) @ weights[f"{name}.o_proj.weight"].T

    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}"
        x = x + attention(norm(x, f"{name}.input_layernorm"), f"{name}.self_attn")
        y = norm(x, f"{name}.post_attention_layernorm")
        gate = y @ weights[f"{name}.mlp.gate_proj.weight"].T
        gated = gate / (1 + np.exp(-gate)) * (y @ weights[f"{name}.mlp.up_proj.weight"].T)
        x = x + gated @ weights[f"{name}.mlp.down_proj.weight"].T
    return norm(x, "model.norm") @ weights["model.embed_tokens.weight"].T


def test_the_files_hold_the_model(exported: Path, logits: NDArray[Any]) -> None:
    np.testing.assert_allclose(forward(exported, TOKENS), logits, atol=2e-5)


@pytest.mark.filterwarnings("ignore:::torch", "ignore:::transformers", "ignore::DeprecationWarning")
def test_transformers_computes_the_same(exported: Path, logits: NDArray[Any]) -> None:
    """Third parties' warnings are theirs."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.LlamaForCausalLM.from_pretrained(exported)
    with torch.no_grad():
        found = model(torch.from_numpy(TOKENS).long()).logits.numpy()
    np.testing.assert_allclose(found, logits, atol=2e-5)


def test_an_untied_head_and_bfloat16_are_exported_as_they_are() -> None:
    from dataclasses import replace

    untied = replace(MODEL, tie_word_embeddings=False)
    model = jax.tree.map(
        lambda shape: np.full(shape.shape, 1.5, np.float32),
        jax.eval_shape(lambda: init_llama(untied, VOCAB_SIZE, jax.random.key(0))),
    )
    weights = huggingface_weights(model, dtype="bfloat16")
    assert weights["lm_head.weight"].shape == (VOCAB_SIZE, 16)
    assert {str(array.dtype) for array in weights.values()} == {"bfloat16"}


def test_a_model_without_its_tokenizer_is_refused(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no tokenizer.json in \S+/empty"):
        export_model(ExportConfig(str(trained / "model"), 12, str(tmp_path / "empty"), str(tmp_path / "out")))
