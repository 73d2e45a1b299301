"""Ways to damage a stored file: by bits and bytes, as JSON, by its size, and by its kind."""

import json
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["mutated", "planted"]

NUMBERS = (b"1e999", b"-1", b"9" * 400, b"1" + b"0" * 5000, b"NaN", b"Infinity", b"-0.0", b"1.5", b"0x10", b"01")
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 1 << 62, 1 << 80, 1.5, float("nan"), float("inf"), "", "x", "0", [], {}, [[]]),
    *("SUCCESS", "FAILED", "FENCED", "RELEASED", "body", "local", "../../../etc/passwd", "/etc/passwd", "a" * 3000),
    *("\x1b[2J", "\u202e", "\ud800", "\x00", "\r\n", "%2e%2e", "nan", "memory://x", "simplecache::http://x/y"),
    *({"$array": "../../x.npy", "dtype": "float64"}, {"$bytes": 1}, {"$items": [1]}, {"$float": "x"}, {"$type": 3}),
    *({"$enum": []}, {"$array": ".artifact-0123456789abcdef.npy"}, {"__reduce__": "os.system"}, [{"a": [1]}]),
)
DICTIONARY = (b"null", b"{}", b"[]", b'""', b"\\ud800", b"\xff", b"\xf0\x9f", b"\x00", b"\x1b[31m", b",", b":", b'"')


def mutated(content: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    """A damaged copy.

    Args:
        content: Of a file.
        others: Contents of other files of the same run, to swap and to splice with.
        dice: What decides.
    """
    if dice.random() < 0.08:
        return dice.choice(others)
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        content = dice.choice(_WAYS)(content, others, dice)
    return content


def planted(path: Path, dice: random.Random) -> None:
    """Puts something that is no file of ours at a path where one lay: a huge file, or none that is regular."""
    path.unlink()
    match dice.randrange(7):
        case 0:
            with path.open("wb") as stream:
                stream.truncate(3 << 30)
        case 1:
            path.mkdir()
        case 2:
            os.mkfifo(path)
        case 3:
            path.symlink_to("/dev/zero")
        case 4:
            path.symlink_to(path.name)
        case 5:
            path.symlink_to("/etc/passwd")
        case _:
            path.write_bytes(b"[" * dice.choice((200, 5_000, 2_000_000)))


def _bits(content: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(dice.choice((1, 1, 2, 8)) if damaged else 0):
        damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
    return bytes(damaged)


def _truncated(content: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    return content[: dice.randrange(len(content) + 1)]


def _spliced(content: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    other = dice.choice(others)
    return content[: dice.randrange(len(content) + 1)] + other[dice.randrange(len(other) + 1) :]


def _inserted(content: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    at = dice.randrange(len(content) + 1)
    what = dice.choice((*DICTIONARY, *NUMBERS, dice.randbytes(dice.randrange(1, 9)), b"[" * 300))
    return content[:at] + what + content[at + dice.choice((0, 0, 1, len(what))) :]


def _repeated(content: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    start, end = sorted(dice.randrange(len(content) + 1) for _ in range(2))
    return content[:end] + content[start:end] * dice.choice((1, 1, 50)) + content[end:]


def _other_number(content: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    """A run of digits becomes another number."""
    places = [at for at, byte in enumerate(content) if 48 <= byte <= 57]
    if not places:
        return content
    start = end = dice.choice(places)
    while end < len(content) and 48 <= content[end] <= 57:
        end += 1
    return content[:start] + dice.choice(NUMBERS) + content[end:]


def _other_json(content: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    """One value somewhere in the JSON becomes another, or a key goes, or comes twice."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return _bits(content, others, dice)
    places = _places(tree)
    if not places:
        return json.dumps(dice.choice(VALUES)).encode()
    holder, key = dice.choice(places)
    match dice.randrange(6):
        case 0 if isinstance(holder, dict):
            del holder[key]
        case 1 if isinstance(holder, dict):
            twice = f"{json.dumps(key)}: {json.dumps(dice.choice(VALUES))}, "
            return json.dumps(tree).replace("{", "{" + twice, 1).encode()
        case 2:
            other_holder, other_key = dice.choice(places)
            holder[key], other_holder[other_key] = other_holder[other_key], holder[key]
            if _is_endless(tree):
                return content
        case 3:
            for _ in range(dice.choice((1, 40, 300))):
                holder[key] = [holder[key]]
        case _:
            holder[key] = dice.choice(VALUES)
    return json.dumps(tree).encode()


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Each holder and key of a JSON value."""
    found: list[tuple[Any, Any]] = []
    pending = [tree]
    while pending:
        node = pending.pop()
        if not isinstance(node, dict | list):
            continue
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        found += [(node, key) for key in keys]
        pending += [node[key] for key in keys]
    return found


def _is_endless(tree: Any) -> bool:
    try:
        json.dumps(tree)
    except (ValueError, RecursionError):
        return True
    return False


_WAYS: tuple[Callable[[bytes, Sequence[bytes], random.Random], bytes], ...] = (
    *(_bits, _truncated, _spliced, _inserted, _repeated, _other_number),
    *(_other_json, _other_json, _other_json),
)
