"""Runs the protocol's programs for real: each operation against the control store of the output's path."""

import logging
import random
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, final

from marin_trace.runtime.clock import boottime
from marin_trace.runtime.liveness import owner_is_gone
from marin_trace.runtime.operations import (
    AskEngine,
    EngineWord,
    Get,
    GetMany,
    List,
    Now,
    Operation,
    Pause,
    ProbeOwner,
    Program,
    Put,
    PutIfAbsent,
    ReadyKeeper,
    Say,
)
from marin_trace.storage.control_store import ControlStore, control_store_for

__all__ = ["Answers", "Driver", "driver_for"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

Answers = Mapping[type[Any], Callable[[Any], Any]]
"""How operations are answered that are not the same for everybody, by their class."""


def _no_engine(operation: AskEngine) -> EngineWord:
    return EngineWord.UNKNOWN


def _no_keeper(operation: ReadyKeeper) -> None:
    """A claim that is ended in one go needs none."""


_DEFAULT_ANSWERS: Answers = {AskEngine: _no_engine, ReadyKeeper: _no_keeper}


@final
@dataclass(frozen=True, slots=True)
class Driver:
    """What programs run against. Blocking; thread-safe if its answers are."""

    store: ControlStore
    answers: Answers = field(default_factory=lambda: _DEFAULT_ANSWERS, repr=False)
    sleep: Callable[[float], object] = time.sleep
    clock: Callable[[], float] = boottime

    def answering(self, answers: Answers) -> "Driver":
        """The same, with answers to further operations."""
        return Driver(self.store, {**self.answers, **answers}, self.sleep, self.clock)

    def run(self, program: Program[T]) -> T:
        """Runs a program to its end.

        Raises:
            StorageError: The store cannot be used; raised inside the program first, which may handle it.
        """
        try:
            operation = next(program)
            while True:
                operation = self._step(program, operation)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def resting(self, program: Program[T]) -> Generator[float, None, T]:
        """Runs a program, and leaves its pauses to the caller: yields the seconds of each. Raises what `run` raises."""
        try:
            operation = next(program)
            while True:
                if isinstance(operation, Pause):
                    yield random.uniform(operation.low_s, operation.high_s)
                    operation = program.send(None)
                else:
                    operation = self._step(program, operation)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _step(self, program: Program[Any], operation: Operation) -> Operation:
        kind = type(operation)
        perform = _PERFORM.get(kind)
        try:
            result = perform(self, operation) if perform is not None else self.answers[kind](operation)
        except OSError as error:
            return program.throw(error)
        return program.send(result)


# By class: `match` would try one after the other, which is 1 µs for each of 23 operations of a step.
_PERFORM: Final[Mapping[type[Any], Callable[[Driver, Any], Any]]] = {
    Get: lambda driver, operation: driver.store.get(operation.path),
    GetMany: lambda driver, operation: driver.store.get_many(operation.paths),
    List: lambda driver, operation: driver.store.list(operation.directory),
    PutIfAbsent: lambda driver, operation: driver.store.put_if_absent(
        operation.path, operation.content, durable=operation.durable
    ),
    Put: lambda driver, operation: driver.store.put(operation.path, operation.content),
    ProbeOwner: lambda driver, operation: owner_is_gone(operation.claim),
    Now: lambda driver, operation: driver.clock(),
    Pause: lambda driver, operation: driver.sleep(random.uniform(operation.low_s, operation.high_s)),
    Say: lambda driver, operation: logger.warning(operation.message),
}
"""How the operations are performed that are the same for everybody."""


def driver_for(path: str) -> Driver:
    """The driver for an output.

    Raises:
        PrefixError: The path's protocol is not supported.
    """
    return Driver(control_store_for(path))
