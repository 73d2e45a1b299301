"""The prefix: where outputs without a path of their own lie. Read when a run begins, never at import."""

import logging
import os
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Final

from marin_trace.errors import PrefixError, explain
from marin_trace.storage.control_store import check_supported
from marin_trace.storage.files import is_local, local_path

__all__ = ["DEFAULT_PREFIX", "PREFIX_VARIABLE", "current_prefix", "normalise_prefix", "use_prefix"]

logger = logging.getLogger(__name__)

PREFIX_VARIABLE: Final = "MARIN_PREFIX"
DEFAULT_PREFIX: Final = "./marin-outputs"

_chosen_prefix: ContextVar[str | None] = ContextVar("marin_trace_prefix", default=None)


def current_prefix() -> str:
    """The prefix of this context: of `use_prefix`, else ``MARIN_PREFIX``, else ``./marin-outputs`` (said once).

    Returns:
        Absolute, without a trailing slash.

    Raises:
        PrefixError: It cannot hold outputs.
    """
    chosen = _chosen_prefix.get()
    if chosen is not None:
        return chosen
    named = os.environ.get(PREFIX_VARIABLE)
    if named:
        return normalise_prefix(named)
    prefix = normalise_prefix(DEFAULT_PREFIX)
    _say_default(prefix)
    return prefix


@contextmanager
def use_prefix(prefix: str) -> Generator[str, None, None]:
    """Chooses the prefix within the block, in this context.

    Args:
        prefix: A directory, made when something is written, or a URL of a supported store.

    Yields:
        The prefix, normalised.

    Raises:
        PrefixError: It cannot hold outputs.

    Example:
        >>> with use_prefix("memory://docs/") as prefix:
        ...     prefix, current_prefix()
        ('memory://docs', 'memory://docs')
    """
    chosen = normalise_prefix(prefix)
    token = _chosen_prefix.set(chosen)
    try:
        yield chosen
    finally:
        _chosen_prefix.reset(token)


def normalise_prefix(prefix: str) -> str:
    """A prefix as it stands in output paths: absolute, without a trailing slash.

    Raises:
        PrefixError: Empty, chained, of a protocol that is not supported, with credentials or ``..`` in its URL, or a
            file.
    """
    if not prefix.strip():
        raise PrefixError(explain("the prefix is empty", hint="--prefix ./outputs"))
    check_supported(prefix)
    if not prefix.isprintable():
        raise PrefixError(explain(f"the prefix {prefix!r} holds a control character"))
    if not is_local(prefix):
        _check_url(prefix)
    normal = os.path.abspath(os.path.expanduser(local_path(prefix))) if is_local(prefix) else prefix.rstrip("/")
    if normal.endswith(":"):
        raise PrefixError(explain(f"the prefix {prefix} names no place in its store", hint=f"--prefix {prefix}outputs"))
    if is_local(normal):
        _check_directory(normal)
    return normal


def _check_url(prefix: str) -> None:
    _, _, key = prefix.partition("://")[2].partition("/")
    if any(character in prefix for character in "?#"):
        raise PrefixError(explain(f"the prefix {prefix} holds a query: it would be part of every output's name"))
    if not {".", ".."}.isdisjoint(key.split("/")):
        raise PrefixError(explain(f"the prefix {prefix} holds '.' or '..', which a store takes for names"))


def _check_directory(prefix: str) -> None:
    nearest = prefix
    while not os.path.lexists(nearest):
        nearest = os.path.dirname(nearest)
    if not os.path.isdir(nearest):
        what = (
            f"the prefix {prefix} is a file"
            if nearest == prefix
            else f"the prefix {prefix} lies below a file: {nearest}"
        )
        raise PrefixError(explain(what, hint="give a directory: it is made if it is missing"))
    if not os.access(nearest, os.R_OK | os.X_OK):
        raise PrefixError(explain(f"the prefix {prefix} cannot be read: no permission for {nearest}"))


@cache
def _say_default(prefix: str) -> None:
    logger.info(f"outputs go to {prefix}: neither --prefix nor {PREFIX_VARIABLE} is set")
