"""``marin-trace graph``: a pipeline as printed IR, or as the source of a picture."""

import argparse
from collections.abc import Mapping
from typing import Final

from marin_trace.cli.request import RunRequest
from marin_trace.cli.status import standing_of_request
from marin_trace.cli.tables import print_json, print_lines
from marin_trace.cli.target import AddCommand, CommandShape, Target, add_targeted
from marin_trace.errors import RunError, explain
from marin_trace.ir.printer import print_graph
from marin_trace.planning.graph_view import (
    GraphView,
    as_dot,
    as_mermaid,
    as_text,
    graph_json,
    view_of_outputs,
    view_of_steps,
    with_states,
)
from marin_trace.planning.outputs_below import outputs_below
from marin_trace.planning.standing import StepState, standing_of
from marin_trace.runtime.records import read_step_infos

__all__ = ["add_graph"]

_FORMATS: Final = ("text", "mermaid", "dot", "json")


def add_graph(add: AddCommand) -> None:
    """Adds the command to the parser of all commands."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--format", choices=_FORMATS, default="text", help="text: the printed IR (default)")
    own.add_argument("--status", action="store_true", help="show how each step stands")
    text = "Print a pipeline: of an experiment as it is traced, of a prefix as its outputs were built."
    add_targeted(add, CommandShape("graph", text), own, _graph)


def _graph(options: argparse.Namespace, target: Target) -> int:
    request = target.request
    chosen = "json" if options.json else options.format
    if request is not None:
        states = _states_of_request(request) if options.status else {}
        view = view_of_steps(request.chosen.traced, request.chosen.spec_by_node, request.steps)
        text = _printed(request, view, states) if chosen == "text" else ""
    else:
        view, states = _of_prefix(target.prefix, has_status=options.status)
        text = as_text(view, states)
    match chosen:
        case "json":
            print_json(graph_json(view, states))
        case "mermaid":
            print_lines(as_mermaid(view, states))
        case "dot":
            print_lines(as_dot(view, states))
        case _:
            print_lines(text)
    return 0


def _states_of_request(request: RunRequest) -> dict[str, StepState]:
    return {standing.output_path: standing.state for standing in standing_of_request(request)}


def _of_prefix(prefix: str, *, has_status: bool) -> tuple[GraphView, dict[str, StepState]]:
    outputs = outputs_below(prefix)
    if not outputs:
        raise RunError(explain(f"there is no output below {prefix}", hint="marin-trace graph PREFIX"))
    view = view_of_outputs(outputs, read_step_infos(outputs), prefix)
    states = {path: standing_of("", path, status).state for path, status in outputs.items()} if has_status else {}
    return view, states


def _printed(request: RunRequest, view: GraphView, states: Mapping[str, StepState]) -> str:
    """The printed IR, steps that were written by hand below it."""
    lowered = request.chosen
    graph = lowered.traced
    lines = print_graph(graph).splitlines()
    paths = [lowered.spec_by_node[node].output_path for node in graph.nodes]
    by_hand = {step.output_path for step in view.steps}.difference(paths)
    rest = as_text(view, {}).splitlines()
    below = [
        (line, step.output_path) for line, step in zip(rest, view.steps, strict=True) if step.output_path in by_hand
    ]
    steps = [*lines[: len(paths)], *(line for line, _ in below)]
    if states:
        steps = with_states(steps, [*paths, *(path for _, path in below)], states)
    return "\n".join([*steps, *lines[len(paths) :]])
