"""What a step asks of the machine it runs on. Imports nothing but the standard library: wiring modules use it.

Field names are those of Marin's fray, so that its adapter is thin. Resources never enter a fingerprint.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypedDict, final

from marin_trace.errors import ConfigError, explain
from marin_trace.workers.tpu import TpuSlice, tpu_slice

__all__ = ["Device", "ResourceConfig", "parse_size"]

_UNITS: Final = {
    "": 1,
    "B": 1,
    "K": 10**3,
    "KB": 10**3,
    "M": 10**6,
    "MB": 10**6,
    "G": 10**9,
    "GB": 10**9,
    "T": 10**12,
    "TB": 10**12,
    "KI": 2**10,
    "KIB": 2**10,
    "MI": 2**20,
    "MIB": 2**20,
    "GI": 2**30,
    "GIB": 2**30,
    "TI": 2**40,
    "TIB": 2**40,
}
_SIZE = re.compile(r"\s*(?P<number>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>[A-Za-z]*)\s*")


class _Place(TypedDict):
    preemptible: bool
    regions: Sequence[str]
    zone: str | None
    replicas: int


@final
@dataclass(frozen=True, slots=True)
class Device:
    """An accelerator."""

    kind: Literal["gpu", "tpu"]
    type: str
    """``"H100"``, ``"v5p-8"``; ``"any"`` where the type does not matter."""
    count: int = 1
    """GPUs, or TPU slices."""

    def __str__(self) -> str:
        return f"{self.kind}={self.type}" + (f"x{self.count}" if self.count != 1 else "")


@final
@dataclass(frozen=True, slots=True)
class ResourceConfig:
    """What a step asks for.

    Example:
        >>> str(ResourceConfig.with_cpu(8, ram="32g")), str(ResourceConfig.with_tpu("v5p-8"))
        ('cpu=8 ram=32g', 'tpu=v5p-8')
        >>> ResourceConfig.with_tpu("v5p-32").processes
        4
    """

    cpu: float | None = None
    """Cores; None: what the place gives."""
    ram: str | None = None
    """Main memory, with a unit: ``"16g"``, ``"512 MiB"``."""
    disk: str | None = None
    """Scratch space, with a unit."""
    device: Device | None = None
    """An accelerator."""
    preemptible: bool = True
    """Whether a machine will do that may be taken away at any time."""
    regions: Sequence[str] = ()
    """Where it may run; empty: anywhere. Kept as a tuple."""
    zone: str | None = None
    """Where it must run, within a region."""
    replicas: int = 1
    """Copies of the job that run as one gang."""

    def __post_init__(self) -> None:
        if self.cpu is not None and not self.cpu > 0:
            raise ConfigError(explain(f"a step cannot run on cpu={self.cpu}", hint="ResourceConfig.with_cpu(1)"))
        for field, size in (("ram", self.ram), ("disk", self.disk)):
            if size is not None:
                parse_size(size, field=field)
        if self.replicas < 1 or (self.device is not None and self.device.count < 1):
            raise ConfigError(explain("a step needs at least one replica, and at least one of each device it names"))
        if self.device is not None and self.device.kind == "tpu":
            tpu_slice(self.device.type)
        # One region is often written as text, which would be taken for a sequence of letters.
        if isinstance(self.regions, str):
            raise ConfigError(
                explain(f"regions={self.regions!r} is no list of regions", hint=f"regions=[{self.regions!r}]")
            )
        object.__setattr__(self, "regions", tuple(self.regions))

    @classmethod
    def with_cpu(
        cls,
        cpu: float = 1,
        *,
        ram: str | None = None,
        disk: str | None = None,
        preemptible: bool = True,
        regions: Sequence[str] = (),
        zone: str | None = None,
        replicas: int = 1,
    ) -> "ResourceConfig":
        """Cores and memory, no accelerator."""
        place = _Place(preemptible=preemptible, regions=regions, zone=zone, replicas=replicas)
        return cls(cpu=cpu, ram=ram, disk=disk, **place)

    @classmethod
    def with_gpu(
        cls,
        gpu_type: str = "any",
        count: int = 1,
        *,
        cpu: float | None = None,
        ram: str | None = None,
        disk: str | None = None,
        preemptible: bool = True,
        regions: Sequence[str] = (),
        zone: str | None = None,
        replicas: int = 1,
    ) -> "ResourceConfig":
        """One machine with GPUs."""
        device = Device("gpu", gpu_type, count)
        place = _Place(preemptible=preemptible, regions=regions, zone=zone, replicas=replicas)
        return cls(cpu=cpu, ram=ram, disk=disk, device=device, **place)

    @classmethod
    def with_tpu(
        cls,
        tpu_type: str,
        slice_count: int = 1,
        *,
        cpu: float | None = None,
        ram: str | None = None,
        disk: str | None = None,
        preemptible: bool = True,
        regions: Sequence[str] = (),
        zone: str | None = None,
        replicas: int = 1,
    ) -> "ResourceConfig":
        """TPU slices of one type, as ``"v5p-8"``."""
        device = Device("tpu", tpu_type, slice_count)
        place = _Place(preemptible=preemptible, regions=regions, zone=zone, replicas=replicas)
        return cls(cpu=cpu, ram=ram, disk=disk, device=device, **place)

    @property
    def ram_bytes(self) -> int | None:
        """Main memory in bytes."""
        return None if self.ram is None else parse_size(self.ram, field="ram")

    @property
    def disk_bytes(self) -> int | None:
        """Scratch space in bytes."""
        return None if self.disk is None else parse_size(self.disk, field="disk")

    @property
    def tpu_slice(self) -> TpuSlice | None:
        """What each slice is made of; None without TPUs."""
        is_tpu = self.device is not None and self.device.kind == "tpu"
        return tpu_slice(self.device.type) if self.device is not None and is_tpu else None

    @property
    def slices(self) -> int:
        """TPU slices of each replica; 1 without TPUs."""
        return self.device.count if self.device is not None and self.device.kind == "tpu" else 1

    @property
    def processes(self) -> int:
        """How many processes run the step side by side: hosts of a slice, times slices, times replicas."""
        tpu = self.tpu_slice
        return (tpu.hosts if tpu is not None else 1) * self.slices * self.replicas

    def __str__(self) -> str:
        parts = [str(self.device)] if self.device else []
        parts += [f"cpu={self.cpu:g}"] if self.cpu is not None else []
        parts += [f"ram={self.ram}"] if self.ram else []
        parts += [f"disk={self.disk}"] if self.disk else []
        parts += [f"replicas={self.replicas}"] if self.replicas != 1 else []
        return " ".join(parts)


def parse_size(text: str, *, field: str) -> int:
    """A size with a unit, in bytes.

    Raises:
        ConfigError: It is none.

    Example:
        >>> parse_size("1.5g", field="ram"), parse_size("2 GiB", field="ram")
        (1500000000, 2147483648)
    """
    matched = _SIZE.fullmatch(text)
    unit = _UNITS.get(matched["unit"].upper()) if matched else None
    if matched is None or unit is None:
        raise ConfigError(explain(f"{field}={text!r} is no size", hint=f'{field}="16g", {field}="512MiB"'))
    return int(float(matched["number"]) * unit)
