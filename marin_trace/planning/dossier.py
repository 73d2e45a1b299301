"""One step in full: its recipe by config path, who built it when, and how it differs from its earlier builds.

What is compared, and how, is what plans do (`marin_trace.planning.earlier`, `marin_trace.planning.advice`). Reads the
records beside the step and its earlier builds, and writes nothing.
"""

import enum
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast, final

from marin_trace.lowering.paths import name_with_hash
from marin_trace.planning.advice import changed_config
from marin_trace.planning.attempts import AttemptTold, read_attempts
from marin_trace.planning.earlier import builds_beside
from marin_trace.planning.outputs_below import is_output, name_of_output, statuses_of
from marin_trace.planning.plan import read_deps_of
from marin_trace.planning.standing import StepStanding, standing_of
from marin_trace.planning.step_lookup import FoundStep
from marin_trace.runtime.records import FieldChange, field_differences, read_step_infos
from marin_trace.runtime.redaction import redact, redact_parts
from marin_trace.runtime.run_plan import RunnableStep

__all__ = ["Built", "Dossier", "OtherBuild", "RecipePart", "Role", "dossier_of"]

_INDEX: Final = re.compile(r"\[(?:'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"|([^\]]*))\]")
_SET: Final = re.compile(r"\w+\(.*\)", re.DOTALL)


class Role(enum.StrEnum):
    """What a value of a step's config contributes."""

    RECIPE = "recipe"
    """It is in the fingerprint: another value is another step."""
    INPUT = "input"
    """The output of another step; that step's fingerprint is in this one's."""
    UNVERSIONED = "unversioned"
    """In no fingerprint."""


@final
@dataclass(frozen=True, slots=True)
class RecipePart:
    """One value that a step is made of."""

    path: str
    """``config.tokenizer.vocab_size``."""
    value: str
    """As a Python literal; secrets are redacted."""
    role: Role
    input: StepStanding | None = None
    """Of an input: the step, and how it stands now."""
    is_rebuilt: bool = False
    """Of an input: whether it was built again since this step was."""


@final
@dataclass(frozen=True, slots=True)
class Built:
    """Who built an output, and from what."""

    by: str
    """``user@host``."""
    commit: str | None
    is_dirty: bool
    """Whether tracked files differed from the commit."""
    argv: tuple[str, ...]
    working_directory: str | None
    python: str | None


@final
@dataclass(frozen=True, slots=True)
class OtherBuild:
    """Another build of the same step: an output by another recipe."""

    standing: StepStanding
    built: Built | None
    changes: tuple[FieldChange, ...] | None
    """From it to the step; None: it left no recipe to compare with."""


@final
@dataclass(frozen=True, slots=True)
class Dossier:
    """A step in full."""

    standing: StepStanding
    fingerprint: str | None
    functions: tuple[str, ...]
    location: str | None
    """``file:line`` of the step call."""
    description: str | None
    recipe: tuple[RecipePart, ...]
    built: Built | None
    attempts: tuple[AttemptTold, ...]
    earlier: tuple[OtherBuild, ...]
    """Newest first."""


def dossier_of(
    step: FoundStep, prefix: str, *, planned: RunnableStep | None = None, known_builds: Sequence[str] = ()
) -> Dossier:
    """Everything that is known of a step.

    Args:
        step: Which.
        prefix: Under which earlier builds are looked for.
        planned: The step as an experiment has it; its recipe is today's. None: as its record beside the output says.
        known_builds: Output paths of earlier builds that are known beside those of its name.

    Raises:
        StorageError: The store cannot be read.
    """
    path = step.output_path
    beside = builds_beside([step], prefix, without={path})[path] if path.startswith(f"{prefix}/") else ()
    builds = [build for build in dict.fromkeys((*beside, *known_builds)) if build != path]
    infos = read_step_infos([path, *builds])
    info = infos.get(path, {})
    parts, config = _recipe_of(planned, info)
    deps = _deps_of(planned, info, prefix)
    statuses = statuses_of([path, *builds, *deps.values()])
    standing = standing_of(step.name, path, statuses[path])
    inputs = {
        text: standing_of(name_of_output(dep, prefix), dep, statuses[dep]) for text, dep in deps.items() if dep != path
    }
    earlier = [
        OtherBuild(
            standing_of(name_of_output(build, prefix), build, statuses[build]),
            _built(infos.get(build, {})),
            _changes(infos.get(build, {}), parts),
        )
        for build in builds
        if build in infos or is_output(statuses[build])
    ]
    earlier.sort(key=lambda build: build.standing.since or "", reverse=True)
    return Dossier(
        standing=standing,
        fingerprint=planned.fingerprint if planned else _text(info.get("fingerprint")),
        functions=tuple(planned.functions if planned else _texts(info.get("functions"))),
        location=planned.location if planned else _text(info.get("location")),
        description=_text(info.get("description")),
        recipe=tuple(_recipe(parts, config, inputs, standing)),
        built=_built(info),
        attempts=tuple(read_attempts(path)),
        earlier=tuple(earlier),
    )


