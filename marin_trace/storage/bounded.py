"""How JSON is stored, and how what is stored is read back: never beyond a bound of size or depth, never executed.

Whoever can write below a prefix can leave anything there: two gigabytes where a claim should lie, brackets nested a
million deep, a pipe that nobody writes to. Every control file, record and artifact is read through here.
"""

import json
import os
import stat
from typing import Any, Final, NoReturn, cast

from marin_trace.errors import ControlFileError, explain

__all__ = [
    "LARGEST_ARTIFACT",
    "LARGEST_CONTROL_FILE",
    "LARGEST_INFO",
    "LARGEST_MANIFEST",
    "LARGEST_RUN_RECORD",
    "MAX_DEPTH",
    "NO_LIMIT",
    "check_size",
    "is_deeper",
    "json_bytes",
    "parsed_json",
    "read_regular_file",
]

LARGEST_CONTROL_FILE: Final = 16 << 20
"""Bytes of a claim, an end and the like: a thousand times what is written."""
LARGEST_INFO: Final = 64 << 20
"""Bytes of ``.executor_info``: it holds a step's whole config."""
LARGEST_RUN_RECORD: Final = 1 << 29
"""Bytes: some million steps."""
LARGEST_MANIFEST: Final = 1 << 30
"""Bytes: some six million files."""
LARGEST_ARTIFACT: Final = 256 << 20
"""Bytes of an artifact's JSON; arrays lie beside it. Saving refuses what loading would."""
NO_LIMIT: Final = 1 << 62
"""For data, whose size is its writer's affair."""
MAX_DEPTH: Final = 100
"""Of objects and lists within each other: far from where Python's recursion ends."""

_CHUNK: Final = 1 << 16
_LARGEST_CHUNK: Final = 1 << 24


def parsed_json(content: bytes | str, *, max_depth: int = MAX_DEPTH) -> Any:
    """A JSON value, as strictly as RFC 8259 allows.

    Args:
        content: UTF-8; lone surrogates are taken as ``surrogatepass`` writes them.
        max_depth: How deep objects and lists may lie within each other.

    Raises:
        ValueError: It is no JSON, too deep, holds a key twice in one object, or a number that JSON does not have.
    """
    text = content.decode("utf-8", "surrogatepass") if isinstance(content, bytes) else content
    try:
        value = _DECODER.decode(text)
    except RecursionError as error:
        raise ValueError(f"it is nested more than {max_depth} deep") from error
    if text.count("{") + text.count("[") > max_depth and is_deeper(value, max_depth):
        raise ValueError(f"it is nested more than {max_depth} deep")
    return value


def json_bytes(text: str) -> bytes:
    """JSON as it is stored: UTF-8 that every parser takes.

    A lone surrogate, which a recipe and the name of a file that is no UTF-8 may hold and UTF-8 may not, becomes the
    escape that JSON has for it.
    """
    return text.encode("utf-8", "backslashreplace")


def is_deeper(tree: Any, depth: int) -> bool:
    """Whether objects and lists of a JSON value lie more than so deep within each other."""
    level: list[Any] = [tree] if isinstance(tree, (dict, list)) else []
    for _ in range(depth):
        if not level:
            return False
        level = [child for node in level for child in _children(node) if isinstance(child, (dict, list))]
    return bool(level)


def read_regular_file(path: str, limit: int) -> bytes:
    """The content of a file on a disk of this machine. Never blocks on a pipe or a device.

    Args:
        path: Of the disk, without a protocol.
        limit: Bytes; one more is an error.

    Raises:
        FileNotFoundError, NotADirectoryError: Nothing lies there.
        OSError: It cannot be read.
        ControlFileError: It is larger, or no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise ControlFileError(explain(f"cannot read {path}: it is no regular file"))
        check_size(path, facts.st_size, limit)
        chunk_size = max(_CHUNK, min(facts.st_size, _LARGEST_CHUNK))
        chunks: list[bytes] = []
        size = 0
        while chunk := os.read(descriptor, chunk_size):
            chunks.append(chunk)
            size += len(chunk)
            check_size(path, size, limit)
            # It may grow while it is read, and files of the kernel do not tell their size.
            if size == facts.st_size < chunk_size:
                break
    finally:
        os.close(descriptor)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def check_size(path: str, size: int, limit: int) -> None:
    """Refuses a file that is larger than it can rightly be.

    Raises:
        ControlFileError: It names the file.
    """
    if size > limit:
        raise ControlFileError(
            explain(
                f"cannot read {path}: it is larger than {_size_text(limit)}",
                hint="nothing that was written there is so large: move it away, or the whole output",
            )
        )


def _size_text(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size} bytes"


def _children(node: Any) -> Any:
    return cast("dict[str, Any]", node).values() if isinstance(node, dict) else node


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object holds a key twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse_constant)
