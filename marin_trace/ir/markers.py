"""Markers: what another API puts into configs for something known later, and replaces when the config is used."""

from typing import Any


class Marker:
    """A value in a config that stands for something else, and knows for what.

    Wherever a config is flattened, what :meth:`__marin_trace_value__` returns is taken in its place, as JAX takes an
    object's ``__jax_array__``. Who has more to do with markers flattens into :class:`KeptMarkers`.
    """

    __slots__ = ()

    def __marin_trace_value__(self) -> Any:
        """What takes its place in a traced call: a ref, or a plain value.

        Raises:
            ConfigError: It means nothing there.
        """
        raise NotImplementedError


class KeptMarkers(list[Any]):
    """Findings of a flattened config that keeps its markers: they are leaves of the tree, and found."""

    __slots__ = ()
