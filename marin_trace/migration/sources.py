"""Files of Python: finding them, reading them as the interpreter would, and writing them back as they were."""

import contextlib
import io
import os
import re
import stat
import tempfile
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from marin_trace.errors import FlagError, StorageError, explain

SKIPPED_DIRECTORIES: Final = frozenset(
    {"__pycache__", "node_modules", "site-packages", "build", "dist", "venv", "env", "wandb", "marin-outputs"}
)
"""Where no source of the project lies. Hidden directories are skipped as well."""

_PROJECT_FILES: Final = ("pyproject.toml", "setup.py", ".git")

_NOQA: Final = re.compile(r"#\s*noqa(?::\s*(?P<codes>[A-Z]+[0-9]+(?:[,\s]+[A-Z]+[0-9]+)*))?(?![\w:])", re.IGNORECASE)

EVERY_CODE: Final = frozenset({"*"})
"""What a bare ``# noqa`` is about."""


@final
@dataclass(frozen=True, slots=True)
class Source:
    """The text of a file, with what is needed to write it back."""

    path: Path
    text: str
    """With ``\\n`` as the end of each line."""
    encoding: str = "utf-8"
    newline: str = "\n"


def python_files(paths: Iterable[str]) -> list[Path]:
    """The files that some paths mean: files as they are, and what lies below directories.

    Returns:
        Each once, in the order of the paths, sorted within a directory.

    Raises:
        FlagError: A path that is not there.
    """
    found: dict[Path, None] = {}
    for text in paths:
        path = Path(text)
        if path.is_dir():
            found |= dict.fromkeys(_files_below(path))
        elif path.exists():
            found[path] = None
        else:
            raise FlagError(explain(f"{text} is neither a file nor a directory"))
    return list(found)


def _files_below(directory: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(directory):
        folders[:] = sorted(name for name in folders if name not in SKIPPED_DIRECTORIES and not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(files) if name.endswith(".py"))


def read_source(path: Path) -> Source:
    """Reads a file as Python does: in the encoding that it names.

    Raises:
        SyntaxError: Its bytes are not text in that encoding.
        StorageError: It cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StorageError(explain(f"cannot read {path}: {error.strerror}")) from error
    return decoded(path, data)


def decoded(path: Path, data: bytes) -> Source:
    """The text of a file's bytes.

    Raises:
        SyntaxError: The bytes are not text in the encoding that they name.
    """
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SyntaxError(f"not text in {encoding}: {error.reason}", (str(path), line, 1, "")) from error
    newline = "\r\n" if "\r\n" in text else "\r" if "\r" in text and "\n" not in text else "\n"
    return Source(path, text.replace("\r\n", "\n").replace("\r", "\n"), encoding, newline)


def write_source(source: Source) -> None:
    """Replaces a file in one step, keeping its mode: readers see the old text or the new one, never a part.

    A link stays a link; what it leads to is replaced.

    Raises:
        StorageError: It cannot be written; the file is as it was.
    """
    path = source.path.resolve()
    data = source.text.replace("\n", source.newline).encode(source.encoding)
    temporary = ""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise StorageError(explain(f"cannot write {source.path}: {error.strerror}")) from error


def project_root(path: Path) -> Path | None:
    """The nearest directory above a file that begins a project, if there is one."""
    resolved = path.resolve()
    return next(
        (folder for folder in resolved.parents if any((folder / name).exists() for name in _PROJECT_FILES)), None
    )


def suppressed_codes(text: str) -> dict[int, frozenset[str]]:
    """The codes that ``# noqa`` names, by line; :data:`EVERY_CODE` for a bare one.

    Only comments count, not strings that hold the same text. Text that cannot be split into tokens has none.
    """
    if "noqa" not in text.lower():
        return {}
    found: dict[int, frozenset[str]] = {}
    with contextlib.suppress(tokenize.TokenError, SyntaxError):
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            match = _NOQA.search(token.string) if token.type == tokenize.COMMENT else None
            if match is not None:
                codes = match["codes"]
                named = (
                    frozenset(code.upper() for code in re.findall(r"[A-Za-z]+[0-9]+", codes)) if codes else EVERY_CODE
                )
                found[token.start[0]] = found.get(token.start[0], frozenset()) | named
    return found


def comment_lines(text: str) -> set[int]:
    """The lines of a text that hold a comment: not those of strings that look like one."""
    found: set[int] = set()
    with contextlib.suppress(tokenize.TokenError, SyntaxError):
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                found.add(token.start[0])
    return found
