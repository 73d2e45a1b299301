"""Every error that marin_trace raises: one tree.

::

    MarinTraceError
    ├── TraceError (RuntimeError)              a rule of tracing was broken
    │   ├── ConcretizationError                a ref or a deferred result was used as a value
    │   ├── LeakedRefError (ValueError)        a ref's text, or a deferred result, ended up where it means nothing
    │   ├── CycleError (ValueError)            steps that need each other
    │   └── GroupError                         a group used as if it were a step, or the reverse
    ├── ConfigError (ValueError)               what a step was given cannot be used
    │   ├── ConfigTypeError (TypeError)        an argument does not fit the function that it is passed to
    │   ├── UnstableValueError (TypeError)     a value has no identity that another process would agree on
    │   └── StepNameError                      a name, subpath or template that is not safe or not complete
    ├── GraphError (ValueError)                steps that contradict each other
    │   ├── OutputConflictError                two recipes for one output path
    │   └── OptionsConflictError               two explicit, different options for one step
    ├── FingerprintError (ValueError)          a recipe is not the one that was expected
    │   ├── FingerprintChangedError            …by ``expect_fingerprint``
    │   ├── FingerprintMismatchError           …by the output that lies at its path
    │   └── OutdatedOutputError                …by ``--strict``: what is in no fingerprint has changed
    ├── FlagError (ValueError)                 a command line that cannot be understood
    ├── ExperimentError (ValueError)           a file that a command cannot take for an experiment
    ├── StorageError (OSError)                 the store, or a file in it, cannot be used
    │   ├── StoreUnavailableError              it did not answer, or asked to come back: tried again
    │   ├── StoreRefusedError                  it does not let this user in
    │   ├── PrefixError                        the prefix is unreadable, no directory, or not supported
    │   └── ControlFileError                   a control file is not what it should be
    ├── ArtifactError (ValueError)             an artifact cannot be saved or loaded
    ├── WorkerError (RuntimeError)             the process or cluster that should run a step
    │   ├── ResourcesUnavailableError          asks for what this place does not have
    │   └── JobFailedError                     a job ended without its step having succeeded
    ├── RunError (RuntimeError)                a step cannot run, or not now
    │   ├── StepAlreadyDone                    another attempt has succeeded: read its output
    │   ├── StepHeldElsewhere                  another launcher runs it at this moment
    │   ├── PreviousTaskFailedError            it failed before, and forcing is off
    │   ├── DependencyFailedError              what it needs has failed
    │   └── LeaseLostError                     somebody else owns the step by now
    └── RunFailedError (ExceptionGroup)        the end of a run in which steps failed

    MarinTraceWarning (UserWarning)

The message of each begins with a line that is complete alone and names the user's thing; then come the user's
``file:line``, aligned facts, and a hint that is code. :func:`explain` lays them out. Every class pickles: none has an
``__init__``.

What a step's own function raises is never wrapped: the exception keeps its type and traceback and gains notes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "ArtifactError",
    "ConcretizationError",
    "ConfigError",
    "ConfigTypeError",
    "ControlFileError",
    "CycleError",
    "DependencyFailedError",
    "ExperimentError",
    "FingerprintChangedError",
    "FingerprintError",
    "FingerprintMismatchError",
    "FlagError",
    "GraphError",
    "GroupError",
    "JobFailedError",
    "LeakedRefError",
    "LeaseLostError",
    "MarinTraceError",
    "MarinTraceWarning",
    "OptionsConflictError",
    "OutdatedOutputError",
    "OutputConflictError",
    "PrefixError",
    "PreviousTaskFailedError",
    "ResourcesUnavailableError",
    "RunError",
    "RunFailedError",
    "StepAlreadyDone",
    "StepHeldElsewhere",
    "StepNameError",
    "StorageError",
    "StoreRefusedError",
    "StoreUnavailableError",
    "TraceError",
    "UnstableValueError",
    "WorkerError",
    "explain",
]


def explain(
    summary: str,
    *,
    at: object = None,
    facts: Mapping[str, Any] | Sequence[str] = (),
    hint: str | None = None,
) -> str:
    """The layout that all messages share.

    Args:
        summary: One line, complete alone, without a full stop.
        at: The user's ``file:line`` (anything whose ``str`` is that), or None where no line of theirs is known.
        facts: Aligned ``label: value`` lines, or ready lines.
        hint: What to write instead, as code where possible.

    Returns:
        The message, without a final newline.

    Example:
        >>> print(explain("cannot format <StepRef a>: it has no path yet", at="exp.py:3", hint="write `ref / 'x'`"))
        cannot format <StepRef a>: it has no path yet
          at exp.py:3
        <BLANKLINE>
        hint: write `ref / 'x'`
    """
    lines = [summary]
    if at is not None:
        lines.append(f"  at {at}")
    if isinstance(facts, Mapping):
        width = max((len(str(label)) for label in facts), default=0) + 1
        lines += [f"  {f'{label}:':<{width}} {value}" for label, value in facts.items()]
    else:
        lines += [f"  {fact}" for fact in facts]
    if hint is not None:
        lines += ["", f"hint: {hint}"]
    return "\n".join(lines)


class MarinTraceError(Exception):
    """The root: ``except MarinTraceError`` catches whatever this package raises of its own."""


class MarinTraceWarning(UserWarning):
    """Something that runs, and that its author probably did not mean."""


class TraceError(MarinTraceError, RuntimeError):
    """A rule of tracing was broken.

    Failing: ``output()`` at module level. Fixed: ``output()`` inside a ``@step`` function.
    """


class ConcretizationError(TraceError):
    """A ref, an artifact or a deferred result was used as if its value were known at trace time.

    No ``TypeError``: ``pathlib.Path`` and ``os.path.join`` catch those, and would say something of their own instead.

    Failing: ``f"{ref}/train"``. Fixed: ``ref / "train"``.
    """


class LeakedRefError(TraceError, ValueError):
    """The text of a ref ended up in a config, or a deferred result in another step's body.

    Failing: ``Config(path=str(ref))``. Fixed: ``Config(path=ref)``.
    """


class CycleError(TraceError, ValueError):
    """Steps need each other.

    Failing: a step that calls itself with the same arguments. Fixed: pass the earlier step's ref as an argument.
    """


class GroupError(TraceError):
    """A group (a step whose body records no deferred call) was used as if it ran something, or the reverse.

    Failing: ``@step(retries=2)`` on a function that only calls other steps. Fixed: put ``retries`` on those steps.
    """


class ConfigError(MarinTraceError, ValueError):
    """What a step or a deferred function was given cannot be used.

    Failing: ``deferred(train)(lr=0.1)`` where ``train`` has no parameter ``lr``. Fixed: an argument that it has.
    """


class ConfigTypeError(ConfigError, TypeError):
    """An argument does not fit the annotation or signature of the function that it is passed to.

    Failing: ``Config(shards=ref)`` with ``shards: int``. Fixed: a field annotated ``str``.
    """


class UnstableValueError(ConfigError, TypeError):
    """A value has no identity that another process would agree on.

    Failing: ``Config(key=lambda x: x)``. Fixed: a module-level function, ``unversioned(...)``, or ``register_encoder``.
    """


class StepNameError(ConfigError):
    """A step name, subpath or name template that is not safe or not complete.

    Failing: ``@step(name="../x")``. Fixed: segments of letters, digits and ``._=+@,-``.
    """


class GraphError(MarinTraceError, ValueError):
    """Steps of one graph contradict each other."""


class OutputConflictError(GraphError):
    """Two different recipes would write one output path.

    Failing: two steps with one ``override_output_path``. Fixed: a path of its own for each.
    """


class OptionsConflictError(GraphError):
    """One step was called with two explicit, different run options.

    Failing: ``s.with_options(retries=1)()`` and ``s.with_options(retries=2)()`` in one graph. Fixed: one of them.
    """


class FingerprintError(MarinTraceError, ValueError):
    """A recipe is not the one that was expected."""


class FingerprintChangedError(FingerprintError):
    """A step that pins its fingerprint has another one by now.

    Failing: any change of a step with ``expect_fingerprint="1a2b3c4d"``. Fixed: undo the change, or pin the new value.
    """

    pin: Any = None
    """What lowering knows of the pin and of today's recipe."""


