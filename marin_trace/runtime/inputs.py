"""Which build of its inputs a step reads: looked at when its body begins, and again when it commits.

The second look is `marin_trace.runtime.attempt.check_inputs_unchanged`.
"""

from collections.abc import Iterable

from marin_trace.errors import RunError, explain
from marin_trace.runtime.log_records import AttemptLog
from marin_trace.storage.control_store import patient_store_for

__all__ = ["epochs_of_inputs"]


def epochs_of_inputs(output_path: str, inputs: Iterable[str]) -> dict[str, int]:
    """The epoch of each input; 0 for one without a log, which an older system finished. One request for each.

    Args:
        output_path: Of the step that is about to read them.
        inputs: Their output paths.

    Raises:
        RunError: One is being built again at this moment: its files change below whoever reads them.
    """
    epochs: dict[str, int] = {}
    for path in inputs:
        names = patient_store_for(path).list(AttemptLog(path).directory)
        epoch, is_ended = AttemptLog.last_epoch(names)
        if epoch and not is_ended:
            raise RunError(
                explain(
                    f"{path} is being built again, and {output_path} was about to read it",
                    facts={"attempt": epoch},
                    hint="run again when it is finished",
                )
            )
        epochs[path] = epoch
    return epochs
