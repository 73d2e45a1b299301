"""The training loop: reads batches, updates, measures, saves."""

import logging
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import final

import jax
import numpy as np
from jax import Array

from experiments.lib.llama.config import flops_per_token, parameter_count
from experiments.lib.llama.devices import peak_flops_per_second
from experiments.lib.llama.model import Llama
from experiments.lib.train.batches import TrainingData, open_training_data
from experiments.lib.train.checkpoints import CHECKPOINTS, Checkpoints, ModelDescription, write_description
from experiments.lib.train.config import TrainConfig, TrainedModel, TrainingDivergedError
from experiments.lib.train.layout import DeviceMesh, start_jax
from experiments.lib.train.metrics import METRICS_FILE, MetricsLog, StepLine
from experiments.lib.train.train_step import (
    StepMetrics,
    TrainState,
    abstract_state,
    init_state,
    make_loss,
    make_train_step,
)
from marin_trace.io import check_lease

__all__ = ["run_training"]

logger = logging.getLogger(__name__)


def run_training(config: TrainConfig) -> TrainedModel:
    """What :func:`experiments.lib.train.train.train_model` does."""
    mesh = start_jax(config.layout)
    data = open_training_data(config, mesh=mesh)
    recipe = config.recipe
    if jax.process_index() == 0:
        description = ModelDescription(recipe.model, data.vocab_size, data.end_of_document, recipe.sequence_length)
        write_description(config.output_path, description)
    with Checkpoints(config.output_path, recipe.checkpoints) as checkpoints:
        state = checkpoints.restore_latest(abstract_state(recipe, data.vocab_size, mesh))
        if state is None:
            state = init_state(recipe, data.vocab_size, mesh)
        start = int(state.step)
        whole = f"{parameter_count(recipe.model, data.vocab_size):,} parameters, {recipe.steps} steps"
        logger.info(f"{whole}; going on after step {start}" if start else whole)
        log = MetricsLog.resume(f"{config.output_path}/{METRICS_FILE}", step=start)
        _train(config, state, data=data, mesh=mesh, checkpoints=checkpoints, log=log)
        kept = checkpoints.steps
    return _trained_model(config, data, log.lines, kept)


def _train(
    config: TrainConfig,
    state: TrainState,
    *,
    data: TrainingData,
    mesh: DeviceMesh,
    checkpoints: Checkpoints,
    log: MetricsLog,
) -> None:
    """From a state to the recipe's last step. The device is left to run ahead between two logged steps."""
    recipe = config.recipe
    train_step = make_train_step(recipe, data.vocab_size, layout=config.layout, mesh=mesh)
    loss_of = make_loss(recipe, mesh)
    throughput = _Throughput(recipe.batch_size * recipe.sequence_length)
    start = int(state.step)
    for index in range(start, recipe.steps):
        check_lease()
        state, metrics = train_step(state, data.batch(index, layout=config.layout, mesh=mesh))
        step = index + 1
        if index == start:  # This one was compiled: the clock starts behind it.
            jax.block_until_ready(metrics)
            throughput.restart(step)
        save = step % recipe.checkpoints.every_steps == 0 or step == recipe.steps
        if not (save or step == 1 or step % recipe.log_every == 0):
            continue
        line = _step_line(step, jax.device_get(metrics), throughput.measure(step, metrics), data)
        _check_finite(line, config, checkpoints.steps, log)
        if save:
            line = replace(line, validation_loss=_validation_loss(loss_of, state.model, data, mesh))
        logger.info(_progress(line, recipe.steps))
        log.append(line)
        if line.validation_loss is not None:
            # The log first: wherever this is killed, no step of a checkpoint is without its line.
            _write(log)
            checkpoints.save(state, validation_loss=line.validation_loss)
        throughput.restart(step)


