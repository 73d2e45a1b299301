"""Command lines: the flags of ``executor_main``, and those of an experiment.

Flags are read with draccus, from dataclasses. This module cuts the command line into flags first, so that repeated
flags, bare booleans and flags of two owners work, and so that an unknown one is an error that names the nearest.
"""

import dataclasses
import difflib
import json
import os
import sys
import typing
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar, cast

from marin_trace.errors import FlagError, MarinTraceError, explain
from marin_trace.runtime.options import DEFAULT_MAX_JOBS
from marin_trace.runtime.record_fields import LONGEST_LEASE_S
from marin_trace.runtime.redaction import is_secret_name, redact_arguments
from marin_trace.safe_text import REDACTED

T = TypeVar("T")

USAGE_ERROR = 2
"""Exit code of a command line that cannot be understood."""


@dataclass(frozen=True)
class ExecutorFlags:
    """The flags of ``executor_main``."""

    prefix: str | None = None
    """Where outputs lie: a directory, or a gs://, s3:// or memory:// URL (default: MARIN_PREFIX, else
    ./marin-outputs)."""
    dry_run: bool = False
    """Show what would happen, and why; writes nothing."""
    full: bool = False
    """In a dry run, show each step of a long fan."""
    run_only: list[str] = field(default_factory=list[str])
    """Regex of step or group names: run those and what they need. May be repeated."""
    until: list[str] = field(default_factory=list[str])
    """Regex of step or group names: leave out all that comes after those. May be repeated."""
    force: list[str] = field(default_factory=list[str])
    """Regex: build these again, finished or not. May be repeated."""
    force_from: list[str] = field(default_factory=list[str])
    """Regex: build these and everything that reads them again. May be repeated."""
    yes: bool = False
    """Build finished outputs again by force without asking on a terminal."""
    strict: bool = False
    """Refuse finished outputs whose function source or unversioned values have changed since they were built."""
    force_run_failed: bool = True
    """Whether to try again what failed before."""
    fail_fast: bool = False
    """After the first failure start nothing more; what runs goes on to its end."""
    max_concurrent: int | None = None
    """How many steps run on this machine at a time (default: the larger of 4 and the cores)."""
    max_jobs: int = DEFAULT_MAX_JOBS
    """How many jobs a cluster is given at a time, pending ones included: they take nothing of this machine."""
    executor_info_base_path: str | None = None
    """Where run records go (default: experiments/ under the prefix)."""
    cluster: str | None = None
    """Where steps with resources run: local, ray (the cluster that this machine is part of), ray://HOST:PORT, fray (the
    cluster whose job this is), fray://HOST:PORT, fray://CLUSTER."""
    lease_seconds: float = 120.0
    """How long another launcher must be silent before its step is taken over."""
    allow_unsafe_store: bool = False
    """Use a store that lets two create the same file: for one launcher at a time. It is recorded."""
    description: str | None = None
    """A sentence for the run's record."""


_own_flags: ContextVar[type | None] = ContextVar("marin_trace_experiment_flags", default=None)
"""The class that ``parse_flags`` has read, for ``--help`` of ``executor_main``."""


@dataclass(frozen=True)
class _Flag:
    """A flag with its values, as the command line has them."""

    name: str
    """Without the dashes."""
    values: tuple[str, ...]
    tokens: tuple[str, ...]


def parse_flags(ConfigClass: type[T], argv: Sequence[str] | None = None) -> T:  # noqa: N803 (the public signature)
    """Reads an experiment's own flags, and takes them out of ``sys.argv``; the rest is ``executor_main``'s.

    **Phase**: before tracing. Each field of the dataclass is a flag, nested ones with dots (``--train.minutes 20``); a
    bare boolean is true; lists are repeated or JSON.

    Args:
        ConfigClass: A dataclass whose fields have defaults (or are required flags).
        argv: The arguments without the program's name. None reads ``sys.argv``, and then ``--help`` and mistakes end
            the process (0 and 2); with ``argv`` given a mistake is raised, and ``sys.argv`` is left alone.

    Returns:
        The flags.

    Raises:
        FlagError: An unknown flag (the nearest is named), a value that does not fit, or a field that is named like a
            flag of ``executor_main``.

    Example:
        >>> from dataclasses import dataclass
        >>> from marin_trace import parse_flags
        >>> @dataclass
        ... class Flags:
        ...     shards: int = 4
        >>> parse_flags(Flags, argv=["--shards", "2", "--dry_run"])
        Flags(shards=2)
    """
    if argv is not None:
        return _parsed_own(ConfigClass, argv)[0]
    try:
        parsed, rest = _parsed_own(ConfigClass, sys.argv[1:])
    except FlagError as error:
        exit_with(error, USAGE_ERROR)
    sys.argv[1:] = rest
    _own_flags.set(ConfigClass)
    return parsed


