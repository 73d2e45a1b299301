"""Adoption: a finished output that lies elsewhere is bound to a step's recipe by a record, and no data is moved.

An adoption is an epoch of the step's own log whose end is SUCCESS and names the output that is adopted
(``adopted_from``), with the recipe's fingerprint. It begins with its end: one create-if-absent, for the same object
that a claimant or whoever takes over would decide by, so it is there whole or not at all, and a crash leaves nothing
open. The claim that follows tells who did it.

Who reads the step reads the adopted output instead (`RunOptions.adopted`); ``--force`` builds the step in its own path.
The adopted output is only marked, so that nothing collects its data; its own log, token and record stay as they are.
An output may also be adopted in place, where it lies at the step's own path with another recipe or none recorded.
"""

import hashlib
import json
import logging
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, final

from marin_trace.errors import RunError, StorageError, explain
from marin_trace.runtime.attempt import draft_claim, utc_now
from marin_trace.runtime.driver import driver_for
from marin_trace.runtime.log_records import AttemptLog, ClaimRecord, EndKind, EndRecord
from marin_trace.runtime.options import DEFAULT_LEASE_S
from marin_trace.runtime.protocol import create, end_attempt
from marin_trace.runtime.records import StepRecord, write_step_info
from marin_trace.runtime.status import ADOPTED_EPOCH, ADOPTED_FROM, StatusKind, StepStatus, read_status
from marin_trace.storage.control_store import patient_store_for
from marin_trace.storage.store_probe import check_store

__all__ = ["Adoption", "AdoptionKind", "adopt", "adoption_of", "is_marked_as_adopted"]

logger = logging.getLogger(__name__)

_MARK: Final = ".adopted"
_MOST_HOPS: Final = 10
"""How many adoptions of adopted outputs are followed: more than anybody makes."""


class AdoptionKind(StrEnum):
    """What adopting did, or would do."""

    ADOPTED = "adopted"
    STANDS = "stands"
    """The same output was adopted before, or the step built it itself: there is nothing to do."""


@final
@dataclass(frozen=True, slots=True)
class Adoption:
    """An output, bound to a recipe."""

    output_path: str
    """The step's own."""
    source: str
    """What is adopted; the same path: in place."""
    source_epoch: int
    """The attempt that built it; 0: an older system did."""
    epoch: int
    """Of the step's log, after which the adoption comes."""
    kind: AdoptionKind = AdoptionKind.ADOPTED

    @property
    def is_in_place(self) -> bool:
        """Whether the output lies at the step's own path already."""
        return self.source == self.output_path


def adoption_of(output_path: str, source: str, fingerprint: str) -> Adoption:
    """What adopting an output would do. Reads both logs; writes nothing.

    Args:
        output_path: Of the step that is to have it.
        source: The output, normalised as prefixes are. One that was adopted itself leads to what it adopted.
        fingerprint: Of the step's recipe.

    Raises:
        RunError: The output is not finished, or the step's own path is taken: finished, or being built.
        StorageError: A log cannot be read.
    """
    source, source_status = _followed(source)
    status = source_status if source == output_path else read_status(output_path)
    _refuse_unfinished(source, source_status)
    _refuse_nesting(output_path, source)
    source_epoch = source_status.epoch
    if source == output_path and source_status.adopted_from == source:
        source_epoch = source_status.adopted_epoch
    adoption = Adoption(output_path, source, source_epoch, status.epoch)
    if status.is_finished and status.fingerprint == fingerprint and source in (output_path, status.adopted_from):
        return replace(adoption, kind=AdoptionKind.STANDS)
    if status.kind in (StatusKind.RUNNING, StatusKind.ABANDONED):
        raise RunError(
            explain(
                f"{output_path} is being built, and cannot adopt {source} meanwhile",
                facts={"by": status.owner},
                hint=f"marin-trace unlock {output_path}",
            )
        )
    if status.is_finished and not adoption.is_in_place:
        what = f"it has adopted {status.adopted_from}" if status.adopted_from else "it is finished itself"
        raise RunError(
            explain(
                f"{output_path} cannot adopt {source}: {what}",
                hint=f"to adopt another output, delete the directory {output_path} first",
            )
        )
    return adoption


