"""What speaks against adopting an output: where its record says something else than the step's recipe.

The older executor recorded the version of a step: its versioned values, and the versions of all that it read, nested.
What it did not version it did not record, and so it says nothing. Outputs of this package record their whole recipe.
"""

import ast
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from marin_trace.planning.plan import read_deps_of
from marin_trace.runtime.records import FieldChange, read_step_info
from marin_trace.runtime.run_plan import RunnableStep

__all__ = ["contradictions"]


def contradictions(output_path: str, step: RunnableStep) -> list[FieldChange]:
    """The fields in which an output was built otherwise than a step would be, as far as both tell.

    Args:
        output_path: Of the output.
        step: Who is to adopt it; for an output of the older executor also what it reads, and so on.

    Returns:
        The fields that differ; those of what is read under its name.
    """
    info = read_step_info(output_path)
    if info is None:
        return []
    version: Any = info.get("version")
    if isinstance(version, dict):
        return list(_of_version(cast("dict[str, Any]", version), step, "", set()))
    parts: Any = info.get("parts")
    old = _values(cast("dict[str, str]", parts)) if isinstance(parts, dict) else {}
    new = _values(step.recipe_parts())
    return [
        FieldChange(path, repr(value[0]), repr(new[path][0]))
        for path, value in old.items()
        if path and value and new.get(path) and not _is_same(value[0], new[path][0])
    ]


def _of_version(version: Mapping[str, Any], step: RunnableStep, label: str, seen: set[str]) -> Iterator[FieldChange]:
    seen.add(step.name)
    config: Any = version.get("config")
    new = _values(step.recipe_parts())
    for path, value in cast("dict[str, Any]", config).items() if isinstance(config, dict) else ():
        if not _is_reference(value):
            yield from _of_value(path, value, new, label)
    read = {dep.name: dep for dep in read_deps_of(step)}
    entries = {str(entry.get("name")): entry for entry in _entries(version)}
    if entries.keys() != read.keys():
        yield FieldChange(
            f"{label}reads", ", ".join(sorted(entries)) or "nothing", ", ".join(sorted(read)) or "nothing"
        )
    for name in (name for name in entries.keys() & read.keys() if name not in seen):
        yield from _of_entry(entries[name], read[name], seen)


def _entries(version: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for kind in ("dependencies", "pseudo_dependencies"):
        listed: Any = version.get(kind)
        for entry in cast("list[Any]", listed) if isinstance(listed, list) else ():
            if isinstance(entry, dict):
                yield cast("dict[str, Any]", entry)


def _of_entry(entry: Mapping[str, Any], step: RunnableStep, seen: set[str]) -> Iterator[FieldChange]:
    """What differs in something that was read: a version again, or a step of this package by its fingerprint."""
    fingerprint: Any = entry.get("fingerprint")
    if not isinstance(fingerprint, str):
        yield from _of_version(entry, step, f"{step.name}: ", seen)
    elif fingerprint != step.fingerprint:
        yield FieldChange(f"{step.name}: fingerprint", fingerprint[:8], step.fingerprint[:8])


def _of_value(path: str, value: Any, new: Mapping[str, tuple[Any, ...]], label: str) -> Iterator[FieldChange]:
    """What differs in one versioned value, which the new recipe may hold item by item."""
    inside = {
        known: found for known, found in new.items() if known == path or known.startswith((f"{path}.", f"{path}["))
    }
    whole = new.get(path, ())
    if not inside or not path or (whole and _is_same(value, whole[0])):
        return
    old = dict(_leaves(value, path))
    if not isinstance(value, dict | list):
        old = {path: value}
    else:
        inside.pop(path, None)  # the kind of the container
    for known in dict.fromkeys((*old, *inside)):
        if known not in inside:
            yield FieldChange(f"{label}{known}", repr(old[known]), None)
        elif known not in old:
            yield FieldChange(f"{label}{known}", None, repr(inside[known][0]) if inside[known] else "another value")
        elif inside[known] and not _is_same(old[known], inside[known][0]):
            yield FieldChange(f"{label}{known}", repr(old[known]), repr(inside[known][0]))


def _leaves(value: Any, path: str) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in cast("dict[Any, Any]", value).items():
            yield from _leaves(item, f"{path}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(cast("list[Any]", value)):
            yield from _leaves(item, f"{path}[{index}]")
    else:
        yield path, value


def _is_reference(value: Any) -> bool:
    return isinstance(value, str) and re.match(r"DEP\[\d+\]", value) is not None


def _is_same(old: Any, new: Any) -> bool:
    return (type(old), old) == (type(new), new)


def _values(parts: Mapping[str, str]) -> dict[str, tuple[Any, ...]]:
    """The values of a recipe by path below the parameter; nothing for one that is no plain value."""
    return {_below_parameter(path): _plain(str(text)) for path, text in parts.items()}


def _below_parameter(path: str) -> str:
    """``config.weights['en']`` as ``weights.en``: how versions write a path; the parameter's name is left out."""
    dotted = re.sub(r"\['([^']*)'\]", r".\1", path)
    return re.sub(r"^[^.\[]*\.?", "", dotted)


def _plain(text: str) -> tuple[Any, ...]:
    """The value that a text of a recipe stands for, as JSON has it; none where it is no plain one."""
    try:
        return (json.loads(json.dumps(ast.literal_eval(text))),)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return ()
