"""Token stores as text."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from experiments.lib.token_store import TokenStore

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["document_bytes"]


def document_bytes(store: TokenStore, tokenizer: "Tokenizer") -> Iterator[bytes]:
    """The text of each document of a store, in UTF-8."""
    for tokens in store.documents():
        yield tokenizer.decode(tokens.tolist(), skip_special_tokens=False).encode()
