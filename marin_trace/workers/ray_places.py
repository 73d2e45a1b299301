"""What a Ray cluster has, and how a step's resources are asked of it. Pure: nodes come as `ray.nodes()` gives them.

A node that Ray knows as a TPU machine has the resource ``TPU`` (chips) and, where Ray could tell, labels that name its
slice and the slice's type.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from marin_trace.errors import ResourcesUnavailableError, explain
from marin_trace.workers.resources import ResourceConfig

__all__ = ["RayNode", "RayShare", "check_fits", "ray_nodes", "ray_share", "slice_topology"]

_REGION: Final = "ray.io/availability-region"
_ZONE: Final = "ray.io/availability-zone"
_MARKET: Final = "ray.io/market-type"
_POD_TYPE: Final = "ray.io/tpu-pod-type"
_TOPOLOGY: Final = "ray.io/tpu-topology"
_SLICE_NAME: Final = "ray.io/tpu-slice-name"
_TYPE_PREFIX: Final = "accelerator_type:"
_SHOWN_KINDS: Final = 8


@final
@dataclass(frozen=True, slots=True)
class RayNode:
    """A live machine of the cluster: all it has, in use or not."""

    resources: Mapping[str, float]
    labels: Mapping[str, str]

    def __str__(self) -> str:
        has = self.resources
        parts = [f"cpu={has.get('CPU', 0):g}", f"ram={has.get('memory', 0) / 10**9:.1f}g"]
        types = [name.removeprefix(_TYPE_PREFIX) for name in has if name.startswith(_TYPE_PREFIX)]
        parts += [f"gpu={'/'.join(types) or 'any'}x{has['GPU']:g}"] if has.get("GPU") else []
        if has.get("TPU"):
            parts.append(f"tpu={self.labels.get(_POD_TYPE, 'any')} ({has['TPU']:g} chips)")
        return " ".join(parts)


@final
@dataclass(frozen=True, slots=True)
class RayShare:
    """What one process of a job asks of Ray."""

    cpu: float
    memory: int
    """Bytes, 0: none asked for. Ray sets them aside and does not enforce them."""
    gpu: float
    resources: Mapping[str, float]
    """Ray's custom ones: TPU chips, the head of a TPU slice, a type of accelerator."""
    labels: Mapping[str, str]
    """What the labels of a node must be, in Ray's language."""

    def as_options(self) -> dict[str, Any]:
        """Options of a Ray actor."""
        options: dict[str, Any] = {"num_cpus": self.cpu, "num_gpus": self.gpu, "resources": dict(self.resources)}
        options |= {"memory": self.memory} if self.memory else {}
        return options | ({"label_selector": dict(self.labels)} if self.labels else {})

    def as_bundle(self) -> dict[str, float]:
        """A bundle of a Ray placement group."""
        asked = {"CPU": self.cpu, "GPU": self.gpu, "memory": float(self.memory), **self.resources}
        return {name: amount for name, amount in asked.items() if amount}


def ray_nodes(nodes: Sequence[Mapping[str, Any]]) -> list[RayNode]:
    """The live nodes of what ``ray.nodes()`` returned."""
    return [RayNode(node["Resources"], node.get("Labels") or {}) for node in nodes if node["Alive"]]


def ray_share(resources: ResourceConfig, nodes: Sequence[RayNode]) -> RayShare:
    """What one process of a job asks of Ray.

    Args:
        resources: Of the job. No cores given: one.
        nodes: Of the cluster, for how it spells the type of a GPU.
    """
    custom: dict[str, float] = {}
    device, tpu = resources.device, resources.tpu_slice
    if tpu is not None:
        custom["TPU"] = tpu.chips_per_host
    if device is not None and device.kind == "gpu" and device.type != "any":
        # Any positive amount will do: a node has one of its accelerator's type.
        custom[_type_resource(device.type, nodes)] = 0.001
    is_gpu = device is not None and device.kind == "gpu"
    return RayShare(
        cpu=_whole_above_one(1 if resources.cpu is None else resources.cpu),
        memory=resources.ram_bytes or 0,
        gpu=device.count if device is not None and is_gpu else 0,
        resources=custom,
        labels=_labels(resources, nodes),
    )


def _whole_above_one(cores: float) -> float:
    # Ray takes fractions of one core only.
    return math.ceil(cores) if cores > 1 else cores


def _type_resource(gpu_type: str, nodes: Sequence[RayNode]) -> str:
    asked = f"{_TYPE_PREFIX}{gpu_type}"
    known = {name.lower(): name for node in nodes for name in node.resources}
    return known.get(asked.lower(), asked)


