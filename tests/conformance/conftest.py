"""A base path in each kind of store, with the servers that stand for the clouds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.storage.clouds import Cloud, gcs_cloud, s3_cloud


@pytest.fixture(scope="module")
def gcs() -> Iterator[Cloud]:
    with gcs_cloud() as cloud:
        yield cloud


@pytest.fixture(scope="module")
def s3() -> Iterator[Cloud]:
    with s3_cloud() as cloud:
        yield cloud


@pytest.fixture(params=["gcs", "s3"])
def cloud(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    """One of the clouds, without faults left over."""
    found: Cloud = request.getfixturevalue(request.param)
    found.faults.clear()
    yield found
    found.faults.clear()


@pytest.fixture(params=["local", "memory", "gcs", "s3"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A base path of this test, in one of the stores."""
    if request.param == "local":
        return str(tmp_path)
    if request.param == "memory":
        return f"memory:/{tmp_path}"
    found: Cloud = request.getfixturevalue(request.param)
    found.faults.clear()
    return f"{found.bucket}{tmp_path}"
