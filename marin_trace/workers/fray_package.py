"""marin-fray, bound when a client is made: whether it is there, whether it is the right package, and what it knows.

Nothing is imported before `load_fray`. Only submodules are used: its own root module is empty, and another project,
called ``fray`` on PyPI, owns the same import name.
"""

import dataclasses
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any, Final, final

from marin_trace.errors import WorkerError, explain

__all__ = ["FrayPackage", "load_fray"]

_INSTALL: Final = "pip install 'marin-trace[fray]', with Python 3.12 or 3.13"
_MODULES: Final = (
    "fray.current_client",
    "fray.local_backend",
    "fray.iris_backend",
    "iris.cluster.types",
    "iris.client.workload_codec",
    "iris.rpc.controller_pb2",
    "iris.resources.state",
)


@final
@dataclass(frozen=True, slots=True)
class FrayPackage:
    """The modules of marin-fray, by what they are for. Untyped: the package is optional."""

    version: str
    types: Any
    """``fray.types``: requests and their parts."""
    current: Any
    """``fray.current_client``: which client was chosen."""
    local: Any
    """``fray.local_backend``: jobs as threads of this process."""
    iris: Any
    """``fray.iris_backend``: jobs on an Iris cluster."""
    names: Any
    """``iris.cluster.types``: ids of jobs."""
    codec: Any
    """``iris.client.workload_codec``: what the controller's numbers mean."""
    messages: Any
    """``iris.rpc.controller_pb2``: questions to the controller."""
    states: Any
    """``iris.resources.state``: of jobs."""

    def build(self, kind: str, **fields: Any) -> Any:
        """A value of one of its types.

        Args:
            kind: The name of a dataclass in ``fray.types``.
            **fields: What is asked for; None: nothing is.

        Raises:
            WorkerError: This version does not know what is asked for.
        """
        return getattr(self.types, kind)(**self.known(kind, fields))

    def known(self, kind: str, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields that are asked for, if this version knows them all.

        Raises:
            WorkerError: It does not: what is asked for is never left out silently.
        """
        asked = {name: value for name, value in fields.items() if value is not None}
        its_own = {entry.name for entry in dataclasses.fields(getattr(self.types, kind))}
        missing = sorted(asked.keys() - its_own)
        if missing:
            raise WorkerError(
                explain(
                    f"marin-fray {self.version} is too old: its {kind} does not know {', '.join(missing)}",
                    hint="pip install --upgrade 'marin-trace[fray]'",
                )
            )
        return asked


def load_fray() -> FrayPackage:
    """Imports marin-fray with its Iris backend.

    Raises:
        WorkerError: It is not installed, or the package of that name is another one.
    """
    try:
        types = import_module("fray.types")
    except ModuleNotFoundError as error:
        if error.name == "fray":
            raise WorkerError(
                explain("--cluster fray needs marin-fray, which is not installed", hint=_INSTALL)
            ) from None
        if error.name == "fray.types":
            raise _unrelated() from None
        raise _incomplete(error) from error
    if not hasattr(types, "JobRequest"):
        raise _unrelated()
    try:
        rest = [import_module(name) for name in _MODULES]
    except ModuleNotFoundError as error:
        raise _incomplete(error) from error
    return FrayPackage(_version(), types, *rest)


def _unrelated() -> WorkerError:
    place = getattr(import_module("fray"), "__file__", None) or "a directory without __init__.py"
    return WorkerError(
        explain(
            "the installed package `fray` is not Marin's: fray.types has no JobRequest",
            facts={"found": place, "why": "PyPI's `fray` is an unrelated project with the same import name"},
            hint=f"pip uninstall fray, then {_INSTALL}",
        )
    )


def _incomplete(error: ModuleNotFoundError) -> WorkerError:
    return WorkerError(
        explain(f"marin-fray {_version()} cannot be used: there is no module {error.name!r}", hint=_INSTALL)
    )


def _version() -> str:
    try:
        return metadata.version("marin-fray")
    except metadata.PackageNotFoundError:  # a checkout on the path
        return "of unknown version"