@final
class _Throughput:
    """Tokens per second between two logged steps."""

    def __init__(self, tokens_per_step: int) -> None:
        self._tokens_per_step = tokens_per_step
        self.restart(0)

    def restart(self, step: int) -> None:
        """Begins to count after this step."""
        self._step, self._began = step, time.perf_counter()

    def measure(self, step: int, metrics: StepMetrics) -> float | None:
        """Since the last restart, once the step is done; None where no step lies between."""
        jax.block_until_ready(metrics)
        steps = step - self._step
        return steps * self._tokens_per_step / (time.perf_counter() - self._began) if steps else None


def _step_line(step: int, metrics: StepMetrics, tokens_per_second: float | None, data: TrainingData) -> StepLine:
    recipe = data.recipe
    flops = utilisation = None
    if tokens_per_second is not None:
        flops = tokens_per_second * flops_per_token(recipe.model, data.vocab_size, recipe.sequence_length)
        peak = peak_flops_per_second(jax.devices()[0].device_kind)
        utilisation = None if peak is None else flops / (peak * jax.device_count())
    return StepLine(
        step=step,
        loss=float(metrics.loss),
        learning_rate=float(metrics.learning_rate),
        grad_norm=float(metrics.grad_norm),
        tokens_per_second=tokens_per_second,
        flops_per_second=flops,
        flops_utilisation=utilisation,
    )


def _validation_loss(
    loss_of: Callable[[Llama, Array], Array], model: Llama, data: TrainingData, mesh: DeviceMesh
) -> float:
    """Mean over the held-out sequences, in nats per token."""
    count = data.validation_sequences
    # As many at a time as a device sees in training: what fits there fits here.
    rows = data.recipe.batch_size
    losses = [loss_of(model, data.validation_batch(first, rows, mesh=mesh)) for first in range(0, count, rows)]
    return float(np.concatenate([np.asarray(part) for part in losses])[:count].mean(dtype=np.float64))


def _check_finite(line: StepLine, config: TrainConfig, saved: list[int], log: MetricsLog) -> None:
    if math.isfinite(line.loss) and math.isfinite(line.grad_norm):
        return
    _write(log)
    last = f"the last good checkpoint is step {saved[-1]}" if saved else "no checkpoint was saved before"
    lowered = config.recipe.optimizer.learning_rate / 3
    raise TrainingDivergedError(
        f"training diverged by step {line.step}: loss {line.loss}, gradient norm {line.grad_norm}; {last} in "
        f"{config.output_path}/{CHECKPOINTS}\n\n"
        f"hint: lower the learning rate, as in optimizer=OptimizerConfig(learning_rate={lowered:.1g}), or warm up for "
        "longer; the same recipe would diverge again"
    )


def _write(log: MetricsLog) -> None:
    if jax.process_index() == 0:
        log.write()


def _progress(line: StepLine, steps: int) -> str:
    parts = [f"step {line.step}/{steps}", f"loss {line.loss:.4f}", f"lr {line.learning_rate:.2e}"]
    if line.validation_loss is not None:
        parts.append(f"validation {line.validation_loss:.4f}")
    if line.tokens_per_second is not None:
        parts.append(f"{line.tokens_per_second:,.0f} tokens/s")
    return "  ".join(parts)


def _trained_model(config: TrainConfig, data: TrainingData, lines: list[StepLine], kept: list[int]) -> TrainedModel:
    recipe = config.recipe
    validated = {line.step: line.validation_loss for line in lines if line.validation_loss is not None}
    best_step = min((step for step in validated if step in kept), key=lambda step: validated[step])
    speeds = [line.tokens_per_second for line in lines if line.tokens_per_second is not None]
    return TrainedModel(
        steps=recipe.steps,
        tokens=recipe.steps * recipe.batch_size * recipe.sequence_length,
        epochs=data.epochs,
        parameters=parameter_count(recipe.model, data.vocab_size),
        vocab_size=data.vocab_size,
        final_loss=lines[-1].loss,
        best_step=best_step,
        best_validation_loss=validated[best_step],
        final_validation_loss=validated[recipe.steps],
        tokens_per_second=statistics.median(speeds) if speeds else 0.0,
    )
