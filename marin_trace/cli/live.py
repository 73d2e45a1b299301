"""A run on a terminal: a live table of what runs, below what the steps print. In a pipe or notebook the log says it.

rich is imported by this module alone, and this module only where there is a terminal to draw on.
"""

import logging
import os
import re
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final, TextIO, cast, final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from marin_trace.cli.progress import Progress, Snapshot
from marin_trace.planning.durations import in_words
from marin_trace.runtime import step_runner
from marin_trace.runtime.capture import attempt_log_path
from marin_trace.runtime.log_records import AttemptLog
from marin_trace.runtime.step_runner import RunEvent
from marin_trace.safe_text import on_one_line
from marin_trace.storage.files import is_local, local_path

__all__ = ["last_log_line", "live_table", "table_of"]

_REFRESHES_PER_S: Final = 4
_MOST_ROWS: Final = 12
_TAIL_BYTES: Final = 4096
_LOGGED: Final = re.compile(r"^[0-9-]{10} [0-9:,]{12} [A-Z]+ \S+: ")
"""What stands before the words of a log line in an attempt's log: time, level and logger."""


@contextmanager
def live_table(progress: Progress, console: Console) -> Generator[Callable[[RunEvent], None], None, None]:
    """Shows a run's progress while the block lasts; what is printed meanwhile scrolls by above it.

    The runner's own lines about steps that start and end are not shown: the table says so.

    Args:
        progress: Of the run.
        console: On a terminal.

    Yields:
        What the runner tells its events to.
    """
    quiet = _WithoutStateChanges()
    handlers = list(logging.getLogger().handlers)
    streams = (sys.stdout, sys.stderr)
    redirected: list[tuple[logging.StreamHandler[TextIO], TextIO]] = []
    for handler in handlers:
        handler.addFilter(quiet)
    try:
        with Live(
            get_renderable=lambda: table_of(progress.snapshot(), console.height),
            console=console,
            refresh_per_second=_REFRESHES_PER_S,
            transient=True,
        ):
            # What is logged goes where prints go now: above the table. A handler holds the stream that it was given.
            for handler in handlers:
                if not isinstance(handler, logging.StreamHandler):
                    continue
                writer = cast("logging.StreamHandler[TextIO]", handler)
                if writer.stream in streams:
                    redirected.append((writer, writer.stream))
                    writer.setStream(sys.stderr)
            yield progress.hear
    finally:
        for handler, stream in redirected:
            handler.setStream(stream)
        for handler in handlers:
            handler.removeFilter(quiet)


@final
class _WithoutStateChanges(logging.Filter):
    """Passes everything but what the table shows."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is shown."""
        return record.name != step_runner.__name__ or record.levelno >= logging.WARNING


def table_of(snapshot: Snapshot, height: int) -> RenderableType:
    """The table of a run at one moment.

    Args:
        snapshot: Of the run.
        height: Lines of the terminal; a third of them is used at most.
    """
    rows = Table(box=None, pad_edge=False, expand=True, show_header=False)
    rows.add_column(no_wrap=True, ratio=3, overflow="ellipsis")
    rows.add_column(no_wrap=True, justify="right", style="cyan", min_width=10)
    rows.add_column(no_wrap=True, ratio=5, overflow="ellipsis", style="dim")
    most = max(3, min(_MOST_ROWS, height // 3))
    for step in snapshot.running[:most]:
        rows.add_row(
            Text(step.name),
            in_words(step.elapsed_s),
            Text(on_one_line(step.note or last_log_line(step.output_path) or "")),
        )
    parts: list[RenderableType] = [_headline(snapshot), rows]
    if len(snapshot.running) > most:
        parts.append(Text(f"… and {len(snapshot.running) - most} more running", "dim"))
    return Group(*parts)


def _headline(snapshot: Snapshot) -> RenderableType:
    words = [f"{snapshot.done} of {snapshot.total} steps", f"{len(snapshot.running)} running"]
    words += [f"[red]{snapshot.failed} failed[/red]"] if snapshot.failed else []
    words += [f"{snapshot.skipped} skipped"] if snapshot.skipped else []
    words += [f"about {in_words(snapshot.left_s)} left"] if snapshot.left_s else []
    line = Table.grid(padding=(0, 2), expand=False)
    line.add_row(ProgressBar(total=max(1, snapshot.total), completed=snapshot.done, width=20), " · ".join(words))
    return line


def last_log_line(output_path: str) -> str | None:
    """The last line that a running step has printed or logged; None where its log is not on this machine's disk."""
    if not is_local(output_path):
        return None
    directory = local_path(AttemptLog(output_path).directory)
    try:
        epoch, _ = AttemptLog.last_epoch(sorted(os.listdir(directory)))
        with open(local_path(attempt_log_path(AttemptLog(output_path), epoch)), "rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = stream.read().decode(errors="replace").split("\n")
    except FileNotFoundError:  # it has not begun to write
        return None
    # A progress bar goes back to the line's begin and writes over it.
    texts = [part.strip() for line in lines for part in line.split("\r")]
    last = next((text for text in reversed(texts) if text), None)
    return None if last is None else _LOGGED.sub("", last)
