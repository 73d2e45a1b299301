"""Symbolic links on a local disk: nothing is written or deleted through one that leads out of where outputs lie.

Whoever could write below a prefix once may have left a link there: an output, a parent of it, or its log. Reading
through it harms nobody, so a finished output may be a link. A prefix, or another directory that a user has named, may
be one too: that is their word.

Links are looked for before a step is claimed and before anything is deleted. One that is put in place afterwards is not
seen: who may write below the prefix while a step runs is trusted.
"""

import os

from marin_trace.errors import StorageError, explain
from marin_trace.io import is_local, local_path

__all__ = ["refuse_links_out_of"]


def refuse_links_out_of(directory: str, path: str) -> None:
    """Refuses a path that symbolic links lead out of a directory. Some 30 µs; nothing happens on other stores.

    Args:
        directory: What the user has named; it may be a link itself.
        path: Below it, whether anything lies there or not.

    Raises:
        StorageError: It names the link, and where it leads.
    """
    if not is_local(path):
        return
    base, target = local_path(directory), local_path(path)
    real_base, real = os.path.realpath(base), os.path.realpath(target)
    if real == real_base or real.startswith(f"{real_base.rstrip('/')}/"):
        return
    raise StorageError(
        explain(
            f"{_first_link(base, target)} is a link that leads out of {base}: nothing is written through it",
            facts={"leads to": real},
            hint="remove the link, or name the directory that it leads to: as --prefix, or as override_output_path",
        )
    )


def _first_link(base: str, target: str) -> str:
    """The first component below the base that is a link."""
    current = base
    for part in target[len(base) :].strip("/").split("/"):
        current = f"{current}/{part}"
        if os.path.islink(current):
            return current
    return target
