"""Random pipelines: their description as plain data, the steps that it becomes, and the world in which they run.

A :class:`Program` is data that hypothesis draws and shrinks; :meth:`Program.pipeline` is the function that calls its
steps. What the steps do is to write a digest of all that they can read, so that whatever ran too early, twice, or with
other arguments leaves another world behind.
"""

import hashlib
import itertools
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from marin_trace import Graph, StepRef, deferred, output, step, trace, unversioned
from marin_trace.ir.canonical import fingerprints
from marin_trace.ir.graph import Node, graph_of_refs
from marin_trace.ir.interpreter import interpret
from marin_trace.lowering.paths import name_with_hash

HOW = ("path", "sub", "artifact", "item", "nonblocking", "unversioned", "moved", "after")


class World:
    """What steps leave: files by path, and what happened, in order."""

    def __init__(self, failing: Sequence[str] = ()) -> None:
        self.prefix = f"memory://world-{next(_numbers)}"
        self.files: dict[str, str] = {}
        self.events: list[tuple[str, str, int]] = []
        self.failing = frozenset(failing)
        self.lock = threading.Lock()
        _worlds[self.prefix] = self

    def content(self, path: str) -> Any:
        """What a path shows: everything below the output that it lies in, which must be there."""
        relative = path.removeprefix(f"{self.prefix}/")
        with self.lock:
            found = {name: text for name, text in self.files.items() if f"{relative}/".startswith(f"{_parent(name)}/")}
        assert found, f"{path} was read before it was written"
        return [relative, sorted(found.items())]

    def path_of(self, graph: Graph) -> Callable[[Node], str]:
        """Where each step of a graph writes in this world."""
        fingerprint_by_node = fingerprints(graph.nodes)

        def path(node: Node) -> str:
            below = node.override_output_path or name_with_hash(node.name, fingerprint_by_node[node])
            return f"{self.prefix}/{below}"

        return path


_worlds: dict[str, World] = {}
_numbers = itertools.count()


def _parent(file: str) -> str:
    return file.rpartition("/")[0]


def world_of(path: str) -> World:
    return _worlds["/".join(path.split("/")[:3])]


