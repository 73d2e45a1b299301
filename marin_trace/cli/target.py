"""What a command looks at: an experiment file with the flags that it takes, or a prefix.

Every command that reads outputs takes ``[FILE.py FLAGS… | PREFIX]`` at its end. What stands before the file is the
command's; after it the experiment's flags and the command's own may be mixed, as for ``plan``.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol, final

from marin_trace.cli.experiment import requested_by
from marin_trace.cli.plan import exit_code
from marin_trace.cli.request import RunRequest
from marin_trace.ir.refs import is_absolute
from marin_trace.runtime.prefix import current_prefix, use_prefix
from marin_trace.runtime.records import RUN_RECORDS_DIRECTORY
from marin_trace.storage.files import join

__all__ = ["AddCommand", "CommandShape", "Target", "TargetedCommand", "add_targeted"]

_EXPERIMENT_SUFFIX: Final = ".py"
_TARGET: Final = "FILE.py FLAGS | PREFIX"


@final
@dataclass(frozen=True, slots=True)
class Target:
    """Where a command looks. While it runs, its prefix is the current one."""

    prefix: str
    """Normalised."""
    request: RunRequest | None = None
    """Of an experiment; None: the whole prefix."""

    @property
    def records_directory(self) -> str:
        """Where run records lie."""
        chosen = self.request and self.request.flags.executor_info_base_path
        return chosen or join(self.prefix, RUN_RECORDS_DIRECTORY)

    @property
    def experiment(self) -> str | None:
        """Whose runs are meant; None: everybody's."""
        return self.request and self.request.experiment


TargetedCommand = Callable[[argparse.Namespace, Target], int]
"""A command: its options and what it looks at; gives the exit code."""


class AddCommand(Protocol):
    """Adds a command to the parser of all commands."""

    def __call__(
        self,
        name: str,
        command: Callable[[argparse.Namespace], int],
        text: str,
        own: argparse.ArgumentParser | None = None,
    ) -> argparse.ArgumentParser: ...


@final
@dataclass(frozen=True, slots=True)
class CommandShape:
    """What a command is called, and what it takes before its target."""

    name: str
    text: str
    """Its help, in a sentence."""
    words: Sequence[str] = field(default=())
    """Positional arguments that must be given."""
    further: str | None = None
    """A positional argument that may be given any number of times."""


def add_targeted(add: AddCommand, shape: CommandShape, own: argparse.ArgumentParser, command: TargetedCommand) -> None:
    """Adds a command that takes a target.

    Args:
        add: Makes a subparser.
        shape: Its name, and its positional arguments.
        own: Its flags; ``--prefix`` is added here, ``--json`` by ``add``.
        command: What it does.
    """
    own.add_argument("--prefix", help="where outputs lie (default: MARIN_PREFIX, else ./marin-outputs)")
    parser = add(shape.name, partial(_run, shape=shape, own=own, command=command), shape.text, own)
    words = " ".join([*map(str.upper, shape.words), *([f"[{shape.further.upper()} …]"] if shape.further else [])])
    parser.usage = " ".join(f"marin-trace {shape.name} [OPTIONS] {words} [{_TARGET}]".split())
    parser.add_argument(
        "arguments",
        nargs=argparse.REMAINDER,
        metavar=f"{words} [{_TARGET}]".strip(),
        help="an experiment file, after it the experiment's flags; or a prefix (default: the current one)",
    )


def _run(
    options: argparse.Namespace, shape: CommandShape, own: argparse.ArgumentParser, command: TargetedCommand
) -> int:
    before, file, after = _split_at_file(options.arguments)
    _parse_words(before, options, shape, own, has_file=file is not None)
    if file is None:
        chosen = options.prefix if options.where is None else options.where
        with use_prefix(current_prefix() if chosen is None else chosen) as prefix:
            return command(options, Target(prefix))
    _, rest = own.parse_known_args(after, options)
    argv = [*rest, *([] if options.prefix is None else ["--prefix", options.prefix]), *options.after_dashes]
    try:
        with requested_by(file, argv, replaces_script=options.is_own_process) as request:
            return command(options, Target(request.prefix, request))
    except SystemExit as end:
        return exit_code(end)


def _split_at_file(words: Sequence[str]) -> tuple[list[str], str | None, list[str]]:
    """What stands before an experiment file, the file, and what follows it."""
    for index, word in enumerate(words):
        if word.endswith(_EXPERIMENT_SUFFIX) and not word.startswith("-"):
            return list(words[:index]), word, list(words[index + 1 :])
    return list(words), None, []


def _parse_words(
    words: Sequence[str],
    options: argparse.Namespace,
    shape: CommandShape,
    own: argparse.ArgumentParser,
    *,
    has_file: bool,
) -> None:
    """Puts the command's own words and flags into ``options``; ends the process where they do not fit (2)."""
    parser = argparse.ArgumentParser(
        prog=f"marin-trace {shape.name}", parents=[own], add_help=False, allow_abbrev=False
    )
    for word in shape.words:
        parser.add_argument(word, metavar=word.upper())
    if shape.further:
        parser.add_argument(shape.further, nargs="*", metavar=shape.further.upper())
    elif not has_file:
        parser.add_argument("where", nargs="?", metavar="PREFIX")
    parser.parse_intermixed_args(words, options)
    if shape.further:
        given: list[str] = getattr(options, shape.further)
        is_place = bool(given) and not has_file and _is_place(given[-1])
        options.where = given.pop() if is_place else None


def _is_place(word: str) -> bool:
    return is_absolute(word) or "/" in word or word.startswith((".", "~")) or os.path.isdir(word)
