"""The arguments of ``ExecutorStep(...)``."""

import ast
from dataclasses import dataclass
from typing import Final, final

from marin_trace.migration.names import STEP_OPTIONS

_ORDER: Final = ("name", "fn", "config", "description", "override_output_path", "pip_dependency_groups", "resources")
"""Of the arguments of ``ExecutorStep``."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """The arguments of one constructor call."""

    call: ast.Call
    by_name: dict[str, ast.expr]

    @property
    def options(self) -> dict[str, ast.expr]:
        """Those that are options of a step; one that is None says nothing."""
        found = {name: self.by_name[name] for name in STEP_OPTIONS if name in self.by_name}
        return {name: value for name, value in found.items() if not _is_none(value)}


def given_of(call: ast.Call) -> Given | None:
    """The arguments of a constructor call, where they are spelled out."""
    if any(isinstance(argument, ast.Starred) for argument in call.args) or len(call.args) > len(_ORDER):
        return None
    by_name: dict[str, ast.expr] = dict(zip(_ORDER, call.args, strict=False))
    for keyword in call.keywords:
        if keyword.arg is None:
            return None
        by_name[keyword.arg] = keyword.value
    known = {*_ORDER, *STEP_OPTIONS}
    return Given(call, by_name) if by_name.keys() <= known and {"name", "fn"} <= by_name.keys() else None


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
