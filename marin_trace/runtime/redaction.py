"""Secrets never reach a record: exact key names, credentials in URLs, signed query values."""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from marin_trace.safe_text import REDACTED, SECRET_NAMES, redact_text

__all__ = ["is_secret_name", "redact", "redact_arguments", "redact_parts"]

_NUMBERED_NAMES: Final = frozenset({"token"})
"""What also names something that is no secret, and a number: ``token: 50256`` is an entry of a vocabulary."""

_PLAIN: Final = frozenset({type(None), bool, int, float})
_SHORT: Final = 200
_redact_short: Final = functools.lru_cache(maxsize=4096)(redact_text)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_NOTHING = re.compile(r"None|True|False")
_NUMBER = re.compile(r"[-+]?[0-9.]+(?:e[-+]?[0-9]+)?")


@functools.lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether a key, field or flag of this name holds a secret."""
    return _normal(name) in SECRET_NAMES


def redact(value: Any) -> Any:
    """A JSON value without its secrets: a copy, with the same keys."""
    # Most of a record are plain scalars and texts that came before; asking what is a mapping takes longer than those.
    if type(value) in _PLAIN:
        return value
    match value:
        case str():
            return redact_text(value) if len(value) > _SHORT else _redact_short(value)
        case Mapping():
            entries = cast("Mapping[str, Any]", value).items()
            return {
                key: REDACTED if is_secret_name(key) and _may_be_secret(key, item) else redact(item)
                for key, item in entries
            }
        case Sequence() if not isinstance(value, (bytes, bytearray)):
            return [redact(item) for item in cast("Sequence[Any]", value)]
        case _:
            return value


def redact_parts(parts: Mapping[str, str]) -> dict[str, str]:
    """Readable values by config path, without those below a secret name."""
    return {path: REDACTED if _is_secret_part(path, text) else redact_text(text) for path, text in parts.items()}


def redact_arguments(arguments: Sequence[str]) -> list[str]:
    """A command line without its secrets: ``--hf_token X`` and ``--hf_token=X`` keep their flag."""
    redacted: list[str] = []
    hides_next = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        is_flag = argument.startswith("-")
        # Without dashes too: `-e HF_TOKEN=…`, and configuration in the manner of Hydra.
        is_secret = (is_flag or bool(equals)) and is_secret_name(name.rpartition(".")[2])
        if hides_next and not argument.startswith("--"):
            redacted.append(REDACTED)
        elif is_secret and equals:
            redacted.append(f"{name}={REDACTED}")
        else:
            redacted.append(redact_text(argument))
        hides_next = is_secret and not equals
    return redacted


def _normal(name: str) -> str:
    return name.strip("-_").replace("-", "_").lower()


def _may_be_secret(name: str, value: Any) -> bool:
    if value is None or isinstance(value, bool):
        return False
    return not (isinstance(value, (int, float)) and _normal(name) in _NUMBERED_NAMES)


def _is_secret_part(path: str, text: str) -> bool:
    secret = [name for name in _NAME.findall(path) if is_secret_name(name)]
    if not secret or _NOTHING.fullmatch(text):
        return False
    return not (_NUMBER.fullmatch(text) and all(_normal(name) in _NUMBERED_NAMES for name in secret))
