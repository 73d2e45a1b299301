"""Measures the checkpoints of a training while it runs. Imports JAX when it is called, not before."""

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final, final

from experiments.lib.evaluate.config import EvaluateConfig, ModelEvaluation
from experiments.lib.files import read_text
from experiments.lib.train.config import Layout
from marin_trace.io import atomic_write, check_lease

__all__ = [
    "EVALUATIONS_FILE",
    "TrainingStalledError",
    "WatchConfig",
    "WatchedTraining",
    "watch",
    "watch_checkpoints",
]

EVALUATIONS_FILE = "evaluations.jsonl"
"""What :func:`watch_checkpoints` writes below its output path: one `ModelEvaluation` a line, by step."""

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 15.0
"""Seconds between two looks at the checkpoints: each pause in which nothing came is twice the one before."""

READ_ATTEMPTS: Final = 5
"""How often a checkpoint may be unreadable while it is there: the training deletes old ones, file by file."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WatchConfig:
    """Whose checkpoints to measure on which documents, and for how long."""

    model_path: str
    """The output of a training that may not have begun yet, may run, or may have ended."""

    last_step: int
    """The last step of the training's recipe: watching ends with its checkpoint."""

    heldout_path: str
    """A token store that the model is not trained on."""

    output_path: str
    """The directory that gets the evaluations; what an earlier attempt left there is gone on with."""

    patience_s: float = 600.0
    """Seconds without a new checkpoint after which the training counts as failed."""

    batch_size: int = 16
    """Sequences at a time, over all devices. No part of the result, up to rounding."""

    layout: Layout = field(default_factory=Layout)


@dataclass(frozen=True)
class WatchedTraining:
    """How a training went."""

    evaluations: tuple[ModelEvaluation, ...]
    """By step. A checkpoint that was deleted before it could be measured is not among them."""

    best_step: int
    """The measured checkpoint with the fewest bits per byte."""

    best_bits_per_byte: float


class TrainingStalledError(TimeoutError):
    """A watched training has made no checkpoint for longer than it was given; the message says after which step."""


def watch_checkpoints(config: WatchConfig) -> WatchedTraining:
    """Evaluates each checkpoint of a training once, as they come, until that of its last step.

    Writes ``evaluations.jsonl`` anew after each. Blocks for as long as the training takes.

    Raises:
        TrainingStalledError: No new checkpoint came for ``patience_s``.
        ValueError: The documents are of another vocabulary, or there are none.
        DamagedCheckpointError: A checkpoint is there, and cannot be read.
    """
    from experiments.lib.evaluate.model import evaluate_model
    from experiments.lib.train.checkpoints import saved_steps

    def evaluate(step: int) -> ModelEvaluation:
        return evaluate_model(
            EvaluateConfig(config.model_path, step, config.heldout_path, config.batch_size, config.layout)
        )

    return watch(config, saved_steps=lambda: saved_steps(config.model_path), evaluate=evaluate)


def watch(
    config: WatchConfig,
    *,
    saved_steps: Callable[[], Sequence[int]],
    evaluate: Callable[[int], ModelEvaluation],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> WatchedTraining:
    """What :func:`watch_checkpoints` does, of whatever has steps and can be evaluated.

    Args:
        config: What to watch.
        saved_steps: The steps whose checkpoints are whole, in order.
        evaluate: Measures the checkpoint of a step.
        sleep: Waits for so many seconds.
        clock: Seconds since some fixed moment.

    Raises:
        TrainingStalledError: No new checkpoint came for ``patience_s``.
    """
    log = _EvaluationLog(f"{config.output_path}/{EVALUATIONS_FILE}")
    passed_over: set[int] = set()
    failures, pause, heard = 0, FIRST_PAUSE_S, clock()
    while config.last_step not in log.by_step:
        check_lease()
        step = next((step for step in saved_steps() if step not in log.by_step and step not in passed_over), None)
        if step is None:
            if (silence := clock() - heard) >= config.patience_s:
                raise TrainingStalledError(_stalled(config, sorted({*log.by_step, *passed_over}), silence))
            sleep(min(pause, config.patience_s - silence))
            pause = min(2 * pause, LONGEST_PAUSE_S)
            continue
        try:
            log.append(evaluate(step))
        except (OSError, ValueError) as error:
            if step not in saved_steps():
                logger.warning(f"step {step} was deleted before it could be measured")
                passed_over.add(step)
            elif (failures := failures + 1) == READ_ATTEMPTS:
                raise
            else:
                logger.info(f"step {step} cannot be read now, trying again: {error}")
                sleep(FIRST_PAUSE_S)
            continue
        failures, pause, heard = 0, FIRST_PAUSE_S, clock()
    evaluations = tuple(log.by_step.values())
    best = min(evaluations, key=lambda evaluation: evaluation.bits_per_byte)
    return WatchedTraining(evaluations, best.step, best.bits_per_byte)


@final
class _EvaluationLog:
    """The evaluations so far, in a file that is whole at any time."""

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            lines = read_text(path).splitlines()
        except FileNotFoundError:
            lines = []
        evaluations = [ModelEvaluation(**json.loads(line)) for line in lines]
        self.by_step = {evaluation.step: evaluation for evaluation in evaluations}

    def append(self, evaluation: ModelEvaluation) -> None:
        """Adds one, and writes the file anew."""
        self.by_step[evaluation.step] = evaluation
        self.by_step = dict(sorted(self.by_step.items()))
        with atomic_write(self._path, "w") as file:
            file.writelines(f"{json.dumps(asdict(evaluation))}\n" for evaluation in self.by_step.values())


def _stalled(config: WatchConfig, seen: Sequence[int], silence: float) -> str:
    since = f"after that of step {seen[-1]}" if seen else "at all"
    return (
        f"no checkpoint {since} for {silence:.0f} s in {config.model_path}; the training was to go to step "
        f"{config.last_step}\n\n"
        "hint: see why the training failed, and run both again: it goes on from its last checkpoint. If it is only "
        "slow, give a longer patience_s"
    )
