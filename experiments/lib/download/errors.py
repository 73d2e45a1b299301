"""What goes wrong with a download.

::

    DownloadError(OSError)          it cannot be had: no such file, no permission, a server that keeps failing
    ├── TruncatedDownloadError      the server keeps sending less than it announces
    └── ChecksumError               all of it came, and it is not the file that was asked for
"""

__all__ = ["ChecksumError", "DownloadError", "TruncatedDownloadError"]


class DownloadError(OSError):
    """A file cannot be downloaded; the message names its URL, without credentials, and what to do."""


class TruncatedDownloadError(DownloadError):
    """A server keeps sending less of a file than it announces."""


class ChecksumError(DownloadError):
    """A file was downloaded whole and is not the one that was asked for."""
