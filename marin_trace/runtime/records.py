"""What is written down: ``.executor_info`` beside each output, one record for each run, and how two recipes differ."""

import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, cast, final

from marin_trace.errors import ControlFileError, explain
from marin_trace.runtime.provenance import Provenance, current_provenance
from marin_trace.runtime.record_fields import mapping, shown_lines
from marin_trace.runtime.redaction import redact, redact_arguments, redact_parts
from marin_trace.runtime.run_history import record_name
from marin_trace.safe_text import redact_text
from marin_trace.storage.bounded import LARGEST_INFO, json_bytes, parsed_json
from marin_trace.storage.control_store import patient_store_for
from marin_trace.storage.files import join, protocol_of

__all__ = [
    "EXECUTOR_INFO",
    "RUN_RECORDS_DIRECTORY",
    "FieldChange",
    "StepRecord",
    "field_differences",
    "new_run_id",
    "read_step_info",
    "read_step_infos",
    "write_run_record",
    "write_step_info",
]

logger = logging.getLogger(__name__)

EXECUTOR_INFO: Final = ".executor_info"
RUN_RECORDS_DIRECTORY: Final = "experiments"
"""First segment under the prefix; refused as a step name."""

_EXECUTOR_VERSION: Final = "step_runner"
_INFO_DEPTH: Final = 1000
"""It holds a step's config, as deep as its author nested it; nothing here walks through it."""


@final
@dataclass(frozen=True, slots=True)
class StepRecord:
    """What a step hands over to be recorded beside its output."""

    name: str
    fingerprint: str
    parts: Mapping[str, str] = field(default_factory=dict[str, str])
    """What the fingerprint is made of: readable text by config path."""
    functions: tuple[str, ...] = ()
    """``module:qualname`` of each call, in order."""
    config: Any = None
    """A JSON value."""
    deps: tuple[str, ...] = ()
    """Output paths."""
    description: str | None = None
    location: str | None = None
    """``file:line`` of the step call."""
    version: Any = None
    """A JSON value: what the older executor would know the step by; None for a step of this package's own kind."""


@final
@dataclass(frozen=True, slots=True)
class FieldChange:
    """One config path at which two recipes differ."""

    path: str
    old: str | None
    """None: it is new."""
    new: str | None
    """None: it is gone."""

    def __str__(self) -> str:
        if self.old is None:
            return f"{self.path}: added {self.new}"
        if self.new is None:
            return f"{self.path}: removed {self.old}"
        return f"{self.path}: {self.old} → {self.new}"


def field_differences(old_parts: Mapping[str, str], new_parts: Mapping[str, str]) -> list[FieldChange]:
    """The config paths at which two recipes differ, in the new recipe's order, then what is gone.

    Example:
        >>> [str(change) for change in field_differences({"config.lr": "0.1"}, {"config.lr": "0.2"})]
        ['config.lr: 0.1 → 0.2']
    """
    changes = [
        FieldChange(path, old_parts.get(path), new) for path, new in new_parts.items() if old_parts.get(path) != new
    ]
    return changes + [FieldChange(path, old, None) for path, old in old_parts.items() if path not in new_parts]


def write_step_info(output_path: str, record: StepRecord, *, provenance: Provenance | None, epoch: int) -> None:
    """Writes ``.executor_info`` beside an output, whole. The caller holds the claim.

    Args:
        output_path: Of the step.
        record: What to write; secrets in it are redacted here.
        provenance: Of the launcher; None: this process's.
        epoch: Of the attempt.
    """
    info = {
        "executor_version": _EXECUTOR_VERSION,
        "name": record.name,
        "output_path": output_path,
        "epoch": epoch,
        "fingerprint": record.fingerprint,
        "functions": list(record.functions),
        "config": redact(record.config),
        "parts": redact_parts(record.parts),
        "deps": redact(record.deps),
        "description": record.description and redact_text(record.description),
        "location": record.location,
    }
    if record.version is not None:
        info["version"] = redact(record.version)
    # The provenance is the same for every step of a run, and the longest part: it is rendered once.
    content = f'{_encode_lines(info)[:-1]},\n "provenance": {_rendered(provenance)}}}\n'
    patient_store_for(output_path).put(join(output_path, EXECUTOR_INFO), json_bytes(content))


