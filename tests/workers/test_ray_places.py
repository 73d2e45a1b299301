"""Laws of what is asked of a Ray cluster: pure, on nodes as Ray describes them."""

from collections.abc import Mapping
from typing import Any

import pytest

from marin_trace.errors import ResourcesUnavailableError
from marin_trace.workers.ray_places import RayNode, check_fits, ray_nodes, ray_share, slice_topology
from marin_trace.workers.resources import ResourceConfig

GB = 10**9


def node(labels: Mapping[str, str] | None = None, **resources: float) -> RayNode:
    return RayNode({"CPU": 8.0, "memory": 32.0 * GB, **resources}, labels or {})


def tpu_nodes(name: str, count: int, tpu_type: str = "v5p-32") -> list[RayNode]:
    labels = {"ray.io/tpu-slice-name": name, "ray.io/tpu-pod-type": tpu_type, "ray.io/tpu-topology": "2x2x4"}
    return [node(labels, TPU=4.0) for _ in range(count)]


GPU = node(**{"GPU": 8.0, "accelerator_type:H100": 1.0})
MIXED = [node(), node(), GPU, *tpu_nodes("slice-a", 4)]


@pytest.mark.parametrize(
    "resources",
    [
        ResourceConfig(),
        ResourceConfig.with_cpu(8, ram="32g"),
        ResourceConfig.with_cpu(4, replicas=14),
        ResourceConfig.with_gpu("h100", 8),
        ResourceConfig.with_gpu(count=3),
        ResourceConfig.with_tpu("v5p-32"),
        ResourceConfig.with_cpu(1, preemptible=False),
    ],
    ids=str,
)
def test_what_an_idle_cluster_could_run_is_taken(resources: ResourceConfig) -> None:
    check_fits("train", resources, MIXED)


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        (ResourceConfig.with_cpu(9), "train asks for cpu=9, and the largest node of the Ray cluster has 8"),
        (
            ResourceConfig.with_cpu(ram="64g"),
            r"asks for 64g of memory, and the largest node .* has 32 GB",
        ),
        (ResourceConfig.with_gpu("A100"), "asks for gpu=A100, and the Ray cluster has H100x8 on 1 node"),
        (ResourceConfig.with_gpu("H100", 9), "asks for gpu=H100x9, and the Ray cluster has H100x8 on 1 node"),
        (
            ResourceConfig.with_tpu("v4-8"),
            r"asks for tpu=v4-8, and the Ray cluster has v5p-32 \(4 chips\) on 4 nodes",
        ),
        (
            ResourceConfig.with_tpu("v5p-32", slice_count=2),
            "asks for tpu=v5p-32x2 on each of 8 machines, and the Ray cluster has v5p-32",
        ),
        (
            ResourceConfig.with_cpu(8, replicas=8),
            "asks for cpu=8 replicas=8 on each of 8 machines, and the Ray cluster has not as much in one place",
        ),
        (ResourceConfig.with_cpu(1, zone="us-east5-a"), "asks for cpu=1, availability-zone us-east5-a, and the Ray"),
        (ResourceConfig.with_cpu(1, regions=["us-east5"]), r"asks for cpu=1, availability-region in\(us-east5\), and"),
    ],
)
def test_what_it_never_could_is_refused_with_what_it_has(resources: ResourceConfig, message: str) -> None:
    with pytest.raises(ResourcesUnavailableError, match=message) as caught:
        check_fits("train", resources, MIXED)
    assert "2 x cpu=8 ram=32.0g" in str(caught.value)


def test_half_a_slice_is_no_slice() -> None:
    with pytest.raises(ResourcesUnavailableError, match="asks for tpu=v5p-32 on each of 4 machines"):
        check_fits("train", ResourceConfig.with_tpu("v5p-32"), [*tpu_nodes("slice-a", 2), *tpu_nodes("slice-b", 2)])


def test_an_empty_cluster_has_no_node() -> None:
    with pytest.raises(ResourcesUnavailableError, match=r"asks for cpu=1, and the largest .* has 0") as e:
        check_fits("train", ResourceConfig(), [])
    assert "no node is alive" in str(e.value)


def test_places_are_chosen_by_labels() -> None:
    spot = {"ray.io/market-type": "spot", "ray.io/availability-zone": "a", "ray.io/availability-region": "r1"}
    kept = {"ray.io/market-type": "on-demand", "ray.io/availability-zone": "b", "ray.io/availability-region": "r2"}
    nodes = [node(spot), node(kept)]
    for resources in (
        ResourceConfig.with_cpu(1, zone="b", preemptible=False),
        ResourceConfig.with_cpu(1, regions=["r2", "r9"]),
    ):
        check_fits("train", resources, nodes)
        with pytest.raises(ResourcesUnavailableError, match="in one place"):
            check_fits("train", resources, nodes[:1])


def test_shares_are_in_rays_own_terms() -> None:
    share = ray_share(ResourceConfig.with_gpu("h100", 2, cpu=2.5, ram="16g"), MIXED)
    assert share.as_options() == {
        "num_cpus": 3,
        "num_gpus": 2,
        "memory": 16 * GB,
        "resources": {"accelerator_type:H100": 0.001},
    }
    tpu = ray_share(ResourceConfig.with_tpu("v5p-32", cpu=0.5), MIXED)
    assert tpu.as_bundle() == {"CPU": 0.5, "TPU": 4}
    assert tpu.labels == {"ray.io/tpu-pod-type": "v5p-32"}
    assert ray_share(ResourceConfig(), []).as_bundle() == {"CPU": 1}


def test_a_slice_has_the_topology_that_its_machines_tell() -> None:
    assert slice_topology("v5p-32", MIXED) == "2x2x4"
    assert slice_topology("v5p-64", MIXED) is None


def test_only_live_nodes_count() -> None:
    described: list[dict[str, Any]] = [
        {"Alive": True, "Resources": {"CPU": 2.0}, "Labels": {"a": "b"}},
        {"Alive": False, "Resources": {"CPU": 64.0}},
    ]
    assert ray_nodes(described) == [RayNode({"CPU": 2.0}, {"a": "b"})]
