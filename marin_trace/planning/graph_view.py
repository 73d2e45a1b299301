"""A pipeline as a picture's source: steps, groups and edges, and their text as Mermaid, DOT and JSON. Reads nothing."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast, final

from marin_trace.ir.graph import EdgeKind, Graph, Node
from marin_trace.ir.printer import letters
from marin_trace.lowering.step_spec import StepSpec
from marin_trace.planning.plan import read_deps_of
from marin_trace.planning.standing import StepState
from marin_trace.runtime.run_plan import RunnableStep

__all__ = [
    "GraphView",
    "ViewEdge",
    "ViewStep",
    "as_dot",
    "as_mermaid",
    "as_text",
    "graph_json",
    "view_of_outputs",
    "view_of_steps",
    "with_states",
]

SCHEMA_VERSION: Final = 1
_INDENT: Final = "  "
_COLOURS: Final = {
    StepState.FINISHED: "#c8e6c9",
    StepState.RUNNING: "#bbdefb",
    StepState.FAILED: "#ffcdd2",
    StepState.UNREADABLE: "#ffcdd2",
    StepState.STOPPED: "#ffe0b2",
    StepState.WAITING: "#ffffff",
    StepState.NOT_NEEDED: "#eeeeee",
}


@final
@dataclass(frozen=True, slots=True)
class ViewStep:
    """A step of a picture."""

    label: str
    """As the printed IR letters it, where no two of its steps turn out to be one."""
    name: str
    output_path: str
    groups: tuple[str, ...] = ()
    """The names of the groups around it, outermost first."""
    template: str | None = None
    functions: tuple[str, ...] = ()


@final
@dataclass(frozen=True, slots=True)
class ViewEdge:
    """A step needs another."""

    source: str
    """Output path of what is needed."""
    target: str
    kind: EdgeKind


@final
@dataclass(frozen=True, slots=True)
class GraphView:
    """What a picture shows."""

    steps: tuple[ViewStep, ...]
    """What is needed before what needs it, as far as the pipeline's own order allows."""
    edges: tuple[ViewEdge, ...]

    def members_by_group(self) -> dict[tuple[str, ...], list[ViewStep]]:
        """The steps of each group, those of inner groups too, by its path of names; outer groups before inner ones."""
        found: dict[tuple[str, ...], list[ViewStep]] = {}
        for step in self.steps:
            for depth in range(1, len(step.groups) + 1):
                found.setdefault(step.groups[:depth], []).append(step)
        return found


def view_of_steps(graph: Graph, spec_by_node: Mapping[Node, StepSpec], steps: Mapping[str, RunnableStep]) -> GraphView:
    """The picture of an experiment.

    Args:
        graph: As it was traced: what letters the steps, and knows the groups.
        spec_by_node: Which step became which spec.
        steps: Everything that a run would look at, by output path; hand-written specs are in it.
    """
    ordered: dict[str, RunnableStep] = {}
    groups: dict[str, tuple[str, ...]] = {}
    for node in graph.nodes:
        spec = spec_by_node[node]
        ordered.setdefault(spec.output_path, spec)
        groups.setdefault(spec.output_path, node.group_path)
    ordered |= {path: step for path, step in steps.items() if path not in ordered}
    shown = [
        ViewStep(letters(index), step.name, path, groups.get(path, ()), step.template, tuple(step.functions))
        for index, (path, step) in enumerate(ordered.items())
    ]
    edges = [edge for path, step in ordered.items() for edge in _edges(path, step, ordered)]
    return GraphView(tuple(shown), tuple(edges))


def _edges(path: str, step: RunnableStep, known: Collection[str]) -> Iterable[ViewEdge]:
    read = {dep.output_path for dep in read_deps_of(step)}
    kinds: dict[str, EdgeKind] = {dep.output_path: EdgeKind.NONBLOCKING for dep in step.nonblocking_deps}
    for dep in step.deps:
        kinds[dep.output_path] = EdgeKind.DATA if dep.output_path in read else EdgeKind.ORDERING
    return (ViewEdge(dep, path, kind) for dep, kind in kinds.items() if dep in known)


