"""What library code (layer 1) may import: atomic writes, the lease check, the gang. A leaf of marin_trace.

Owns the ContextVars by which the runtime speaks to the code that it runs: `running_body` (this context runs a step's
body), the lease check of the current attempt, and whether this process was started for one step. Outside a run they
do nothing.
"""

import contextlib
import os
from collections.abc import Callable, Generator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import IO, Any, final

from marin_trace.errors import StorageError, explain

__all__ = ["GangMember", "atomic_directory", "atomic_write", "check_lease", "gang_member"]

_CLOUDS = ("gs://", "gcs://", "s3://")

running_body: ContextVar[bool] = ContextVar("marin_trace_running_body", default=False)
"""True while this context runs the body of a step."""

lease_check: ContextVar[Callable[[], None] | None] = ContextVar("marin_trace_lease_check", default=None)
"""What `check_lease` calls: set by the runtime around a body; raises `LeaseLostError` once the lease is gone."""

own_process_log: ContextVar[str | None] = ContextVar("marin_trace_own_process_log", default=None)
"""Set in a process that was started for one step: the file in which it notes where its output is kept."""


@final
@dataclass(frozen=True, slots=True)
class GangMember:
    """One of the processes that run a step together, on as many machines."""

    rank: int
    """From 0 to ``size - 1``."""
    size: int
    coordinator: str
    """``host:port`` of rank 0, for whoever connects the processes. The port was free when the gang began."""


gang_membership: ContextVar[GangMember | None] = ContextVar("marin_trace_gang_membership", default=None)
"""What `gang_member` returns: set by the runtime around a body."""


def gang_member() -> GangMember | None:
    """Which of a gang's processes this one is; None where a step runs in one process, and outside a step.

    Every process of a gang runs the body. What it writes to one place, one of them should write: rank 0.

    Example:
        >>> import jax  # doctest: +SKIP
        >>> if (member := gang_member()) is not None:  # doctest: +SKIP
        ...     jax.distributed.initialize(member.coordinator, member.size, member.rank)
    """
    return gang_membership.get()


def check_lease() -> None:
    """Raises if this attempt no longer owns its step. For long loops that write.

    Cheap enough for every iteration: the log is looked at only once in an eighth of the lease. Outside a step, or in a
    thread that a body started without passing its context on, it does nothing.

    Raises:
        LeaseLostError: Somebody else owns the step by now; what is written from here on will not be committed.

    Example:
        >>> for shard in range(3):
        ...     check_lease()
    """
    check = lease_check.get()
    if check is not None:
        check()


def is_local(path: str) -> bool:
    """Whether a path lies on a disk of this machine (no protocol, or ``file://``)."""
    return "://" not in path or path.startswith("file://")


def local_path(path: str) -> str:
    """A local path without its ``file://``."""
    return path.removeprefix("file://")


