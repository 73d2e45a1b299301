"""Where in the user's code something was written.

Owns the decision which stack frames are the user's: neither this package's, nor the standard library's, nor an
installed package's. Reads no files.
"""

import functools
import os
import sys
from types import FrameType, TracebackType
from typing import NamedTuple

_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_FOREIGN = (
    "<frozen ",
    _OWN,
    os.path.dirname(os.__file__) + os.sep,
)

_PACKAGE_DIRECTORIES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


class Location(NamedTuple):
    """A line of the user's code; as text ``file:line``, relative where it lies below the working directory."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{_shown(self.file, os.getcwd())}:{self.line}"


@functools.lru_cache(maxsize=1024)
def _shown(file: str, working_directory: str) -> str:
    """A file as people are shown it: relative where it lies below the working directory."""
    relative = os.path.relpath(file, working_directory) if os.path.isabs(file) else file
    return file if relative.startswith(os.pardir) else relative


def is_own_file(file: str) -> bool:
    """Whether a source file is this package's."""
    return file.startswith(_OWN)


@functools.cache
def _is_foreign(file: str) -> bool:
    return file == "<string>" or file.startswith(_FOREIGN) or any(part in file for part in _PACKAGE_DIRECTORIES)


def user_location(skip: int = 0) -> Location:
    """The innermost line of the user's code on this thread's stack.

    Where every frame is foreign (code run by ``python -m`` from an installed package, say), the innermost one that is
    not this package's.

    Args:
        skip: How many frames above the caller are known to be this package's.
    """
    frame: FrameType | None = sys._getframe(1 + skip)  # pyright: ignore[reportPrivateUsage]
    fallback: Location | None = None
    while frame is not None:
        file = frame.f_code.co_filename
        if not _is_foreign(file):
            return Location(file, frame.f_lineno)
        if fallback is None and not file.startswith(_OWN):
            fallback = Location(file, frame.f_lineno)
        frame = frame.f_back
    return fallback or Location("<unknown>", 0)


def without_own_frames(error: BaseException) -> TracebackType | None:
    """The traceback of an exception without this package's frames: it leads from the user's call to the user's line."""
    kept: list[TracebackType] = []
    traceback = error.__traceback__
    while traceback is not None:
        if not is_own_file(traceback.tb_frame.f_code.co_filename):
            kept.append(traceback)
        traceback = traceback.tb_next
    following: TracebackType | None = None
    for entry in reversed(kept):
        following = TracebackType(following, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return following


def recurses_in_user_code(error: RecursionError) -> bool:
    """Whether what recursed is the user's: its innermost frames hold some of theirs, and none of this package's."""
    files: list[str] = []
    traceback = error.__traceback__
    while traceback is not None:
        files.append(traceback.tb_frame.f_code.co_filename)
        traceback = traceback.tb_next
    innermost = files[-_LOOKED_AT:]
    return not any(map(is_own_file, innermost)) and not all(map(_is_foreign, innermost))


_LOOKED_AT = 50
"""Frames: more than lie between a step and the one that it calls."""


def location_of(error: BaseException) -> Location | None:
    """The innermost line of the user's code that an exception passed through, or None."""
    location: Location | None = None
    traceback = error.__traceback__
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if not _is_foreign(file):
            location = Location(file, traceback.tb_lineno)
        traceback = traceback.tb_next
    return location
