"""The page about trainings that differ in their learning rate alone: their curves, and which rate did best."""

from collections.abc import Mapping
from dataclasses import dataclass

from experiments.lib.report.figures import learning_rate_curves
from experiments.lib.report.page import Figure, Page, Paragraph, Section, Table, as_markdown
from experiments.lib.train.config import TrainedModel
from experiments.lib.train.metrics import METRICS_FILE, read_metrics
from marin_trace.io import atomic_write

__all__ = [
    "SWEEP_FIGURE_FILE",
    "SWEEP_PAGE_FILE",
    "SweepComparison",
    "SweepConfig",
    "SweepRun",
    "compare_learning_rates",
    "sweep_lines",
]

SWEEP_PAGE_FILE = "sweep.md"
SWEEP_FIGURE_FILE = "sweep.png"


@dataclass(frozen=True)
class SweepRun:
    """One training of a sweep."""

    learning_rate: float
    training: TrainedModel
    model_path: str
    """The output of the training, for its metrics."""


@dataclass(frozen=True)
class SweepConfig:
    """What is compared, and where the page goes."""

    title: str
    runs: tuple[SweepRun, ...]
    """At least one; no rate twice."""

    output_path: str
    """The directory that gets the page and the figure."""


@dataclass(frozen=True)
class SweepComparison:
    """Which learning rate did best."""

    best_learning_rate: float
    """The one with the lowest validation loss at a checkpoint; the smaller one of two that are equal."""

    best_validation_loss: float
    """In nats per token."""

    validation_losses: Mapping[float, float]
    """The best of each training by its learning rate, in ascending order of the rates."""

    files: tuple[str, ...]
    """Names below the output path."""


def compare_learning_rates(config: SweepConfig) -> SweepComparison:
    """Writes ``sweep.md`` and ``sweep.png``, and names the best rate.

    Raises:
        ValueError: There is nothing to compare.
    """
    if not config.runs:
        raise ValueError("nothing to compare: a sweep needs at least one training")
    runs = sorted(config.runs, key=lambda run: run.learning_rate)
    losses = {run.learning_rate: run.training.best_validation_loss for run in runs}
    best = min(losses, key=lambda rate: losses[rate])
    comparison = SweepComparison(best, losses[best], losses, (SWEEP_FIGURE_FILE, SWEEP_PAGE_FILE))
    curves = {run.learning_rate: read_metrics(f"{run.model_path}/{METRICS_FILE}") for run in runs}
    page = _page(config, runs, comparison, learning_rate_curves(curves, losses, title=config.title))
    for section in page.sections:
        for figure in section.blocks:
            if isinstance(figure, Figure):
                with atomic_write(f"{config.output_path}/{figure.file}") as file:
                    file.write(figure.png)
    with atomic_write(f"{config.output_path}/{SWEEP_PAGE_FILE}", "w") as file:
        file.write(as_markdown(page))
    return comparison


def sweep_lines(comparison: SweepComparison) -> list[str]:
    """The figures that matter, for a terminal."""
    best = comparison.best_learning_rate
    losses = [
        f"learning rate {rate:g}: validation loss {loss:.4f}{' (best)' if rate == best else ''}"
        for rate, loss in comparison.validation_losses.items()
    ]
    rates = list(comparison.validation_losses)
    if len(rates) > 1 and best in (rates[0], rates[-1]):
        losses.append(f"the best is the {'smallest' if best == rates[0] else 'largest'} of them: try rates beyond it")
    return losses


def _page(config: SweepConfig, runs: list[SweepRun], comparison: SweepComparison, png: bytes) -> Page:
    rows = tuple(
        (
            f"{run.learning_rate:g}",
            run.training.best_validation_loss,
            run.training.best_step,
            run.training.final_validation_loss,
            run.training.final_loss,
        )
        for run in runs
    )
    header = ("learning rate", "best validation loss", "at step", "validation loss at the end", "loss at the end")
    best = f"The best learning rate is {comparison.best_learning_rate:g}. Losses are in nats per token."
    return Page(
        title=config.title,
        blocks=(Paragraph(best),),
        sections=(
            Section("Losses", (Table(header, rows),)),
            Section("Curves", (Figure(SWEEP_FIGURE_FILE, "The loss for each learning rate", png),)),
            Section(
                "Trainings",
                (Table(("learning rate", "where"), tuple((f"{run.learning_rate:g}", run.model_path) for run in runs)),),
            ),
        ),
    )
