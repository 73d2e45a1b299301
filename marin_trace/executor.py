"""``executor_main``: from what an experiment's steps returned to a finished run."""

import logging
import os
import sys
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, cast

from marin_trace.cli.checks import check_force, refuse_outdated, warn_of_outdated
from marin_trace.cli.flags import USAGE_ERROR, ExecutorFlags, close_broken_output, exit_with, parse_executor_flags
from marin_trace.cli.outlook import Outlook, outlook_of
from marin_trace.cli.plan_output import show_plan
from marin_trace.cli.request import listener, request_for
from marin_trace.errors import FlagError, MarinTraceError, RunFailedError
from marin_trace.ir.graph import graph_of
from marin_trace.ir.location import is_own_file
from marin_trace.lowering.lower import lower_graph
from marin_trace.lowering.step_spec import StepSpec
from marin_trace.runtime.interrupts import exit_code_of, interrupting_signals
from marin_trace.runtime.prefix import current_prefix, use_prefix
from marin_trace.runtime.report import RunReport
from marin_trace.safe_text import printable, redact_text
from marin_trace.workers.machine import usable_cores
from marin_trace.workers.placement import check_placeable

if TYPE_CHECKING:
    from marin_trace.runtime.step_runner import RunEvent

logger = logging.getLogger(__name__)

RUN_FAILED: Final = 1
"""Exit code of a run in which a step failed, or that could not start."""
_TALKATIVE: Final = ("aiobotocore", "botocore", "finelog", "fray", "gcsfs", "iris", "rigging")
"""Libraries that tell where each client connects to, where its credentials were found, or how a file is read."""
_KERNEL_MODULE: Final = "ipykernel"
OUTPUT_CLOSED: Final = 141
"""Exit code where whoever read the output has gone away, as shells give it for SIGPIPE."""


def executor_main(steps: Any, *, description: str | None = None, argv: Sequence[str] | None = None) -> RunReport:
    """Runs an experiment: brings the given steps, and what they need, to finished.

    **Phase**: run time; blocks until the run has ended. Flags: ``--help`` lists them. With ``--dry_run`` the plan is
    printed and nothing is written.

    Args:
        steps: Refs, what group steps returned, StepSpecs, legacy steps; in lists, tuples or dicts, nested as you like.
        description: A sentence for the run's record; ``--description`` wins.
        argv: The command line without the program's name. None reads ``sys.argv``; then a failure is printed and ends
            the process (1: a step failed or the run could not start; 2: the command line; 130, 143, 129: Ctrl-C,
            SIGTERM, SIGHUP; 141: the output was closed). With ``argv``
            given it is raised, and signals are left alone.

    Returns:
        What became of each step; ``report.output_path(ref)`` and ``report.artifact(ref)`` lead to what was made.

    Raises:
        RunFailedError: Steps failed: it holds what each of them raised. All that did not depend on them has run.
        MarinTraceError: The steps or the flags cannot be used; nothing was started.
        KeyboardInterrupt: The run was interrupted; its steps were released.

    Example:
        >>> from marin_trace import deferred, executor_main, output, step
        >>> from marin_trace.io import atomic_write
        >>> def write(path: str, text: str) -> int:
        ...     with atomic_write(path, "w") as stream:
        ...         return stream.write(text)
        >>> @step(name="hello/{word}")
        ... def hello(word: str):
        ...     return deferred(write)(output() / "hello.txt", word)
        >>> ref = hello("world")
        >>> executor_main(steps=[ref], argv=["--prefix", "memory://docs"]).artifact(ref)
        5
    """
    if argv is not None:
        if _KERNEL_MODULE in sys.modules:
            _show_log()  # a notebook shows a run line by line
        return _run(steps, parse_executor_flags(argv), description)
    _show_log()
    try:
        with interrupting_signals():
            return _run(steps, parse_executor_flags(sys.argv[1:]), description, may_ask=True)
    except FlagError as error:
        exit_with(error, USAGE_ERROR)
    except RunFailedError as error:
        with suppress(BrokenPipeError):  # nobody reads it: the exit code still tells
            _print_failures(error)
        raise SystemExit(RUN_FAILED) from None
    except MarinTraceError as error:
        exit_with(error, RUN_FAILED)
    except KeyboardInterrupt as error:
        with suppress(BrokenPipeError):
            print("interrupted: the steps of this machine were released", file=sys.stderr)
        raise SystemExit(exit_code_of(error)) from None
    except BrokenPipeError:
        raise SystemExit(OUTPUT_CLOSED) from None
    finally:
        close_broken_output()


