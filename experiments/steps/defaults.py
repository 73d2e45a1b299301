"""The usual way to do the usual things: groups of steps that compose.

::

    raw = default_download("fineweb", "HuggingFaceFW/fineweb", revision="9bb295d", allow_patterns=["sample/10BT/*"])
    tokens = default_tokenize("fineweb", raw, vocab_size=32_000)

Each is made of the steps of this package, which can be called on their own where the usual is not wanted.
"""

from collections.abc import Sequence

from experiments.lib.download.files import RemoteFile
from experiments.lib.splits import TRAIN, VALIDATION
from experiments.steps.corpus import curated_corpus
from experiments.steps.download import downloaded_dataset, downloaded_files
from experiments.steps.tokenize import tokenized_dataset, trained_tokenizer
from marin_trace import StepRef, step


@step(name="defaults/download/{name}")
def default_download(
    name: str,
    source: str | Sequence[RemoteFile],
    *,
    revision: str = "",
    sha256: str = "",
    allow_patterns: Sequence[str] = (),
    workers: int = 4,
) -> StepRef:
    """Downloads a data set of the Hugging Face Hub, where a revision is given, or files by their URLs.

    Args:
        name: What the data is called: it comes to lie below ``raw/{name}``.
        source: With a revision ``owner/name`` on the Hub; else a URL, or files with their URLs and checksums.
        revision: The hash of a commit.
        sha256: Of the file at the URL, in hexadecimal.
        allow_patterns: Of the data set's files only those that match one of these globs.
        workers: Files that are fetched at a time.
    """
    if revision:
        if not isinstance(source, str) or sha256:
            raise ValueError("revision is for a data set of the Hugging Face Hub, which knows its own checksums")
        return downloaded_dataset(name, source, revision, allow_patterns=allow_patterns, workers=workers)
    if allow_patterns:
        raise ValueError("allow_patterns chooses among the files of a data set of the Hub, at a revision=…")
    if not isinstance(source, str) and sha256:
        raise ValueError("sha256 is for one URL; give RemoteFile(url, sha256=…) for each of several")
    files = [RemoteFile(source, sha256=sha256)] if isinstance(source, str) else source
    return downloaded_files(name, files, workers=workers)


@step(name="defaults/tokenize/{name}")
def default_tokenize(
    name: str,
    dataset: StepRef,
    tokenizer: StepRef | None = None,
    *,
    vocab_size: int = 4096,
    text_field: str = "text",
    validation_fraction: float = 0.05,
    workers: int = 1,
) -> StepRef:
    """Curates a data set, and tokenises what is left of it: with a tokenizer trained on it if none is given.

    Args:
        name: What the data is called: it comes to lie below ``tokenized/{name}``, the corpus below ``curated/{name}``,
            a tokenizer of its own below ``tokenizers/{name}``.
        dataset: A directory, file or glob of JSON Lines or Parquet. Where a data set brings a test set along, name
            what to take: ``raw / "data" / "train-*.parquet"``.
        tokenizer: A ``tokenizer.json`` or its directory: the output of :func:`trained_tokenizer`, of another
            :func:`default_tokenize`, or ``StepRef.hardcoded(…)``.
        vocab_size: Of a tokenizer of its own.
        text_field: Which field or column of the data set holds the text.
        validation_fraction: The share of documents that is kept from training.
        workers: Processes that curate and encode; no part of the result.
    """
    corpus = curated_corpus(
        name, [dataset], text_field=text_field, validation_fraction=validation_fraction, workers=workers
    )
    if tokenizer is None:
        tokenizer = trained_tokenizer(name, [corpus / TRAIN], vocab_size=vocab_size)
    return tokenized_dataset(name, [corpus / TRAIN], [corpus / VALIDATION], tokenizer, workers=workers)
