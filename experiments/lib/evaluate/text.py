"""Between tokens and text: the tokenizer that a corpus was made with, read from its ``tokenizer.json``."""

from collections.abc import Iterator
from typing import Any

from experiments.lib.files import read_text
from experiments.lib.token_store import TokenStore

__all__ = ["TOKENIZER_FILE", "document_bytes", "load_tokenizer"]

TOKENIZER_FILE = "tokenizer.json"
"""The form of the ``tokenizers`` package, which ``transformers`` reads too."""


def load_tokenizer(path: str) -> Any:
    """The ``tokenizers.Tokenizer`` in a directory, local or an fsspec URL.

    Raises:
        FileNotFoundError: The directory has no ``tokenizer.json``.
    """
    from tokenizers import Tokenizer

    return Tokenizer.from_str(read_text(f"{path}/{TOKENIZER_FILE}"))


def document_bytes(store: TokenStore, tokenizer: Any) -> Iterator[bytes]:
    """The text of each document of a store, in UTF-8."""
    for tokens in store.documents():
        yield tokenizer.decode(tokens.tolist(), skip_special_tokens=False).encode()
