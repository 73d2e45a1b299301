"""Plots as PNG files in memory; nothing is shown, and no state of matplotlib's is touched."""

import io
from collections.abc import Sequence

from experiments.lib.train.metrics import StepLine

__all__ = ["loss_curve"]


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
    content = io.BytesIO()
    # Without the version of matplotlib: equal curves are equal files.
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()
