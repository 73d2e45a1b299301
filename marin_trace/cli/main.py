"""``marin-trace``: what people do to outputs from outside a run.

Exit codes: 0 all is well, or done; 1 something was found, or could not be done as things stand; 2 the command line;
3 the store cannot be used; 130 Ctrl-C; 141 the output was closed. ``plan --exit-code`` has its own.
"""

import argparse
import gc
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from marin_trace.cli import lint, migrate
from marin_trace.cli.flags import USAGE_ERROR, close_broken_output, told
from marin_trace.cli.tables import print_rows
from marin_trace.errors import FlagError, MarinTraceError, PrefixError, RunError, StorageError, explain
from marin_trace.runtime.interrupts import exit_code_of
from marin_trace.runtime.prefix import current_prefix, normalise_prefix

if TYPE_CHECKING:
    from marin_trace.runtime.maintenance import Check, Garbage

__all__ = ["main"]

_DONE: Final = 0
_FOUND: Final = 1
_STORE_ERROR: Final = 3
_OUTPUT_CLOSED: Final = 141
_UPKEEP: Final = ("verify", "gc", "cancel", "unlock", "lint", "migrate")
_WITH_MODULES: Final = ("plan", "status", "why", "logs", "history", "graph", "path", "adopt")
"""The commands that have a module each, `marin_trace.cli.NAME`, which is loaded when it is called or to tell of it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: The command line without the program's name; None reads ``sys.argv``.

    Returns:
        The exit code.
    """
    try:
        given = list(sys.argv[1:] if argv is None else argv)
        split = given.index("--") if "--" in given else len(given)
        known = argparse.Namespace(is_own_process=argv is None, after_dashes=given[split + 1 :])
        options = _parser(given[0] if given else "").parse_args(given[:split], known)
        command: Callable[[argparse.Namespace], int] = options.command
        return command(options)
    except (PrefixError, FlagError) as error:
        return told(error, USAGE_ERROR)
    except StorageError as error:
        return told(error, _STORE_ERROR)
    except MarinTraceError as error:
        return told(error, _FOUND)
    except KeyboardInterrupt as error:
        return exit_code_of(error)
    except BrokenPipeError:
        return _OUTPUT_CLOSED
    finally:
        close_broken_output()
        if argv is None:
            # The process ends, and the system frees a graph of 10,000 steps sooner than a last look for cycles.
            gc.freeze()


def _parser(called: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="marin-trace", description="What can be done to outputs from outside a run.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str,
        command: Callable[[argparse.Namespace], int],
        text: str,
        own: argparse.ArgumentParser | None = None,
    ) -> argparse.ArgumentParser:
        flags = own or argparse.ArgumentParser(add_help=False)
        flags.add_argument("--json", action="store_true", help="print one JSON value")
        added = commands.add_parser(name, help=text, description=text, parents=[flags], allow_abbrev=False)
        added.set_defaults(command=command)
        return added

    if called not in _UPKEEP:
        for name in (called,) if called in _WITH_MODULES else _WITH_MODULES:
            module = importlib.import_module(f"marin_trace.cli.{name}")
            add_command: Callable[..., None] = getattr(module, f"add_{name}")
            add_command(add)
    if called not in _WITH_MODULES:
        _add_upkeep(add)
    return parser


def _add_upkeep(add: Callable[..., argparse.ArgumentParser]) -> None:
    verify = add("verify", _verify, "Compare finished outputs with what was committed; 1 if any differs.")
    verify.add_argument("path", nargs="*", help="outputs, or directories of outputs (default: the prefix)")
    garbage = add("gc", _gc, "List what can be deleted. Deletes nothing without --delete, and never a finished output.")
    garbage.add_argument("path", nargs="*", help="outputs, or directories of outputs (default: the prefix)")
    garbage.add_argument("--delete", action="store_true", help="delete what is listed")
    cancel = add("cancel", _cancel, "Ask whoever builds an output to stop; 1 if nobody does.")
    cancel.add_argument("output", help="the output path")
    cancel.add_argument("--why", default="no reason given", help="a sentence for the attempt's log")
    unlocking = add("unlock", _unlock, "Show what speaks for the death of an attempt's owner, and with --yes seal it.")
    unlocking.add_argument("output", help="the output path")
    unlocking.add_argument("--yes", action="store_true", help="seal it: its owner can no longer commit")
    lint.add_arguments(add("lint", lint.lint, lint.SUMMARY))
    migrate.add_arguments(add("migrate", migrate.migrate, migrate.SUMMARY))


