"""Output paths: the one place that joins a prefix, a name and a hash."""

import os
from collections.abc import Iterable, Mapping
from typing import Protocol

from marin_trace.errors import OutputConflictError, explain
from marin_trace.ir.refs import is_absolute

HASH_DIGITS = 8
"""How much of a fingerprint a path shows; the whole of it is recorded at commit and compared on every hit."""


def name_with_hash(name: str, fingerprint: str) -> str:
    """``{name}-{first 8 hex digits}``."""
    return f"{name}-{fingerprint[:HASH_DIGITS]}"


def path_below(prefix: str, relative: str) -> str:
    """A path under a prefix; absolute paths and URLs are returned as they are."""
    return relative if is_absolute(relative) else f"{prefix}/{relative}"


def normal_prefix(prefix: str) -> str:
    """A prefix as output paths begin with it: absolute, without a trailing slash."""
    return prefix.rstrip("/") if "://" in prefix else os.path.abspath(os.path.expanduser(prefix))


_SHOWN_PARTS = 4
"""How many of the differing parts of two recipes a conflict shows."""


class PlacedStep(Protocol):
    """A step that has an output path."""

    @property
    def name(self) -> str: ...
    @property
    def name_with_hash(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def output_path(self) -> str: ...
    @property
    def location(self) -> str | None: ...
    def recipe_parts(self) -> Mapping[str, str]: ...


def check_conflicts(steps: Iterable[PlacedStep], below: str) -> None:
    """Refuses two recipes for one output path, and an output inside another one.

    Args:
        steps: Each step once.
        below: The prefix that most outputs lie under.

    Raises:
        OutputConflictError: Naming both call sites.
    """
    step_by_path: dict[str, PlacedStep] = {}
    for step in steps:
        other = step_by_path.setdefault(step.output_path, step)
        if other is not step:
            raise _conflict(f"two steps would write {step.output_path}", other, step)
    root = f"{below}/"
    is_shared = not any(root.startswith(f"{path}/") for path in step_by_path)
    for path, step in step_by_path.items():
        floor = len(root) if is_shared and path.startswith(root) else path.find("://") + 3
        end = path.rfind("/")
        while end > floor:
            outer = step_by_path.get(path[:end])
            if outer is not None:
                raise _conflict(f"the output of {step.name} would lie inside that of {outer.name}", outer, step)
            end = path.rfind("/", 0, end)


def _conflict(summary: str, first: PlacedStep, second: PlacedStep) -> OutputConflictError:
    return OutputConflictError(
        explain(
            summary,
            facts={"first": _place(first, second), "second": _place(second, first)},
            hint="give one of them another name, or another override_output_path",
        )
    )


def _place(step: PlacedStep, other: PlacedStep) -> str:
    """A step with its call site, and what of its recipe the other does not share."""
    mine, theirs = step.recipe_parts(), other.recipe_parts()
    own = [f"{path}={text}" for path, text in mine.items() if path != "name" and theirs.get(path) != text]
    more = ["…"] if len(own) > _SHOWN_PARTS else []
    return "  ".join([f"{step.name}  {step.location}", *own[:_SHOWN_PARTS], *more])
