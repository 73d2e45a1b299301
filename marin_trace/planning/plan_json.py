"""A plan as JSON, for scripts. ``plan.schema.json`` beside this module describes it."""

import json
from importlib.resources import files
from typing import Any, Final

from marin_trace.planning.plan import Plan, PlannedGroup, PlannedStep, action_of_members
from marin_trace.planning.words import counted

__all__ = ["SCHEMA_VERSION", "plan_json", "plan_schema"]

SCHEMA_VERSION: Final = 1
"""Grows when a reader of the old form would be misled."""


def plan_schema() -> dict[str, Any]:
    """The JSON Schema of what `plan_json` gives."""
    return json.loads(files("marin_trace.planning").joinpath("plan.schema.json").read_text(encoding="utf-8"))


def plan_json(plan: Plan) -> dict[str, Any]:
    """A plan as a JSON object: its steps, dependencies first, then its groups, inner ones first.

    Example:
        >>> from marin_trace.planning.plan import Plan
        >>> plan_json(Plan(()))
        {'schema_version': 1, 'steps': []}
    """
    by_path = plan.by_path()
    steps = [_step_json(step, by_path) for step in plan.steps]
    return {"schema_version": SCHEMA_VERSION, "steps": steps + [_group_json(group, by_path) for group in plan.groups]}


def _step_json(step: PlannedStep, by_path: dict[str, PlannedStep]) -> dict[str, Any]:
    explanation = step.explanation
    return {
        "name": step.name,
        "kind": "step",
        "output_path": step.output_path,
        "action": step.action.value,
        "reason": step.reason,
        "changes": [
            {"path": change.path, "old": change.old, "new": change.new}
            for change in (explanation.changes if explanation else ())
        ],
        "cause": by_path[explanation.cause].name if explanation else None,
        "deps": list(step.deps),
    }


def _group_json(group: PlannedGroup, by_path: dict[str, PlannedStep]) -> dict[str, Any]:
    actions = [by_path[path].action for path in group.steps]
    return {
        "name": group.name,
        "kind": "group",
        "output_path": None,
        "action": action_of_members(actions).value,
        "reason": counted(actions),
        "changes": [],
        "cause": None,
        "deps": list(group.steps),
    }
