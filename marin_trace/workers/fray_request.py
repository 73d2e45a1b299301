"""A job request of ours as one of marin-fray's. What its version does not know and is asked for is an error.

Retries after failures are ours, each a new epoch: the engine's are switched off. Preemption is the engine's, with its
own budget. A job's environment travels as plain variables that the cluster's pages show, but for names that look like
those of secrets: their values travel as Iris's secrets do, as files.
"""

import re
from importlib import import_module
from typing import Any, Final

from marin_trace.errors import ResourcesUnavailableError, explain
from marin_trace.workers.client import JobRequest
from marin_trace.workers.fray_main import JobPayload, run_job
from marin_trace.workers.fray_package import FrayPackage
from marin_trace.workers.overlay import project_directory, split_groups
from marin_trace.workers.payload import pickled_call
from marin_trace.workers.resources import Device, ResourceConfig

__all__ = ["fray_request", "fray_resources"]

_SECRET_NAME = re.compile(
    r"(?:^|_)(?:TOKENS?|SECRETS?|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|AUTHORIZATION|API_?KEY|KEY)(?:_|$)",
    re.IGNORECASE,
)
"""One too many costs nothing: the variable is set all the same, when the job's process has begun."""
_ENGINE_TIMEOUT_S: Final = 60.0
"""Later than the job's own, which can say what happened."""


def fray_request(package: FrayPackage, request: JobRequest, *, outcomes: str | None, key: bytes = b"") -> Any:
    """A ``fray.types.JobRequest``.

    Args:
        package: marin-fray.
        request: Ours.
        outcomes: Where the job leaves what its call raises.
        key: With which it seals that.

    Raises:
        ResourcesUnavailableError: marin-fray knows no such device, or would never schedule that.
        UnpicklableError: The call captures what cannot be sent.
        WorkerError: This version of marin-fray does not know what is asked for; a pip group is unknown.
    """
    resources = fray_resources(package, request.name, request.resources)
    secrets = {name: value for name, value in request.env_vars.items() if _SECRET_NAME.search(name)}
    call = pickled_call(request.entrypoint, request.name)
    payload = JobPayload(request.name, call, tuple(sorted(secrets)), outcomes, key, request.timeout)
    duration: Any = import_module("rigging.timing").Duration
    return package.build(
        "JobRequest",
        name=request.name,
        entrypoint=package.types.Entrypoint.from_callable(run_job, [payload]),
        resources=resources,
        environment=_environment(package, request, secrets),
        max_retries_failure=0,
        max_task_failures=0,
        timeout=None if request.timeout is None else duration.from_seconds(request.timeout + _ENGINE_TIMEOUT_S),
    )


def _environment(package: FrayPackage, request: JobRequest, secrets: dict[str, str]) -> Any:
    extras, requirements = split_groups(request.pip_dependency_groups, project_directory())
    plain = {name: value for name, value in request.env_vars.items() if name not in secrets}
    asked = {"env_vars": plain, "secrets": secrets, "extras": extras, "pip_packages": requirements}
    return package.types.create_environment(
        **package.known("EnvironmentConfig", {name: value or None for name, value in asked.items()})
    )


def fray_resources(package: FrayPackage, name: str, asked: ResourceConfig) -> Any:
    """A ``fray.types.ResourceConfig``.

    Args:
        package: marin-fray.
        name: Of the job, for messages.
        asked: What it asks for.

    Raises:
        ResourcesUnavailableError: marin-fray knows no such device, or would never schedule that.
        WorkerError: This version of marin-fray does not know what is asked for.
    """
    fields = {
        "cpu": asked.cpu,
        "ram": _bytes(asked.ram_bytes),
        "disk": _bytes(asked.disk_bytes),
        "preemptible": asked.preemptible,
        "regions": list(asked.regions) or None,
        "zone": asked.zone,
        "replicas": asked.replicas,
    }
    device = asked.device
    if device is None:
        return package.build("ResourceConfig", **fields)
    kind = package.types.ResourceConfig
    try:
        if device.kind == "gpu":
            variant = "auto" if device.type == "any" else device.type
            return kind.with_gpu(variant, device.count, **package.known("ResourceConfig", fields))
        del fields["replicas"]  # one for each machine: marin-fray counts them
        slices = _slices(package, name, asked, device)
        return kind.with_tpu(device.type, slice_count=slices, **package.known("ResourceConfig", fields))
    except ValueError as error:
        raise ResourcesUnavailableError(
            explain(
                f"{name} asks for {device}, which is nothing that marin-fray has: {error}",
                facts={"TPU types": _generations(package)} if device.kind == "tpu" else {},
                hint='ResourceConfig.with_tpu("v5p-8"), or with_gpu("H100", 8)',
            )
        ) from error


def _generations(package: FrayPackage) -> str:
    names: list[str] = [topology.name for topology in package.types.TPU_TOPOLOGIES]
    return ", ".join(dict.fromkeys(f"{name.rpartition('-')[0]}-N" for name in names))


def _slices(package: FrayPackage, name: str, asked: ResourceConfig, device: Device) -> int:
    machines = package.types.get_tpu_topology(device.type).vm_count
    slices: int = device.count * asked.replicas
    if slices > 1 and machines > 1:
        raise ResourcesUnavailableError(
            explain(
                f"{name} asks for {slices} slices of {device.type} at once, which Iris has never room for: it places "
                "several slices only where each is one machine",
                facts={"one slice is": f"{machines} machines"},
                hint=f'ResourceConfig.with_tpu("{device.type}"), or one larger slice',
            )
        )
    return slices


def _bytes(size: int | None) -> str | None:
    """A size as marin-fray takes it: its own units are binary ones, whatever they are called."""
    return None if size is None else f"{size}B"
