"""Laws of TPU types: how many machines, and so processes, a slice has."""

import pytest

from marin_trace.errors import ConfigError
from marin_trace.workers.resources import ResourceConfig
from marin_trace.workers.tpu import TpuSlice, tpu_slice


@pytest.mark.parametrize(
    ("tpu_type", "chips", "hosts"),
    [
        ("v2-8", 4, 1),
        ("v2-32", 16, 4),
        ("v3-2048", 1024, 256),
        ("v4-8", 4, 1),
        ("v4-16", 8, 2),
        ("v5p-8", 4, 1),
        ("v5p-32", 16, 4),
        ("v5p-2048", 1024, 256),
        ("v5litepod-1", 1, 1),
        ("v5litepod-4", 4, 1),
        ("v5litepod-8", 8, 1),
        ("v5e-16", 16, 4),
        ("v6e-8", 8, 1),
        ("v6e-256", 256, 64),
        ("V5P-32", 16, 4),
    ],
)
def test_a_slice_has_the_machines_that_its_type_says(tpu_type: str, chips: int, hosts: int) -> None:
    found = tpu_slice(tpu_type)
    assert (found.chips, found.hosts, found.chips_per_host) == (chips, hosts, chips // hosts)


def test_v5e_has_one_name() -> None:
    assert tpu_slice("v5litepod-16") == tpu_slice("v5e-16") == TpuSlice("v5e", 16, 4)


@pytest.mark.parametrize("text", ["v5p", "v9-8", "v5p-0", "v5p-9", "v6e-18", "v5p-12", "tpu", "v5p-8x2", ""])
def test_what_is_no_type_is_refused_where_it_is_written(text: str) -> None:
    with pytest.raises(ConfigError, match="is no TPU type") as caught:
        ResourceConfig.with_tpu(text)
    assert "hint: ResourceConfig.with_tpu(" in str(caught.value)


@pytest.mark.parametrize(
    ("resources", "processes"),
    [
        (ResourceConfig(), 1),
        (ResourceConfig.with_gpu("H100", 8), 1),
        (ResourceConfig.with_gpu("H100", 8, replicas=3), 3),
        (ResourceConfig.with_tpu("v5p-8"), 1),
        (ResourceConfig.with_tpu("v5p-32", slice_count=2), 8),
        (ResourceConfig.with_tpu("v5p-32", replicas=2), 8),
    ],
)
def test_processes_are_hosts_times_slices_times_replicas(resources: ResourceConfig, processes: int) -> None:
    assert resources.processes == processes
