"""Shows a plan where it is read: a coloured tree on a terminal, plain text elsewhere."""

import sys

from marin_trace.planning.plan import Plan
from marin_trace.planning.render import render_plan

__all__ = ["show_plan"]


def show_plan(plan: Plan, *, full: bool) -> None:
    """Prints a plan.

    Args:
        plan: Any.
        full: Show each step of a long fan.

    Raises:
        BrokenPipeError: Whoever read the output has gone away.
    """
    if not sys.stdout.isatty():
        print(render_plan(plan, full=full), flush=True)
        return
    from rich.console import Console

    from marin_trace.planning.render_terminal import terminal_lines

    console = Console()
    for line in terminal_lines(plan, width=console.width, full=full):
        console.print(line, soft_wrap=True)
    sys.stdout.flush()
