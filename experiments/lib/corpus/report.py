"""Writes the figures of a corpus as a Markdown page."""

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.lib.corpus.collect import Collection, Unreadable
from experiments.lib.corpus.measure import CorpusStatistics, PackageStatistics
from experiments.lib.corpus.normalise import NormalisedCorpus
from marin_trace.io import atomic_write

__all__ = ["REPORT_FILE", "Report", "ReportConfig", "report_text", "summary_lines", "write_report"]

REPORT_FILE = "report.md"
"""What :func:`write_report` writes below its output path."""

NAMED_UNREADABLE = 20
"""How many unreadable files the page names; it counts all of them."""


@dataclass(frozen=True)
class ReportConfig:
    """What the page tells, and where it goes."""

    title: str
    collection: Collection
    corpus: NormalisedCorpus
    statistics: CorpusStatistics
    output_path: str
    """The directory that gets :data:`REPORT_FILE`."""

    packages: int = 15
    """How many packages the table lists, the largest ones."""


@dataclass(frozen=True)
class Report:
    """A written page."""

    file: str
    """Its name below the output path."""

    packages: int
    """How many the table lists."""


def write_report(config: ReportConfig) -> Report:
    """Writes ``report.md``; it appears when it is complete."""
    listed = config.statistics.packages[: config.packages]
    with atomic_write(f"{config.output_path}/{REPORT_FILE}", "w", encoding="utf-8") as file:
        file.write(report_text(config))
    return Report(file=REPORT_FILE, packages=len(listed))


def report_text(config: ReportConfig) -> str:
    """The page."""
    listed = config.statistics.packages[: config.packages]
    sections = [
        [f"# {config.title}"],
        [f"Collected from `{config.collection.source}`."],
        [f"- {line}" for line in summary_lines(config.collection, config.corpus, config.statistics)],
        [f"## The {len(listed)} largest of {len(config.statistics.packages)} packages"],
        _package_table(listed),
        *_unreadable_section(config.collection.unreadable),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def summary_lines(collection: Collection, corpus: NormalisedCorpus, statistics: CorpusStatistics) -> list[str]:
    """The figures that matter, for a page or a terminal."""
    return [
        f"{collection.documents:,} files collected, {len(collection.unreadable):,} unreadable",
        f"{corpus.documents:,} documents kept; dropped: {corpus.duplicates:,} duplicates, {corpus.empty:,} empty",
        f"{statistics.bytes:,} bytes in {statistics.lines:,} lines",
        f"{statistics.identifiers:,} identifiers, {statistics.tokens:,} occurrences",
    ]


def _package_table(packages: Sequence[PackageStatistics]) -> list[str]:
    header = ["package", "documents", "bytes", "lines", "identifiers", "most frequent tokens"]
    rows = [
        [
            _cell(package.package),
            f"{package.documents:,}",
            f"{package.bytes:,}",
            f"{package.lines:,}",
            f"{package.identifiers:,}",
            ", ".join(f"{_cell(token.token)} ({token.count:,})" for token in package.frequent_tokens),
        ]
        for package in packages
    ]
    alignment = ["---", "---:", "---:", "---:", "---:", "---"]
    return [f"| {' | '.join(cells)} |" for cells in [header, alignment, *rows]]


def _unreadable_section(unreadable: Sequence[Unreadable]) -> list[list[str]]:
    if not unreadable:
        return []
    lines = [f"- {_cell(file.path)}: {file.reason}" for file in unreadable[:NAMED_UNREADABLE]]
    if len(unreadable) > NAMED_UNREADABLE:
        lines.append(f"- and {len(unreadable) - NAMED_UNREADABLE:,} more")
    return [["## Unreadable files"], lines]


def _cell(text: str) -> str:
    """Text as code that can stand in a table: no bar ends the cell, no backtick or newline ends the code."""
    printable = "".join(character if character.isprintable() else "?" for character in text)
    return f"`{printable.replace('`', chr(39)).replace('|', '¦')}`"
