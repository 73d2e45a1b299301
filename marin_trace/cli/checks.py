"""What is checked between planning and running: outdated outputs, and finished ones that force would rebuild."""

import logging
import sys
from typing import Final

from marin_trace.cli.outlook import Outlook
from marin_trace.errors import OutdatedOutputError, RunError, explain

__all__ = ["check_force", "refuse_outdated", "warn_of_outdated"]

logger = logging.getLogger(__name__)

_SHOWN: Final = 20
_NAMED: Final = 5


def refuse_outdated(outlook: Outlook) -> None:
    """Under ``--strict``, refuses finished outputs whose function source or unversioned values have changed.

    Raises:
        OutdatedOutputError: Naming them.
    """
    warnings = outlook.warnings
    if not outlook.request.flags.strict or not warnings:
        return
    steps = outlook.request.steps
    facts = {steps[path].name: "; ".join(warnings[path]) for path in list(warnings)[:_SHOWN]}
    if len(warnings) > _SHOWN:
        facts["…"] = f"and {len(warnings) - _SHOWN} more"
    count = f"{len(warnings)} finished output{'' if len(warnings) == 1 else 's'}"
    hint = f"--force '^{next(iter(facts))}$' builds it again; without --strict it is taken as it is"
    raise OutdatedOutputError(explain(f"--strict refuses {count}", facts=facts, hint=hint))


def warn_of_outdated(outlook: Outlook) -> None:
    """Tells once of finished outputs whose function source or unversioned values have changed."""
    if not outlook.warnings:
        return
    names = [outlook.request.steps[path].name for path in outlook.warnings]
    shown = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
    logger.warning(
        f"{len(names)} finished outputs are taken though a source or an unversioned value has changed since: {shown} "
        f"(--dry_run tells which, --strict refuses them)"
    )


def check_force(outlook: Outlook, *, may_ask: bool) -> None:
    """Shows which finished outputs would be built again by force, and asks on a terminal unless ``--yes`` was given.

    Args:
        outlook: Of the run.
        may_ask: Whether there may be somebody to ask: not where the caller gave the command line itself.

    Raises:
        RunError: The answer was no; nothing was started.
    """
    finished = [path for path in outlook.forced if outlook.run_plan.is_finished(path)]
    if not finished:
        return
    steps = outlook.request.steps
    lines = [f"  {steps[path].name}  {path}" for path in finished[:_SHOWN]]
    lines += [f"  … and {len(finished) - _SHOWN} more"] if len(finished) > _SHOWN else []
    outputs = "1 finished output" if len(finished) == 1 else f"{len(finished)} finished outputs"
    print("\n".join([f"built again by force: {outputs}", *lines]), file=sys.stderr)
    if outlook.request.flags.yes or not (may_ask and sys.stdin.isatty() and sys.stderr.isatty()):
        return
    print("go on? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise RunError(explain(f"{outputs} would have been built again: nothing was started", hint="--yes"))
