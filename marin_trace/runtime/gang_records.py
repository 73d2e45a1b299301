"""The records by which the processes of a gang meet, beside those of `marin_trace.runtime.log_records`."""

import re
from dataclasses import dataclass
from typing import Final, final

from marin_trace.runtime.log_records import StepFailure
from marin_trace.runtime.record_fields import check_write_id, dumped, reading, text, whole_number

__all__ = ["DoneRecord", "ReadyRecord"]

_ADDRESS: Final = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}:[0-9]{1,5}")


@final
@dataclass(frozen=True, slots=True)
class ReadyRecord:
    """``NNNNNN.ready``: the first process of a gang has prepared the output, and the others may begin."""

    attempt: str
    """Of the gang's first process, as its `StartRecord` names it."""
    coordinator: str
    """``host:port`` where it can be reached."""

    @property
    def write_id(self) -> str:
        """Unique to the writer and to this kind of file."""
        return f"{self.attempt}:ready"

    def to_bytes(self) -> bytes:
        """The file's content."""
        return dumped({"write_id": self.write_id, "attempt": self.attempt, "coordinator": self.coordinator})

    @classmethod
    def from_bytes(cls, content: bytes, path: str) -> "ReadyRecord":
        """Reads the file.

        Raises:
            ControlFileError: It is none.
        """
        with reading(content, path) as record:
            ready = cls(text(record, "attempt"), text(record, "coordinator"))
            if not _ADDRESS.fullmatch(ready.coordinator):
                raise ValueError("the coordinator is no host:port")
            check_write_id(record, ready.write_id)
            return ready


@final
@dataclass(frozen=True, slots=True)
class DoneRecord:
    """``NNNNNN.done-R``: the body of a gang's process R has ended."""

    attempt: str
    """Of the gang's first process."""
    rank: int
    error: StepFailure | None = None

    @property
    def write_id(self) -> str:
        """Unique to the writer and to this kind of file."""
        return f"{self.attempt}:done-{self.rank}"

    def to_bytes(self) -> bytes:
        """The file's content."""
        error = self.error and self.error.to_json()
        return dumped({"write_id": self.write_id, "attempt": self.attempt, "rank": self.rank, "error": error})

    @classmethod
    def from_bytes(cls, content: bytes, path: str) -> "DoneRecord":
        """Reads the file.

        Raises:
            ControlFileError: It is none.
        """
        with reading(content, path) as record:
            failure = StepFailure.from_json(record["error"])
            done = cls(text(record, "attempt"), whole_number(record, "rank"), failure)
            check_write_id(record, done.write_id)
            return done
