"""A page as data, and its renderings as Markdown and as HTML."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

__all__ = [
    "Block",
    "Figure",
    "Items",
    "Page",
    "Paragraph",
    "Preformatted",
    "Section",
    "Table",
    "as_html",
    "as_markdown",
]

STYLE = """\
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { border: 1px solid #8885; padding: .25rem .75rem; text-align: left; vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums }
pre { background: #8881; padding: .75rem; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere }
img { max-width: 100%; background: white }"""


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list without order."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Rows below a header. Numbers stand to the right; strings are written as they are."""

    header: tuple[str, ...]
    rows: tuple[tuple[str | int | float, ...], ...]


@dataclass(frozen=True)
class Figure:
    """A picture."""

    file: str
    """Its name beside the Markdown page; the HTML page carries it within."""

    caption: str
    png: bytes


@dataclass(frozen=True)
class Preformatted:
    """Text that keeps its lines and spaces."""

    text: str


Block = Paragraph | Items | Table | Figure | Preformatted


@dataclass(frozen=True)
class Section:
    """A part of a page under a heading of its own."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """A page."""

    title: str
    blocks: tuple[Block, ...]
    """Before the first section."""

    sections: tuple[Section, ...]


def as_markdown(page: Page) -> str:
    """The page for a terminal or a repository; its figures lie beside it."""
    parts = [f"# {page.title}", *map(_markdown_block, page.blocks)]
    for section in page.sections:
        parts += [f"## {section.title}", *map(_markdown_block, section.blocks)]
    return "\n\n".join(parts) + "\n"


def as_html(page: Page) -> str:
    """The page as one file, its figures within."""
    body = [f"<h1>{html.escape(page.title)}</h1>", *map(_html_block, page.blocks)]
    for section in page.sections:
        body += [f"<h2>{html.escape(section.title)}</h2>", *map(_html_block, section.blocks)]
    head = [
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{html.escape(page.title)}</title>",
        f"<style>\n{STYLE}\n</style>",
    ]
    lines = ["<!doctype html>", '<html lang="en">', "<head>", *head, "</head>", "<body>", *body, "</body>", "</html>"]
    return "\n".join(lines) + "\n"


def _markdown_block(block: Block) -> str:
    match block:
        case Paragraph(text):
            return text
        case Items(lines):
            return "\n".join(f"- {line}" for line in lines)
        case Table(header, rows):
            return "\n".join(f"| {' | '.join(cells)} |" for cells in _markdown_rows(header, rows))
        case Figure(file, caption):
            return f"![{caption}]({file})"
        case Preformatted(text):
            return _fenced(text)
        case _:
            assert_never(block)


def _markdown_rows(header: Sequence[str], rows: Sequence[Sequence[str | float]]) -> list[list[str]]:
    alignment = ["---:" if rows and _is_number(cell) else "---" for cell in (rows[0] if rows else header)]
    written = [[_cell(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return [list(header), alignment, *written]


def _fenced(text: str) -> str:
    # Longer than any fence within.
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text}\n{fence}"


def _html_block(block: Block) -> str:
    match block:
        case Paragraph(text):
            return f"<p>{html.escape(text)}</p>"
        case Items(lines):
            return "<ul>\n" + "\n".join(f"<li>{html.escape(line)}</li>" for line in lines) + "\n</ul>"
        case Table(header, rows):
            first = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
            written = ["".join(map(_html_cell, row)) for row in rows]
            return "<table>\n" + "\n".join(f"<tr>{cells}</tr>" for cells in [first, *written]) + "\n</table>"
        case Figure(_, caption, png):
            source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
            return f'<img alt="{html.escape(caption)}" src="{source}">'
        case Preformatted(text):
            return f"<pre>{html.escape(text)}</pre>"
        case _:
            assert_never(block)


def _html_cell(cell: str | float) -> str:
    kind = ' class="number"' if _is_number(cell) else ""
    return f"<td{kind}>{html.escape(_cell(cell))}</td>"


def _is_number(cell: str | float) -> bool:
    return not isinstance(cell, str)


def _cell(cell: str | float) -> str:
    match cell:
        case str():
            return cell
        case int():
            return f"{cell:,}"
        case _:
            return f"{cell:.4g}"