def _parsed_own(config_class: type[T], argv: Sequence[str]) -> tuple[T, list[str]]:
    known = _flag_types(config_class)
    clash = next((name for name in known if name in _flag_types(ExecutorFlags)), None)
    if clash is not None:
        raise FlagError(
            explain(
                f"{config_class.__qualname__}.{clash} is named like a flag of executor_main",
                hint="give the field another name",
            )
        )
    if "-h" in argv or "--help" in argv:
        print_help(config_class)
        raise SystemExit(0)
    mine: list[_Flag] = []
    rest: list[str] = []
    for flag in _cut(argv):
        if _is_known(flag.name, known) or flag.name == "config_path":
            mine.append(flag)
        elif _is_known(flag.name, _flag_types(ExecutorFlags)):
            rest += flag.tokens
        else:
            raise _unknown_flag(flag.name, {**known, **_flag_types(ExecutorFlags)})
    return _decoded(config_class, mine, known), rest


def parse_executor_flags(argv: Sequence[str]) -> ExecutorFlags:
    """Reads the flags of ``executor_main``.

    Raises:
        FlagError: An unknown flag, or a value that does not fit.
        SystemExit: ``--help`` was asked for, and printed.
    """
    known = _flag_types(ExecutorFlags)
    if "-h" in argv or "--help" in argv:
        print_help(_own_flags.get())
        raise SystemExit(0)
    flags = _cut(argv)
    for flag in flags:
        if not _is_known(flag.name, known):
            raise _unknown_flag(flag.name, known)
    parsed = _decoded(ExecutorFlags, flags, known)
    for name, bound in (("max_concurrent", parsed.max_concurrent), ("max_jobs", parsed.max_jobs)):
        if bound is not None and bound < 1:
            raise FlagError(explain(f"--{name} does not fit: {bound} is less than 1"))
    if not parsed.lease_seconds > 0:
        raise FlagError(explain(f"--lease_seconds does not fit: {parsed.lease_seconds:g} is not more than 0"))
    if parsed.lease_seconds > LONGEST_LEASE_S:
        raise FlagError(explain(f"--lease_seconds does not fit: {parsed.lease_seconds:g} is more than 30 days"))
    return parsed


def exit_with(error: MarinTraceError, code: int) -> NoReturn:
    """Ends the process with an error's message on stderr.

    Raises:
        SystemExit: Always.
    """
    raise SystemExit(told(error, code))


def told(error: MarinTraceError, code: int) -> int:
    """Prints an error's message on stderr, and gives the code back that the process is to end with."""
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    return code


