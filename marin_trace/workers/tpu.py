"""How many machines a TPU slice has, by its type's name. Imports nothing but the standard library.

The rules are those of Google's Cloud TPU documentation, under "TPU versions" of each generation:

- v2, v3, v4, v5p: the number counts TensorCores, two for each chip; a machine (TPU VM) has four chips.
- v5e (``v5litepod-16``, also written ``v5e-16``) and v6e: the number counts chips; up to eight are one machine, more
  are machines of four.
"""

import re
from dataclasses import dataclass
from typing import Final, final

from marin_trace.errors import ConfigError, explain

__all__ = ["TpuSlice", "tpu_slice"]

_TYPE: Final = re.compile(r"(?P<generation>v[0-9]+[a-z]*)-(?P<number>[1-9][0-9]*)")
_CORES_PER_CHIP: Final = {"v2": 2, "v3": 2, "v4": 2, "v5p": 2, "v5e": 1, "v5litepod": 1, "v6e": 1}
_CHIPS_PER_HOST: Final = 4
_LARGEST_SINGLE_HOST: Final = {"v5e": 8, "v5litepod": 8, "v6e": 8}
"""Chips of the one machine that is no machine of four."""


@final
@dataclass(frozen=True, slots=True)
class TpuSlice:
    """The machines of one slice."""

    generation: str
    """``"v5p"``; v5e is ``"v5e"`` however it was written."""
    chips: int
    hosts: int

    @property
    def chips_per_host(self) -> int:
        """Chips of each machine."""
        return self.chips // self.hosts


def tpu_slice(tpu_type: str) -> TpuSlice:
    """What a slice of some type is made of.

    Raises:
        ConfigError: There is no such type.

    Example:
        >>> tpu_slice("v5p-32"), tpu_slice("v5litepod-8")
        (TpuSlice(generation='v5p', chips=16, hosts=4), TpuSlice(generation='v5e', chips=8, hosts=1))
    """
    matched = _TYPE.fullmatch(tpu_type.lower())
    cores_per_chip = _CORES_PER_CHIP.get(matched["generation"]) if matched else None
    if matched is None or cores_per_chip is None:
        raise ConfigError(
            explain(
                f"{tpu_type!r} is no TPU type",
                facts={"generations": ", ".join(_CORES_PER_CHIP)},
                hint='ResourceConfig.with_tpu("v5p-8")',
            )
        )
    generation, chips = matched["generation"], int(matched["number"]) // cores_per_chip
    single_host = _LARGEST_SINGLE_HOST.get(generation, _CHIPS_PER_HOST)
    is_one_machine = chips <= single_host
    if chips == 0 or int(matched["number"]) % cores_per_chip or not (is_one_machine or chips % _CHIPS_PER_HOST == 0):
        raise ConfigError(
            explain(
                f"{tpu_type!r} is no TPU type: a machine of {generation} has "
                f"{_CHIPS_PER_HOST} chips of {cores_per_chip} cores",
                hint=f'ResourceConfig.with_tpu("{generation}-{_CHIPS_PER_HOST * cores_per_chip}")',
            )
        )
    return TpuSlice(
        "v5e" if generation == "v5litepod" else generation, chips, 1 if is_one_machine else chips // _CHIPS_PER_HOST
    )
