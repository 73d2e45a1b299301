"""Runs the protocol's programs for real: each operation against the control store of the output's path."""

from dataclasses import dataclass
from typing import Any, TypeVar, assert_never, final

from marin_trace.runtime.liveness import owner_is_gone
from marin_trace.runtime.protocol import Get, List, Operation, ProbeOwner, Program, Put, PutIfAbsent
from marin_trace.storage.control_store import ControlStore, control_store_for

__all__ = ["Driver", "driver_for"]

T = TypeVar("T")


@final
@dataclass(frozen=True, slots=True)
class Driver:
    """What programs run against. Blocking; thread-safe."""

    store: ControlStore

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

    def _step(self, program: Program[Any], operation: Operation) -> Operation:
        try:
            result = self._perform(operation)
        except OSError as error:
            return program.throw(error)
        return program.send(result)

    def _perform(self, operation: Operation) -> Any:
        match operation:
            case Get():
                return self.store.get(operation.path)
            case List():
                return self.store.list(operation.directory)
            case PutIfAbsent():
                return self.store.put_if_absent(operation.path, operation.content, durable=operation.durable)
            case Put():
                return self.store.put(operation.path, operation.content)
            case ProbeOwner():
                return owner_is_gone(operation.claim)
            case _:
                assert_never(operation)


def driver_for(path: str) -> Driver:
    """The driver for an output.

    Raises:
        PrefixError: The path's protocol is not supported.
    """
    return Driver(control_store_for(path))
