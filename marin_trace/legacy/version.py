"""Versions: what the older executor knew a step by, computed as it did, so that its outputs are found.

The version of a step is a JSON object; the first six hex digits of the md5 of its text end the output path
(``{name}-{md5[:6]}``), and its sha256 is the step's fingerprint here. The text is Python's ``json.dumps`` with
``sort_keys=True`` and the default separators, ASCII only::

    {"config": {"a.b[0].c": 1, "data": "DEP[0]/train"}, "dependencies": [{…}], "name": "train"}

- ``config`` holds versioned values and references alone, by path: fields and dict keys after a dot, items of lists and
  tuples (and numbers that are dict keys) in brackets. A config that is itself one value has the empty path.
- References are numbered in order of occurrence: fields in the order of the class, dict entries in theirs, depth
  first. Each occurrence has a number of its own, and its step an entry of its own in ``dependencies``, also where one
  step occurs twice. ``/`` and what was asked for below its output follow the number.
- Non-blocking references are numbered together with the others, and their steps are listed in ``pseudo_dependencies``,
  which is there only if there is one.
- An entry of a dependency is its whole version. That of a traced step is ``{"fingerprint": …, "name": …}``.
- A hardcoded path is entered as its text.
- ``fn``, ``description``, ``override_output_path`` and all values that are not versioned are left out; so is the step's
  own output path. Inside a versioned value the latter is entered as ``OutputName(name=…)``.
- What JSON does not know is entered as its ``str()``, a ``timedelta`` as its days, seconds and microseconds. A text
  that differs between processes (an object's address, a set) is refused: the older executor computed such steps again
  each time. So are references inside a versioned value or a set, which it handed to functions as they were.
"""

import datetime
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from marin_trace.errors import ConfigError, MarinTraceError, UnstableValueError, explain
from marin_trace.ir.canonical import fingerprints
from marin_trace.ir.config_tree import Path, flatten, short_repr
from marin_trace.ir.graph import Node, graph_of
from marin_trace.ir.location import Location
from marin_trace.ir.markers import KeptMarkers
from marin_trace.ir.refs import (
    DeferredResult,
    HardcodedPath,
    OwnOutput,
    StepArtifact,
    StepOutput,
)
from marin_trace.legacy.steps import ExecutorStep, InputName, VersionedValue, get_executor_step

__all__ = ["Reference", "StepVersion", "hash_of", "readable_parts", "version_of", "version_text"]

_HASH_DIGITS: Final = 6
_ADDRESS: Final = re.compile(r" at 0x[0-9a-f]+")


@final
@dataclass(frozen=True, slots=True)
class Reference:
    """One occurrence of a step in a config."""

    step: "ExecutorStep[Any] | Node"
    """Of the older kind, or traced."""
    blocking: bool


@final
@dataclass(frozen=True, slots=True)
class StepVersion:
    """What a config contributes to the version of its step."""

    config: dict[str, str]
    """Versioned values, and the text of references, by path: each as JSON."""
    references: tuple[Reference, ...]
    """In order of occurrence: the number in ``DEP[i]`` is the place."""

    def entries(self, *, blocking: bool) -> list["ExecutorStep[Any] | Node"]:
        """The steps of the blocking references, or of the others."""
        return [reference.step for reference in self.references if reference.blocking is blocking]


def version_of(config: Any, *, step: str, location: Location) -> StepVersion:
    """What a config contributes to the version of its step.

    Args:
        config: Of the step.
        step: Its name, for messages.
        location: The user's line that made it.

    Raises:
        ConfigError: The config holds what has no version.
    """
    found = KeptMarkers()
    flatten(config, found, None, versioned=False)
    values: dict[str, str] = {}
    references: list[Reference] = []
    for leaf, path, _ in found:
        place = _Place(step, location, path)
        match leaf:
            case VersionedValue():
                values[place.key] = place.json_of(leaf.value)  # pyright: ignore[reportUnknownMemberType]
            case InputName(step=None) | HardcodedPath():
                values[place.key] = json.dumps(leaf.name if isinstance(leaf, InputName) else leaf.path)
            case ExecutorStep() | InputName() | StepOutput():
                values[place.key] = json.dumps(f"DEP[{len(references)}]{_below(leaf)}")
                references.append(_reference(leaf))
            case OwnOutput() | DeferredResult() | StepArtifact():
                raise place.error(f"holds {leaf!r}, which only a traced step can use", "call a traced step with it")
            case _:  # a function, or an object of a kind that nobody knows: it has no part in the version
                continue
    return StepVersion(values, tuple(references))


def _below(leaf: Any) -> str:
    subpath: str | None = (
        leaf.name if isinstance(leaf, InputName) else leaf.subpath if isinstance(leaf, StepOutput) else None
    )
    return f"/{subpath}" if subpath else ""


