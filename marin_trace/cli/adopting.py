"""What ``marin-trace adopt`` does: for one step, or for all steps of a migrated experiment."""

import argparse
import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, cast, final

from marin_trace.cli.experiment import requested_by
from marin_trace.cli.plan import exit_code
from marin_trace.cli.request import RunRequest
from marin_trace.cli.tables import print_rows
from marin_trace.errors import ExperimentError, FlagError, MarinTraceError, explain
from marin_trace.ir.refs import is_absolute
from marin_trace.lowering.paths import normal_prefix
from marin_trace.lowering.step_spec import StepSpec
from marin_trace.planning.adoptable import Adoptable, outputs_of_older_steps, weighed
from marin_trace.planning.contradictions import contradictions
from marin_trace.planning.words import age_text, size_text
from marin_trace.runtime.adoption import adopt, adoption_of
from marin_trace.runtime.prefix import current_prefix
from marin_trace.runtime.records import read_step_info
from marin_trace.runtime.run_plan import brought_by
from marin_trace.runtime.schedule import wanted
from marin_trace.runtime.status import StepStatus, read_status, read_statuses
from marin_trace.storage.files import is_local, join, local_path

__all__ = ["run_adopt"]

_DONE: Final = 0
_LEFT: Final = 1
_COLUMNS: Final = ("result", "step", "output", "size", "age", "detail")
_USAGE: Final = "marin-trace adopt STEP PATH --experiment FILE.py, or marin-trace adopt --from-legacy FILE.py"


def run_adopt(options: argparse.Namespace, own: argparse.ArgumentParser) -> int:
    """Runs the command.

    Args:
        options: As parsed; see `marin_trace.cli.adopt`.
        own: The command's own flags alone, which may also follow the experiment's file.

    Returns:
        The exit code.
    """
    try:
        return _adopted_as_asked(options, own)
    except SystemExit as end:  # the experiment could not understand its flags, or has told what they are
        return exit_code(end)


def _adopted_as_asked(options: argparse.Namespace, own: argparse.ArgumentParser) -> int:
    file, argv = _experiment(options, own)
    if options.from_legacy is not None:
        if options.step is not None:
            raise FlagError(explain("--from-legacy looks at all steps, and takes no STEP", hint=_USAGE))
        return _adopt_all(options, file, argv)
    if options.path is None or options.yes or options.old:
        raise FlagError(explain("adopt takes a step and a path; --old and --yes go with --from-legacy", hint=_USAGE))
    if options.experiment is None:
        return _adopt_recorded(options)
    with _requested(options, file, argv) as request:
        step = _step_named(options.step, request)
        source = _source(options.path, request.prefix)
        return _adopt_one(options, step, source)


def _experiment(options: argparse.Namespace, own: argparse.ArgumentParser) -> tuple[str, list[str]]:
    """The experiment's file and what is for it; the command's own flags that follow are put into ``options``."""
    given = options.from_legacy if options.from_legacy is not None else options.experiment
    if given is None:
        return "", []
    _, rest = own.parse_known_args(given, options)
    if not rest:
        raise FlagError(explain("no experiment is given", hint=_USAGE))
    return rest[0], [*rest[1:], *options.after_dashes]


def _requested(options: argparse.Namespace, file: str, argv: Sequence[str]) -> AbstractContextManager[RunRequest]:
    return requested_by(file, argv, replaces_script=options.is_own_process)


def _source(path: str, prefix: str) -> str:
    """The path of an output as given: absolute, or relative to the working directory, else to the prefix."""
    if is_absolute(path) or os.path.isdir(path):
        return normal_prefix(local_path(path)) if is_local(path) else path.rstrip("/")
    return join(prefix, path)