def work(number: int, name: str, out: str, *, inputs: Any = None, watch: Any = None, previous: Any = None) -> Any:
    """The one library function: writes and returns a digest of what it was given and of what it can read."""
    world = world_of(out)
    with world.lock:
        world.events.append(("start", out, number))
    if name in world.failing:
        raise ValueError(f"{name} was told to fail")
    tails = [path.removeprefix(world.prefix) for path in watch or ()]
    text = json.dumps([number, name, _read(inputs, world), tails, previous], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    with world.lock:
        world.files[f"{out.removeprefix(world.prefix + '/')}/{number}"] = digest
        world.events.append(("end", out, number))
    return {"n": digest, "name": name}


def _read(value: Any, world: World) -> Any:
    match value:
        case str() if value.startswith(world.prefix):
            return world.content(value)
        case dict():
            return {key: _read(item, world) for key, item in value.items()}
        case list() | tuple():
            return [_read(item, world) for item in value]
        case Bag():
            return [_read(value.items, world), value.note]
        case _:
            return value


@dataclass(frozen=True)
class Bag:
    """A config, as a library would have it."""

    items: Any
    note: Any = None


@dataclass(frozen=True)
class Use:
    """How a step uses the result of an earlier one."""

    source: int
    how: str


@dataclass(frozen=True)
class Statement:
    """A call of a step or group."""

    is_group: bool
    uses: tuple[Use, ...]
    calls: int
    container: str
    returns: str
    options: tuple[tuple[str, Any], ...]
    inside: "tuple[Statement, ...]"


@dataclass(frozen=True)
class Entry:
    """What an earlier statement gave; ``returns`` says what its artifact looks like, None that there is no path."""

    ref: Any
    returns: str | None


def _used(use: Use, entry: Entry, unique: str) -> Any:
    ref = entry.ref
    match use.how:
        case "sub":
            return ref / "sub" / "*.txt"
        case "artifact":
            return ref.artifact
        case "item":
            return {"result": ref.artifact, "tree": ref.artifact["list"][0]}.get(entry.returns or "", ref.artifact)
        case "unversioned":
            return unversioned(ref)
        case "moved":
            return ref.with_output_path(f"moved/{unique}")
        case _:
            return ref


def _contained(values: list[Any], container: str) -> Any:
    match container:
        case "dict":
            return {f"k{index}": value for index, value in enumerate(values)}
        case "bag":
            return Bag([tuple(values)], note=unversioned(len(values)))
        case "nested":
            return [{"a": (value,)} for value in values]
        case _:
            return values


@step(name="{name}")
def made(name: str, statement: Statement, given: list[Entry]) -> Any:
    """A step with calls of its own."""
    called = deferred(work)
    inside = list(_run_all(statement.inside, given, name))
    uses = [*zip(statement.uses, given, strict=False), *((Use(0, "path"), entry) for entry in inside[:1])]
    readable = [(use, entry) for use, entry in uses if entry.returns is not None and use.how != "after"]
    watch = [entry.ref.nonblocking() / "w" for use, entry in readable if use.how == "nonblocking"]
    values = [
        _used(use, entry, f"{name}-{index}") for index, (use, entry) in enumerate(readable) if use.how != "nonblocking"
    ]
    results = [called(0, name, output(), inputs=_contained(values, statement.container), watch=watch)]
    for number in range(1, statement.calls):
        results.append(called(number, name, out=output(), previous=[results[-1]["n"], results[0]]))
    match statement.returns:
        case "result":
            return results[-1]
        case "tree":
            return {"first": results[0], "list": [results[-1]["n"], number_of(results)]}
        case _:
            return None


def number_of(results: Sequence[Any]) -> int:
    """A plain value for a returned tree."""
    return sum(1 for _ in results)


@step(name="{name}")
def grouped(name: str, statement: Statement, given: list[Entry]) -> Any:
    """A group: calls steps, and returns what they gave."""
    entries = list(_run_all(statement.inside, given, name))
    refs = {f"k{index}": entry.ref for index, entry in enumerate(entries) if entry.returns is not None}
    match statement.returns:
        case "result" if refs:
            return list(refs.values())[-1]
        case "tree" if refs:
            return refs
        case _:
            return None


def _run_all(statements: Sequence[Statement], given: Sequence[Entry], name: str) -> Iterator[Entry]:
    pool = list(given)
    for index, statement in enumerate(statements):
        entries = list(run_statement(statement, pool, f"{name}.{index}"))
        pool += entries
        yield from entries


def _deep_uses(statement: Statement) -> int:
    return len(statement.uses) + sum(_deep_uses(inner) for inner in statement.inside)


def run_statement(statement: Statement, pool: Sequence[Entry], name: str) -> Iterator[Entry]:
    """Calls the step or group of a statement, with the earlier results that it uses."""
    given = [pool[use.source % len(pool)] for use in statement.uses] if pool else []
    called = grouped if statement.is_group else made.with_options(**dict(statement.options))
    result = called(name, statement, given)
    if not statement.is_group:
        yield Entry(result, statement.returns)
        return
    kind_by_name = {f"{name}.{index}": inner.returns for index, inner in enumerate(statement.inside)}
    refs = list(result.values()) if isinstance(result, dict) else [result]
    for ref in refs:
        yield Entry(ref, None if ref.node.is_group else kind_by_name.get(ref.name, "unknown"))


@dataclass(frozen=True)
class Program:
    """A pipeline as data."""

    statements: tuple[Statement, ...]
    repeated: frozenset[int] = field(default_factory=frozenset)
    """Which of them are called a second time, with the same arguments."""
    one_trace: bool = True

    def pipeline(self) -> list[StepRef]:
        """Calls the steps; the pipeline function."""
        pool: list[Entry] = []
        again: list[Callable[[], Any]] = []
        for index, statement in enumerate(self.statements):
            before = tuple(pool)
            pool += run_statement(statement, before, f"s{index}")
            if index in self.repeated:
                again.append(lambda args=(statement, before, f"s{index}"): list(run_statement(*args)))
        pool += [entry for call in again for entry in call()]
        return [entry.ref for entry in pool]

    def graph(self) -> Graph:
        """The graph, of one trace or of a trace for each call at top level."""
        return trace(self.pipeline) if self.one_trace else graph_of_refs(self.pipeline())


USES = st.lists(st.builds(Use, st.integers(0, 7), st.sampled_from(HOW)), max_size=3).map(tuple)
OPTION_VALUES = {"version": 1, "retries": 1, "description": "about {name}", "fresh": True}
OPTIONS = st.sets(st.sampled_from(sorted(OPTION_VALUES)), max_size=2).map(
    lambda names: tuple((name, OPTION_VALUES[name]) for name in sorted(names))
)


def _statements(*, group: bool, inside: st.SearchStrategy[list[Statement]]) -> st.SearchStrategy[Statement]:
    return st.builds(
        Statement,
        is_group=st.just(group),
        uses=USES,
        calls=st.integers(1, 3),
        container=st.sampled_from(["list", "dict", "bag", "nested"]),
        returns=st.sampled_from(["result", "tree", "none"]),
        options=st.just(()) if group else OPTIONS,
        inside=inside.map(tuple),
    )


def _statements_around(inner: st.SearchStrategy[Statement]) -> st.SearchStrategy[Statement]:
    return st.one_of(
        _statements(group=False, inside=st.lists(inner, max_size=2)),
        _statements(group=True, inside=st.lists(inner, min_size=1, max_size=3)),
    )


LEAF = _statements(group=False, inside=st.just([]))
PROGRAMS = st.builds(
    Program,
    st.lists(
        st.one_of(LEAF, _statements_around(LEAF), _statements_around(_statements_around(LEAF))), min_size=1, max_size=5
    ).map(tuple),
    st.frozensets(st.integers(0, 4), max_size=2),
    st.booleans(),
)


def meaning(graph: Graph) -> dict[str, Any]:
    """What a graph leaves behind when it is interpreted: artifacts and files by relative path."""
    world = World()
    path_of = world.path_of(graph)
    artifacts = interpret(graph, path_of)
    left = {path_of(node).removeprefix(world.prefix): _plain(value) for node, value in artifacts.items()}
    return {"artifacts": left, "files": world.files}


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))
