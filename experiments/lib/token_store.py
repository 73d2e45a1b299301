"""Token ids on disk: one directory for each split, read through memory maps.

A store is a directory of shards and an index that is written last::

    index.json          what the shards hold, with the size and the SHA-256 digest of each
    tokens-00000.bin    token ids, little-endian, two bytes each where the vocabulary allows it, else four
    tokens-00001.bin

Invariants: the end token follows every document and occurs nowhere else; a document lies in one shard; shards are in
order of name. So document boundaries need no table of their own. A directory without an index is not a store.
"""

import hashlib
import json
import os
import shutil
import tempfile
import weakref
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, chain
from typing import Any, Final, final

import fsspec
import numpy as np
from numpy.typing import NDArray

from experiments.lib.paths import local_path
from marin_trace.io import atomic_directory, atomic_write

__all__ = [
    "INDEX_FILE",
    "CorruptShardError",
    "Shard",
    "TokenIndex",
    "TokenStore",
    "read_index",
    "token_dtype",
    "token_shard_name",
    "write_index",
    "write_token_shard",
    "write_token_store",
]

INDEX_FILE = "index.json"
"""Which file of a store says what the others hold."""

FORMAT_VERSION: Final = 1
"""Raised whenever the layout changes, so that an old reader refuses a new store by name."""

TOKENS_PER_SHARD = 64 * 1024 * 1024
"""Where a writer begins the next shard by default: 128 MiB of two-byte tokens, the size that object stores like."""


class CorruptShardError(ValueError):
    """A file of a token store is not what the store's index says; the message names it and what to do."""


@dataclass(frozen=True)
class Shard:
    """One file of token ids."""

    name: str
    """Its file name below the store."""

    tokens: int
    """Token ids in it, end tokens included."""

    documents: int
    sha256: str
    """Digest of its bytes, in hexadecimal."""


@dataclass(frozen=True)
class TokenIndex:
    """What a store holds."""

    vocab_size: int
    end_of_document: int
    num_bytes: int
    """Of the text that the tokens stand for, in UTF-8."""

    shards: tuple[Shard, ...]
    """In order."""

    tokenizer_sha256: str = ""
    """Digest of the file of the tokenizer that made the tokens, in hexadecimal; empty where that is not known."""

    @property
    def num_tokens(self) -> int:
        """Over all shards, end tokens included."""
        return sum(shard.tokens for shard in self.shards)

    @property
    def num_documents(self) -> int:
        """Over all shards."""
        return sum(shard.documents for shard in self.shards)


