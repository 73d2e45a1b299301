"""The commands that only look: ``status``, ``why``, ``logs``, ``history``, ``graph``, ``path``."""

from marin_trace.cli.graph import add_graph
from marin_trace.cli.history import add_history
from marin_trace.cli.logs import add_logs
from marin_trace.cli.path import add_path
from marin_trace.cli.status import add_status
from marin_trace.cli.target import AddCommand
from marin_trace.cli.why import add_why

__all__ = ["add_insight"]


def add_insight(add: AddCommand) -> None:
    """Adds them to the parser of all commands; ``add`` makes a subparser."""
    for add_command in (add_status, add_why, add_logs, add_history, add_graph, add_path):
        add_command(add)
