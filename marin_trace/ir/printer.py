"""The printed IR: a graph as deterministic text, in the manner of a jaxpr.

Grammar::

    graph     := line*
    line      := step | group
    step      := LETTERS " : " NAME options "   = " body suffix*
    options   := "" | " [" option (" " option)* "]"           run options that were given, `cpu=8`
    body      := call ("; " call)*
    call      := [ "x" N " = " ] FUNCTION "(" arguments ")"   numbered where a later call or the result uses it
    arguments := positional ones bare, then name=value, in the order of the signature, defaults included
    value     := self | self/'sub'                            the step's own output
               | a | a/'sub' | ?a                             another step's output; ? where nobody waits
               | a.artifact.field                             the value that another step returned
               | x0.field                                     the result of an earlier call of the body
               | path('gs://…')                               a hardcoded path
               | unversioned(value)                           no part of the fingerprint
               | Class(field=value, …) | [..] | (..) | {..} | a plain Python literal
    suffix    := " -> " value                                 what is returned, unless it is the last call's result
               | " after " LETTERS…                           ordering edges: waits for these, reads nothing
               | " with ?" LETTERS…                           brings these into the run and does not wait
    group     := "group " NAME " { " LETTERS… " }" [" -> " value] [" after " LETTERS…]

Steps are lettered in order: a … z, aa, ab …; groups are named by their name. Unversioned values are printed, since they
are what the function gets; what differs between processes (the text of an object without an encoder) is printed as its
class name.
"""

import enum
import inspect
import string
from collections.abc import Iterable
from typing import Any, Final

from marin_trace.ir.config_tree import (
    BoundFunction,
    Mapping,
    Opaque,
    Record,
    Sequence,
    Tree,
    Unversioned,
    leaves,
)
from marin_trace.ir.graph import Call, Edge, EdgeKind, Graph, Group, Node, Options
from marin_trace.ir.records import Absent
from marin_trace.ir.refs import (
    DeferredResult,
    HardcodedPath,
    OwnOutput,
    StepArtifact,
    StepOutput,
    projection_steps,
    render_steps,
    source_of,
)
from marin_trace.ir.signatures import CallPlan
from marin_trace.safe_text import redact_text

_LETTERS: Final = string.ascii_lowercase


def letters(index: int) -> str:
    """The name of a step, by its index: a to z, then aa, ab and so on."""
    text = ""
    index += 1
    while index:
        index, remainder = divmod(index - 1, len(_LETTERS))
        text = _LETTERS[remainder] + text
    return text


def print_graph(graph: Graph) -> str:
    """The text of a graph, without a final newline; see the module's docstring for the grammar."""
    printer = _Printer({node: letters(index) for index, node in enumerate(graph.nodes)})
    heads = [f"{printer.label_by_node[node]} : {node.name}{_options_text(node.options)}" for node in graph.nodes]
    width = max(map(len, heads), default=0)
    steps = [f"{head:<{width}} = {printer.body(node)}" for head, node in zip(heads, graph.nodes, strict=True)]
    return redact_text("\n".join([*steps, *(printer.group(group) for group in graph.groups)]))


def print_value(tree: Tree) -> str:
    """The text of one value of a config, with refs as ``name/'sub'``."""
    return _Printer({}).value(tree)


def _options_text(options: Options) -> str:
    parts: list[str] = []
    for name, value in options.given().items():
        match name:
            case "resources":
                parts.append(str(value))
            case "env_vars":
                parts.append(f"env={','.join(sorted(value))}")
            case "pip_dependency_groups":
                parts.append(f"pip={','.join(value)}")
            case "override_output_path":
                parts.append(f"at={value}")
            case "fresh":
                parts.append("fresh" if value else "resume")
            case "description" | "expect_fingerprint":
                pass
            case _:
                parts.append(f"{name}={value}")
    return f" [{' '.join(parts)}]" if parts else ""