def close_broken_output() -> None:
    """Where whoever read our output has gone away, lets Python end without a message about it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            # What is buffered would be tried again at exit.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def _cut(argv: Sequence[str]) -> list[_Flag]:
    flags: list[_Flag] = []
    position = 0
    while position < len(argv):
        token = argv[position]
        if len(token) < len("--x") or not token.startswith("--"):
            raise FlagError(
                explain(f"{token!r} is no flag, and no flag before it takes it", hint="flags look like --dry_run")
            )
        name, equals, value = token[2:].partition("=")
        end = position + 1
        while not equals and end < len(argv) and not argv[end].startswith("--"):
            end += 1
        values = (value,) if equals else tuple(argv[position + 1 : end])
        flags.append(_Flag(name, values, tuple(argv[position:end])))
        position = end
    return flags


def _flag_types(config_class: Any, before: str = "") -> dict[str, Any]:
    """The type of every flag of a dataclass, nested ones with dots."""
    try:
        hints = typing.get_type_hints(config_class)
    except NameError:
        hints = {}
    types: dict[str, Any] = {}
    for entry in dataclasses.fields(config_class):
        annotation = hints.get(entry.name, Any)
        types[before + entry.name] = annotation
        if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
            types |= _flag_types(annotation, f"{before}{entry.name}.")
    return types


def _is_known(name: str, known: Mapping[str, Any]) -> bool:
    """Whether a flag is one of these, or lies inside one that draccus decides about (a choice class, say)."""
    if name in known:
        return True
    owner = name.rpartition(".")[0]
    while owner and owner not in known:
        owner = owner.rpartition(".")[0]
    if not owner:
        return False
    return not (isinstance(known[owner], type) and dataclasses.is_dataclass(known[owner])) or hasattr(
        known[owner], "get_choice_class"
    )


def _unknown_flag(name: str, known: Mapping[str, Any]) -> FlagError:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5) or difflib.get_close_matches(
        name.replace("-", "_"), known, n=1, cutoff=0.5
    )
    return FlagError(
        explain(
            f"there is no flag --{name}",
            facts={} if near else {"flags": ", ".join(f"--{flag}" for flag in known)},
            hint=f"did you mean --{near[0]}?" if near else None,
        )
    )


def _decoded(config_class: type[T], flags: Sequence[_Flag], known: Mapping[str, Any]) -> T:
    if not flags and config_class is ExecutorFlags:
        return config_class()
    import draccus
    from draccus.utils import DecodingError

    values_by_name: dict[str, list[str]] = {}
    for flag in flags:
        values_by_name.setdefault(flag.name, []).extend(_flag_values(flag, known.get(flag.name)))
    args: list[str] = []
    for name, given in values_by_name.items():
        values = given
        if _is_list(known.get(name)):
            items = [item for value in given for item in _list_items(value, of=typing.get_args(known[name]))]
            values = [json.dumps(items, ensure_ascii=False)]
        if len(values) > 1:
            raise FlagError(
                explain(f"--{name} was given {len(values)} values: {_shown(name, values)}", hint="give it once")
            )
        args.append(f"--{name}={_quoted(values[0], known.get(name))}")
    try:
        return draccus.parse(config_class, args=args)
    except DecodingError as error:
        raise FlagError(_does_not_fit(config_class, error, values_by_name, known)) from error
    except SystemExit as error:
        raise FlagError(
            explain(f"the flags of {config_class.__qualname__} cannot be read: {' '.join(redact_arguments(args))}")
        ) from error


def _quoted(value: str, annotation: Any) -> str:
    """A value for draccus, which reads YAML: text stays as it is, also where YAML sees a number or a comment."""
    if annotation is str or (set(typing.get_args(annotation)) == {str, type(None)} and value not in {"null", "None"}):
        return json.dumps(value, ensure_ascii=False)
    return value


def _does_not_fit(
    config_class: type, error: Any, values_by_name: Mapping[str, Sequence[str]], known: Mapping[str, Any]
) -> str:
    path = [str(part) for part in error.key_path or ()]
    names = (".".join(path[:length]) for length in range(len(path), 0, -1))
    name = next((name for name in names if name in values_by_name), None)
    if name is None:
        place = f"--{'.'.join(path)}" if path else f"a flag of {config_class.__qualname__}"
        return explain(f"{place} does not fit: {error.message}".split("\n", 1)[0])
    given = _shown(name, values_by_name[name])
    return explain(f"--{name} does not take {given!r}: it is {_type_text(known.get(name, Any))}")


def _shown(name: str, values: Iterable[str]) -> str:
    """What was given for a flag, unless its name says that it is a secret."""
    return REDACTED if is_secret_name(name.rpartition(".")[2]) else " ".join(values)


def _flag_values(flag: _Flag, annotation: Any) -> tuple[str, ...]:
    if flag.values:
        return flag.values
    if annotation is bool:
        return ("true",)
    raise FlagError(explain(f"--{flag.name} needs a value", hint=f"--{flag.name} VALUE"))


def _is_list(annotation: Any) -> bool:
    return typing.get_origin(annotation) is list


def _list_items(value: str, *, of: tuple[Any, ...]) -> Iterable[Any]:
    """The items of one value of a list flag: those of a JSON list, else the value itself.

    For a list of text only a JSON list of strings is one: ``[/]`` is a regex, and so is ``[1]``.
    """
    for text in (value, value.replace("'", '"')):
        try:
            items = json.loads(text)
        except ValueError:
            continue
        if isinstance(items, list) and (of != (str,) or all(isinstance(i, str) for i in cast("list[Any]", items))):
            return cast("list[Any]", items)
    return [value]


def print_help(own: type | None) -> None:
    """Prints the flags of an experiment, if it has any, and those of ``executor_main``."""
    print(f"usage: {sys.argv[0]} [flags]")
    sections = [("this experiment", own), ("running it", ExecutorFlags)]
    for title, config_class in sections:
        if config_class is None:
            continue
        print(f"\n{title}:")
        for line in _help_lines(config_class):
            print(line)


def _help_lines(config_class: Any, before: str = "") -> Iterable[str]:
    from draccus.wrappers import docstring

    types = _flag_types(config_class)
    for entry in dataclasses.fields(config_class):
        annotation = types[entry.name]
        if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
            yield from _help_lines(annotation, f"{before}{entry.name}.")
            continue
        doc = cast("Any", docstring).get_attribute_docstring(config_class, entry.name)
        text = " ".join((doc.docstring_below or doc.comment_inline or doc.comment_above or "").split())
        yield f"  --{before}{entry.name} {_type_text(annotation)}".ljust(36) + f" {text}{_default_text(entry)}"


def _type_text(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) and not typing.get_args(annotation) else str(annotation)


def _default_text(entry: dataclasses.Field[Any]) -> str:
    if entry.default is dataclasses.MISSING:
        return "" if entry.default_factory is not dataclasses.MISSING else " (required)"
    return "" if entry.default is None or entry.default is False else f" (default: {entry.default})"
