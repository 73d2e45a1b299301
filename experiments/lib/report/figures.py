"""Plots as PNG files in memory; nothing is shown, and no state of matplotlib's is touched."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.lib.train.metrics import StepLine

__all__ = ["learning_rate_curves", "loss_curve"]


def loss_curve(lines: Sequence[StepLine], *, title: str) -> bytes:
    """The training and validation losses over the steps, in nats per token."""
    # The object interface draws with Agg and registers no window: safe in a thread.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained", dpi=120)
    axes = figure.subplots()
    axes.plot([line.step for line in lines], [line.loss for line in lines], label="training", linewidth=1)
    validated = [(line.step, line.validation_loss) for line in lines if line.validation_loss is not None]
    if validated:
        axes.plot(*zip(*validated, strict=True), "o-", label="validation", markersize=3)
    axes.set(title=title, xlabel="step", ylabel="loss (nats per token)")
    axes.grid(alpha=0.3)
    axes.legend()
    return _png(figure)


def learning_rate_curves(
    lines_by_rate: Mapping[float, Sequence[StepLine]], losses: Mapping[float, float], *, title: str
) -> bytes:
    """Two plots: the losses of each training over its steps, and the best validation loss over the learning rate.

    Args:
        lines_by_rate: The metrics of each training.
        losses: The best validation loss of each, in ascending order of the rates.
        title: Of both.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained", dpi=120)
    curves, summary = figure.subplots(1, 2, width_ratios=(2, 1))
    for number, (rate, lines) in enumerate(lines_by_rate.items()):
        color = f"C{number}"
        curves.plot([line.step for line in lines], [line.loss for line in lines], color=color, linewidth=0.8, alpha=0.6)
        validated = [(line.step, line.validation_loss) for line in lines if line.validation_loss is not None]
        if validated:
            curves.plot(*zip(*validated, strict=True), "o-", color=color, markersize=4, label=f"{rate:g}")
        summary.plot([rate], [losses[rate]], "o", color=color)
    summary.plot(list(losses), list(losses.values()), color="gray", linewidth=0.8, zorder=0)
    curves.set(xlabel="step", ylabel="loss (nats per token)")
    curves.legend(title="learning rate\n(dots: validation)")
    summary.set(xlabel="learning rate", ylabel="best validation loss", xscale="log")
    for axes in (curves, summary):
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    return _png(figure)


def _png(figure: Any) -> bytes:
    content = io.BytesIO()
    # Without the version of matplotlib: equal curves are equal files.
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()
