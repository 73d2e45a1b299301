"""Text from elsewhere, made fit to be shown and kept: without terminal escapes, and without secrets. A leaf.

What is stored below a prefix, or said by a server, may hold anything. A terminal obeys escape sequences, a C1 control
is one too, a carriage return overwrites what stands before it, and bidirectional controls show a name as another.
`printable` makes all of them visible; whatever prints or logs what somebody else has written goes through it:
`marin_trace.errors.explain`, the records of the attempt log as they are read, the plan, and the command line's tables.
"""

import re
from typing import Final

__all__ = ["REDACTED", "SECRET_NAMES", "on_one_line", "printable", "redact_text"]

REDACTED: Final = "[redacted]"

SECRET_NAMES: Final = frozenset(
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

_COMMANDS: Final = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but for tab and newline, DEL, C1
    r"\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff"  # bidirectional controls, separators, the byte order mark
    r"\ud800-\udfff"  # lone surrogates: no encoding can print them
    r"\U000e0000-\U000e007f"  # tags, which are invisible
)
_COMMAND: Final = re.compile(f"[{_COMMANDS}]")
_COMMAND_OR_BREAK: Final = re.compile(rf"[{_COMMANDS}\t\n]")

_SECRET: Final = "|".join(name.replace("_", "[_-]") for name in sorted(SECRET_NAMES, key=len, reverse=True))
_USER_INFO: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^/\s?#\"'<>]+@")
_SIGNED_VALUE: Final = re.compile(
    r"(?P<name>[?&#;](?:X-Amz-(?:Signature|Credential|Security-Token)|X-Goog-(?:Signature|Credential)|Signature|sig|se"
    rf"|sp|key|AWSAccessKeyId|GoogleAccessId|{_SECRET})=)[^&\s#\"'<>]+",
    re.IGNORECASE,
)
_HEADER: Final = re.compile(
    r"(?P<name>\bauthorization[\"']?\s*[:=]\s*[\"']?(?:bearer|basic|token)\s+)[^\s\"',;]+", re.IGNORECASE
)
_QUOTED_VALUE: Final = re.compile(
    rf"(?P<name>(?<![A-Za-z0-9_])(?:{_SECRET})[\"']?\s*[:=]\s*)(?P<quote>[\"'])(?:\\.|(?!(?P=quote))[^\\\n])*(?P=quote)",
    re.IGNORECASE,
)


def printable(text: str) -> str:
    r"""Text that a terminal shows and does not obey; newlines and tabs stay.

    Example:
        >>> print(printable("a\x1b[2Jb\rc\u202ed"))
        a\x1b[2Jb\rc\u202ed
    """
    return text if text.isprintable() else _COMMAND.sub(_escaped, text)


def on_one_line(text: str) -> str:
    r"""As `printable`, for a name or a cell of a table: newlines and tabs are made visible too.

    Example:
        >>> print(on_one_line("two\nlines"))
        two\nlines
    """
    return text if text.isprintable() else _COMMAND_OR_BREAK.sub(_escaped, text)


def redact_text(text: str) -> str:
    """Text without the credentials and signatures of the URLs in it, and without what is quoted under a secret name.

    Example:
        >>> redact_text("GET https://me:pw@host/x?sig=abc&n=1 with Client(api_key='abc', tokenizer='gpt2')")
        "GET https://[redacted]@host/x?sig=[redacted]&n=1 with Client(api_key='[redacted]', tokenizer='gpt2')"
    """
    if "://" in text:
        text = _SIGNED_VALUE.sub(rf"\g<name>{REDACTED}", _USER_INFO.sub(rf"\g<scheme>{REDACTED}@", text))
    if ":" not in text and "=" not in text:
        return text
    text = _HEADER.sub(rf"\g<name>{REDACTED}", text)
    return _QUOTED_VALUE.sub(rf"\g<name>\g<quote>{REDACTED}\g<quote>", text)


def _escaped(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode("ascii")
