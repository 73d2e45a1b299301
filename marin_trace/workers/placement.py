"""Where steps would run, and whether they could: asked of a client before anything is started."""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from marin_trace.errors import ResourcesUnavailableError, explain
from marin_trace.workers.client import JobClient
from marin_trace.workers.local import LocalClient
from marin_trace.workers.resources import ResourceConfig

__all__ = ["PlacementClient", "check_placeable", "place_of"]


@runtime_checkable
class PlacementClient(Protocol):
    """A client that can tell before a job is submitted whether its engine could ever run it."""

    def check_placeable(self, name: str, resources: ResourceConfig) -> None:
        """Refuses what the engine could never give.

        Raises:
            ResourcesUnavailableError: It names what the engine has.
        """
        ...


def place_of(resources: ResourceConfig | None, client: JobClient | None) -> str:
    """Where a step would run, in a few words for a plan: ``"ray, 4 processes"``, ``"local"``.

    Args:
        resources: Of the step; None where it asks for none and runs in the launcher.
        client: That was chosen; None: processes of this machine.

    Example:
        >>> place_of(ResourceConfig.with_tpu("v5p-32"), None), place_of(None, None)
        ('local, 4 processes', 'launcher')
    """
    if resources is None:
        return "launcher"
    engine = "local" if client is None else client.name
    return engine if resources.processes == 1 else f"{engine}, {resources.processes} processes"


def check_placeable(steps: Iterable[tuple[str, ResourceConfig]], client: JobClient | None) -> None:
    """Refuses steps that the chosen place could never run, all in one message.

    **Phase**: plan time. May ask the engine, and so connect to it; asks nobody where no step has resources.

    Args:
        steps: Those that are to run: names, and the resources that they ask for.
        client: That was chosen; None: processes of this machine.

    Raises:
        ResourcesUnavailableError: Each of these steps is named with what is missing, and the flag to give.
        WorkerError: The engine does not answer.
    """
    asked = list(steps)
    place = LocalClient() if client is None else client
    if not asked or not isinstance(place, PlacementClient):
        return
    refused: list[ResourcesUnavailableError] = []
    for name, resources in asked:
        try:
            place.check_placeable(name, resources)
        except ResourcesUnavailableError as error:
            refused.append(error)
    if len(refused) == 1:
        raise refused[0]
    if refused:
        first, _, hint = str(refused[0]).partition("\n\nhint: ")
        summaries = [str(error).partition("\n")[0] for error in refused]
        facts = [*summaries, *first.splitlines()[1:]]
        raise ResourcesUnavailableError(
            explain(f"{len(refused)} steps cannot run on {place.name}", facts=facts, hint=hint or None)
        )
