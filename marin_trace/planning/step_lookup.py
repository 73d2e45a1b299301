"""Which step somebody means: by its name, its name with hash, or its output path.

Below a prefix this costs a listing of the name's directory; everything else that lies there is looked at only where
nothing was found, to name what is near.
"""

import difflib
import os
import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, final

from marin_trace.errors import StepUnknownError, explain
from marin_trace.ir.refs import is_absolute
from marin_trace.planning.earlier import builds_in
from marin_trace.planning.outputs_below import is_output, name_of_output, outputs_below, recorded_steps, statuses_of
from marin_trace.runtime.prefix import normalise_prefix

__all__ = ["FoundStep", "step_among", "step_below"]

_NEAR: Final = 3
_CUTOFF: Final = 0.5
_RUNS_READ: Final = 5
_NAMED: Final = 20


@final
@dataclass(frozen=True, slots=True)
class FoundStep:
    """A step that can be asked for."""

    name: str
    output_path: str


def step_among(steps: Iterable[FoundStep], word: str, prefix: str, *, groups: Iterable[str] = ()) -> FoundStep:
    """The step of an experiment that a word means.

    Args:
        steps: Of the experiment.
        word: A name, a name with hash (what stands after the prefix), or an output path.
        prefix: Of the experiment.
        groups: The names of its groups, which have no output.

    Raises:
        StepUnknownError: None, or several; those, or near ones, are named.
    """
    known = list(steps)
    path = _as_path(word)
    relative = word.strip("/")
    found = [step for step in known if step.output_path in (path, f"{prefix}/{relative}")]
    found = found or [step for step in known if step.name == relative]
    if len(found) == 1:
        return found[0]
    if found:
        raise _several(word, found, prefix)
    if relative in groups:
        raise StepUnknownError(explain(f"{relative} is a group: it runs nothing, and has no output"))
    raise _unknown(word, f"no step of this experiment is called {word}", known, prefix)


def step_below(prefix: str, word: str, *, records_directory: str) -> FoundStep:
    """The output below a prefix, or anywhere if its path is given, that a word means.

    Args:
        prefix: Normalised.
        word: A name, a name with hash, or an output path.
        records_directory: Of the prefix: names of outputs at chosen paths are found there.

    Raises:
        StepUnknownError: None, or several builds of one name; those, or near ones, are named.
        StorageError: The store cannot be read.
    """
    path, relative = _as_path(word), word.strip("/")
    found: list[FoundStep] = []
    if path is None and relative:
        parent, _, name = f"{prefix}/{relative}".rpartition("/")
        builds = builds_in(parent, {name}).get(posixpath.join(parent, name), [])
        found = _outputs_among([f"{prefix}/{relative}", *builds], prefix)
    if not found:
        recorded = recorded_steps(records_directory, newest=_RUNS_READ).values()
        found = [FoundStep(step.name, step.output_path) for step in recorded if relative == step.name]
    if not found and (path is not None or os.path.isdir(word)):
        found = _outputs_among([path or normalise_prefix(word)], prefix)
    if len(found) == 1:
        return found[0]
    if found:
        raise _several(word, found, prefix)
    known = [FoundStep(name_of_output(path, prefix), path) for path in outputs_below(prefix)]
    raise _unknown(word, f"there is no output of {word} below {prefix}", known, prefix)


def _outputs_among(paths: Sequence[str], prefix: str) -> list[FoundStep]:
    statuses = statuses_of(paths)
    return [FoundStep(name_of_output(path, prefix), path) for path, status in statuses.items() if is_output(status)]


def _as_path(word: str) -> str | None:
    """A word as an output path, if it is written as one and can be no name."""
    return normalise_prefix(word) if is_absolute(word) or word.startswith((".", "~")) else None


def _several(word: str, found: Sequence[FoundStep], prefix: str) -> StepUnknownError:
    shown = [_shown(step, prefix) for step in found[:_NAMED]]
    shown += [f"… and {len(found) - _NAMED} more"] if len(found) > _NAMED else []
    return StepUnknownError(
        explain(f"{word} is the name of {len(found)} outputs", facts=shown, hint="give one of these instead")
    )


def _unknown(word: str, summary: str, known: Sequence[FoundStep], prefix: str) -> StepUnknownError:
    shown_by_word: dict[str, str] = {}
    for step in known:
        shown = _shown(step, prefix)
        shown_by_word |= {step.name: shown, shown: shown}
    near = difflib.get_close_matches(word.strip("/"), shown_by_word, n=2 * _NEAR, cutoff=_CUTOFF)
    names = list(dict.fromkeys(shown_by_word[match] for match in near))[:_NEAR]
    some = list(dict.fromkeys(shown_by_word.values()))[:_NEAR]
    facts = {"near": ", ".join(names)} if names else {"there are": ", ".join(some)} if some else {}
    return StepUnknownError(explain(summary, facts=facts, hint="marin-trace status lists them"))


def _shown(step: FoundStep, prefix: str) -> str:
    return step.output_path.removeprefix(f"{prefix}/")
