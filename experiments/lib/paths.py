"""Where a path lies: on a disk of this machine or behind an fsspec file system."""

import fsspec

__all__ = ["local_path"]


def local_path(path: str) -> str | None:
    """The path as the operating system takes it; None for one that is not on a local disk.

    Example:
        >>> local_path("file:///data/a"), local_path("/data/a"), local_path("memory://a")
        ('/data/a', '/data/a', None)
    """
    file_system, local = fsspec.core.url_to_fs(path)
    return local if isinstance(file_system, fsspec.get_filesystem_class("file")) else None
