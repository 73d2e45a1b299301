"""The page about a trained model: what it was trained on and how, how good it is, and what it writes."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from experiments.lib.evaluate.config import BaselineEvaluation, ModelEvaluation, Samples
from experiments.lib.report.figures import loss_curve
from experiments.lib.report.page import (
    Block,
    Figure,
    Items,
    Page,
    Paragraph,
    Preformatted,
    Section,
    Table,
    as_html,
    as_markdown,
)
from experiments.lib.train.config import TrainedModel, TrainRecipe
from experiments.lib.train.metrics import METRICS_FILE, StepLine, read_metrics
from marin_trace.io import atomic_write

__all__ = [
    "FIGURE_FILE",
    "HTML_FILE",
    "MARKDOWN_FILE",
    "ReportInput",
    "TrainingReport",
    "TrainingReportConfig",
    "summary_lines",
    "training_page",
    "write_training_report",
]

MARKDOWN_FILE = "report.md"
HTML_FILE = "report.html"
FIGURE_FILE = "loss_curve.png"


@dataclass(frozen=True)
class ReportInput:
    """Something that the model was made from."""

    name: str
    path: str


@dataclass(frozen=True)
class TrainingReportConfig:
    """What the page tells, and where it goes."""

    title: str
    recipe: TrainRecipe
    training: TrainedModel
    evaluation: ModelEvaluation
    baselines: BaselineEvaluation
    samples: Samples
    inputs: tuple[ReportInput, ...]
    """What the model was made from, the model itself included."""

    model_path: str
    """The output of the training, for its metrics."""

    output_path: str
    """The directory that gets the pages and the figure."""


@dataclass(frozen=True)
class TrainingReport:
    """Written pages."""

    files: tuple[str, ...]
    """Names below the output path."""

    bits_per_byte: float
    ngram_bits_per_byte: float


def write_training_report(config: TrainingReportConfig) -> TrainingReport:
    """Writes ``report.md`` with ``loss_curve.png``, and ``report.html``, which needs no other file."""
    page = training_page(config, read_metrics(f"{config.model_path}/{METRICS_FILE}"))
    figures = [block for section in page.sections for block in section.blocks if isinstance(block, Figure)]
    for figure in figures:
        with atomic_write(f"{config.output_path}/{figure.file}") as file:
            file.write(figure.png)
    for name, text in ((MARKDOWN_FILE, as_markdown(page)), (HTML_FILE, as_html(page))):
        with atomic_write(f"{config.output_path}/{name}", "w") as file:
            file.write(text)
    return TrainingReport(
        files=(*(figure.file for figure in figures), MARKDOWN_FILE, HTML_FILE),
        bits_per_byte=config.evaluation.bits_per_byte,
        ngram_bits_per_byte=config.baselines.ngram_bits_per_byte,
    )


def training_page(config: TrainingReportConfig, lines: list[StepLine]) -> Page:
    """The page."""
    return Page(
        title=config.title,
        blocks=(Items(tuple(summary_lines(config.training, config.evaluation, config.baselines))),),
        sections=(
            Section("Held-out documents", _comparison(config)),
            Section(
                "Training", (Figure(FIGURE_FILE, "The loss over the steps", loss_curve(lines, title=config.title)),)
            ),
            Section("Samples", tuple(_samples(config.samples))),
            Section("Recipe", (Table(("field", "value"), tuple(_leaves("", config.recipe))),)),
            Section("Inputs", (Table(("what", "where"), tuple((item.name, item.path) for item in config.inputs)),)),
        ),
    )


def summary_lines(training: TrainedModel, evaluation: ModelEvaluation, baselines: BaselineEvaluation) -> list[str]:
    """The figures that matter, for a page or a terminal."""
    speed = f"{training.epochs:.2f} epochs, {training.tokens_per_second:,.0f} tokens/s"
    model = f"{evaluation.bits_per_byte:.3f} bits per byte, perplexity {evaluation.perplexity:.1f}"
    ngram, unigram = baselines.ngram_bits_per_byte, baselines.unigram_bits_per_byte
    return [
        f"{training.parameters:,} parameters, {training.tokens:,} tokens in {training.steps:,} steps ({speed})",
        f"held-out documents: {model} (step {evaluation.step})",
        f"for comparison: {ngram:.3f} bits per byte by {baselines.order}-grams of bytes, {unigram:.3f} by single bytes",
    ]


def _comparison(config: TrainingReportConfig) -> tuple[Block, ...]:
    evaluation, baselines = config.evaluation, config.baselines
    rows = (
        ("single bytes", baselines.unigram_bits_per_byte),
        (f"{baselines.order}-grams of bytes (Kneser-Ney)", baselines.ngram_bits_per_byte),
        (f"the model, step {evaluation.step}", evaluation.bits_per_byte),
    )
    measured = f"{evaluation.documents:,} documents, {evaluation.bytes:,} bytes, {evaluation.tokens:,} tokens."
    return Paragraph(measured), Table(("predicted by", "bits per byte"), rows)


def _samples(samples: Samples) -> Iterator[Block]:
    yield Paragraph(f"Temperature {samples.temperature:g}, seed {samples.seed}. The prompt comes first, then ⟶.")
    for sample in samples.samples:
        ending = " ∎" if sample.finished else ""
        yield Preformatted(f"{sample.prompt}⟶{sample.continuation}{ending}")


def _leaves(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Every field of nested dataclasses by its dotted path."""
    if not is_dataclass(value):
        yield path, str(value)
        return
    for field in fields(value):
        yield from _leaves(f"{path}.{field.name}" if path else field.name, getattr(value, field.name))