@final
class TokenStore:
    """The tokens of one split, read-only; safe to share between threads.

    Pickles as its path: another process maps the same files, or fetches a remote store anew.

    Example:
        >>> _ = write_token_store(
        ...     "/tmp/marin-trace-doc/train", [[5, 6], [7]], vocab_size=8, end_of_document=0, num_bytes=11
        ... )
        >>> store = TokenStore.open("/tmp/marin-trace-doc/train")
        >>> store.window(1, 4)
        array([6, 0, 7, 0], dtype=int32)
        >>> [document.tolist() for document in store.documents()]
        [[5, 6], [7]]
    """

    path: str
    """The directory, local or an fsspec URL, as it was given."""

    num_tokens: int
    """Over all shards, in order, end tokens included."""

    num_documents: int
    num_bytes: int
    """Of the text that these tokens stand for, in UTF-8: what bits per byte divides by."""

    vocab_size: int
    end_of_document: int
    """The token id put after each document."""

    tokenizer_sha256: str
    """Digest of the file of the tokenizer that made the tokens, in hexadecimal; empty where that is not known."""

    @classmethod
    def open(cls, path: str) -> "TokenStore":
        """Opens the store of one split and compares the size of every shard with the index.

        Shards of a remote store are copied to a temporary directory of this machine, digests compared, which is
        removed with the store.

        Args:
            path: The split's directory, such as ``{output of tokenise}/train``: local or an fsspec URL.

        Raises:
            FileNotFoundError: There is no store.
            CorruptShardError: A shard is missing or has another size, or the index cannot be read.
        """
        path = path.rstrip("/")
        return cls(path, read_index(path))

    def __init__(self, path: str, index: TokenIndex) -> None:
        self.path = path
        self.num_tokens = index.num_tokens
        self.num_documents = index.num_documents
        self.num_bytes = index.num_bytes
        self.vocab_size = index.vocab_size
        self.end_of_document = index.end_of_document
        self.tokenizer_sha256 = index.tokenizer_sha256
        self._index = index
        self._shards = self._map_shards()
        self._starts = [0, *accumulate(shard.tokens for shard in index.shards)]

    def _map_shards(self) -> list[NDArray[np.unsignedinteger[Any]]]:
        path, index = self.path, self._index
        directory = local_path(path)
        if directory is None:
            fetched = tempfile.mkdtemp(prefix="token-store-")
            # Also where this constructor raises: the half-made store is collected like a whole one.
            weakref.finalize(self, shutil.rmtree, fetched)
            for shard in index.shards:
                _fetch_shard(path, f"{fetched}/{shard.name}", shard, index)
            directory = fetched
        return [_map_shard(path, f"{directory}/{shard.name}", shard, index) for shard in index.shards]

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenStore.open, (self.path,)

    def __repr__(self) -> str:
        return f"<TokenStore {self.path}: {self.num_tokens:,} tokens of {self.num_documents:,} documents>"

    def window(self, start: int, length: int) -> NDArray[np.int32]:
        """A copy of ``length`` token ids from position ``start`` on; it may cross shards.

        Raises:
            IndexError: The window does not lie within ``0 … num_tokens``.
        """
        if start < 0 or length < 0 or start + length > self.num_tokens:
            raise IndexError(
                f"no window of {length:,} tokens at {start:,}: {self.path} holds {self.num_tokens:,} tokens"
            )
        window = np.empty(length, np.int32)
        filled = 0
        # Empty shards begin where the next one does: the last of equal starts is the one that holds the position.
        number = bisect_right(self._starts, start) - 1
        while filled < length:
            offset = start + filled - self._starts[number]
            part = self._shards[number][offset : offset + length - filled]
            window[filled : filled + len(part)] = part
            filled += len(part)
            number += 1
        return window

    def documents(self, limit: int | None = None) -> Iterator[NDArray[np.int32]]:
        """The token ids of each document, without the end token, in order; the first ``limit`` of them."""
        remaining = self.num_documents if limit is None else limit
        for tokens in self._shards:
            begin = 0
            while begin < len(tokens) and remaining > 0:
                end = _next_occurrence(tokens, self.end_of_document, begin)
                yield tokens[begin:end].astype(np.int32)
                begin = end + 1
                remaining -= 1

    def verify(self) -> None:
        """Reads every shard and compares its digest with the index: finds what the sizes do not show.

        Raises:
            CorruptShardError: A digest differs.
        """
        for shard, tokens in zip(self._index.shards, self._shards, strict=True):
            _check_digest(f"{self.path}/{shard.name}", hashlib.sha256(tokens.data).hexdigest(), shard, self.path)


