"""Servers on this machine that stand for clouds, and what the libraries need to be told to find them."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import pytest

from marin_trace.storage import control_store
from tests.storage.fake_gcs import FakeGcs
from tests.storage.fake_s3 import FakeS3
from tests.storage.faults import Faults

BUCKET = "bucket"

# gcsfs looks when it is imported, by whatever test: against an emulator it asks for a minute which kind a bucket is.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"


@dataclass(frozen=True, slots=True)
class Cloud:
    """A server that runs, while this process and those that it starts use it."""

    bucket: str
    """As a URL."""
    faults: Faults
    environment: Mapping[str, str] = field(repr=False)
    url: str = ""
    """Of the server."""
    written_ns: Mapping[str, int] = field(repr=False, default_factory=dict[str, int])
    """When each object was last written, by this machine's clock; by its URL without the protocol."""
    lie: Callable[[], None] = field(repr=False, default=lambda: None)
    """From here on the server ignores conditions."""


def gcs_environment(url: str) -> dict[str, str]:
    return {
        "STORAGE_EMULATOR_HOST": url,
        "FSSPEC_GS_TOKEN": "anon",
        "FSSPEC_GCS_TOKEN": "anon",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }


def s3_environment(url: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextlib.contextmanager
def gcs_cloud(*, honours_preconditions: bool = True, page_size: int = 1000) -> Iterator[Cloud]:
    """The fake of Google Cloud Storage."""
    with (
        FakeGcs(honours_preconditions=honours_preconditions, page_size=page_size) as server,
        _used(gcs_environment(server.url)) as environment,
    ):
        yield Cloud(f"gs://{BUCKET}", server.faults, environment, server.url, server.written_ns, server.lie)


@contextlib.contextmanager
def s3_cloud(*, honours_preconditions: bool = True) -> Iterator[Cloud]:
    """moto's S3, with a bucket."""
    with (
        FakeS3(honours_preconditions=honours_preconditions) as server,
        _used(s3_environment(server.url)) as environment,
    ):
        server.make_bucket(BUCKET)
        yield Cloud(f"s3://{BUCKET}", server.faults, environment, server.url, server.written_ns, server.lie)


@contextlib.contextmanager
def _used(environment: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        forget_stores()
        # In this process the configuration was read when fsspec was imported.
        import fsspec.config

        told = {name: value for name, value in environment.items() if name.startswith("FSSPEC_")}
        fsspec.config.set_conf_env(fsspec.config.conf, told)
        try:
            yield environment
        finally:
            forget_stores()


def forget_stores() -> None:
    """Lets the next use of a store find the server that the environment names now."""
    control_store._object_stores.clear()
    import gcsfs
    import s3fs

    for kind in (gcsfs.GCSFileSystem, s3fs.S3FileSystem):
        kind.clear_instance_cache()