def view_of_outputs(outputs: Iterable[str], infos: Mapping[str, Mapping[str, Any]], prefix: str) -> GraphView:
    """The picture of what lies below a prefix, by the records beside the outputs; edges into other places are left out.

    Args:
        outputs: Output paths.
        infos: What is recorded beside each, where something is.
        prefix: What names begin after.
    """
    paths = list(outputs)
    deps = {path: [dep for dep in _deps(infos.get(path, {})) if dep in infos] for path in paths}
    order = _producers_first(paths, deps)
    steps = [
        ViewStep(letters(index), path.removeprefix(f"{prefix}/"), path, functions=_functions(infos.get(path, {})))
        for index, path in enumerate(order)
    ]
    edges = [ViewEdge(dep, path, EdgeKind.DATA) for path in order for dep in deps[path]]
    return GraphView(tuple(steps), tuple(edges))


def _deps(info: Mapping[str, Any]) -> list[str]:
    deps: Any = info.get("deps")
    return [dep for dep in cast("list[object]", deps) if isinstance(dep, str)] if isinstance(deps, list) else []


def _functions(info: Mapping[str, Any]) -> tuple[str, ...]:
    functions: Any = info.get("functions")
    return tuple(map(str, cast("list[object]", functions))) if isinstance(functions, list) else ()


def _producers_first(paths: Sequence[str], deps: Mapping[str, Sequence[str]]) -> list[str]:
    """Depth first without recursion; records that contradict each other are shown all the same."""
    done: dict[str, None] = {}
    opened: set[str] = set()
    stack = list(reversed(paths))
    while stack:
        path = stack[-1]
        if path in opened:
            stack.pop()
            done.setdefault(path)
            continue
        opened.add(path)
        stack.extend(dep for dep in reversed(deps[path]) if dep not in opened)
    return list(done)


def as_mermaid(view: GraphView, states: Mapping[str, StepState]) -> str:
    """A Mermaid flowchart: groups as subgraphs, dashed where nobody waits, ``after`` where nothing is read.

    Args:
        view: What to draw.
        states: How steps stand, by output path; empty: not shown.
    """
    lines = ["flowchart LR"]
    ids = {step.output_path: f"s_{step.label}" for step in view.steps}

    def step_line(step: ViewStep, indent: str) -> str:
        return f'{indent}{ids[step.output_path]}["{_mermaid_text(step.name)}"]'

    def opening(number: int, path: tuple[str, ...], indent: str) -> str:
        return f'{indent}subgraph g_{number}["{_mermaid_text(path[-1])}"]'

    lines += _nested(view, step_line, opening, lambda indent: f"{indent}end")
    arrows = {EdgeKind.DATA: "-->", EdgeKind.NONBLOCKING: "-.->"}
    for edge in view.edges:
        lines.append(f"{_INDENT}{ids[edge.source]} {arrows.get(edge.kind, '-. after .->')} {ids[edge.target]}")
    for state in StepState:
        members = [ids[step.output_path] for step in view.steps if states.get(step.output_path) is state]
        if members:
            lines.append(f"{_INDENT}classDef {state.value} fill:{_COLOURS[state]},stroke:#555,color:#000")
            lines.append(f"{_INDENT}class {','.join(members)} {state.value}")
    return "\n".join(lines)