def write_token_store(
    path: str,
    documents: Iterable[Sequence[int]],
    *,
    vocab_size: int,
    end_of_document: int,
    num_bytes: int,
    tokens_per_shard: int = TOKENS_PER_SHARD,
    tokenizer_sha256: str = "",
) -> TokenIndex:
    """Writes a whole store in this process. It appears when it is complete, and replaces what lay there.

    Args:
        path: The store's directory, local or an fsspec URL.
        documents: Token ids of each document, without the end token; read once, one document at a time.
        vocab_size: Every token id is below it; at most 2³¹, since windows are of ``int32``.
        end_of_document: The token id to put after each document; no document may contain it.
        num_bytes: Of the documents' texts, in UTF-8.
        tokens_per_shard: A shard that has reached as many tokens is closed. It ends with a document, so it may be
            longer by less than one document.
        tokenizer_sha256: Digest of the tokenizer's file; stores of different ones are not mixed.

    Raises:
        ValueError: There are no documents, a token id does not fit, or an argument is out of range.
    """
    if tokens_per_shard < 1:
        raise ValueError(f"tokens_per_shard must be at least 1, not {tokens_per_shard}")
    remaining = iter(documents)
    shards: list[Shard] = []
    written = 0
    with atomic_directory(path) as directory:
        for first in remaining:
            shard = write_token_shard(
                f"{directory}/{token_shard_name(len(shards))}",
                chain([first], remaining),
                vocab_size=vocab_size,
                end_of_document=end_of_document,
                first_document=written,
                max_tokens=tokens_per_shard,
            )
            shards.append(shard)
            written += shard.documents
        if not shards:
            raise ValueError(f"no documents to write to {path}")
        index = TokenIndex(vocab_size, end_of_document, num_bytes, tuple(shards), tokenizer_sha256)
        write_index(directory, index)
    return index


def write_token_shard(
    path: str,
    documents: Iterable[Sequence[int]],
    *,
    vocab_size: int,
    end_of_document: int,
    first_document: int = 0,
    max_tokens: int | None = None,
) -> Shard:
    """Writes one shard, whole or not at all; the caller writes the index when all shards are there.

    Args:
        path: The shard's file, local or an fsspec URL, named by :func:`token_shard_name`.
        documents: As of :func:`write_token_store`. Of an iterator no more is taken than is written.
        vocab_size: As of :func:`write_token_store`.
        end_of_document: As of :func:`write_token_store`.
        first_document: The number of the first document, for error messages.
        max_tokens: Stop after the document that reaches it; None takes all.

    Raises:
        ValueError: A token id does not fit, or an argument is out of range.
    """
    dtype = token_dtype(vocab_size)
    if not 0 <= end_of_document < vocab_size:
        raise ValueError(f"end_of_document {end_of_document} is not a token of a vocabulary of {vocab_size}")
    digest = hashlib.sha256()
    tokens = count = 0
    with atomic_write(path) as file:
        for number, document in enumerate(documents, start=first_document):
            ids = _checked_ids(document, number, vocab_size=vocab_size, end_of_document=end_of_document)
            content = np.append(ids, end_of_document).astype(dtype).tobytes()
            digest.update(content)
            file.write(content)
            tokens += len(ids) + 1
            count += 1
            if max_tokens is not None and tokens >= max_tokens:
                break
    return Shard(os.path.basename(path), tokens=tokens, documents=count, sha256=digest.hexdigest())


def write_index(path: str, index: TokenIndex) -> None:
    """Makes a directory of shards a store.

    Args:
        path: The store's directory, local or an fsspec URL.
        index: Its shards, in order of name.
    """
    record = {"format_version": FORMAT_VERSION, **asdict(index)}
    with atomic_write(f"{path}/{INDEX_FILE}", "w") as file:
        json.dump(record, file, indent=1)
        file.write("\n")


def read_index(path: str) -> TokenIndex:
    """The index of a store.

    Args:
        path: The store's directory, local or an fsspec URL.

    Raises:
        FileNotFoundError: There is no store.
        CorruptShardError: The index cannot be read.
    """
    location = f"{path}/{INDEX_FILE}"
    file_system, key = fsspec.core.url_to_fs(location)
    try:
        record = json.loads(file_system.cat_file(key))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"no token store at {path}: it has no {INDEX_FILE}; give the directory of one split, "
            "such as {output}/train, of a finished tokenisation"
        ) from error
    except ValueError as error:
        raise CorruptShardError(_with_remedy(f"{location} is not JSON: {error}", path)) from error
    version = record.get("format_version") if isinstance(record, dict) else None
    if version != FORMAT_VERSION:
        raise CorruptShardError(
            _with_remedy(f"{location} has format version {version}; this code reads {FORMAT_VERSION}", path)
        )
    try:
        return TokenIndex(
            vocab_size=record["vocab_size"],
            end_of_document=record["end_of_document"],
            num_bytes=record["num_bytes"],
            shards=tuple(Shard(**shard) for shard in record["shards"]),
            tokenizer_sha256=record["tokenizer_sha256"],
        )
    except (KeyError, TypeError) as error:
        raise CorruptShardError(_with_remedy(f"{location} is not the index of a token store: {error}", path)) from error


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """How a token id of a vocabulary is stored: two bytes where they suffice, else four; little-endian.

    Raises:
        ValueError: The vocabulary is empty, or larger than ``int32`` can number.

    Example:
        >>> token_dtype(65_536).str, token_dtype(65_537).str
        ('<u2', '<u4')
    """
    if not 1 <= vocab_size <= 2**31:
        raise ValueError(f"vocab_size must be from 1 to {2**31}, not {vocab_size}")
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


