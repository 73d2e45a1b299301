"""The fields of a stored JSON object, each read as what it must be.

What is for people alone (hosts, times, messages) comes back printable, wherever it is shown afterwards; what the
protocol compares comes back as it was written.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final, cast, final

from marin_trace.errors import ControlFileError, explain
from marin_trace.safe_text import on_one_line, printable
from marin_trace.storage.bounded import json_bytes, parsed_json

__all__ = [
    "LONGEST_LEASE_S",
    "check_epoch",
    "check_write_id",
    "dumped",
    "mapping",
    "number_of_seconds",
    "optional_count",
    "optional_text",
    "parsed_object",
    "reading",
    "shown",
    "shown_lines",
    "text",
    "whole_number",
]

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

LONGEST_LEASE_S: Final = 30 * 24 * 3600.0
"""Nobody waits a month for an owner that is silent."""
_LARGEST_NUMBER: Final = 1 << 62
_NUMBERED_FILE: Final = re.compile(r"(?P<epoch>[0-9]{6,})\.[a-z]+")


def dumped(record: dict[str, Any]) -> bytes:
    """The content of a file that holds an object."""
    return json_bytes(_ENCODER.encode(record))


@final
class reading:  # noqa: N801 - a context manager used as a statement
    """Parses a control file, and turns whatever is wrong with it into a ControlFileError that names it."""

    __slots__ = ("_content", "_path")

    def __init__(self, content: bytes, path: str) -> None:
        self._content = content
        self._path = path

    def __enter__(self) -> dict[str, Any]:
        try:
            return parsed_object(self._content)
        except (ValueError, TypeError) as error:
            raise self._corrupt(error) from error

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, (KeyError, TypeError, ValueError)):
            raise self._corrupt(error) from error

    def _corrupt(self, error: Exception) -> ControlFileError:
        return ControlFileError(
            explain(
                f"control file {self._path} is truncated or corrupt",
                facts={"size": f"{len(self._content)} bytes", "problem": f"{type(error).__name__}: {error}"},
                hint="restore it from a backup, or move the whole output away: the step is then built again",
            )
        )


def parsed_object(content: bytes) -> dict[str, Any]:
    """A stored JSON object.

    Raises:
        TypeError, ValueError: It is none.
    """
    return mapping(parsed_json(content))


def mapping(value: object) -> dict[str, Any]:
    """An object."""
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, found {type(value).__name__}")
    return cast("dict[str, Any]", value)


def text(record: Mapping[str, Any], name: str) -> str:
    """Text, as it was written."""
    value = record[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is {type(value).__name__}, expected text")
    return value


def optional_text(record: Mapping[str, Any], name: str) -> str | None:
    """Text or nothing."""
    return None if record[name] is None else text(record, name)


def shown(record: Mapping[str, Any], name: str) -> str:
    """A line for people."""
    return on_one_line(text(record, name))


def shown_lines(record: Mapping[str, Any], name: str) -> str:
    """Lines for people."""
    return printable(text(record, name))


def whole_number(record: Mapping[str, Any], name: str) -> int:
    """A whole number from 0 on."""
    value = record[name]
    if type(value) is not int or not 0 <= value < _LARGEST_NUMBER:
        raise ValueError(f"{name} is no whole number from 0 on")
    return value


def optional_count(record: Mapping[str, Any], name: str) -> int | None:
    """A whole number from 0 on, or nothing."""
    return None if record[name] is None else whole_number(record, name)


def number_of_seconds(record: Mapping[str, Any], name: str) -> float:
    """A lease: more than nothing, and no more than `LONGEST_LEASE_S`."""
    value = record[name]
    if type(value) not in (int, float) or not math.isfinite(value) or not 0 < value <= LONGEST_LEASE_S:
        raise ValueError(f"{name} is no number of seconds up to {LONGEST_LEASE_S:g}")
    return float(value)


def check_epoch(epoch: int, path: str) -> int:
    """The epoch of a record, which is that of its file's name: a file may have been moved or swapped."""
    named = _NUMBERED_FILE.fullmatch(path.rpartition("/")[2])
    if epoch < 1 or (named is not None and int(named["epoch"]) != epoch):
        raise ValueError(f"it is of attempt {epoch}")
    return epoch


def check_write_id(record: Mapping[str, Any], expected: str) -> None:
    """Refuses a record that was not written as what it says it is."""
    if record["write_id"] != expected:
        raise ValueError("its write id does not fit the rest of it")