def _step_named(name: str, request: RunRequest) -> StepSpec:
    specs = [step for step in request.steps.values() if isinstance(step, StepSpec)]
    found = [spec for spec in specs if name in (spec.name, spec.name_with_hash, spec.output_path)]
    if len(found) == 1:
        return found[0]
    if found:
        names = [f"{spec.name_with_hash}  {spec.location}" for spec in found]
        summary, facts = f"{len(found)} steps are called {name}", names
        hint = f"marin-trace adopt {found[0].name_with_hash} PATH --experiment FILE.py"
    else:
        near = difflib.get_close_matches(name, [spec.name for spec in specs], n=3, cutoff=0.4)
        summary, facts = f"the experiment has no step {name!r}", [f"near: {', '.join(near)}"] if near else []
        hint = "marin-trace plan FILE.py lists them; a group has no output of its own"
    raise ExperimentError(explain(summary, facts=facts, hint=hint))


def _adopt_one(options: argparse.Namespace, step: StepSpec, source: str) -> int:
    adoption = adoption_of(step.output_path, source, step.fingerprint)
    found = weighed(adoption.source, read_status(adoption.source))
    changes = [str(change) for change in contradictions(adoption.source, step)]
    kind = adopt(adoption, step.fingerprint, step.record())
    _print([_row(kind.value, step.name, found, "; ".join(changes))], as_json=options.json)
    return _DONE


def _adopt_recorded(options: argparse.Namespace) -> int:
    """Adopts for an output path whose step is known from the record of an attempt."""
    output_path = _source(options.step, current_prefix())
    info = read_step_info(output_path)
    fingerprint: Any = None if info is None else info.get("fingerprint")
    if not isinstance(fingerprint, str):
        raise ExperimentError(
            explain(
                f"no attempt at {output_path} has recorded what its recipe is",
                hint=f"marin-trace adopt {options.step} {options.path} --experiment FILE.py",
            )
        )
    adoption = adoption_of(output_path, _source(options.path, current_prefix()), fingerprint)
    found = weighed(adoption.source, read_status(adoption.source))
    kind = adopt(adoption, fingerprint)
    _print([_row(kind.value, str(cast("dict[str, Any]", info).get("name")), found)], as_json=options.json)
    return _DONE


class _Result(StrEnum):
    """What becomes of one step of an experiment."""

    HIT = "hit"
    """It is finished: nothing to do."""
    WOULD_ADOPT = "would adopt"
    ADOPTED = "adopted"
    DIFFERS = "differs"
    """Each candidate was built with other values, or from other inputs."""
    AMBIGUOUS = "ambiguous"
    """There are several candidates, and nothing speaks against either."""
    REFUSED = "refused"
    NONE = "none"
    """Nothing of its name is finished: it would run."""
    NOT_NEEDED = "not needed"
    """The same, and nothing would read it."""


_SETTLED: Final = (_Result.HIT, _Result.WOULD_ADOPT, _Result.ADOPTED)


@final
@dataclass(frozen=True, slots=True)
class _Candidate:
    """A step, and an output that it may adopt."""

    step: StepSpec
    result: _Result
    found: Adoptable | None = None
    detail: str = ""


def _adopt_all(options: argparse.Namespace, file: str, argv: Sequence[str]) -> int:
    with _requested(options, file, argv) as request:
        old = None if options.old is None else _outputs_of_old_form(options, request.prefix)
        candidates = list(_candidates(request, old))
        if options.yes:
            candidates = [_adopted(candidate) for candidate in candidates]
        candidates = _with_needs(candidates, request)
    rows = [_row(each.result.value, each.step.name, each.found, each.detail) for each in candidates]
    _print(rows, as_json=options.json)
    possible = sum(candidate.result is _Result.WOULD_ADOPT for candidate in candidates)
    if possible and not options.json:
        print(f"--yes adopts {possible} output{'' if possible == 1 else 's'}: no data is moved")
    return _DONE if all(candidate.result in (*_SETTLED, _Result.NOT_NEEDED) for candidate in candidates) else _LEFT