def _verify(options: argparse.Namespace) -> int:
    from marin_trace.runtime.maintenance import CheckKind, check_output

    checks = [check_output(output) for output in _outputs(options.path)]
    rows = [
        {"result": check.kind.value, "output": check.output_path, "detail": check.detail, "files": _files_of(check)}
        for check in checks
    ]
    if options.json:
        print_rows(rows, (), as_json=True)
    else:
        lines = [row for row, check in zip(rows, checks, strict=True) for row in _lines_of(row, check)]
        print_rows(lines, ("result", "output", "detail"), as_json=False)
    is_bad = any(check.kind in (CheckKind.DAMAGED, CheckKind.CORRUPT) for check in checks)
    return _FOUND if is_bad else _DONE


def _files_of(check: "Check") -> list[dict[str, str]]:
    return [{"path": change.path, "change": change.kind.value} for change in check.changes]


def _lines_of(row: dict[str, Any], check: "Check") -> list[dict[str, Any]]:
    files_path = check.adopted_from or check.output_path
    files = [
        {"result": f"  {change.kind.value}", "output": f"{files_path}/{change.path}", "detail": ""}
        for change in check.changes
    ]
    return [row, *files]


def _gc(options: argparse.Namespace) -> int:
    from marin_trace.runtime.maintenance import collect_garbage

    found = [garbage for output in _outputs(options.path) for garbage in collect_garbage(output)]
    results = [_delete(garbage) if options.delete else "would be deleted" for garbage in found]
    rows = [
        {
            "kind": garbage.kind.value,
            "bytes": garbage.size,
            "path": garbage.files[0] if len(garbage.files) == 1 else garbage.output_path,
            "result": result,
            "reason": garbage.reason,
            "files": list(garbage.files),
        }
        for garbage, result in zip(found, results, strict=True)
    ]
    print_rows(rows, ("kind", "bytes", "path", "result", "reason"), as_json=options.json)
    return _FOUND if any(result.startswith("kept") for result in results) else _DONE


def _delete(garbage: "Garbage") -> str:
    from marin_trace.runtime.maintenance import delete_garbage

    try:
        delete_garbage(garbage)
    except RunError as error:
        return f"kept: {str(error).partition(chr(10))[0]}"
    return "deleted"


def _cancel(options: argparse.Namespace) -> int:
    from marin_trace.runtime.maintenance import cancel_attempt

    output = normalise_prefix(options.output)
    evidence = cancel_attempt(output, why=options.why)
    result = "ended" if evidence.is_gone else "asked"
    rows = [{"result": result, "output": output, "facts": list(evidence.facts)}]
    lines = [{"result": result, "output": output, "detail": fact} for fact in evidence.facts]
    print_rows(rows if options.json else lines, ("result", "output", "detail"), as_json=options.json)
    return _DONE


def _unlock(options: argparse.Namespace) -> int:
    from marin_trace.runtime.maintenance import evidence_of, unlock

    output = normalise_prefix(options.output)
    evidence = evidence_of(output)
    if evidence is None:
        raise RunError(explain(f"no attempt is open at {output}"))
    result = unlock(output, evidence.claim.epoch).value if options.yes else "open"
    facts = [*evidence.facts, *([] if options.yes else ["--yes seals it: its owner can no longer commit"])]
    rows = [{"result": result, "output": output, "owner_is_gone": evidence.is_gone, "facts": facts}]
    lines = [{"result": result, "output": output, "detail": fact} for fact in facts]
    print_rows(rows if options.json else lines, ("result", "output", "detail"), as_json=options.json)
    return _DONE if options.yes else _FOUND


def _outputs(paths: Sequence[str]) -> list[str]:
    from marin_trace.runtime.maintenance import find_outputs

    found: dict[str, None] = {}
    for root in [normalise_prefix(path) for path in paths] or [current_prefix()]:
        outputs = list(find_outputs(root))
        if not outputs and paths:
            raise RunError(explain(f"there is no output at or below {root}"))
        found |= dict.fromkeys(outputs)
    return list(found)


if __name__ == "__main__":
    sys.exit(main())
