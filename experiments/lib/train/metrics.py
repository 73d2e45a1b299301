"""The metrics of a training: a JSON Lines file with one line for each logged step, in order, none twice. No JAX."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import final

import fsspec

from marin_trace.io import atomic_write

__all__ = ["METRICS_FILE", "MetricsLog", "StepLine", "read_metrics"]

METRICS_FILE = "metrics.jsonl"
"""Where a training's metrics are below its output path."""


@dataclass(frozen=True)
class StepLine:
    """The metrics of one step."""

    step: int
    """Counted from 1."""

    loss: float
    """Mean over the step's batch, in nats per token, before its update."""

    learning_rate: float
    grad_norm: float
    """Over all parameters, before clipping."""

    tokens_per_second: float | None = None
    """Since the line before, over all devices, without compiling, validating and saving. None where nothing else was
    done in between."""

    flops_per_second: float | None = None
    """Floating-point operations that the model needs for as many tokens, over all devices."""

    flops_utilisation: float | None = None
    """The part of what the devices could do at best (model FLOPs utilisation, Chowdhery et al. 2022); None where their
    best is not known."""

    validation_loss: float | None = None
    """Of the parameters after the step's update, where it was measured."""


@final
class MetricsLog:
    """The lines of a training so far. The file is replaced as a whole, which object stores can do too.

    What is written before a checkpoint covers every step up to it. Lines of later steps are dropped when a training
    goes on from that checkpoint: those steps are done again.
    """

    def __init__(self, path: str, lines: Sequence[StepLine] = ()) -> None:
        self.path = path
        self.lines = list(lines)

    @classmethod
    def resume(cls, path: str, *, step: int) -> "MetricsLog":
        """The log up to a step as an earlier attempt left it; empty where the step is 0."""
        return cls(path, [line for line in read_metrics(path) if line.step <= step] if step else ())

    def append(self, line: StepLine) -> None:
        """Adds a line, to be written with the next :meth:`write`."""
        assert not self.lines or line.step > self.lines[-1].step
        self.lines.append(line)

    def write(self) -> None:
        """Replaces the file."""
        with atomic_write(self.path, "w") as file:
            file.writelines(json.dumps(asdict(line)) + "\n" for line in self.lines)


def read_metrics(path: str) -> list[StepLine]:
    """The lines of a metrics file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line is not of this form; the message says which.
    """
    lines: list[StepLine] = []
    with fsspec.open(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                lines.append(StepLine(**json.loads(line)))
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}:{number}: not a line of metrics: {error}") from error
    return lines