class FingerprintMismatchError(FingerprintError):
    """The output that lies at a step's path was built by another recipe.

    Failing: an ``override_output_path`` that an older configuration built. Fixed: another path, or ``--force``.
    """


class OutdatedOutputError(FingerprintError):
    """Under ``--strict``: a finished output was built with another source, or other unversioned values.

    Failing: ``--strict``, after a function was edited. Fixed: ``--strict --force tokenize``.
    """


class FlagError(MarinTraceError, ValueError):
    """A command line that cannot be understood.

    Failing: ``--dryrun``. Fixed: ``--dry_run``.
    """


class ExperimentError(MarinTraceError, ValueError):
    """A file that a command cannot take for an experiment: it fails, or does not call ``executor_main`` once.

    Fails: ``marin-trace plan lib.py``, which only defines functions.
    Fixed: ``if __name__ == "__main__": executor_main(steps=[entry()])``
    """


class StorageError(MarinTraceError, OSError):
    """The store, or a file in it, cannot be used."""


class StoreUnavailableError(StorageError):
    """The store did not answer, or asked to come back later; whether a write was applied is then unknown.

    Control files are tried again for as long as that is safe: this error means that it was not enough.
    """


class StoreRefusedError(StorageError):
    """The store does not let this user read or write (expired credentials, missing permissions)."""