def _outputs_of_old_form(options: argparse.Namespace, prefix: str) -> dict[str, str]:
    """Where the old form of an experiment has its outputs, by step name."""
    with requested_by(options.old, ["--prefix", prefix], replaces_script=False) as request:
        return {step.name: path for path, step in request.steps.items()}


def _candidates(request: RunRequest, old: Mapping[str, str] | None) -> Iterable[_Candidate]:
    statuses = read_statuses(request.steps)
    steps = {path: step for path, step in request.steps.items() if isinstance(step, StepSpec)}
    missing = [step for path, step in steps.items() if not statuses[path].is_finished]
    # What another recipe built at a step's own path can be adopted in place.
    paths = {path: (path,) for path in steps if statuses[path].is_finished}
    if old is None:
        paths |= outputs_of_older_steps(missing, request.prefix)
    else:
        paths |= {step.output_path: (old[step.name],) for step in missing if step.name in old}
    known = read_statuses(path for candidates in paths.values() for path in candidates)
    for path, step in steps.items():
        status = statuses[path]
        if status.is_finished and status.fingerprint in (None, step.fingerprint):
            detail = f"adopted from {status.adopted_from}" if status.adopted_from else ""
            yield _Candidate(step, _Result.HIT, detail=detail)
        else:
            yield from _of_step(step, paths.get(path, ()), known)


def _of_step(step: StepSpec, paths: Sequence[str], known: Mapping[str, StepStatus]) -> Iterable[_Candidate]:
    finished = [path for path in paths if known[path].is_finished]
    if not finished:
        yield _Candidate(step, _Result.NONE, detail="; ".join(f"{path} is not finished" for path in paths))
    changes = {path: "; ".join(map(str, contradictions(path, step))) for path in finished}
    fitting = [path for path in finished if not changes[path]]
    for path in fitting or finished:
        found = weighed(path, known[path])
        if len(fitting) > 1:
            hint = f"marin-trace adopt {step.name} {path} --experiment FILE.py"
            yield _Candidate(step, _Result.AMBIGUOUS, found, hint)
        else:
            yield _Candidate(step, _Result.DIFFERS if changes[path] else _Result.WOULD_ADOPT, found, changes[path])


def _with_needs(candidates: Sequence[_Candidate], request: RunRequest) -> list[_Candidate]:
    """The same, with what no run would build once all that would be adopted is."""
    settled = {candidate.step.output_path for candidate in candidates if candidate.result in _SETTLED}
    roots = [root.output_path for root in request.roots]
    needed = wanted(roots, is_finished=settled.__contains__, needs=lambda path: brought_by(request.steps[path]))
    return [
        replace(candidate, result=_Result.NOT_NEEDED)
        if candidate.result is _Result.NONE and candidate.step.output_path not in needed
        else candidate
        for candidate in candidates
    ]


def _adopted(candidate: _Candidate) -> _Candidate:
    if candidate.result is not _Result.WOULD_ADOPT or candidate.found is None:
        return candidate
    step = candidate.step
    try:
        adoption = adoption_of(step.output_path, candidate.found.output_path, step.fingerprint)
        adopt(adoption, step.fingerprint, step.record())
    except MarinTraceError as error:  # the others are adopted all the same
        return _Candidate(step, _Result.REFUSED, candidate.found, str(error).partition("\n")[0])
    return _Candidate(step, _Result.ADOPTED, candidate.found)


def _row(result: str, step: str, found: Adoptable | None, detail: str = "") -> dict[str, Any]:
    return {
        "result": result,
        "step": step,
        "output": "" if found is None else found.output_path,
        "size": None if found is None else found.size,
        "age": None if found is None else found.age_seconds,
        "detail": detail,
    }


def _print(rows: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    if not as_json:
        rows = [
            {**row, "size": "", "age": ""}
            if row["size"] is None
            else {**row, "size": size_text(row["size"]), "age": age_text(row["age"])}
            for row in rows
        ]
    print_rows(rows, _COLUMNS, as_json=as_json)