def _recipe_of(planned: RunnableStep | None, info: Mapping[str, Any]) -> tuple[dict[str, str], Any]:
    """The parts of the recipe, and the whole config, both redacted."""
    if planned is None:
        return _parts_of(info), info.get("config")
    config = getattr(planned, "config", None)
    return redact_parts(planned.recipe_parts()), redact(config()) if callable(config) else None


def _parts_of(info: Mapping[str, Any]) -> dict[str, str]:
    parts: Any = info.get("parts")
    entries = cast("dict[str, object]", parts).items() if isinstance(parts, dict) else ()
    return {path: text for path, text in entries if isinstance(text, str)}


def _deps_of(planned: RunnableStep | None, info: Mapping[str, Any], prefix: str) -> dict[str, str]:
    """The output paths of what is read, by what stands for each in the recipe."""
    if planned is not None:
        return {dep.name_with_hash: dep.output_path for dep in read_deps_of(planned)}
    deps = _texts(info.get("deps"))
    # A recipe says name and hash, which the path of an output at a chosen place does not.
    chosen = read_step_infos(dep for dep in deps if name_of_output(dep, prefix) == dep.removeprefix(f"{prefix}/"))
    recorded = {dep: name_with_hash(str(its.get("name")), str(its.get("fingerprint"))) for dep, its in chosen.items()}
    return {recorded.get(dep) or dep.removeprefix(f"{prefix}/"): dep for dep in deps}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: object) -> list[str]:
    return [item for item in cast("list[object]", value) if isinstance(item, str)] if isinstance(value, list) else []


def _recipe(
    parts: Mapping[str, str], config: Any, inputs: Mapping[str, StepStanding], step: StepStanding
) -> Iterable[RecipePart]:
    for path, text in parts.items():
        standing = next((known for head, known in inputs.items() if _is_use(text, head)), None)
        if text == Role.UNVERSIONED:
            continue  # told below, with its value
        if standing is None:
            yield RecipePart(path, text, Role.RECIPE)
            continue
        built_with = step.status.inputs.get(standing.output_path)
        is_rebuilt = built_with is not None and standing.status.epoch > built_with
        yield RecipePart(path, text, Role.INPUT, standing, is_rebuilt)
    yield from _unversioned(parts, config)


def _is_use(text: str, name_with_hash: str) -> bool:
    rest = text.removeprefix(name_with_hash)
    return len(rest) < len(text) and (not rest or rest[0] in "/. ")


def _unversioned(parts: Mapping[str, str], config: Any) -> Iterable[RecipePart]:
    """The values of a config that are in no fingerprint."""
    known = {_dotted(path): text for path, text in parts.items()}
    around = {above for path in known for above in _above(path)}
    for change in changed_config({}, config) if config else ():
        path = _dotted(change.path)
        if change.new is None or path in around or known.get(path, Role.UNVERSIONED) != Role.UNVERSIONED:
            continue
        # The items of a set have no paths of their own in a recipe.
        if not any(_SET.fullmatch(known.get(above, "")) for above in _above(path)):
            yield RecipePart(change.path, change.new, Role.UNVERSIONED)


def _dotted(path: str) -> str:
    """A config path with its keys and indices as fields: a recorded config does not tell them apart."""
    return _INDEX.sub(lambda found: f".{_dotted(found[1] or found[2] or '') or found[3] or ''}", path)


def _above(path: str) -> Iterable[str]:
    """The config paths around one, nearest first."""
    while (end := path.rfind(".")) > 0:
        path = path[:end]
        yield path


def _built(info: Mapping[str, Any]) -> Built | None:
    provenance: Any = info.get("provenance")
    if not isinstance(provenance, dict):
        return None
    facts = cast("dict[str, Any]", provenance)
    return Built(
        by=f"{facts.get('user')}@{facts.get('host')}",
        commit=_text(facts.get("git_commit")),
        is_dirty=facts.get("git_dirty") is True,
        argv=tuple(_texts(facts.get("argv"))),
        working_directory=_text(facts.get("working_directory")),
        python=_text(facts.get("python")),
    )


def _changes(info: Mapping[str, Any], parts: Mapping[str, str]) -> tuple[FieldChange, ...] | None:
    old = _parts_of(info)
    return tuple(field_differences(old, parts)) if old and parts else None
