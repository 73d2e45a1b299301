"""What speaks against a finished output and is in no fingerprint: another source, or another unversioned value."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from marin_trace.lowering.step_spec import StepSpec
from marin_trace.runtime.records import FieldChange, field_differences, read_step_infos
from marin_trace.runtime.redaction import redact
from marin_trace.runtime.run_plan import RunnableStep
from marin_trace.runtime.status import StepStatus

__all__ = ["changed_config", "warnings_of_hits"]

_NAMED_VALUES: Final = 100
"""Hits whose record is read to name the values that changed; of more it is said that some did."""
_SHOWN: Final = 5
_KINDS: Final = ("sources", "unversioned")
"""The digests in the end of an attempt, see `marin_trace.lowering.recipe.advisory_digests`."""


def warnings_of_hits(
    steps: Mapping[str, RunnableStep], statuses: Mapping[str, StepStatus]
) -> dict[str, tuple[str, ...]]:
    """The warnings about finished outputs, each complete alone, by output path.

    Args:
        steps: Those that a run would take as they are, by output path.
        statuses: Of each.

    Raises:
        StorageError: Records cannot be read.
    """
    specs = {path: step for path, step in steps.items() if isinstance(step, StepSpec)}
    changed = {path: kinds for path, step in specs.items() if (kinds := _changed_kinds(step, statuses[path].record))}
    with_values = [path for path, kinds in changed.items() if "unversioned" in kinds]
    infos = read_step_infos(with_values[:_NAMED_VALUES])
    return {path: tuple(_worded(specs[path], kinds, infos.get(path))) for path, kinds in changed.items()}


def _changed_kinds(step: StepSpec, recorded: Mapping[str, Any]) -> list[str]:
    """Which of the digests that were recorded when it was built are others today."""
    if recorded.keys().isdisjoint(_KINDS):
        return []
    today = step.digests()
    return [kind for kind in _KINDS if kind in today and recorded.get(kind, today[kind]) != today[kind]]


def _worded(step: StepSpec, kinds: Iterable[str], info: Mapping[str, Any] | None) -> Iterable[str]:
    if "sources" in kinds:
        yield f"the source of {', '.join(dict.fromkeys(step.functions))} has changed since"
    if "unversioned" in kinds:
        changes = changed_config(info.get("config"), redact(step.config())) if info is not None else []
        shown = [str(change) for change in changes[:_SHOWN]] + (["…"] if len(changes) > _SHOWN else [])
        yield f"unversioned values have changed since{': ' if shown else ''}{', '.join(shown)}"


def changed_config(old: Any, new: Any) -> list[FieldChange]:
    """The config paths at which two recorded configs differ: what is unversioned is in them, too.

    Example:
        >>> [str(change) for change in changed_config({"config": {"workers": 2}}, {"config": {"workers": 4}})]
        ['config.workers: 2 → 4']
    """
    return field_differences(dict(_leaves(old, "")), dict(_leaves(new, "")))


def _leaves(value: Any, path: str) -> Iterable[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, item in cast("dict[str, Any]", value).items():
            yield from _leaves(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value:
        for index, item in enumerate(cast("list[Any]", value)):
            yield from _leaves(item, f"{path}[{index}]")
    else:
        yield path, repr(cast("object", value))
