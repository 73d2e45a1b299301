"""``--cluster``: the client that a name stands for."""

from typing import Final

from marin_trace.errors import ResourcesUnavailableError, explain
from marin_trace.workers.client import JobClient
from marin_trace.workers.local import LocalClient

__all__ = ["client_named"]

_CLUSTERS: Final = ("local", "ray", "ray://HOST:PORT", "fray", "fray://HOST:PORT", "fray://CLUSTER")


def client_named(cluster: str, *, outcomes: str | None = None) -> JobClient:
    """A client for what ``--cluster`` names.

    Args:
        cluster: The engine, and where it is.
        outcomes: A directory that jobs can reach, for engines that have no other way to tell what a call raised.

    Raises:
        ResourcesUnavailableError: It names no engine.
        WorkerError: The engine is not installed, with the extra that brings it.

    Example:
        >>> client_named("local").name
        'local'
    """
    if cluster == "local":
        return LocalClient()
    if cluster == "ray" or cluster.startswith("ray://"):
        from marin_trace.workers.ray import RayClient

        return RayClient(None if cluster == "ray" else cluster)
    if cluster == "fray" or cluster.startswith("fray://"):
        from marin_trace.workers.fray import FrayClient

        return FrayClient(cluster.removeprefix("fray").removeprefix("://") or None, outcomes=outcomes)
    raise ResourcesUnavailableError(
        explain(
            f"there is no cluster {cluster!r}",
            facts={"clusters": ", ".join(_CLUSTERS)},
            hint=f"--cluster {'ray://' + cluster if ':' in cluster else 'local'}",
        )
    )
