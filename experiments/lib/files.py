"""Whole files, wherever they lie: local paths and any fsspec URL."""

import shutil
from typing import Any

import fsspec

from marin_trace.io import atomic_write

__all__ = ["copy_file", "read_text"]


def read_text(path: str) -> str:
    """The content of a UTF-8 file.

    Raises:
        FileNotFoundError: There is no such file.
    """
    file_system, key = fsspec.core.url_to_fs(path)
    return file_system.read_text(key, encoding="utf-8")


def copy_file(source: str, destination: str) -> None:
    """Copies a file of any size; the copy appears when it is complete, and replaces what lay there.

    Raises:
        FileNotFoundError: There is no such file.
    """
    file_system, key = fsspec.core.url_to_fs(source)
    original: Any
    with file_system.open(key, "rb") as original, atomic_write(destination) as copy:
        shutil.copyfileobj(original, copy)
