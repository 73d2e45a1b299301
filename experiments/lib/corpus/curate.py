"""Makes a corpus to train on: normalises, filters, removes duplicates and near duplicates, splits off a validation set.

Documents are examined in parallel and decided upon in order, so that the shards are byte-identical whatever the number
of workers (and of one version of pyarrow, which writes its name into them).
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar, final

from experiments.lib.corpus.documents import Document
from experiments.lib.corpus.near_duplicates import NearDuplicateConfig, NearDuplicateIndex, minhash_signature
from experiments.lib.corpus.normalise import normalise_text
from experiments.lib.corpus.quality import QualityConfig, rejection
from experiments.lib.corpus.records import read_all_records
from experiments.lib.parallel import map_in_processes
from experiments.lib.splits import TRAIN, VALIDATION, split_of
from marin_trace.io import atomic_write

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["CurateConfig", "CuratedCorpus", "Split", "curate_corpus"]

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

CHUNK_DOCUMENTS: Final = 64
"""How many documents a worker examines at a time: enough to be worth the message."""

ROW_GROUP_DOCUMENTS: Final = 1024
"""How many documents of a shard are held in memory before they are written."""


@dataclass(frozen=True)
class CurateConfig:
    """Which texts become which corpus."""

    input_paths: tuple[str, ...]
    """Files, globs or directories of records (see :mod:`experiments.lib.corpus.records`), local or fsspec URLs."""

    output_path: str
    """The directory that gets ``train/`` and ``validation/``."""

    text_field: str = "text"
    """Which field or column of a record holds the text."""

    quality: QualityConfig | None = field(default_factory=QualityConfig)
    """Which documents are good enough; all of them where this is None."""

    near_duplicates: NearDuplicateConfig | None = field(default_factory=NearDuplicateConfig)
    """Which documents are too similar to an earlier one; only equal ones where this is None."""

    validation_fraction: float = 0.05
    """The share of documents that is kept from training; above 0 and below 1."""

    split_salt: str = ""
    """Another salt makes another split of the same fraction."""

    shards: int = 4
    """How many files the documents to train on are spread over, at least 1; those to validate on are one file."""

    workers: int = 1
    """How many processes examine documents; at least 1. No part of the result."""

    def __post_init__(self) -> None:
        """Refuses what has no meaning, before anything is run.

        Raises:
            ValueError: A number is out of range.
        """
        if self.shards < 1:
            raise ValueError(f"shards must be at least 1, not {self.shards}")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"validation_fraction must be above 0 and below 1, not {self.validation_fraction}")


@dataclass(frozen=True)
class Split:
    """One part of a corpus."""

    documents: int
    bytes: int
    """Of the texts, in UTF-8."""

    shards: tuple[str, ...]
    """File names below the output path."""


@dataclass(frozen=True)
class CuratedCorpus:
    """What has become of the texts."""

    documents: int
    """How many were read."""

    empty: int
    """Without any text after normalisation."""

    duplicates: int
    """Whose normalised text an earlier one had."""

    rejected: dict[str, int]
    """Of poor quality: how many broke each rule."""

    near_duplicates: int
    """Nearly equal to an earlier one that was kept."""

    train: Split
    validation: Split


def curate_corpus(config: CurateConfig) -> CuratedCorpus:
    """Writes the good, distinct documents to Parquet shards with the columns ``path`` and ``text``.

    Of equal or similar documents the first stays. The hash of its normalised text decides which split a document is in,
    so that it stays there when the corpus grows. A split's documents are dealt to its shards in turn. All shards appear
    when all are complete.

    Raises:
        FileNotFoundError: An input does not exist.
        ValueError: An input is damaged, a split would be empty, or ``workers`` is less than 1.
    """
    counts = _Counts()
    chunks = _chunked(read_all_records(config.input_paths, text_field=config.text_field), CHUNK_DOCUMENTS)
    examine = partial(_examine_all, quality=config.quality, near_duplicates=config.near_duplicates)
    examined = (document for chunk in map_in_processes(examine, chunks, workers=config.workers) for document in chunk)
    with ExitStack() as stack:
        train = _SplitWriter(stack, config.output_path, TRAIN, config.shards)
        validation = _SplitWriter(stack, config.output_path, VALIDATION, 1)
        for document in _chosen(examined, config.near_duplicates, counts):
            split = split_of(document.digest, fraction=config.validation_fraction, salt=config.split_salt)
            (train if split == TRAIN else validation).write(Document(document.path, document.text))
        corpus = CuratedCorpus(
            documents=counts.read,
            empty=counts.empty,
            duplicates=counts.duplicates,
            rejected=dict(sorted(counts.rejected.items())),
            near_duplicates=counts.near_duplicates,
            train=train.finish(),
            validation=validation.finish(),
        )
        _check_splits(corpus, config)
    logger.info(
        f"{corpus.documents:,} documents read; {corpus.train.documents:,} to train on, "
        f"{corpus.validation.documents:,} to validate on"
    )
    return corpus


@dataclass(frozen=True)
class _Examined:
    """A document and what is needed to decide whether it stays."""

    path: str
    text: str
    """Normalised."""

    digest: bytes
    """Of the normalised text."""

    rejection: str | None
    """The rule of quality that it breaks."""

    signature: "NDArray[np.unsignedinteger] | None"
    """None where it is not needed."""


def _examine_all(
    documents: list[Document], *, quality: QualityConfig | None, near_duplicates: NearDuplicateConfig | None
) -> list[_Examined]:
    return [_examine(document, quality, near_duplicates) for document in documents]


def _examine(
    document: Document, quality: QualityConfig | None, near_duplicates: NearDuplicateConfig | None
) -> _Examined:
    text = normalise_text(document.text)
    broken = rejection(text, quality) if text and quality is not None else None
    # The words' case and spacing stay: what differs in them is for training to see.
    signature = None
    if text and broken is None and near_duplicates is not None:
        signature = minhash_signature(text, near_duplicates)
    return _Examined(document.path, text, hashlib.sha256(text.encode()).digest(), broken, signature)


@dataclass
class _Counts:
    read: int = 0
    empty: int = 0
    duplicates: int = 0
    near_duplicates: int = 0
    rejected: Counter[str] = field(default_factory=Counter)


def _chosen(
    documents: Iterable[_Examined], near_duplicates: NearDuplicateConfig | None, counts: _Counts
) -> Iterator[_Examined]:
    seen: set[bytes] = set()
    index = None if near_duplicates is None else NearDuplicateIndex(near_duplicates)
    for document in documents:
        counts.read += 1
        if not document.text:
            counts.empty += 1
        elif document.digest in seen:
            counts.duplicates += 1
        elif document.rejection is not None:
            seen.add(document.digest)
            counts.rejected[document.rejection] += 1
        elif index is not None and document.signature is not None and index.add(document.signature) is not None:
            seen.add(document.digest)
            counts.near_duplicates += 1
        else:
            seen.add(document.digest)
            yield document


@final
class _SplitWriter:
    """Deals the documents of one split to its shards; they appear when the stack is unwound."""

    def __init__(self, stack: ExitStack, output_path: str, split: str, shards: int) -> None:
        self._names = [f"{split}/shard-{number:05d}-of-{shards:05d}.parquet" for number in range(shards)]
        self._shards = [_ShardWriter(stack, f"{output_path}/{name}") for name in self._names]
        self._documents = self._bytes = 0

    def write(self, document: Document) -> None:
        self._shards[self._documents % len(self._shards)].write(document)
        self._documents += 1
        self._bytes += len(document.text.encode())

    def finish(self) -> Split:
        for shard in self._shards:
            shard.flush()
        return Split(documents=self._documents, bytes=self._bytes, shards=tuple(self._names))


@final
class _ShardWriter:
    def __init__(self, stack: ExitStack, path: str) -> None:
        import pyarrow
        from pyarrow import parquet

        file = stack.enter_context(atomic_write(path))
        self._schema = pyarrow.schema([("path", pyarrow.string()), ("text", pyarrow.string())])
        self._writer = stack.enter_context(
            parquet.ParquetWriter(file, self._schema, compression="zstd", write_page_checksum=True)
        )
        self._waiting: list[Document] = []

    def write(self, document: Document) -> None:
        self._waiting.append(document)
        if len(self._waiting) >= ROW_GROUP_DOCUMENTS:
            self.flush()

    def flush(self) -> None:
        import pyarrow

        if self._waiting:
            rows = [{"path": document.path, "text": document.text} for document in self._waiting]
            self._writer.write_table(pyarrow.Table.from_pylist(rows, self._schema))
            self._waiting.clear()


def _check_splits(corpus: CuratedCorpus, config: CurateConfig) -> None:
    kept = corpus.train.documents + corpus.validation.documents
    if not kept:
        raise ValueError(
            f"an empty corpus: of {corpus.documents:,} documents none is left; {corpus.empty:,} are empty, "
            f"{sum(corpus.rejected.values()):,} rejected {corpus.rejected}\n\nhint: look at them, and lower what "
            "rejects them: QualityConfig(min_words=1)"
        )
    for name, split in ((TRAIN, corpus.train), (VALIDATION, corpus.validation)):
        if not split.documents:
            raise ValueError(
                f"no document to {'train' if name == TRAIN else 'validate'} on: {kept:,} are left, and "
                f"validation_fraction is {config.validation_fraction}\n\n"
                "hint: take more documents, or another validation_fraction or split_salt"
            )


def _chunked(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
