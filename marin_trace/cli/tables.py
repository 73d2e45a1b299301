"""What commands print: a table on a terminal, plain columns in a pipe, JSON where asked for.

Everything that was stored by others is printed through here: as text, which no terminal obeys.
"""

import json
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from marin_trace.safe_text import on_one_line, redact_text

__all__ = ["print_facts", "print_json", "print_line", "print_lines", "print_rows", "print_text"]

_GAP: Final = 2
"""Between two columns."""
_LEAST_ROOM: Final = 12
_LINE_END: Final = re.compile(r"\r\n?")
_BETWEEN: Final = re.compile(r"[^\n\t]+")


def print_rows(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    as_json: bool,
    unbroken: Collection[str] = (),
    cropped: str | None = None,
) -> None:
    """Prints rows. What is in them may come from a store: it is printed as text and nothing else.

    Args:
        rows: Each with a value for every column; in JSON further values are kept too.
        columns: In order.
        as_json: One JSON list of objects.
        unbroken: Columns whose values a narrow terminal must not break: what is copied from there.
        cropped: A column that gets what is left of a terminal's line, and is cut there.
    """
    if as_json:
        # In ASCII: what a terminal would obey, and what no encoding can print, is escaped.
        print(json.dumps(rows, indent=2))
    elif sys.stdout.isatty():
        _print_table(rows, columns, unbroken, cropped)
    elif rows:
        cells = [list(columns), *([_visible(row[column]) for column in columns] for row in rows)]
        widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
        for line in cells:
            print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def print_line(text: str = "") -> None:
    """Prints a line beside a table."""
    print(_visible(text))


def print_lines(text: str) -> None:
    """Prints lines that belong together."""
    for line in text.split("\n"):
        print_line(line)


def print_facts(facts: Mapping[str, str]) -> None:
    """Prints labelled lines, aligned."""
    width = max(map(len, facts), default=0)
    for label, text in facts.items():
        print_line(f"  {label:<{width}}  {text}")


def print_text(text: str) -> None:
    """Prints what a program printed, at once: into a pipe as it was, on a terminal as text."""
    if sys.stdout.isatty():
        text = _BETWEEN.sub(lambda found: _visible(found[0]), _LINE_END.sub("\n", text))
    print(text, end="", flush=True)


def print_json(value: Mapping[str, Any]) -> None:
    """Prints one JSON object, in ASCII: whatever is stored, no terminal obeys it and every encoding can print it."""
    print(json.dumps(value, indent=2))


def _visible(value: object) -> str:
    """A value as text on one line, with what a terminal would obey made visible, and without credentials."""
    return redact_text(on_one_line(str(value)))


def _print_table(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], unbroken: Collection[str], cropped: str | None
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table, console = Table(box=None, pad_edge=False), Console()
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in unbroken)
    cells = [{column: Text(_visible(row[column])) for column in columns} for row in rows]
    if cropped is not None:
        others = [
            max([len(column), *(row[column].cell_len for row in cells)]) for column in columns if column != cropped
        ]
        room = max(console.width - sum(others) - _GAP * len(others), _LEAST_ROOM)
        for row in cells:
            row[cropped].truncate(room, overflow="ellipsis")
    for row in cells:
        table.add_row(*row.values())
    if rows:
        console.print(table)
