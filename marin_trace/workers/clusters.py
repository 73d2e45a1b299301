"""``--cluster``: the client that a name stands for."""

from typing import Final

from marin_trace.errors import ResourcesUnavailableError, explain
from marin_trace.workers.client import JobClient
from marin_trace.workers.local import LocalClient

__all__ = ["client_named"]

_CLUSTERS: Final = ("local", "ray", "ray://HOST:PORT")


def client_named(cluster: str) -> JobClient:
    """A client for what ``--cluster`` names.

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
    raise ResourcesUnavailableError(
        explain(
            f"there is no cluster {cluster!r}",
            facts={"clusters": ", ".join(_CLUSTERS)},
            hint=f"--cluster {'ray://' + cluster if ':' in cluster else 'local'}",
        )
    )