class _Printer:
    def __init__(self, label_by_node: dict[Node, str]) -> None:
        self.label_by_node = label_by_node
        self.number_by_call: dict[Any, int] = {}

    def label(self, node: Node | Group) -> str:
        return node.name if isinstance(node, Group) else self.label_by_node.get(node, node.name)

    def body(self, node: Node) -> str:
        last = node.calls[-1].handle
        shown = [source_of(leaf) for leaf in _results_in(node)]
        self.number_by_call = {}
        for call in node.calls:
            if call.handle in shown:
                self.number_by_call[call.handle] = len(self.number_by_call)
        text = "; ".join(self.call(call) for call in node.calls)
        is_last = isinstance(node.returned, DeferredResult) and not projection_steps(node.returned)
        if not (is_last and source_of(node.returned) is last):
            text += f" -> {self.value(node.returned)}"
        return text + self.suffix(node.edges)

    def suffix(self, edges: Iterable[Edge]) -> str:
        edges = [edge for edge in edges if edge.path is None]
        after = list(dict.fromkeys(self.label(edge.producer) for edge in edges if edge.kind is EdgeKind.ORDERING))
        beside = list(dict.fromkeys(self.label(edge.producer) for edge in edges if edge.kind is EdgeKind.NONBLOCKING))
        text = f" after {', '.join(after)}" if after else ""
        return text + (f" with {', '.join(f'?{label}' for label in beside)}" if beside else "")

    def call(self, call: Call) -> str:
        pairs = zip(call.arguments.plan.names, call.arguments.values, strict=True)
        shown = [text for index, (name, value) in enumerate(pairs) for text in self._argument(call, index, name, value)]
        number = self.number_by_call.get(call.handle)
        prefix = "" if number is None else f"x{number} = "
        return f"{prefix}{call.function.label}({', '.join(shown)})"

    def _argument(self, call: Call, index: int, name: str, value: Tree) -> list[str]:
        plan = call.arguments.plan
        kind = plan.signature.parameters[name].kind if isinstance(plan, CallPlan) else None
        if kind is inspect.Parameter.VAR_POSITIONAL and isinstance(value, Sequence):
            return [self.value(item) for item in value.items]
        if kind is inspect.Parameter.VAR_KEYWORD and isinstance(value, Mapping):
            return [f"{key}={self.value(item)}" for key, item in zip(value.keys, value.values, strict=True)]
        is_bare = index < call.positional and kind is not inspect.Parameter.KEYWORD_ONLY
        return [self.value(value) if is_bare else f"{name}={self.value(value)}"]

    def group(self, group: Group) -> str:
        members = " ".join(self.label(member) for member in group.members)
        text = f"group {group.name} {{ {members} }}" if members else f"group {group.name} {{ }}"
        if group.returned is not None:
            text += f" -> {self.value(group.returned)}"
        return text + self.suffix(group.after)

    def value(self, tree: Tree) -> str:  # noqa: PLR0912 (one case per kind of tree)
        match tree:
            case StepOutput():
                return f"{'' if tree.blocking else '?'}{_below(self.label(tree.node), tree.subpath)}"
            case OwnOutput():
                return _below("self", tree.subpath)
            case HardcodedPath():
                return f"path({tree.path!r})"
            case StepArtifact():
                return f"{self.label(source_of(tree).node)}.artifact{render_steps(projection_steps(tree))}"
            case DeferredResult():
                number = self.number_by_call.get(source_of(tree))
                name = f"{source_of(tree).label}()" if number is None else f"x{number}"
                return name + render_steps(projection_steps(tree))
            case Record():
                fields = zip(tree.plan.names, tree.values, strict=True)
                shown = [f"{name}={self.value(item)}" for name, item in fields if not _is_unset(item)]
                if tree.plan.counts_extras and isinstance(tree.extras, Mapping):
                    beside = zip(tree.extras.keys, tree.extras.values, strict=True)
                    shown += [f"{name}={self.value(item)}" for name, item in beside]
                return f"{tree.plan.cls.__name__}({', '.join(shown)})"
            case Sequence():
                return self._sequence(tree)
            case Mapping():
                pairs = zip(tree.keys, tree.values, strict=True)
                text = "{" + ", ".join(f"{self.value(key)}: {self.value(item)}" for key, item in pairs) + "}"
                return text if tree.cls is dict else f"{tree.cls.__name__}({text})"
            case Unversioned():
                return f"unversioned({self.value(tree.tree)})"
            case Absent():
                return f"unversioned({self.value(tree.value)})" if tree.holds_value else "…"
            case BoundFunction():
                return self._function(tree)
            case Opaque():
                return _opaque_text(tree)
            case enum.Enum():
                return f"{type(tree).__name__}.{tree.name}"
            case _:
                return repr(tree)

    def _sequence(self, tree: Sequence) -> str:
        items = [self.value(item) for item in tree.items]
        inside = ", ".join(items)
        if tree.cls is list:
            return f"[{inside}]"
        if tree.cls is tuple:
            return f"({inside},)" if len(items) == 1 else f"({inside})"
        return f"{{{inside}}}" if tree.cls is set and items else f"{tree.cls.__name__}([{inside}])"

    def _function(self, tree: BoundFunction) -> str:
        name = getattr(tree.function, "__name__", type(tree.function).__name__)
        if tree.kind == "plain":
            return name
        bound = [self.value(item) for item in tree.args]
        if tree.kind == "method":
            return f"{bound[0]}.{name}"
        keywords = [f"{key}={self.value(item)}" for key, item in tree.keywords.items()]
        return f"partial({', '.join([name, *bound, *keywords])})"


def _is_unset(item: Tree) -> bool:
    return isinstance(item, Absent) and not item.holds_value


def _below(label: str, subpath: str) -> str:
    return f"{label}/{subpath!r}" if subpath else label


def _opaque_text(tree: Opaque) -> str:
    if isinstance(tree.value, type):
        return tree.value.__name__
    return f"<{type(tree.value).__name__}>"


def _results_in(node: Node) -> list[DeferredResult]:
    """The deferred results that calls or the returned value use, but for a plain return of the last call's."""
    results = [found.leaf for call in node.calls for found in call.found if isinstance(found.leaf, DeferredResult)]
    returned = node.returned
    if isinstance(returned, DeferredResult):
        is_plain_last = source_of(returned) is node.calls[-1].handle and not projection_steps(returned)
        return results if is_plain_last else [*results, returned]
    return [*results, *(leaf for _, leaf in leaves(returned) if isinstance(leaf, DeferredResult))]