@contextlib.contextmanager
def atomic_write(
    path: str | os.PathLike[str], mode: str = "wb", *, encoding: str | None = None
) -> Generator[IO[Any], None, None]:
    """A file that appears whole at its final name when the block ends, and not at all if the block raises.

    Locally it is written beside its final name and renamed; on an object store it is written to a local temporary
    file and uploaded when the block has ended (``with fs.open(path, "wb")`` would publish a truncated file if the
    block raised). An existing file is replaced. Parent directories are made. Not fsynced.

    Args:
        path: A local path or any fsspec URL.
        mode: ``"wb"`` or ``"w"``.
        encoding: For text; UTF-8 by default.

    Yields:
        The open file.

    Raises:
        ValueError: Another mode.
        StorageError: A chained URL, or one of a web server.

    Example:
        >>> with atomic_write("/tmp/marin-trace-doc/x.txt", "w") as stream:
        ...     _ = stream.write("whole or not at all")
    """
    if mode not in ("w", "wb"):
        raise ValueError(f"atomic_write takes the modes 'w' and 'wb', not {mode!r}")
    target = _writable(os.fspath(path))
    temporary = _temporary_beside(target)
    try:
        with open(temporary, "x" + mode[1:], encoding=encoding or ("utf-8" if mode == "w" else None)) as stream:
            yield stream
        if is_local(target):
            os.replace(temporary, local_path(target))
        else:
            _upload(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


@contextlib.contextmanager
def atomic_directory(path: str | os.PathLike[str]) -> Generator[str, None, None]:
    """A directory that appears whole at its final name when the block ends, and not at all if the block raises.

    Locally it is renamed into place; what lay there is replaced (there is an instant between the two renames at which
    nothing lies there). On an object store its files are uploaded when the block has ended; if an upload fails, those
    uploaded so far are deleted again, by exact key.

    Args:
        path: A local path or any fsspec URL.

    Yields:
        The path of a local, empty directory to write into.

    Example:
        >>> with atomic_directory("/tmp/marin-trace-doc/parts") as parts:
        ...     for n in range(2):
        ...         with open(f"{parts}/{n}.txt", "w") as stream:
        ...             _ = stream.write("part")
    """
    import shutil

    target = _writable(os.fspath(path).rstrip("/"))
    temporary = _temporary_beside(target)
    os.mkdir(temporary)
    try:
        yield temporary
        if is_local(target):
            _replace_directory(temporary, local_path(target))
        else:
            _upload_directory(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def filesystem_for(path: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path within it.

    Raises:
        StorageError: fsspec has no such file system, or its package is missing.
    """
    import fsspec  # pyright: ignore[reportMissingTypeStubs]

    # A listing that was kept would show what others have changed since as it was.
    options = {"use_listings_cache": False} if path.startswith(_CLOUDS) else {}
    try:
        return fsspec.core.url_to_fs(path, **options)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - untyped
    except (ValueError, ImportError) as error:
        raise StorageError(explain(f"cannot open {path}: {error}")) from error


def _writable(target: str) -> str:
    """The target, unless it is a URL that nothing can be written to.

    A chained one would be written into a cache, or to the end of a chain that somebody else has named.
    """
    if "://" in target and "::" in target:
        raise StorageError(explain(f"cannot write {target}: it is a chained URL", hint="give the inner URL alone"))
    if target.lower().startswith(("http://", "https://")):
        raise StorageError(explain(f"cannot write {target}: a web server can only be read"))
    return target


def _temporary_beside(target: str) -> str:
    if is_local(target):
        directory = os.path.dirname(os.path.abspath(local_path(target)))
        os.makedirs(directory, exist_ok=True)
    else:
        import tempfile

        directory = tempfile.gettempdir()
    return f"{directory}/.tmp-{os.getpid()}-{os.urandom(6).hex()}"


def _replace_directory(source: str, target: str) -> None:
    import shutil
    import tempfile

    try:
        os.rename(source, target)
    except OSError:
        if not os.path.isdir(target):
            raise
        old = tempfile.mkdtemp(prefix=".tmp-", dir=os.path.dirname(target))
        os.rename(target, f"{old}/old")
        os.rename(source, target)
        shutil.rmtree(old)


def _upload(source: str, target: str) -> None:
    filesystem, key = filesystem_for(target)
    if not target.startswith(_CLOUDS):  # there it would make a bucket that is missing
        filesystem.makedirs(key.rpartition("/")[0], exist_ok=True)
    filesystem.put_file(source, key)


def _upload_directory(source: str, target: str) -> None:
    filesystem, _ = filesystem_for(target)
    uploaded: list[str] = []
    try:
        for directory, _, names in os.walk(source):
            for name in names:
                local = os.path.join(directory, name)
                destination = f"{target}/{os.path.relpath(local, source)}"
                uploaded.append(destination)
                _upload(local, destination)
    except BaseException:
        for destination in uploaded:
            if filesystem.isfile(destination):
                filesystem.rm_file(destination)
        raise