def adopt(adoption: Adoption, fingerprint: str, info: StepRecord | None = None) -> AdoptionKind:
    """Binds an output to a recipe. Atomic, and done again it changes nothing.

    Args:
        adoption: As `adoption_of` found it.
        fingerprint: Of the step's recipe.
        info: What is recorded beside the step's own output; nothing is, where the output is adopted in place.

    Raises:
        RunError: Somebody else has decided the epoch meanwhile.
        StorageError: The store cannot be written.
    """
    if adoption.kind is AdoptionKind.STANDS:
        return adoption.kind
    log, epoch = AttemptLog(adoption.output_path), adoption.epoch + 1
    check_store(log.directory)
    if not adoption.is_in_place:
        _mark(adoption, fingerprint)
    draft = draft_claim(lease_s=DEFAULT_LEASE_S)
    record = {
        "fingerprint": fingerprint,
        ADOPTED_FROM: adoption.source,
        ADOPTED_EPOCH: adoption.source_epoch,
    }
    driver = driver_for(adoption.output_path)
    end = EndRecord(epoch, EndKind.SUCCESS, draft.nonce, utc_now(), record)
    standing = driver.run(end_attempt(log, end))
    if standing.write_id != end.write_id:
        return _decided_by_another(adoption, standing)
    if info is not None and not adoption.is_in_place:
        # After the decision: before it, a file that comes and goes there could disturb who commits at this moment.
        write_step_info(adoption.output_path, info, provenance=None, epoch=epoch)
    claim = replace(draft, epoch=epoch)
    found = driver.run(create(log.claim(epoch), claim.to_bytes()))
    if found is not None and ClaimRecord.from_bytes(found, log.claim(epoch)).write_id != claim.write_id:
        logger.warning(
            f"{adoption.output_path}: another launcher had just begun to build it: it is stopped, and commits nothing"
        )
    return AdoptionKind.ADOPTED


def is_marked_as_adopted(output_path: str) -> bool:
    """Whether some step has adopted this output: its data must stay. One request."""
    log = AttemptLog(output_path)
    return any(name.endswith(_MARK) for name in patient_store_for(output_path).list(log.directory))


def _followed(source: str) -> tuple[str, StepStatus]:
    for _ in range(_MOST_HOPS):
        status = read_status(source)
        if not status.is_finished or status.adopted_from in (None, source):
            return source, status
        source = status.adopted_from
    raise RunError(explain(f"{source} is one of more than {_MOST_HOPS} outputs that adopted each other"))


def _refuse_unfinished(source: str, status: StepStatus) -> None:
    if status.is_finished:
        return
    if status.kind is StatusKind.MISSING and not status.foreign_run and not _holds_anything(source):
        what = "no output lies there"
        hint = "marin-trace status PREFIX lists what is under a prefix"
    elif status.kind is StatusKind.MISSING and not status.foreign_run:
        what = "nothing there says that it is finished"
        hint = f"if it is complete, say so: echo SUCCESS > {source}/.executor_status"
    else:
        what = "an older system may still build it" if status.foreign_run else f"its last attempt is {status.kind}"
        hint = f"marin-trace verify {source}"
    raise RunError(explain(f"{source} cannot be adopted: {what}", facts=_owner_facts(status), hint=hint))


def _holds_anything(path: str) -> bool:
    store = patient_store_for(path)
    return bool(store.list(path)) or bool(store.list_directories(path))


def _owner_facts(status: StepStatus) -> dict[str, object]:
    return {} if status.owner is None else {"built by": status.owner}


def _refuse_nesting(output_path: str, source: str) -> None:
    for inner, outer in ((output_path, source), (source, output_path)):
        if inner.startswith(f"{outer}/"):
            raise RunError(explain(f"{output_path} cannot adopt {source}: {inner} lies inside the other"))


def _mark(adoption: Adoption, fingerprint: str) -> None:
    name = hashlib.sha256(adoption.output_path.encode()).hexdigest()[:16]
    path = f"{AttemptLog(adoption.source).directory}/{name}{_MARK}"
    content = json.dumps({"adopted_by": adoption.output_path, "fingerprint": fingerprint}).encode()
    try:
        patient_store_for(path).put_if_absent(path, content)
    except StorageError as error:
        # Who may not write there cannot delete there either; whoever may is not warned.
        logger.warning(f"{adoption.source} could not be marked as adopted: {str(error).splitlines()[0]}")


def _decided_by_another(adoption: Adoption, standing: EndRecord) -> AdoptionKind:
    if standing.kind is EndKind.SUCCESS and standing.record.get(ADOPTED_FROM) == adoption.source:
        return AdoptionKind.STANDS
    raise RunError(
        explain(
            f"{adoption.output_path} cannot adopt {adoption.source}: somebody else ended attempt {standing.epoch} as "
            f"{standing.kind} at this moment",
            hint="look at it again: marin-trace plan FILE.py",
        )
    )
