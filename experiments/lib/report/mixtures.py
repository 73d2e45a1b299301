"""The page about models that were trained on mixtures: how well each of them predicts each corpus."""

from collections.abc import Mapping
from dataclasses import dataclass

from experiments.lib.evaluate.config import ModelEvaluation
from experiments.lib.report.page import Page, Paragraph, Section, Table, as_markdown
from marin_trace.io import atomic_write

__all__ = [
    "MIXTURES_PAGE_FILE",
    "MixtureComparison",
    "MixtureReportConfig",
    "MixtureRun",
    "compare_mixtures",
    "mixture_lines",
]

MIXTURES_PAGE_FILE = "mixtures.md"


@dataclass(frozen=True)
class MixtureRun:
    """One model, and how it did."""

    weights: Mapping[str, float]
    """Of each corpus by its name: what the model was trained on."""

    evaluations: Mapping[str, ModelEvaluation]
    """On each corpus's held-out documents, by the corpus's name."""


@dataclass(frozen=True)
class MixtureReportConfig:
    """What is compared, and where the page goes."""

    title: str
    runs: Mapping[str, MixtureRun]
    """By the model's name; all were measured on the same corpora."""

    output_path: str
    """The directory that gets the page."""


@dataclass(frozen=True)
class MixtureComparison:
    """How well each model predicts each corpus."""

    bits_per_byte: Mapping[str, Mapping[str, float]]
    """By model, then by corpus; in the order of the config."""

    best: Mapping[str, str]
    """For each corpus the model that predicts it best."""

    file: str
    """Name of the page below the output path."""


def compare_mixtures(config: MixtureReportConfig) -> MixtureComparison:
    """Writes ``mixtures.md``: a table of models by corpora.

    Raises:
        ValueError: There is nothing to compare, or not every model was measured on every corpus.
    """
    if not config.runs:
        raise ValueError("nothing to compare: there is no model")
    corpora = list(next(iter(config.runs.values())).evaluations)
    for name, run in config.runs.items():
        if run.evaluations.keys() != set(corpora):
            raise ValueError(f"{name} was measured on {sorted(run.evaluations)}, and others on {sorted(corpora)}")
    bits = {
        name: {corpus: run.evaluations[corpus].bits_per_byte for corpus in corpora} for name, run in config.runs.items()
    }
    best = {corpus: min(bits, key=lambda name, corpus=corpus: bits[name][corpus]) for corpus in corpora}
    comparison = MixtureComparison(bits, best, MIXTURES_PAGE_FILE)
    with atomic_write(f"{config.output_path}/{MIXTURES_PAGE_FILE}", "w") as file:
        file.write(as_markdown(_page(config, comparison)))
    return comparison


def mixture_lines(comparison: MixtureComparison) -> list[str]:
    """The table of bits per byte, for a terminal."""
    corpora = list(comparison.best)
    width = max(map(len, ["bits per byte on", *comparison.bits_per_byte]))
    columns = [max(8, len(corpus)) for corpus in corpora]
    header = "  ".join(corpus.rjust(column) for corpus, column in zip(corpora, columns, strict=True))
    lines = [f"{'bits per byte on'.ljust(width)}  {header}"]
    for name, bits in comparison.bits_per_byte.items():
        figures = [f"{bits[corpus]:.3f}".rjust(column) for corpus, column in zip(corpora, columns, strict=True)]
        lines.append(f"{name.ljust(width)}  {'  '.join(figures)}")
    return lines


def _page(config: MixtureReportConfig, comparison: MixtureComparison) -> Page:
    corpora = list(comparison.best)
    rows = tuple((name, *(bits[corpus] for corpus in corpora)) for name, bits in comparison.bits_per_byte.items())
    shares = tuple(
        (name, *(f"{weight / sum(run.weights.values()):.0%}" for weight in run.weights.values()))
        for name, run in config.runs.items()
    )
    documents = ", ".join(
        f"{corpus}: {evaluation.documents:,} documents, {evaluation.bytes:,} bytes"
        for corpus, evaluation in next(iter(config.runs.values())).evaluations.items()
    )
    return Page(
        title=config.title,
        blocks=(Paragraph(f"Bits per byte on held-out documents ({documents})."), Table(("model", *corpora), rows)),
        sections=(
            Section("Mixtures", (Table(("model", *next(iter(config.runs.values())).weights), shares),)),
            Section("Best", (Table(("corpus", "best predicted by"), tuple(comparison.best.items())),)),
        ),
    )