def resolve_executor_step(step: Any, *, prefix: str | None = None) -> StepSpec:
    """The spec of a step of Marin's older executor.

    **Phase**: lower time; no I/O. It writes where the older executor wrote (``override_output_path``), and its
    fingerprint is the sha256 of its version.

    Args:
        step: An ``ExecutorStep``, or an ``InputName`` of one.
        prefix: Where outputs lie; None: under the prefix of the run.

    Raises:
        ConfigError: The config holds what has no version.

    Example:
        >>> from marin_trace.executor import resolve_executor_step
        >>> from marin_trace.legacy import ExecutorStep, versioned
        >>> old = ExecutorStep("raw/web", fn=print, config={"tokenizer": versioned("llama3")})
        >>> resolve_executor_step(old, prefix="/data").output_path
        '/data/raw/web-1b0338'
    """
    from marin_trace.legacy import get_executor_step

    node = get_executor_step(step).node
    return lower_graph(graph_of([node]), prefix=prefix).spec_by_node[node]


def _show_log() -> None:
    """Shows the log of a script that has not arranged for it itself."""
    if not logging.getLogger().handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(_PlainFormatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
        logging.basicConfig(level=logging.INFO, handlers=[handler])
        for library in _TALKATIVE:
            logging.getLogger(library).setLevel(logging.WARNING)


class _PlainFormatter(logging.Formatter):
    """Shows the log as text and nothing else, whatever a file, a server or an exception has said."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's line, or lines."""
        return redact_text(printable(super().format(record)))


def _print_failures(failure: RunFailedError) -> None:
    for error in failure.exceptions:
        shown = traceback.TracebackException.from_exception(error)
        _hide_own_frames(shown)
        # Messages hold what files and servers have said.
        print(redact_text(printable("".join(shown.format()))), file=sys.stderr)
    print(failure.message, file=sys.stderr)


def _hide_own_frames(shown: traceback.TracebackException | None) -> None:
    """Drops this package's frames from what is printed: a traceback begins in the function that failed.

    The exceptions themselves, and the run's record, keep them all.
    """
    while shown is not None:
        frames = [frame for frame in shown.stack if not is_own_file(frame.filename)]
        # None leaves the heading out as well.
        shown.stack = traceback.StackSummary.from_list(frames) if frames else cast("Any", None)
        shown = shown.__cause__ or shown.__context__


def _run(steps: Any, flags: ExecutorFlags, description: str | None, *, may_ask: bool = False) -> RunReport:
    with use_prefix(current_prefix() if flags.prefix is None else flags.prefix) as prefix:
        request = request_for(steps, flags, description, prefix=prefix)
        tell = listener()
        if tell is not None:
            tell(request)
            return RunReport((), dry_run=True, run_id="", resolve=request.resolve)
        outlook = outlook_of(request)
        if flags.dry_run:
            show_plan(outlook.plan(), full=flags.full)
        _check_placeable(outlook)
        refuse_outdated(outlook)
        if not flags.dry_run:
            warn_of_outdated(outlook)
            check_force(outlook, may_ask=may_ask)
        # Not needed where a command listens: its imports take a tenth of a second.
        from marin_trace.runtime.step_runner import StepRunner

        with _shown(outlook, is_script=may_ask) as tell:
            runner = StepRunner(options=outlook.options, plan=outlook.run_plan, on_event=tell, resolve=request.resolve)
            return runner.run(
                request.roots,
                dry_run=flags.dry_run,
                force_run_failed=flags.force_run_failed,
                max_concurrent=flags.max_concurrent,
            )


def _check_placeable(outlook: Outlook) -> None:
    """Refuses what is to run and cannot, where it would run: before anything is started."""
    run_plan = outlook.run_plan
    specs = [step for path in run_plan.to_run if isinstance(step := run_plan.steps[path], StepSpec)]
    asked = [(step.name, step.options.resources) for step in specs if step.options.resources is not None]
    check_placeable(asked, outlook.options.client)


@contextmanager
def _shown(outlook: Outlook, *, is_script: bool) -> "Generator[Callable[[RunEvent], None] | None, None, None]":
    """A live table of the run, where a script runs steps on a terminal; elsewhere the log tells of each step."""
    flags = outlook.request.flags
    is_terminal = sys.stdout.isatty() and sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    # One at a time is how people debug: a table would disturb the prompt.
    if not (is_script and is_terminal) or flags.dry_run or flags.max_concurrent == 1 or not outlook.run_plan.to_run:
        yield None
        return
    from rich.console import Console

    from marin_trace.cli.live import live_table
    from marin_trace.cli.progress import Progress, usual_seconds

    steps = {path: outlook.run_plan.steps[path] for path in outlook.run_plan.to_run}
    usual_s = usual_seconds(outlook.records_directory, outlook.request.experiment, steps)
    progress = Progress(outlook.run_plan, usual_s=usual_s, limit=flags.max_concurrent or max(4, usable_cores()))
    with live_table(progress, Console(stderr=True)) as tell:
        yield tell
    print(progress.final_report(), file=sys.stderr)
