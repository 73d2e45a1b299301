"""How long a training step takes, beside a loop written by hand, and where its time goes.

Question: what do the mesh, the data order, the metrics and the layers' scan cost over plain JAX? At most 5 %.

    python benchmarks/train_step.py                     # the recipe's defaults, in float32
    python benchmarks/train_step.py --hidden_size 64 --steps 50

The plain loop is the same model as one function over a dictionary, its layers unrolled, one `jax.jit` around loss,
gradient and optax; its batches are slices of one array. Both take the same steps from the same parameters, in turns of
some steps each, in one process. The ratio is that of the medians over the rounds.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from experiments.lib.llama.config import LlamaConfig, flops_per_token, parameter_count
from experiments.lib.llama.model import Llama, cross_entropy, init_llama
from experiments.lib.mixture import MixtureConfig
from experiments.lib.token_store import write_token_store
from experiments.lib.train.batches import TrainingData, open_training_data
from experiments.lib.train.config import Layout, TrainConfig, TrainRecipe
from experiments.lib.train.layout import DeviceMesh, start_jax
from experiments.lib.train.train_step import init_state, make_train_step

ROUNDS = 7
TOKENS = 200_000


def plain_logits(config: LlamaConfig, weights: dict[str, Any], tokens: Array) -> Array:
    """The model by hand."""
    batch, length = tokens.shape
    heads, groups, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    angles = jnp.arange(length)[:, None] * config.rope_theta ** (-jnp.arange(0, size, 2) / size)
    cosine, sine = jnp.cos(angles)[:, None], jnp.sin(angles)[:, None]

    def norm(x: Array, weight: Array) -> Array:
        return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + config.rms_norm_eps) * weight

    def turn(x: Array) -> Array:
        a, b = x[..., : size // 2], x[..., size // 2 :]
        return jnp.concatenate([a * cosine - b * sine, b * cosine + a * sine], -1)

    x = weights["embed"][tokens]
    for layer in weights["layers"]:
        y = norm(x, layer["norm1"])
        q = turn((y @ layer["q"]).reshape(batch, length, heads, size))
        k = turn((y @ layer["k"]).reshape(batch, length, groups, size))
        v = (y @ layer["v"]).reshape(batch, length, groups, size)
        x = x + jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(batch, length, -1) @ layer["o"]
        y = norm(x, layer["norm2"])
        x = x + (jax.nn.silu(y @ layer["gate"]) * (y @ layer["up"])) @ layer["down"]
    return norm(x, weights["norm"]) @ weights["embed"].T


def plain_weights(model: Llama) -> dict[str, Any]:
    """The parameters by hand."""
    width, attention, feed_forward = model.config.hidden_size, model.layers.attention, model.layers.feed_forward
    layers = [
        {
            "norm1": model.layers.input_norm[layer],
            "norm2": model.layers.post_attention_norm[layer],
            "q": attention.q_proj[layer].reshape(width, -1),
            "k": attention.k_proj[layer].reshape(width, -1),
            "v": attention.v_proj[layer].reshape(width, -1),
            "o": attention.o_proj[layer].reshape(-1, width),
            "gate": feed_forward.gate_proj[layer],
            "up": feed_forward.up_proj[layer],
            "down": feed_forward.down_proj[layer],
        }
        for layer in range(model.config.num_hidden_layers)
    ]
    return {"embed": model.embed_tokens, "layers": layers, "norm": model.norm}


def plain_loop(recipe: TrainRecipe, vocab_size: int, tokens: np.ndarray) -> Callable[[int, int], float]:
    """The loop by hand: a function that takes the steps from … to and returns the last loss."""
    config, length, settings = recipe.model, recipe.sequence_length, recipe.optimizer
    weights = plain_weights(init_llama(config, vocab_size, jax.random.key(recipe.seed)))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, settings.learning_rate, settings.warmup_steps, recipe.steps, settings.learning_rate / 10
    )
    decayed = jax.tree.map(lambda array: array.ndim > 1, weights)
    optimizer: Any = optax.chain(
        optax.clip_by_global_norm(settings.clip_norm),
        optax.adamw(schedule, settings.beta1, settings.beta2, weight_decay=settings.weight_decay, mask=decayed),
    )

    def step(weights: Any, state: Any, batch: Array) -> tuple[Any, Any, Array]:
        def loss(weights: Any) -> Array:
            return cross_entropy(plain_logits(config, weights, batch[:, :-1]), batch[:, 1:]).mean()

        value, gradients = jax.value_and_grad(loss)(weights)
        updates, state = optimizer.update(gradients, state, weights)
        return optax.apply_updates(weights, updates), state, value

    compiled = jax.jit(step, donate_argnums=(0, 1))
    variables = [weights, optimizer.init(weights)]

    def run(begin: int, end: int) -> float:
        loss = jnp.float32(0)
        for number in range(begin, end):
            starts = (number * recipe.batch_size + np.arange(recipe.batch_size)) * length % (len(tokens) - length - 1)
            batch = np.stack([tokens[start : start + length + 1] for start in starts])
            variables[0], variables[1], loss = compiled(variables[0], variables[1], batch)
        return float(loss)

    return run


def library_loop(data: TrainingData, mesh: DeviceMesh) -> Callable[[int, int], float]:
    """The library's loop, without checkpoints: a function that takes the steps from … to and returns the last loss."""
    layout = Layout()
    train_step = make_train_step(data.recipe, data.vocab_size, layout=layout, mesh=mesh)
    variables = [init_state(data.recipe, data.vocab_size, mesh)]

    def run(begin: int, end: int) -> float:
        loss = jnp.float32(0)
        for number in range(begin, end):
            variables[0], metrics = train_step(variables[0], data.batch(number, layout=layout, mesh=mesh))
            loss = metrics.loss
        return float(loss)

    return run


