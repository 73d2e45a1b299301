"""Trains a byte-level byte-pair encoding, and loads any tokenizer of the `tokenizers` library.

Byte-pair encoding merges the most frequent pair of neighbours again and again (Sennrich, Haddow and Birch, "Neural
Machine Translation of Rare Words with Subword Units", 2016); over bytes rather than characters, as GPT-2 does it, no
text is without its tokens, and decoding gives the text back exactly.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import fsspec

from experiments.lib.corpus.records import read_all_records
from marin_trace.io import atomic_write, check_lease

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = [
    "END_OF_DOCUMENT",
    "TOKENIZER_FILE",
    "TrainTokenizerConfig",
    "TrainedTokenizer",
    "load_tokenizer",
    "read_tokenizer",
    "token_id",
    "train_tokenizer",
]

logger = logging.getLogger(__name__)

TOKENIZER_FILE: Final = "tokenizer.json"
"""What `tokenizers` and `transformers` call the file that holds a whole tokenizer."""

TOKENIZER_CONFIG_FILE: Final = "tokenizer_config.json"
"""What tells `transformers` which of its classes to load, and which token ends a text."""

END_OF_DOCUMENT: Final = "<|endoftext|>"
"""The special token of a trained tokenizer, by GPT-2's name for it. Its id is 0."""

BYTES: Final = 256
"""Tokens that a byte-level vocabulary begins with, after the special ones."""


@dataclass(frozen=True)
class TrainTokenizerConfig:
    """What to train on, and how large a vocabulary."""

    input_paths: tuple[str, ...]
    """Files, globs or directories of records (see :mod:`experiments.lib.corpus.records`), local or fsspec URLs."""

    output_path: str
    """The directory that gets :data:`TOKENIZER_FILE`."""

    vocab_size: int = 4096
    """Tokens, the special one and the 256 bytes included."""

    max_bytes: int = 100_000_000
    """At most so much text is looked at, from the beginning: pair counts hardly change beyond."""

    text_field: str = "text"
    """Which field or column of a record holds the text."""

    def __post_init__(self) -> None:
        """Refuses a vocabulary that cannot hold every byte, before anything is run.

        Raises:
            ValueError: ``vocab_size`` is too small.
        """
        if self.vocab_size < BYTES + 1:
            raise ValueError(
                f"vocab_size must be at least {BYTES + 1}, one special token and {BYTES} bytes, not {self.vocab_size}"
            )


@dataclass(frozen=True)
class TrainedTokenizer:
    """A trained tokenizer."""

    vocab_size: int
    end_of_document: int
    """The token id to put after each document."""

    documents: int
    """How many were looked at."""

    bytes: int
    """Of their texts, in UTF-8."""

    sha256: str
    """Digest of the tokenizer's file, in hexadecimal."""


def train_tokenizer(config: TrainTokenizerConfig) -> TrainedTokenizer:
    """Trains a tokenizer and writes ``tokenizer.json``, and beside it what ``transformers`` wants to know.

    The same texts give the same file. The text of the special token in a document is text like any other.

    Raises:
        FileNotFoundError: An input does not exist.
        ValueError: An input is damaged, or the vocabulary is too large for the texts.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    seen = _Seen()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=[END_OF_DOCUMENT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (document.text for document in read_all_records(config.input_paths, text_field=config.text_field))
    tokenizer.train_from_iterator(_limited(texts, config.max_bytes, seen), trainer)
    vocab_size = tokenizer.get_vocab_size()
    if vocab_size < config.vocab_size:
        raise ValueError(
            f"too little text for {config.vocab_size:,} tokens: {seen.documents:,} documents of {seen.bytes:,} bytes "
            f"hold only {vocab_size:,}\n\nhint: take more text, or vocab_size={vocab_size}"
        )
    content = tokenizer.to_str(pretty=True)
    _write(config.output_path, content)
    logger.info(f"tokenizer of {vocab_size:,} tokens from {seen.documents:,} documents of {seen.bytes:,} bytes")
    return TrainedTokenizer(
        vocab_size=vocab_size,
        end_of_document=token_id(tokenizer, END_OF_DOCUMENT),
        documents=seen.documents,
        bytes=seen.bytes,
        sha256=hashlib.sha256(content.encode()).hexdigest(),
    )


def load_tokenizer(path: str) -> "Tokenizer":
    """The tokenizer at a path, ready to encode documents: what looks like a special token in them is text.

    Args:
        path: As of :func:`read_tokenizer`.

    Raises:
        FileNotFoundError: There is no tokenizer.
        ValueError: The file is not one.
    """
    from tokenizers import Tokenizer

    content = read_tokenizer(path)
    try:
        tokenizer = Tokenizer.from_str(content.decode())
    except Exception as error:  # the library raises nothing more specific
        raise ValueError(f"{path} is not a tokenizer: {error}\n\nhint: train it again, or copy it anew") from error
    tokenizer.encode_special_tokens = True
    # A tokenizer that was saved after use for a model may cut or fill up what it encodes.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def read_tokenizer(path: str) -> bytes:
    """The content of a tokenizer's file.

    Args:
        path: A ``tokenizer.json``, or a directory that holds one; local or an fsspec URL.

    Raises:
        FileNotFoundError: There is no tokenizer.
    """
    file_system, location = fsspec.core.url_to_fs(path)
    if file_system.isdir(location):
        location = f"{location}/{TOKENIZER_FILE}"
    try:
        return file_system.cat_file(location)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"no tokenizer at {path}: give a {TOKENIZER_FILE}, or the directory that holds one"
        ) from error


def token_id(tokenizer: "Tokenizer", token: str) -> int:
    """The id of a token.

    Raises:
        ValueError: The tokenizer has no such token; the message names its special ones.
    """
    number = tokenizer.token_to_id(token)
    if number is None:
        special = [added.content for added in tokenizer.get_added_tokens_decoder().values() if added.special]
        raise ValueError(f"the tokenizer has no token {token!r}; its special tokens are {special[:10]}")
    return number


@dataclass
class _Seen:
    documents: int = 0
    bytes: int = 0


def _limited(texts: Iterable[str], max_bytes: int, seen: _Seen) -> Iterator[str]:
    for text in texts:
        if seen.bytes >= max_bytes:
            return
        check_lease()
        seen.documents += 1
        seen.bytes += len(text.encode())
        yield text


def _write(output_path: str, content: str) -> None:
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END_OF_DOCUMENT}
    with atomic_write(f"{output_path}/{TOKENIZER_CONFIG_FILE}", "w") as file:
        file.write(json.dumps(settings, indent=1) + "\n")
    with atomic_write(f"{output_path}/{TOKENIZER_FILE}", "w") as file:
        file.write(content)