def _labels(resources: ResourceConfig, nodes: Sequence[RayNode]) -> dict[str, str]:
    labels: dict[str, str] = {}
    if resources.regions:
        labels[_REGION] = f"in({','.join(resources.regions)})"
    if resources.zone is not None:
        labels[_ZONE] = resources.zone
    if not resources.preemptible and any(_MARKET in node.labels for node in nodes):
        labels[_MARKET] = "!spot"
    device = resources.device
    if device is not None and device.kind == "tpu" and any(_POD_TYPE in node.labels for node in nodes):
        labels[_POD_TYPE] = device.type
    return labels


def slice_topology(tpu_type: str, nodes: Sequence[RayNode]) -> str | None:
    """The topology of slices of this type, as in ``"2x2x4"``, where the cluster has them and Ray tells."""
    found = [node.labels.get(_TOPOLOGY) for node in nodes if node.labels.get(_POD_TYPE) == tpu_type]
    return next((topology for topology in found if topology), None)


def check_fits(name: str, resources: ResourceConfig, nodes: Sequence[RayNode]) -> None:
    """Refuses what the cluster can never give, were it idle.

    Args:
        name: The job's.
        resources: That it asks for.
        nodes: All the live ones.

    Raises:
        ResourcesUnavailableError: It names what the cluster has.
    """
    share = ray_share(resources, nodes)
    eligible = [node for node in nodes if _matches(node, share.labels)]
    places = sum(_copies(node, share) for node in eligible)
    if places >= resources.processes and _whole_slices(resources, eligible):
        return
    kinds = Counter(str(node) for node in nodes).most_common(_SHOWN_KINDS)
    raise ResourcesUnavailableError(
        explain(
            f"{name} asks for {_asked(resources, share, nodes)}",
            facts=[f"{count} x {kind}" for kind, count in kinds] or ["no node is alive"],
            hint="ask for less (ResourceConfig), or add such machines to the cluster",
        )
    )


def _matches(node: RayNode, labels: Mapping[str, str]) -> bool:
    for name, wanted in labels.items():
        value = node.labels.get(name, "")
        if wanted.startswith("!") and value == wanted[1:]:
            return False
        if wanted.startswith("in(") and value not in wanted[3:-1].split(","):
            return False
        if not wanted.startswith(("!", "in(")) and value != wanted:
            return False
    return True


def _copies(node: RayNode, share: RayShare) -> int:
    """How many processes a node could take, were it idle."""
    bundle = share.as_bundle()
    return min((int(node.resources.get(name, 0.0) / amount) for name, amount in bundle.items()), default=1)


def _whole_slices(resources: ResourceConfig, nodes: Sequence[RayNode]) -> bool:
    """Whether there are as many slices with all their machines as are asked for; where Ray cannot tell, yes."""
    tpu = resources.tpu_slice
    hosts_by_slice = Counter(node.labels[_SLICE_NAME] for node in nodes if _SLICE_NAME in node.labels)
    if tpu is None or not hosts_by_slice:
        return True
    whole = sum(hosts >= tpu.hosts for hosts in hosts_by_slice.values())
    return whole >= resources.slices * resources.replicas


def _asked(resources: ResourceConfig, share: RayShare, nodes: Sequence[RayNode]) -> str:
    """The first thing asked for that no node has, and what the cluster has of it."""
    device = resources.device
    times = f" on each of {resources.processes} machines" if resources.processes > 1 else ""
    if share.cpu > _most("CPU", nodes):
        return f"cpu={share.cpu:g}, and the largest node of the Ray cluster has {_most('CPU', nodes):g}"
    if share.memory > _most("memory", nodes):
        has = f"{_most('memory', nodes) / 10**9:.0f} GB"
        return f"{resources.ram} of memory, and the largest node of the Ray cluster has {has}"
    if device is not None:
        has = _devices(device.kind, nodes)
        return f"{device}{times}, and the Ray cluster has {has}"
    where = "".join(f", {name.rpartition('/')[2]} {wanted}" for name, wanted in share.labels.items())
    return f"{resources or 'cpu=1'}{times}{where}, and the Ray cluster has not as much in one place"


def _most(resource: str, nodes: Sequence[RayNode]) -> float:
    return max((node.resources.get(resource, 0.0) for node in nodes), default=0.0)


def _devices(kind: str, nodes: Sequence[RayNode]) -> str:
    having = [node for node in nodes if node.resources.get(kind.upper())]
    if not having:
        return f"no {kind.upper()}"
    kinds = Counter(str(node).partition(f"{kind}=")[2] for node in having)
    return ", ".join(f"{text} on {count} node{'s' if count > 1 else ''}" for text, count in kinds.items())
