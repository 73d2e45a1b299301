"""What is decided about the statements of a module that depend on steps."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, final

from marin_trace.migration.rewriting.lines import Line


class Fate(StrEnum):
    """What becomes of a name that depends on steps."""

    LOCAL = "a name of the entry step"
    FUNCTION = "a function that its readers call"
    BUILDER = "a function that several statements build it in"
    MAKERS = "a mapping of functions, of which each reader calls those that it wants"
    LISTED = "a list of such functions"
    LEFT = "what it was"


HOLDS_MAKERS: Final = frozenset({Fate.MAKERS, Fate.LISTED})
"""What holds functions, of which readers call some or all."""

SEEN_OUTSIDE: Final = HOLDS_MAKERS | {Fate.FUNCTION, Fate.BUILDER}
"""What readers in other modules write otherwise."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """The call of ``executor_main`` that gets an entry step."""

    call: ast.Call
    steps: ast.expr
    holder: ast.stmt
    """The statement of the module that it stands in."""
    block: list[ast.stmt]
    """The statements beside it: those of ``if __name__ == "__main__":``, or of a function."""


@final
@dataclass(slots=True, eq=False)
class HoistPlan:
    """What becomes of the statements of a module."""

    fates: dict[str, Fate] = field(default_factory=dict[str, Fate])
    lines: list[Line] = field(default_factory=list[Line])
    entry: Entry | None = None
    moved: list[Line] = field(default_factory=list[Line])
    """Into the entry step, in order."""
    emitted: list[ast.expr] = field(default_factory=list[ast.expr])
    """Of what ``executor_main`` was given, what the entry step has to call itself."""
    parameters: tuple[str, ...] = ()
    entry_name: str = ""
    partial: set[str] = field(default_factory=set[str])
    """Names of the module of which single items are read."""
    apart: set[str] = field(default_factory=set[str])
    """Names that are given to functions which read single items of them."""
    imported: dict[str, Fate] = field(default_factory=dict[str, Fate])
    """What becomes of imported names where they are defined."""
    attributes: dict[ast.Attribute, Fate] = field(default_factory=dict[ast.Attribute, Fate])
    """The same of names of imported modules, by the expressions that read them."""

    def functions(self) -> set[str]:
        """The names that become functions."""
        return {name for name, fate in self.fates.items() if fate in (Fate.FUNCTION, Fate.BUILDER)}

    def partial_makers(self) -> set[str]:
        """The names that hold functions already, or become that."""
        return self.makers() | {name for name, fate in self.imported.items() if fate in HOLDS_MAKERS}

    def makers(self) -> set[str]:
        """The names that come to hold functions."""
        return {name for name, fate in self.fates.items() if fate in HOLDS_MAKERS}


@final
@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is known of the other files."""

    chosen: frozenset[str]
    """The files that are migrated together, as resolved paths."""
    imported: Mapping[str, frozenset[str]]
    """By resolved path of a file, the names that others import from it."""
    parts: Mapping[str, frozenset[str]]
    """Those of which others read single items."""
