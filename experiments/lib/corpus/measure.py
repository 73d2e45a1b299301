"""Measures a corpus: how much text, how many identifiers, and which are the most frequent in each package."""

import io
import keyword
import re
import tokenize
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import fsspec

from experiments.lib.corpus.documents import Document, read_documents

__all__ = [
    "CorpusStatistics",
    "MeasureConfig",
    "PackageStatistics",
    "TokenCount",
    "identifiers",
    "measure_corpus",
    "measure_documents",
    "shard_paths",
]

WORD = re.compile(r"\b[^\W\d]\w*")
"""What counts as an identifier where there is no better way to tell: a word that does not begin with a digit."""


@dataclass(frozen=True)
class MeasureConfig:
    """What to measure."""

    corpus_path: str
    """A directory of shards."""

    frequent_tokens: int = 5
    """How many of each package's most frequent tokens are kept."""


@dataclass(frozen=True)
class TokenCount:
    """How often a token occurs."""

    token: str
    count: int


@dataclass(frozen=True)
class PackageStatistics:
    """The figures of one package."""

    package: str
    documents: int
    bytes: int
    """Of the texts, in UTF-8."""

    lines: int
    tokens: int
    """Occurrences of identifiers."""

    identifiers: int
    """Distinct ones."""

    frequent_tokens: tuple[TokenCount, ...]
    """The most frequent first, equally frequent ones by name."""


@dataclass(frozen=True)
class CorpusStatistics:
    """The figures of a corpus. The totals count a token that occurs in two packages as one identifier."""

    documents: int
    bytes: int
    lines: int
    tokens: int
    identifiers: int
    packages: tuple[PackageStatistics, ...]
    """The largest first, equally large ones by name."""


def measure_corpus(config: MeasureConfig) -> CorpusStatistics:
    """The figures of the documents in all shards of a corpus.

    Raises:
        FileNotFoundError: The corpus does not exist or has no shards.
    """
    documents = (document for path in shard_paths(config.corpus_path) for document in read_documents(path))
    return measure_documents(documents, frequent_tokens=config.frequent_tokens)


def shard_paths(corpus_path: str) -> list[str]:
    """The shards of a corpus, in order, as paths that can be opened.

    Raises:
        FileNotFoundError: The corpus does not exist or has no shards.
    """
    file_system, root = fsspec.core.url_to_fs(corpus_path)
    # Listed and compared, not globbed: a bracket in the path is a bracket.
    names = [path.rpartition("/")[2] for path in file_system.ls(root, detail=False)]
    shards = sorted(name for name in names if name.startswith("shard-") and name.endswith(".jsonl"))
    if not shards:
        raise FileNotFoundError(f"no shards in {corpus_path}")
    return [f"{corpus_path}/{name}" for name in shards]


def measure_documents(documents: Iterable[Document], *, frequent_tokens: int) -> CorpusStatistics:
    """The figures of these documents; their order does not matter."""
    tallies: dict[str, _Tally] = {}
    for document in documents:
        tallies.setdefault(document.package, _Tally()).add(document)
    packages = [tally.statistics(package, frequent_tokens) for package, tally in tallies.items()]
    packages.sort(key=lambda package: (-package.bytes, package.package))
    return CorpusStatistics(
        documents=sum(package.documents for package in packages),
        bytes=sum(package.bytes for package in packages),
        lines=sum(package.lines for package in packages),
        tokens=sum(package.tokens for package in packages),
        identifiers=len(set[str]().union(*(tally.counts for tally in tallies.values()))),
        packages=tuple(packages),
    )


def identifiers(document: Document) -> list[str]:
    """The identifiers of a document, every occurrence, in order.

    Of a Python file: its names, as Python's own tokenizer sees them, without keywords. Of anything else, also of Python
    that does not tokenize: its words.

    Example:
        >>> identifiers(Document("a.py", "if x: y = 'text'  # a comment"))
        ['x', 'y']
        >>> identifiers(Document("a.txt", "if x: 1st"))
        ['if', 'x']
    """
    if document.path.endswith((".py", ".pyi")):
        try:
            return _python_names(document.text)
        except (SyntaxError, tokenize.TokenError, UnicodeDecodeError):
            return WORD.findall(document.text)
    return WORD.findall(document.text)


def _python_names(source: str) -> list[str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    names = (token.string for token in tokens if token.type == tokenize.NAME)
    return [name for name in names if not keyword.iskeyword(name)]


@dataclass
class _Tally:
    documents: int = 0
    bytes: int = 0
    lines: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, document: Document) -> None:
        self.documents += 1
        self.bytes += len(document.text.encode())
        self.lines += document.text.count("\n")
        self.counts.update(identifiers(document))

    def statistics(self, package: str, frequent_tokens: int) -> PackageStatistics:
        ranked = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return PackageStatistics(
            package=package,
            documents=self.documents,
            bytes=self.bytes,
            lines=self.lines,
            tokens=self.counts.total(),
            identifiers=len(self.counts),
            frequent_tokens=tuple(TokenCount(token, count) for token, count in ranked[:frequent_tokens]),
        )
