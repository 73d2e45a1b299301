"""marin_trace: trace, compile and run pipelines against shared storage.

``trace → Graph → passes → lower → StepSpec → run``. The names of this module are all that an experiment needs; the
runtime's primitives are imported from their modules. Each name loads when it is first used, so that importing this
package costs nothing: a job, a worker of a cluster and a lease keeper need but parts of it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from marin_trace.cli.flags import parse_flags
    from marin_trace.errors import MarinTraceError, MarinTraceWarning
    from marin_trace.executor import executor_main
    from marin_trace.ir.config_tree import register_encoder, unversioned, versioned
    from marin_trace.ir.graph import Graph
    from marin_trace.ir.refs import StepRef
    from marin_trace.lowering.lower import lower
    from marin_trace.lowering.step_spec import StepSpec
    from marin_trace.runtime.artifact import Artifact
    from marin_trace.tracing.deferred import deferred
    from marin_trace.tracing.step import output, step, trace
    from marin_trace.workers.resources import ResourceConfig

__all__ = [
    "Artifact",
    "Graph",
    "MarinTraceError",
    "MarinTraceWarning",
    "ResourceConfig",
    "StepRef",
    "StepSpec",
    "deferred",
    "executor_main",
    "lower",
    "output",
    "parse_flags",
    "register_encoder",
    "step",
    "trace",
    "unversioned",
    "versioned",
]

__version__ = "0.1.0"

_module_by_name = {
    "Artifact": "marin_trace.runtime.artifact",
    "Graph": "marin_trace.ir.graph",
    "MarinTraceError": "marin_trace.errors",
    "MarinTraceWarning": "marin_trace.errors",
    "ResourceConfig": "marin_trace.workers.resources",
    "StepRef": "marin_trace.ir.refs",
    "StepSpec": "marin_trace.lowering.step_spec",
    "deferred": "marin_trace.tracing.deferred",
    "executor_main": "marin_trace.executor",
    "lower": "marin_trace.lowering.lower",
    "output": "marin_trace.tracing.step",
    "parse_flags": "marin_trace.cli.flags",
    "register_encoder": "marin_trace.ir.config_tree",
    "step": "marin_trace.tracing.step",
    "trace": "marin_trace.tracing.step",
    "unversioned": "marin_trace.ir.config_tree",
    "versioned": "marin_trace.ir.config_tree",
}


def __getattr__(name: str) -> Any:
    module = _module_by_name.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
