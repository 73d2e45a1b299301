"""Laws of resources."""

import pytest

from marin_trace.errors import ConfigError
from marin_trace.workers.resources import ResourceConfig, parse_size


@pytest.mark.parametrize(
    ("resources", "text"),
    [
        (ResourceConfig(), ""),
        (ResourceConfig.with_cpu(), "cpu=1"),
        (ResourceConfig.with_cpu(0.5, ram="2g", disk="1 TiB"), "cpu=0.5 ram=2g disk=1 TiB"),
        (ResourceConfig.with_gpu("H100", 8, cpu=32), "gpu=H100x8 cpu=32"),
        (ResourceConfig.with_gpu(), "gpu=any"),
        (ResourceConfig.with_tpu("v5p-8"), "tpu=v5p-8"),
        (ResourceConfig.with_tpu("v5p-8", slice_count=2), "tpu=v5p-8x2"),
    ],
)
def test_resources_print_in_short(resources: ResourceConfig, text: str) -> None:
    assert str(resources) == text


@pytest.mark.parametrize("size", ["16", "16 GiB", "0.5tb", "3Ki"])
def test_a_size_has_a_unit_or_is_bytes(size: str) -> None:
    assert parse_size(size, field="ram") > 0


def test_units_are_decimal_or_binary() -> None:
    assert [parse_size(size, field="ram") for size in ("1k", "1KiB", "1.5M")] == [1000, 1024, 1_500_000]
    assert ResourceConfig.with_cpu(ram="2Gi").ram_bytes == 2**31


@pytest.mark.parametrize("size", ["", "g", "16 q", "-1g", "16 GiB GiB"])
def test_what_is_no_size_is_refused(size: str) -> None:
    with pytest.raises(ConfigError, match="is no size"):
        ResourceConfig.with_cpu(ram=size)
    with pytest.raises(ConfigError, match="disk="):
        ResourceConfig.with_cpu(disk=size)


def test_nothing_runs_on_nothing() -> None:
    with pytest.raises(ConfigError, match="cpu=0"):
        ResourceConfig.with_cpu(0)
    with pytest.raises(ConfigError, match="at least one"):
        ResourceConfig.with_gpu("H100", 0)


def test_regions_are_several_and_kept_as_a_tuple() -> None:
    assert ResourceConfig.with_cpu(1, regions=["us-east5", "us-central1"]).regions == ("us-east5", "us-central1")
    with pytest.raises(ConfigError, match="regions='us-east5' is no list of regions") as caught:
        ResourceConfig.with_cpu(1, regions="us-east5")
    assert "hint: regions=['us-east5']" in str(caught.value)


def test_equal_resources_are_equal_and_hash() -> None:
    assert len({ResourceConfig.with_cpu(2), ResourceConfig.with_cpu(2), ResourceConfig.with_cpu(3)}) == 2
