"""Marin's older executor API, to be run beside new code and migrated at leisure.

``from marin_trace.legacy import ExecutorStep, executor_main, this_output_path, versioned`` is the one line that changes
in an old experiment; outputs that the older executor made are found where it put them.
"""

import importlib
from typing import TYPE_CHECKING, Any

from marin_trace.legacy.steps import (
    THIS_OUTPUT_PATH,
    ExecutorStep,
    InputName,
    OutputName,
    VersionedValue,
    ensure_versioned,
    get_executor_step,
    output_path_of,
    this_output_path,
    unwrap_versioned_value,
    versioned,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    executor_main: Callable[..., Any]

__all__ = [
    "THIS_OUTPUT_PATH",
    "ExecutorStep",
    "InputName",
    "OutputName",
    "VersionedValue",
    "ensure_versioned",
    "executor_main",
    "get_executor_step",
    "output_path_of",
    "this_output_path",
    "unwrap_versioned_value",
    "versioned",
]


def __getattr__(name: str) -> Any:
    # By name, and when asked for: the executor lies above this package, and old modules import it from here.
    if name != "executor_main":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module("marin_trace.executor").executor_main