class PrefixError(StorageError):
    """The prefix is unreadable, is no directory, or has a protocol that is not supported.

    Failing: ``--prefix ftp://host/x``. Fixed: a directory, or a ``gs://``, ``s3://`` or ``memory://`` URL.
    """


class ControlFileError(StorageError):
    """A control file (claim, end, record …) is truncated, corrupt or not what its name says."""


class ArtifactError(MarinTraceError, ValueError):
    """An artifact cannot be saved or loaded.

    Failing: a function that returns an open file. Fixed: return a dataclass, a pydantic model or JSON values.
    """


class WorkerError(MarinTraceError, RuntimeError):
    """The process or cluster that should run a step cannot."""


class ResourcesUnavailableError(WorkerError):
    """A step asks for what the chosen place does not have.

    Failing: ``with_tpu("v5p-8")`` on a laptop. Fixed: ``--cluster ray`` or ``--cluster fray``.
    """


class JobFailedError(WorkerError):
    """A job ended without its step having succeeded (killed, out of memory, exited)."""


class RunError(MarinTraceError, RuntimeError):
    """A step cannot run, or not now."""


class StepAlreadyDone(RunError):
    """Another attempt has already succeeded: read its output instead of writing."""


class StepHeldElsewhere(RunError):
    """Another launcher runs the step at this moment."""


class PreviousTaskFailedError(RunError):
    """The step failed before, and ``--force_run_failed false`` forbids to try again."""


class DependencyFailedError(RunError):
    """A step was skipped because one that it depends on has failed."""


class LeaseLostError(RunError):
    """The attempt no longer owns its step: nothing that it writes will be committed."""


class RunFailedError(MarinTraceError, ExceptionGroup):
    """The end of a run in which steps failed: holds each step's own exception, with its traceback, once."""

    report: object = None
    """The run's report, for callers that want more than the exceptions."""

    def derive(self, excs: Any) -> "RunFailedError":
        return RunFailedError(self.message, excs)