def as_dot(view: GraphView, states: Mapping[str, StepState]) -> str:
    """A Graphviz digraph: groups as clusters, dashed where nobody waits, dotted where nothing is read.

    Args:
        view: What to draw.
        states: How steps stand, by output path; empty: not shown.
    """
    lines = [
        "digraph pipeline {",
        f"{_INDENT}rankdir=LR;",
        f'{_INDENT}node [shape=box, style="rounded,filled", fillcolor=white];',
    ]
    ids = {step.output_path: f"s_{step.label}" for step in view.steps}

    def step_line(step: ViewStep, indent: str) -> str:
        state = states.get(step.output_path)
        text = f"{step.name}\\n{state}" if state else step.name
        colour = f', fillcolor="{_COLOURS[state]}"' if state else ""
        return f'{indent}{ids[step.output_path]} [label="{_dot_text(text)}"{colour}];'

    def opening(number: int, path: tuple[str, ...], indent: str) -> str:
        return f'{indent}subgraph cluster_{number} {{ label="{_dot_text(path[-1])}";'

    lines += _nested(view, step_line, opening, lambda indent: f"{indent}}}")
    styles = {EdgeKind.DATA: "", EdgeKind.NONBLOCKING: " [style=dashed]"}
    for edge in view.edges:
        lines.append(f"{_INDENT}{ids[edge.source]} -> {ids[edge.target]}{styles.get(edge.kind, ' [style=dotted]')};")
    return "\n".join([*lines, "}"])


def _nested(
    view: GraphView,
    step_line: Callable[[ViewStep, str], str],
    opening: Callable[[int, tuple[str, ...], str], str],
    closing: Callable[[str], str],
) -> list[str]:
    """The lines of the steps inside those of their groups."""
    groups = view.members_by_group()
    numbers = {path: number for number, path in enumerate(groups)}
    inner: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for path in groups:
        inner.setdefault(path[:-1], []).append(path)
    lines: list[str] = []

    def add(path: tuple[str, ...], steps: Iterable[ViewStep]) -> None:
        indent = _INDENT * (len(path) + 1)
        lines.extend(step_line(step, indent) for step in steps if step.groups == path)
        for below in inner.get(path, ()):
            lines.append(opening(numbers[below], below, indent))
            add(below, groups[below])
            lines.append(closing(indent))

    add((), view.steps)
    return lines


def _mermaid_text(text: str) -> str:
    return " ".join(text.split()).replace("#", "#35;").replace('"', "#quot;")


def _dot_text(text: str) -> str:
    return text.replace('"', '\\"')


def graph_json(view: GraphView, states: Mapping[str, StepState]) -> dict[str, Any]:
    """As a JSON object; ``state`` is null where it was not asked for."""
    labels = {step.output_path: step.label for step in view.steps}
    return {
        "schema_version": SCHEMA_VERSION,
        "steps": [
            {
                "id": step.label,
                "name": step.name,
                "output_path": step.output_path,
                "template": step.template,
                "functions": list(step.functions),
                "groups": list(step.groups),
                "state": states[step.output_path].value if step.output_path in states else None,
            }
            for step in view.steps
        ],
        "groups": [
            {"path": list(path), "steps": [step.label for step in steps]}
            for path, steps in view.members_by_group().items()
        ],
        "edges": [
            {"from": labels[edge.source], "to": labels[edge.target], "kind": edge.kind.value} for edge in view.edges
        ],
    }


def with_states(lines: Sequence[str], output_paths: Sequence[str], states: Mapping[str, StepState]) -> list[str]:
    """Lines with the state of the step of each in front."""
    shown = [states[path].value if path in states else "" for path in output_paths]
    width = max(map(len, shown), default=0)
    return [f"{state:<{width}}  {line}" for state, line in zip(shown, lines, strict=True)]


def as_text(view: GraphView, states: Mapping[str, StepState]) -> str:
    """A line for each step, with what it needs: for outputs, whose traced graph is not at hand."""
    labels = {step.output_path: step.label for step in view.steps}
    needs: dict[str, list[str]] = {}
    for edge in view.edges:
        needs.setdefault(edge.target, []).append(labels[edge.source])
    width = max((len(step.name) for step in view.steps), default=0)
    lines: list[str] = []
    for step in view.steps:
        call = ", ".join(name.rpartition(":")[2] for name in step.functions)
        reads = f" reads {', '.join(needs[step.output_path])}" if step.output_path in needs else ""
        lines.append(f"{step.label} : {step.name:<{width}} = {call or '?'}{reads}")
    if states:
        lines = with_states(lines, [step.output_path for step in view.steps], states)
    return "\n".join(lines)
