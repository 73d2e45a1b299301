"""Devices as a mesh of two axes, and what lies where on it.

``data`` holds copies of the parameters, ``fsdp`` splits them (Zhao et al. 2023); a batch is split over both. The
compiler puts in the communication: parameters are gathered layer by layer where they are used, gradients scattered. So
one program serves a laptop's processor, eight simulated devices, GPUs and the hosts of a TPU slice.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, final

import jax
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from experiments.lib.train.config import Layout
from marin_trace.io import gang_member

__all__ = ["DeviceMesh", "start_jax"]

BATCH_AXES = ("data", "fsdp")

logger = logging.getLogger(__name__)


def start_jax(layout: Layout) -> "DeviceMesh":
    """The devices, arranged for a layout; the processes of a gang are connected first, if they are not yet.

    A step's processes know of each other; those of a distributed layout that are no step's find each other from the
    cluster's environment. Must come before the process's first computation. Orbax, which writes a page at INFO about
    each checkpoint, and JAX are kept to warnings.
    """
    for name in ("absl", "jax"):
        logging.getLogger(name).setLevel(logging.WARNING)
    member = gang_member()
    if (layout.distributed or member is not None) and not jax.distributed.is_initialized():
        # Of processors; accelerators bring their own.
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        if member is None:
            jax.distributed.initialize()
        else:
            jax.distributed.initialize(member.coordinator, member.size, member.rank)
    return DeviceMesh(layout)


@final
class DeviceMesh:
    """All devices of all processes, arranged for a layout.

    Raises:
        ValueError: The devices cannot be arranged so.
    """

    def __init__(self, layout: Layout) -> None:
        devices = jax.device_count()
        fsdp = layout.fsdp or devices
        if fsdp < 0 or devices % fsdp:
            raise ValueError(f"layout.fsdp={layout.fsdp} does not divide the {devices} devices there are")
        self.mesh: Mesh = jax.make_mesh((devices // fsdp, fsdp), BATCH_AXES, axis_types=(AxisType.Auto, AxisType.Auto))
        self.replicated = NamedSharding(self.mesh, PartitionSpec())
        logger.info(f"{devices} {jax.devices()[0].device_kind} devices: data={devices // fsdp} fsdp={fsdp}")

    @property
    def size(self) -> int:
        """How many devices there are."""
        return self.mesh.size

    def state_shardings(self, state: Any) -> Any:
        """Where each array of a tree of parameters, or of what belongs to them, lies.

        Args:
            state: Arrays or their shapes. Those below a field ``layers`` have the layers as their first axis, which is
                scanned over and never split.
        """
        return jax.tree_util.tree_map_with_path(self._state_sharding, state)

    def placed_shapes(self, shapes: Any) -> Any:
        """The shapes of a state with their places: what a checkpoint is restored into."""
        return jax.tree.map(
            lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
            shapes,
            self.state_shardings(shapes),
        )

    def _state_sharding(self, path: tuple[Any, ...], array: Any) -> NamedSharding:
        first = 1 if any(getattr(key, "name", None) == "layers" for key in path) else 0
        size = self.mesh.shape["fsdp"]
        divisible = [axis for axis in range(first, array.ndim) if array.shape[axis] % size == 0]
        if size == 1 or not divisible:
            return self.replicated
        largest = max(divisible, key=lambda axis: array.shape[axis])
        return NamedSharding(self.mesh, PartitionSpec(*[None] * largest, "fsdp"))

    def batch_sharding(self, *, leading_axes: int = 0) -> NamedSharding:
        """The axis of sequences split over all devices, the others whole.

        Args:
            leading_axes: How many axes come before the one of sequences.
        """
        return NamedSharding(self.mesh, PartitionSpec(*[None] * leading_axes, BATCH_AXES))

    def constrain_activations(self, activations: Array) -> Array:
        """Within a compiled function: keeps activations split by sequence, so that it is parameters that travel."""
        return jax.lax.with_sharding_constraint(activations, self.batch_sharding())

    def make_batch(
        self, shape: tuple[int, ...], rows: Callable[[Sequence[int]], NDArray[np.int32]], *, leading_axes: int = 0
    ) -> Array:
        """A batch over all devices, of which each process reads only the rows that its own devices hold.

        Args:
            shape: Of the whole batch.
            rows: The content of some rows, [len(rows), …]; rows are numbered in the order of the axes up to that of
                sequences.
            leading_axes: As of :meth:`batch_sharding`.
        """
        axes = leading_axes + 1
        numbers = np.arange(np.prod(shape[:axes])).reshape(shape[:axes])

        def content(index: Any) -> NDArray[np.int32]:
            wanted = numbers[index[:axes]]
            return rows(wanted.ravel().tolist()).reshape(*wanted.shape, *shape[axes:])

        return jax.make_array_from_callback(shape, self.batch_sharding(leading_axes=leading_axes), content)