def read_step_info(output_path: str) -> dict[str, Any] | None:
    """Reads ``.executor_info``; None where nothing lies.

    Raises:
        ControlFileError: It is no JSON object, or its ``parts`` are no texts.
    """
    path = join(output_path, EXECUTOR_INFO)
    content = patient_store_for(output_path).get(path, limit=LARGEST_INFO)
    return None if content is None else _parsed_info(content, path)


def _parsed_info(content: bytes, path: str) -> dict[str, Any]:
    try:
        info = mapping(parsed_json(content, max_depth=_INFO_DEPTH))
        parts = mapping(info.get("parts") or {})
        # Older systems have other fields; what is compared and shown is made sure of.
        return {**info, "parts": {path: shown_lines(parts, path) for path in parts}}
    except (TypeError, ValueError) as error:
        raise ControlFileError(explain(f"{path} is truncated or corrupt: {error}")) from error


def read_step_infos(output_paths: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Reads ``.executor_info`` of many outputs side by side; without those where nothing lies, or nothing legible.

    What is illegible is told in the log: it matters to whoever uses that output, and not to whoever compares with it.
    """
    by_protocol: dict[str, list[str]] = {}
    for path in output_paths:
        by_protocol.setdefault(protocol_of(path), []).append(path)
    infos: dict[str, dict[str, Any]] = {}
    for paths in by_protocol.values():
        files = [join(path, EXECUTOR_INFO) for path in paths]
        contents = patient_store_for(paths[0]).get_many(files, limit=LARGEST_INFO)
        for path, content in zip(paths, contents, strict=True):
            if content is None:
                continue
            try:
                infos[path] = _parsed_info(content, join(path, EXECUTOR_INFO))
            except ControlFileError as error:
                logger.warning(str(error))
    return infos


def new_run_id() -> str:
    """A name for a run that sorts by time, to the millisecond: ``20260131-235959-1231a2b3c``."""
    now = datetime.now(UTC)
    # With the second's fraction: runs of one second would else be sorted by chance.
    return f"{now:%Y%m%d-%H%M%S}-{now.microsecond // 1000:03}{os.urandom(3).hex()}"


def write_run_record(directory: str, run_id: str, record: Mapping[str, Any]) -> str:
    """Writes the record of a run, once.

    Args:
        directory: Where run records lie.
        run_id: With the record's ``experiment``, its name.
        record: JSON values; secrets are redacted here.

    Returns:
        The record's path.

    Raises:
        ControlFileError: A record of this name exists.
    """
    path = join(directory, record_name(run_id, record.get("experiment")))
    content = _lines_of({key: _encode_list(value) for key, value in redact(record).items()})
    if not patient_store_for(path).put_if_absent(path, json_bytes(content)):
        raise ControlFileError(explain(f"the record of run {run_id} exists already: {path}"))
    return path


# Entries on lines of their own are readable and keep the C encoder, which `indent` would switch off (8 times slower).
_encode = json.JSONEncoder(ensure_ascii=False).encode
_encode_lines = json.JSONEncoder(ensure_ascii=False, separators=(",\n ", ": ")).encode


def _lines_of(rendered: Mapping[str, str]) -> str:
    lines = ",\n ".join(f"{_encode(key)}: {value}" for key, value in rendered.items())
    return f"{{\n {lines}\n}}\n"


def _encode_list(value: Any) -> str:
    if not isinstance(value, list) or not value:
        return _encode(value)
    return "[\n  " + ",\n  ".join(map(_encode, cast("list[Any]", value))) + "\n ]"


def _rendered(provenance: Provenance | None) -> str:
    return _rendered_once(provenance or current_provenance())


@lru_cache(maxsize=4)
def _rendered_once(provenance: Provenance) -> str:
    return _encode({**provenance.to_json(), "argv": redact_arguments(provenance.argv)})
