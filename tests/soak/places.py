"""Where the trials of a series have their prefixes: a local disk, or a server on this machine that stands for a cloud.

The server runs in the soak's own process, and outlives everything that is killed.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from marin_trace.storage.files import list_files, read_bytes
from tests.soak.site import Row, Site
from tests.storage.clouds import Cloud, gcs_cloud, s3_cloud


class Store(StrEnum):
    """The stores that series are run on."""

    LOCAL = "local"
    S3 = "s3"
    GCS = "gcs"
    NONE = "any"
    """For series that use none: what they hold does not depend on it."""


@dataclass(frozen=True, slots=True)
class Tempo:
    """How slow a store is: with a cloud, a launcher begins by importing its library, and a request takes longer."""

    leases_s: tuple[float, ...]
    """What a trial chooses from."""
    work_s: float
    """For starting and running the whole experiment once; on a busy machine so many times longer."""
    faults: tuple[int, int]
    """How many a trial has, at least and at most."""
    gap_s: tuple[float, float]
    """Between two faults."""
    first_s: float = 0.0
    """Before the first one, beside a gap."""


LOCAL_TEMPO = Tempo((0.8, 1.0, 1.5, 2.0), 10.0, (1, 4), (0.1, 1.3))
CLOUD_TEMPO = Tempo((2.5, 4.0), 25.0, (3, 6), (0.3, 2.5), 0.5)


@dataclass(frozen=True, slots=True)
class Place:
    """A store while a series uses it."""

    store: Store
    cloud: Cloud | None = field(default=None, repr=False)

    @property
    def tempo(self) -> Tempo:
        """How slow it is."""
        return LOCAL_TEMPO if self.cloud is None else CLOUD_TEMPO

    def path_of(self, directory: Path) -> str:
        """The path in this store that stands for a local directory."""
        return str(directory) if self.cloud is None else f"{self.cloud.bucket}{directory}"

    def site(self, directory: Path) -> Site:
        """A site with its prefix here."""
        if self.cloud is None:
            return Site(directory)
        return CloudSite(directory, cloud=self.cloud, url=self.path_of(directory / "prefix"))

    def has(self, path: str) -> bool:
        """Whether a file lies at a path of this store. Takes no request."""
        if self.cloud is None:
            return os.path.exists(path)
        return path.partition("://")[2] in self.cloud.written_ns


LOCAL = Place(Store.LOCAL)


@dataclass(slots=True, eq=False)
class CloudSite(Site):
    """A site whose prefix is a URL; what lies there is fetched for the checks."""

    url: str = field(kw_only=True)
    cloud: Cloud = field(kw_only=True)

    @property
    def place(self) -> str:
        return self.url

    def fetch(self) -> None:
        """Copies what lies in the cloud to the site's directory, as if it had been written there at the same time."""
        shutil.rmtree(self.prefix, ignore_errors=True)
        for file in list_files(self.url):
            target = Path(self.local(file.path))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(read_bytes(file.path).replace(self.url.encode(), str(self.prefix).encode()))
            written_ns = self.cloud.written_ns[file.path.partition("://")[2]]
            os.utime(target, ns=(written_ns, written_ns))

    def local(self, path: str) -> str:
        return str(self.prefix) + path.removeprefix(self.url)

    def noted(self) -> list[Row]:
        if not self.journal.exists():
            return []
        text = self.journal.read_text().replace(self.url, str(self.prefix))
        return [json.loads(line) for line in text.splitlines()]

    def control_files(self, group: str) -> list[str]:
        start = f"{self.url.partition('://')[2]}/{group}/"
        return [name for name in list(self.cloud.written_ns) if name.startswith(start) and "/.executor/" in name]

    @property
    def clock_tick_ns(self) -> int:
        # S3 tells the time of a write to the second, and of the same bytes nothing else changes.
        return 1_000_000_000 if self.url.startswith("s3:") else 0


_SERVERS: dict[Store, Callable[[], AbstractContextManager[Cloud]]] = {Store.S3: s3_cloud, Store.GCS: gcs_cloud}


@contextlib.contextmanager
def served(store: Store) -> Iterator[Place]:
    """The place of a store, while it is there."""
    if store not in _SERVERS:
        yield Place(store)
        return
    with _SERVERS[store]() as cloud:
        cloud.faults.keeps_calls = False
        yield Place(store, cloud)
