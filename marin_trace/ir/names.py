"""Which step names and subpaths are safe: by allow-list, so that no text leaves the prefix on any store.

A name is made of segments of ``[A-Za-z0-9._=+@,-]``, joined by ``/``; none is ``.`` or ``..``. A subpath may also hold
the glob characters ``* ? [ ] { }``, since globs are what library functions read.
"""

import re
import string

from marin_trace.errors import StepNameError, explain

RESERVED_FIRST_SEGMENT = "experiments"
"""The directory under a prefix that holds the run records."""

_CONTROL_NAMES = frozenset(
    {".executor", ".executor_info", ".executor_status", ".executor_status.lock", ".artifact.json"}
)
"""What lies beside every output: a step of this name would write into another step's log."""
_LONGEST = 800
"""Of 1024 bytes that object stores allow for a key: there is room for a prefix and for what lies in the output."""
_LONGEST_SEGMENT = 240
"""Of 255 bytes that file systems allow: there is room for a hash."""

_NAME_CHARACTERS = frozenset(string.ascii_letters + string.digits + "._=+@,-")
_SUBPATH_CHARACTERS = _NAME_CHARACTERS | frozenset("*?[]{}")
_SEGMENT = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._=+@,-]+"
_NAME = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")
_SUBPATH_SEGMENT = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._=+@,*?\[\]{}-]+"
_SUBPATH = re.compile(rf"{_SUBPATH_SEGMENT}(?:/{_SUBPATH_SEGMENT})*")


def checked_name(name: str, *, at: object = None) -> str:
    """``name``, which is a safe step or group name.

    Raises:
        StepNameError: It is not; the message says which part and why.
    """
    if _NAME.fullmatch(name) and _has_room(name) and _CONTROL_NAMES.isdisjoint(name.split("/")):
        return name
    raise StepNameError(
        explain(
            f"{_shortened(name)} is not a step name: {_complaint(name, _NAME_CHARACTERS)}",
            at=at,
            hint="use segments of letters, digits and . _ = + @ , - joined by /",
        )
    )


def checked_output_name(name: str, *, at: object = None) -> str:
    """``name``, which is safe and leaves the directory of the run records alone.

    Raises:
        StepNameError: It is not, or its first segment is ``experiments``.
    """
    checked_name(name, at=at)
    if name.partition("/")[0] == RESERVED_FIRST_SEGMENT:
        raise StepNameError(
            explain(
                f"a step cannot be named {name!r}: {RESERVED_FIRST_SEGMENT}/ under the prefix holds the run records",
                at=at,
                hint=f'begin with another segment: "{name.partition("/")[2] or "my_step"}"',
            )
        )
    return name


def checked_subpath(subpath: object, *, at: object = None) -> str:
    """``subpath`` as text, relative and safe below an output; globs are allowed.

    Raises:
        StepNameError: It is empty, absolute, a URL, or holds ``..``, ``//``, ``%`` or a control character.
    """
    text = subpath if isinstance(subpath, str) else _subpath_text(subpath, at)
    if _SUBPATH.fullmatch(text) and _has_room(text):
        return text
    raise StepNameError(
        explain(
            f"{_shortened(text)} is not a path below an output: {_complaint(text, _SUBPATH_CHARACTERS)}",
            at=at,
            hint="write a relative path, ref / 'train' / '*.jsonl'; for one elsewhere StepRef.hardcoded('gs://…')",
        )
    )


def _has_room(text: str) -> bool:
    return len(text) <= _LONGEST and (
        len(text) <= _LONGEST_SEGMENT or max(map(len, text.split("/"))) <= _LONGEST_SEGMENT
    )


def _shortened(text: str) -> str:
    return repr(text) if len(text) <= _LONGEST_SEGMENT else f"{text[:_LONGEST_SEGMENT]!r}…"


def _subpath_text(subpath: object, at: object) -> str:
    from pathlib import PurePath

    if isinstance(subpath, PurePath):
        return subpath.as_posix()
    raise StepNameError(
        explain(
            f"a path below an output is text, not {type(subpath).__name__}",
            at=at,
            facts={"value": repr(subpath)},
            hint="write ref / 'train'",
        )
    )


def _complaint(text: str, allowed: frozenset[str]) -> str:
    if not text:
        return "it is empty"
    if "://" in text:
        return "it is a URL"
    if text.startswith("/"):
        return "it is absolute"
    segments = text.split("/")
    if ".." in segments or "." in segments:
        return "it holds '..' or '.'"
    if "" in segments:
        return "it holds an empty segment ('//' or a trailing '/')"
    unsafe = next((character for character in text if character != "/" and character not in allowed), None)
    if unsafe is not None:
        return f"it holds {unsafe!r}"
    if not _has_room(text):
        return f"it is longer than {_LONGEST} characters, or a segment of it than {_LONGEST_SEGMENT}"
    return f"it holds {next(segment for segment in segments if segment in _CONTROL_NAMES)!r}, a control file's name"
