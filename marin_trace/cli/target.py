"""What a command looks at: an experiment file with the flags that it takes, or a prefix.

Every command that reads outputs takes ``[FILE.py FLAGS… | PREFIX]`` at its end. What stands before the file is the
command's; after it the experiment's flags and the command's own may be mixed, as for ``plan``.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, final

from marin_trace.cli.experiment import requested_by
from marin_trace.cli.plan import exit_code
from marin_trace.cli.request import RunRequest
from marin_trace.runtime.prefix import current_prefix, normalise_prefix, use_prefix
from marin_trace.runtime.records import RUN_RECORDS_DIRECTORY
from marin_trace.storage.files import join

__all__ = ["AddCommand", "Target", "TargetedCommand", "add_targeted"]

_EXPERIMENT_SUFFIX = ".py"


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
    target: str = "FILE.py FLAGS | PREFIX"


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
    words = " ".join(word.upper() for word in shape.words)
    flags = " ".join(action.option_strings[-1] for action in own._actions if action.option_strings)  # noqa: SLF001
    parser.usage = " ".join(f"marin-trace {shape.name} [{flags}] {words} [{shape.target}]".split())
    parser.add_argument(
        "arguments",
        nargs=argparse.REMAINDER,
        metavar=f"{words} [{shape.target}]".strip(),
        help="an experiment file, after it the experiment's flags; or a prefix (default: the current one)",
    )


def _run(
    options: argparse.Namespace, shape: CommandShape, own: argparse.ArgumentParser, command: TargetedCommand
) -> int:
    before, file, after = _split_at_file(options.arguments)
    _parse_words(before, options, shape, own, has_file=file is not None)
    if file is None:
        chosen = options.where or options.prefix
        with use_prefix(normalise_prefix(chosen) if chosen else current_prefix()) as prefix:
            return command(options, Target(prefix))
    _, rest = own.parse_known_args(after, options)
    argv = [*rest, *(["--prefix", options.prefix] if options.prefix else []), *options.after_dashes]
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
    if not has_file:
        parser.add_argument("where", nargs="?", metavar="PREFIX")
    parser.parse_args(words, options)
