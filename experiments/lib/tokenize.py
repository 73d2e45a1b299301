"""Turns the texts of a corpus into token stores, one for each split.

Each file of records becomes one shard of tokens, whichever process does it, so that the stores are byte-identical
whatever the number of workers. A document is in one file and a file in one split: none straddles.
"""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

from experiments.lib.corpus.records import read_records, record_files
from experiments.lib.parallel import map_in_processes
from experiments.lib.splits import TRAIN, VALIDATION
from experiments.lib.tokenizer import (
    END_OF_DOCUMENT,
    TOKENIZER_FILE,
    load_tokenizer,
    read_tokenizer,
    token_id,
)
from marin_trace.io import atomic_write, check_lease

if TYPE_CHECKING:
    from experiments.lib.token_store import Shard

__all__ = ["TokenizeConfig", "TokenizedDataset", "TokenizedSplit", "tokenize"]

logger = logging.getLogger(__name__)

BATCH_DOCUMENTS: Final = 256
"""How many documents are encoded at a time."""


@dataclass(frozen=True)
class TokenizeConfig:
    """Which texts become which tokens."""

    train_paths: tuple[str, ...]
    """Files, globs or directories of records (see :mod:`experiments.lib.corpus.records`), local or fsspec URLs."""

    validation_paths: tuple[str, ...]
    """The same, of what is not trained on."""

    tokenizer: str
    """A ``tokenizer.json``, or a directory that holds one; local or an fsspec URL."""

    output_path: str
    """The directory that gets the stores ``train/`` and ``validation/``, and a copy of the tokenizer."""

    text_field: str = "text"
    """Which field or column of a record holds the text."""

    end_of_document: str = END_OF_DOCUMENT
    """The token to put after each document, by the tokenizer's name for it."""

    workers: int = 1
    """How many processes encode, each a file at a time; at least 1. No part of the result."""


@dataclass(frozen=True)
class TokenizedSplit:
    """The figures of one token store."""

    documents: int
    tokens: int
    """End tokens included."""

    bytes: int
    """Of the texts, in UTF-8."""


@dataclass(frozen=True)
class TokenizedDataset:
    """What has been tokenised."""

    vocab_size: int
    end_of_document: int
    """The token id after each document."""

    tokenizer_sha256: str
    """Digest of the tokenizer's file, in hexadecimal."""

    train: TokenizedSplit
    validation: TokenizedSplit


def tokenize(config: TokenizeConfig) -> TokenizedDataset:
    """Writes the token stores of both splits. A store can be opened when it is complete.

    Documents without text are left out.

    Raises:
        FileNotFoundError: An input or the tokenizer does not exist.
        ValueError: An input is damaged, a split holds no text, or the tokenizer has no such end token.
    """
    content = read_tokenizer(config.tokenizer)
    tokenizer = load_tokenizer(config.tokenizer)
    end_of_document = token_id(tokenizer, config.end_of_document)
    with atomic_write(f"{config.output_path}/{TOKENIZER_FILE}") as file:
        file.write(content)
    # Of the copy, so that all workers use the same bytes.
    encode = _Encoding(
        tokenizer=f"{config.output_path}/{TOKENIZER_FILE}",
        tokenizer_sha256=hashlib.sha256(content).hexdigest(),
        vocab_size=tokenizer.get_vocab_size(),
        end_of_document=end_of_document,
        text_field=config.text_field,
    )
    return TokenizedDataset(
        vocab_size=encode.vocab_size,
        end_of_document=end_of_document,
        tokenizer_sha256=encode.tokenizer_sha256,
        train=_tokenize_split(TRAIN, config.train_paths, encode, config),
        validation=_tokenize_split(VALIDATION, config.validation_paths, encode, config),
    )


@dataclass(frozen=True)
class _Encoding:
    """How texts become tokens, and what the index says of it."""

    tokenizer: str
    tokenizer_sha256: str
    vocab_size: int
    end_of_document: int
    text_field: str


def _tokenize_split(split: str, paths: tuple[str, ...], encoding: _Encoding, config: TokenizeConfig) -> TokenizedSplit:
    from experiments.lib.token_store import TokenIndex, token_shard_name, write_index

    store = f"{config.output_path}/{split}"
    files = [file for path in paths for file in record_files(path)]
    tasks = [(file, f"{store}/{token_shard_name(number)}") for number, file in enumerate(files)]
    results = list(map_in_processes(partial(_tokenize_file, encoding=encoding), tasks, workers=config.workers))
    index = TokenIndex(
        vocab_size=encoding.vocab_size,
        end_of_document=encoding.end_of_document,
        num_bytes=sum(size for _, size in results),
        shards=tuple(shard for shard, _ in results),
        tokenizer_sha256=encoding.tokenizer_sha256,
    )
    if not index.num_documents:
        raise ValueError(
            f"nothing to tokenise for {split}: no text in the {len(files)} files of {', '.join(paths)}\n\n"
            "hint: take a larger corpus, or another share of it for validation"
        )
    write_index(store, index)
    logger.info(f"{split}: {index.num_tokens:,} tokens of {index.num_documents:,} documents, {index.num_bytes:,} bytes")
    return TokenizedSplit(documents=index.num_documents, tokens=index.num_tokens, bytes=index.num_bytes)


def _tokenize_file(task: tuple[str, str], *, encoding: _Encoding) -> tuple["Shard", int]:
    """Writes the shard of one file; returns it, and the bytes of its texts."""
    from experiments.lib.token_store import write_token_shard

    source, target = task
    texts = _Texts(source, encoding)
    shard = write_token_shard(
        target, texts.token_ids(), vocab_size=encoding.vocab_size, end_of_document=encoding.end_of_document
    )
    return shard, texts.bytes


class _Texts:
    """The texts of one file; counts the bytes of those that it has encoded."""

    def __init__(self, source: str, encoding: _Encoding) -> None:
        self.bytes = 0
        self._documents = read_records(source, text_field=encoding.text_field)
        self._tokenizer = load_tokenizer(encoding.tokenizer)

    def token_ids(self) -> Iterator[list[int]]:
        texts = (document.text for document in self._documents if document.text)
        while batch := list(islice(texts, BATCH_DOCUMENTS)):
            check_lease()
            self.bytes += sum(len(text.encode()) for text in batch)
            for encoded in self._tokenizer.encode_batch_fast(batch, add_special_tokens=False):
                yield encoded.ids