def seconds(function: Callable[[], Any]) -> float:
    """How long one call takes, its result on the device included."""
    began = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - began


@dataclass(frozen=True)
class Parts:
    """Medians, in seconds, of the parts of one step."""

    batch: float
    forward: float
    gradient: float
    """Forward and backward."""


def measured_parts(data: TrainingData, mesh: DeviceMesh) -> Parts:
    """The parts of a step, each compiled on its own."""
    model = init_llama(data.recipe.model, data.vocab_size, jax.random.key(0))
    batch = data.batch(0, layout=Layout(), mesh=mesh)

    def loss(model: Llama, sequences: Array) -> Array:
        logits = model(sequences[:, :-1], dtype=jnp.dtype(data.recipe.compute_dtype))
        return cross_entropy(logits, sequences[:, 1:]).mean()

    forward, gradient = jax.jit(loss), jax.jit(jax.grad(loss))
    parts = (
        lambda: data.batch(1, layout=Layout(), mesh=mesh),
        lambda: forward(model, batch[0]),
        lambda: gradient(model, batch[0]),
    )
    for part in parts:
        seconds(part)
    return Parts(*(statistics.median(seconds(part) for _ in range(ROUNDS)) for part in parts))


def main() -> None:
    """Prints the ratio and the parts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--hidden_size", type=int, default=128)
    parser.add_argument("--vocab_size", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=5, help="in each turn")
    flags = parser.parse_args()
    model = replace(LlamaConfig(), hidden_size=flags.hidden_size, intermediate_size=flags.hidden_size * 11 // 4)
    recipe = TrainRecipe(model=model, compute_dtype="float32", batch_size=8)
    tokens = np.random.default_rng(0).integers(1, flags.vocab_size, TOKENS).astype(np.int32)
    mesh = start_jax(Layout())
    with tempfile.TemporaryDirectory() as directory:
        write_token_store(directory, [tokens], vocab_size=flags.vocab_size, end_of_document=0, num_bytes=TOKENS)
        config = TrainConfig(recipe, MixtureConfig({"tokens": directory}, {"tokens": 1.0}), directory, directory)
        report(open_training_data(config, mesh=mesh), mesh, tokens, flags.steps)


def report(data: TrainingData, mesh: DeviceMesh, tokens: np.ndarray, steps: int) -> None:
    """Measures in turns and prints."""
    recipe = data.recipe
    loops = {"plain": plain_loop(recipe, data.vocab_size, tokens), "library": library_loop(data, mesh)}
    for run in loops.values():
        run(0, 2)
    times: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(ROUNDS):
        # The one that begins changes: a machine that slows down slows both.
        for name in sorted(loops, reverse=bool(number % 2)):
            began = time.perf_counter()
            loops[name](2 + number * steps, 2 + (number + 1) * steps)
            times[name].append((time.perf_counter() - began) / steps)
    medians = {name: statistics.median(values) for name, values in times.items()}
    step_tokens = recipe.batch_size * recipe.sequence_length
    print(
        f"{parameter_count(recipe.model, data.vocab_size):,} parameters, {step_tokens:,} tokens in a step, "
        f"{recipe.compute_dtype}, {jax.device_count()} {jax.devices()[0].device_kind}\n"
    )
    print("| loop | ms per step | fastest | tokens/s | GFLOP/s |\n| --- | --- | --- | --- | --- |")
    for name, value in medians.items():
        flops = flops_per_token(recipe.model, data.vocab_size, recipe.sequence_length) * step_tokens / value
        print(
            f"| {name} | {value * 1e3:.1f} | {min(times[name]) * 1e3:.1f} | {step_tokens / value:,.0f} "
            f"| {flops / 1e9:.1f} |"
        )
    fastest = min(times["library"]) / min(times["plain"])
    print(f"\nlibrary / plain: {medians['library'] / medians['plain']:.3f} of medians, {fastest:.3f} of the fastest\n")
    parts = measured_parts(data, mesh)
    rest = max(0.0, medians["library"] - parts.gradient - parts.batch)
    print("| part of a library step | ms |\n| --- | --- |")
    print(f"| batch: data order, reading, placing | {parts.batch * 1e3:.1f} |")
    print(f"| forward | {parts.forward * 1e3:.1f} |")
    print(f"| backward | {(parts.gradient - parts.forward) * 1e3:.1f} |")
    print(f"| the rest: optimiser, clipping, metrics | {rest * 1e3:.1f} |")


if __name__ == "__main__":
    main()
