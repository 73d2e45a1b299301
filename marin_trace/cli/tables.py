"""Rows for people and for scripts: a table on a terminal, plain columns in a pipe, JSON where asked for."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from marin_trace.safe_text import on_one_line, redact_text

__all__ = ["print_rows"]


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    """Prints rows. What is in them may come from a store: it is printed as text and nothing else.

    Args:
        rows: Each with a value for every column; in JSON further values are kept too.
        columns: In order.
        as_json: One JSON list of objects.
    """
    if as_json:
        # In ASCII: what a terminal would obey, and what no encoding can print, is escaped.
        print(json.dumps(rows, indent=2))
    elif sys.stdout.isatty():
        _print_table(rows, columns)
    elif rows:
        cells = [list(columns), *([_cell(row[column]) for column in columns] for row in rows)]
        widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
        for line in cells:
            print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    return redact_text(on_one_line(str(value)))


def _print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(row[column])) for column in columns))
    if rows:
        Console().print(table)
