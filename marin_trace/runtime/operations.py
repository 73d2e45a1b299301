"""What the protocol's programs ask of the world: each operation is data, and whoever drives the program answers it.

A *program* is a generator that yields operations and is sent their results. `marin_trace.runtime.driver` answers them
with a real store and real clocks; a simulator answers them under faults. Programs do no I/O, read no clock and draw no
random numbers of their own.
"""

from collections.abc import Generator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar, final

from marin_trace.runtime.log_records import ClaimRecord, JobIdentity, StartRecord

__all__ = [
    "Act",
    "AskEngine",
    "AwaitDeath",
    "AwaitOwner",
    "EngineWord",
    "FinishingAct",
    "Get",
    "GetMany",
    "HandOver",
    "KillOwner",
    "LeaseView",
    "List",
    "Now",
    "Operation",
    "OwnerState",
    "Pause",
    "ProbeOwner",
    "Program",
    "Put",
    "PutIfAbsent",
    "ReadLease",
    "ReadyKeeper",
    "Report",
    "Say",
    "Submit",
    "TellLost",
    "Terminate",
]


@final
@dataclass(frozen=True, slots=True)
class PutIfAbsent:
    """Create a file; the result is True if the store says that this request created it."""

    path: str
    content: bytes
    durable: bool = False


@final
@dataclass(frozen=True, slots=True)
class Put:
    """Create or replace a file; no result."""

    path: str
    content: bytes


@final
@dataclass(frozen=True, slots=True)
class Get:
    """Read a file; the result is its content, or None."""

    path: str


@final
@dataclass(frozen=True, slots=True)
class GetMany:
    """Read several files; the result is a list of their contents, None where nothing lies."""

    paths: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True)
class List:
    """List a directory; the result is the sorted names."""

    directory: str


@final
@dataclass(frozen=True, slots=True)
class ProbeOwner:
    """Ask this machine about an owner; the result is True only if it is surely gone, with its children."""

    claim: ClaimRecord | StartRecord


@final
@dataclass(frozen=True, slots=True)
class Now:
    """Read this machine's monotonic clock, suspend included; the result is in seconds."""


@final
@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing for a time that is drawn between two bounds; no result."""

    low_s: float
    high_s: float


@final
@dataclass(frozen=True, slots=True)
class Say:
    """Tell whoever reads this process's log; no result."""

    message: str


@final
@dataclass(frozen=True, slots=True)
class ReadyKeeper:
    """Have a lease keeper running before a claim is sent; no result."""


@final
@dataclass(frozen=True, slots=True)
class LeaseView:
    """What this process knows of a lease that it holds."""

    lease_s: float
    sent_at: float
    """When the last acknowledged claim or heartbeat was first sent, by the clock of `Now`."""
    lost: str | None = None
    """Why the lease is known to be lost."""


@final
@dataclass(frozen=True, slots=True)
class ReadLease:
    """Look at what is known of a lease of this process; the result is a `LeaseView`. Asks no store."""

    nonce: str


class FinishingAct(StrEnum):
    """What lies between a body's return and the decision of its epoch, in this order."""

    SAVE = "save"
    LOOK_AT_INPUTS = "look at inputs"
    WRITE_MANIFEST = "write manifest"


@final
@dataclass(frozen=True, slots=True)
class Act:
    """Do what the caller has to do here; the result is the caller's (of the manifest: its digest or None)."""

    what: FinishingAct


@final
@dataclass(frozen=True, slots=True)
class Report:
    """Tell the owner that a heartbeat was acknowledged, and when it was first sent; no result."""

    nonce: str
    sent_at: float


@final
@dataclass(frozen=True, slots=True)
class TellLost:
    """Tell the owner that its lease is lost, so that it stops the step; no result."""

    nonce: str
    why: str


@final
@dataclass(frozen=True, slots=True)
class HandOver:
    """Tell the owner that the job which its claim was made for has begun, and renews the claim itself; no result."""

    nonce: str


class OwnerState(StrEnum):
    """What a lease keeper sees of the process that it keeps leases for."""

    RUNS = "runs"
    STOPPED = "stopped"
    """Suspended by a signal: it must not be renewed, or it would hold its claims for ever."""
    DEAD = "dead"
    FORGOTTEN = "forgotten"
    """It has ended the claim itself: there is nothing left to keep."""


@final
@dataclass(frozen=True, slots=True)
class AwaitOwner:
    """Wait so many seconds, or until the owner's state changes; the result is its `OwnerState`."""

    nonce: str
    seconds: float


@final
@dataclass(frozen=True, slots=True)
class KillOwner:
    """Kill the owner with its descendants; the result is False where that is not to be done (a notebook's kernel)."""

    why: str


@final
@dataclass(frozen=True, slots=True)
class AwaitDeath:
    """Kill what a dead owner left running, and wait until it is gone; the result says how the owner died."""


class EngineWord(StrEnum):
    """What an engine says of a job."""

    ALIVE = "alive"
    """It is pending or runs, or will be restarted."""
    GONE = "gone"
    """It has ended, or was never there."""
    UNKNOWN = "unknown"
    """Nobody here can ask, or nobody answers."""


@final
@dataclass(frozen=True, slots=True)
class AskEngine:
    """Ask a job's engine about it; the result is an `EngineWord`."""

    job: JobIdentity


@final
@dataclass(frozen=True, slots=True)
class Terminate:
    """Ask a job's engine to end it, without waiting; the result is the `EngineWord` after that."""

    job: JobIdentity


@final
@dataclass(frozen=True, slots=True)
class Submit:
    """Submit the job that a claim names; no result."""

    claim: ClaimRecord


Operation = (
    PutIfAbsent
    | Put
    | Get
    | GetMany
    | List
    | ProbeOwner
    | Now
    | Pause
    | Say
    | ReadyKeeper
    | ReadLease
    | Act
    | Report
    | TellLost
    | HandOver
    | AwaitOwner
    | KillOwner
    | AwaitDeath
    | AskEngine
    | Terminate
    | Submit
)

T = TypeVar("T")
Program = Generator[Operation, Any, T]
"""Yields operations, is sent their results, returns a T."""