def token_shard_name(number: int) -> str:
    """The file name of one shard.

    Example:
        >>> token_shard_name(2)
        'tokens-00002.bin'
    """
    return f"tokens-{number:05d}.bin"


def _checked_ids(
    document: Sequence[int], number: int, *, vocab_size: int, end_of_document: int
) -> NDArray[np.integer[Any]]:
    ids = np.asarray(document, np.int64)
    if wrong := ids[(ids < 0) | (ids >= vocab_size)][:1].tolist():
        raise ValueError(f"document {number}: token {wrong[0]} is not one of a vocabulary of {vocab_size}")
    if (ids == end_of_document).any():
        raise ValueError(f"document {number} contains the end token {end_of_document}, which only ends documents")
    return ids


def _fetch_shard(path: str, local: str, shard: Shard, index: TokenIndex) -> None:
    location = f"{path}/{shard.name}"
    file_system, key = fsspec.core.url_to_fs(location)
    try:
        file_system.get_file(key, local)
    except FileNotFoundError as error:
        raise CorruptShardError(_with_remedy(f"{location} is missing", path)) from error
    _check_size(location, local, shard, index, path)
    with open(local, "rb") as file:
        _check_digest(location, hashlib.file_digest(file, "sha256").hexdigest(), shard, path)


def _map_shard(path: str, local: str, shard: Shard, index: TokenIndex) -> NDArray[np.unsignedinteger[Any]]:
    location = f"{path}/{shard.name}"
    dtype = token_dtype(index.vocab_size)
    _check_size(location, local, shard, index, path)
    if not shard.tokens:  # Nothing cannot be mapped.
        return np.empty(0, dtype)
    tokens = np.memmap(local, dtype, "r")
    if tokens[-1] != index.end_of_document:
        raise CorruptShardError(_with_remedy(f"{location} ends with token {tokens[-1]}, not with the end token", path))
    return tokens


def _check_size(location: str, local: str, shard: Shard, index: TokenIndex, path: str) -> None:
    expected = shard.tokens * token_dtype(index.vocab_size).itemsize
    try:
        size = os.path.getsize(local)
    except FileNotFoundError as error:
        raise CorruptShardError(_with_remedy(f"{location} is missing", path)) from error
    if size != expected:
        raise CorruptShardError(_with_remedy(f"{location} has {size:,} bytes; its index says {expected:,}", path))


def _check_digest(location: str, digest: str, shard: Shard, path: str) -> None:
    if digest != shard.sha256:
        raise CorruptShardError(
            _with_remedy(f"{location} has the SHA-256 digest {digest}; its index says {shard.sha256}", path)
        )


def _with_remedy(fault: str, path: str) -> str:
    return f"{fault}\n\nhint: delete {path} and tokenise again; or copy it anew from where it came"


def _next_occurrence(tokens: NDArray[np.unsignedinteger[Any]], token: int, begin: int) -> int:
    """Where a token occurs next; the caller knows that it does."""
    # Pieces that double: a document costs its own length and not the shard's.
    length = 1024
    while True:
        found = np.flatnonzero(tokens[begin : begin + length] == token)
        if len(found):
            return begin + int(found[0])
        begin, length = begin + length, 2 * length
