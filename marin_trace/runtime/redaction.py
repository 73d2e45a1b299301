"""Secrets never reach a record: exact key names, credentials in URLs, signed query values."""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

__all__ = ["REDACTED", "is_secret_name", "redact", "redact_arguments", "redact_parts", "redact_text"]

REDACTED: Final = "[redacted]"

_SECRET_KEYS: Final = frozenset(
    {
        "access_key",
        "access_key_id",
        "access_token",
        "api_key",
        "apikey",
        "auth_token",
        "authorization",
        "aws_access_key_id",
        "aws_secret_access_key",
        "aws_session_token",
        "bearer_token",
        "client_secret",
        "credential",
        "credentials",
        "github_token",
        "hf_token",
        "hugging_face_hub_token",
        "id_token",
        "openai_api_key",
        "passphrase",
        "passwd",
        "password",
        "private_key",
        "private_key_id",
        "refresh_token",
        "secret",
        "secret_access_key",
        "secret_key",
        "session_token",
        "token",
        "wandb_api_key",
    }
)
"""Whole names, never parts of them, or ``tokenizer`` and ``eos_token`` would vanish."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_NUMBER = re.compile(r"None|True|False|[-+]?[0-9.]+(?:e[-+]?[0-9]+)?")
_USER_INFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^/\s@?#]+@")
_SIGNED_VALUE = re.compile(
    r"(?P<name>[?&](?:X-Amz-(?:Signature|Credential|Security-Token)|X-Goog-(?:Signature|Credential)|Signature|sig|se|sp"
    r"|token|access_token|api_key|key|AWSAccessKeyId|GoogleAccessId)=)[^&\s#]+",
    re.IGNORECASE,
)


@functools.lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether a key, field or flag of this name holds a secret."""
    return name.strip("-_").replace("-", "_").lower() in _SECRET_KEYS


def redact(value: Any) -> Any:
    """A JSON value without its secrets: a copy, with the same keys."""
    match value:
        case str():
            return redact_text(value)
        case None | bool() | int() | float():  # most of a record: not to be asked whether it is a mapping
            return value
        case Mapping():
            entries = cast("Mapping[str, Any]", value).items()
            return {
                key: REDACTED if is_secret_name(key) and _holds_text(item) else redact(item) for key, item in entries
            }
        case Sequence() if not isinstance(value, (bytes, bytearray)):
            return [redact(item) for item in cast("Sequence[Any]", value)]
        case _:
            return value


def redact_parts(parts: Mapping[str, str]) -> dict[str, str]:
    """Readable values by config path, without those below a secret name."""
    return {
        path: REDACTED
        if any(map(is_secret_name, _NAME.findall(path))) and not _NUMBER.fullmatch(text)
        else redact_text(text)
        for path, text in parts.items()
    }


def redact_text(text: str) -> str:
    """Text without the credentials and signatures of the URLs in it."""
    if "://" not in text:
        return text
    return _SIGNED_VALUE.sub(rf"\g<name>{REDACTED}", _USER_INFO.sub(rf"\g<scheme>{REDACTED}@", text))


def redact_arguments(arguments: Sequence[str]) -> list[str]:
    """A command line without its secrets: ``--hf_token X`` and ``--hf_token=X`` keep their flag."""
    redacted: list[str] = []
    hides_next = False
    for argument in arguments:
        flag, equals, _ = argument.partition("=")
        is_secret = argument.startswith("-") and is_secret_name(flag.rpartition(".")[2])
        if hides_next and not argument.startswith("-"):
            redacted.append(REDACTED)
        elif is_secret and equals:
            redacted.append(f"{flag}={REDACTED}")
        else:
            redacted.append(redact_text(argument))
        hides_next = is_secret and not equals
    return redacted


def _holds_text(value: Any) -> bool:
    # `token: 50256` is a token id; a secret is text, or something with text in it.
    return value is not None and not isinstance(value, (bool, int, float))