def _reference(leaf: Any) -> Reference:
    match leaf:
        case StepOutput():
            return Reference(leaf.step_node(), leaf.blocking)
        case InputName():
            return Reference(get_executor_step(leaf), leaf.block_on_step)
        case _:
            return Reference(leaf, blocking=True)


def version_text(name: str, version: StepVersion) -> str:
    """The text of a step's version. Its steps of the older kind have their nodes already."""
    dependencies = [_entry_text(step) for step in version.entries(blocking=True)]
    pseudo_dependencies = [_entry_text(step) for step in version.entries(blocking=False)]
    config = [f"{json.dumps(key)}: {version.config[key]}" for key in sorted(version.config)]
    # The entries are texts already: encoded as one object, deep graphs would reach Python's recursion limit.
    parts = [
        f'"config": {{{", ".join(config)}}}',
        f'"dependencies": [{", ".join(dependencies)}]',
        f'"name": {json.dumps(name)}',
    ]
    if pseudo_dependencies:
        parts.append(f'"pseudo_dependencies": [{", ".join(pseudo_dependencies)}]')
    return f"{{{', '.join(parts)}}}"


def _entry_text(step: "ExecutorStep[Any] | Node") -> str:
    node = step.node if isinstance(step, ExecutorStep) else step
    if node.foreign is not None:
        return node.foreign.text
    fingerprint = fingerprints(graph_of([node]).nodes)[node]
    return json.dumps({"fingerprint": fingerprint, "name": node.name})


def hash_of(text: str) -> str:
    """What ends the output path of a step with this version."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:_HASH_DIGITS]


@final
@dataclass(frozen=True, slots=True)
class _Place:
    """Where in a step's config something stands."""

    step: str
    location: Location
    path: Path | None

    @property
    def key(self) -> str:
        """The path as versions write it.

        Raises:
            ConfigError: It leads through a set or a dict's key, which has none.
        """
        key = ""
        for part in _outermost_first(self.path):
            if part.kind == "key" or part.key == "{}":
                raise self.error(
                    "holds a step or a versioned value in a set, or as the key of a dict",
                    "a list has a place for each item: inputs=[a, b]",
                )
            is_index = isinstance(part.key, int) and not isinstance(part.key, bool)
            key += f"[{part.key}]" if is_index else f".{part.key}" if key else str(part.key)
        return key

    def json_of(self, value: Any) -> str:
        """A versioned value as JSON.

        Raises:
            ConfigError: It holds a reference, or has no text that another process would agree on.
        """
        found = KeptMarkers()
        flatten(value, found, self.path, versioned=False)
        for leaf, _, _ in found:
            if isinstance(leaf, ExecutorStep | InputName | StepOutput | HardcodedPath | DeferredResult | StepArtifact):
                raise self.error(f"has {leaf!r} inside versioned(…)", "versioned() goes around plain values alone")
        try:
            return json.dumps(value, sort_keys=True, default=self._fallback)
        except MarinTraceError:
            raise
        except (TypeError, ValueError, RecursionError) as error:
            problem = f"has a versioned value that is no JSON: {error}"
            raise self.error(problem, "version text, numbers, lists of them") from None

    def _fallback(self, value: Any) -> Any:
        if isinstance(value, datetime.timedelta):
            return {"days": value.days, "seconds": value.seconds, "microseconds": value.microseconds}
        text, is_set = str(value), isinstance(value, set | frozenset)
        if _ADDRESS.search(text) or (is_set and "," in text):
            raise UnstableValueError(
                explain(
                    f"{self} of {self.step} is versioned, and has a text that differs in each process: "
                    f"{short_repr(value)}",
                    at=self.location,
                    hint="version its name, or a sorted list: versioned(sorted(values))",
                )
            )
        return text

    def error(self, what: str, hint: str) -> ConfigError:
        """A complaint about this place."""
        return ConfigError(explain(f"{self} of {self.step} {what}", at=self.location, hint=hint))

    def __str__(self) -> str:
        return f"config.{self.path}".replace(".[", "[") if self.path else "config"


def _outermost_first(path: Path | None) -> Iterable[Path]:
    parts: list[Path] = []
    while path is not None:
        parts.append(path)
        path = path.parent
    return reversed(parts)


def readable_parts(name: str, version: StepVersion, nodes: Sequence[Node]) -> dict[str, str]:
    """A version as readable text by config path, references by the name of their step.

    Args:
        name: Of the step.
        version: Of its config.
        nodes: What each of its references is in the graph.
    """
    parts = {"name": name}
    for key, text in version.config.items():
        parts[f"config{'' if key.startswith('[') else '.'}{key}"] = repr(json.loads(text))
    for index, node in enumerate(nodes):
        parts[f"DEP[{index}]"] = node.override_output_path if node.foreign and node.override_output_path else node.name
    return parts
