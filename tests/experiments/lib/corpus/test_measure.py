from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from experiments.lib.corpus.documents import Document, document_line
from experiments.lib.corpus.measure import (
    CorpusStatistics,
    MeasureConfig,
    PackageStatistics,
    TokenCount,
    identifiers,
    measure_corpus,
    measure_documents,
    shard_paths,
)

DOCUMENTS = [
    Document("p/a.py", "def f(x):\n    return x + x  # f\n"),
    Document("p/b.txt", "x ünder 3rd\n"),
    Document("q.py", "y = 'z'\n"),
]

STATISTICS = CorpusStatistics(
    documents=3,
    bytes=53,
    lines=4,
    tokens=7,
    identifiers=4,
    packages=(
        PackageStatistics("p", 2, 45, 3, 6, 3, (TokenCount("x", 4), TokenCount("f", 1))),
        PackageStatistics("q", 1, 8, 1, 1, 1, (TokenCount("y", 1),)),
    ),
)


def write_shards(directory: Path, *shards: list[Document]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for index, documents in enumerate(shards):
        (directory / f"shard-{index}.jsonl").write_text("".join(map(document_line, documents)))
    return directory


def test_figures_of_a_small_corpus() -> None:
    assert measure_documents(DOCUMENTS, frequent_tokens=2) == STATISTICS


def test_figures_do_not_depend_on_shards_or_what_lies_beside_them(tmp_path: Path) -> None:
    one = write_shards(tmp_path / "one", DOCUMENTS)
    three = write_shards(tmp_path / "three[1]", DOCUMENTS[2:], DOCUMENTS[:1], DOCUMENTS[1:2])
    (three / ".executor_info").write_text("{}")
    (three / "notes.txt").write_text("not a shard")
    measured = [measure_corpus(MeasureConfig(str(path), frequent_tokens=2)) for path in (one, three)]
    assert measured == [STATISTICS, STATISTICS]


@given(st.permutations(DOCUMENTS))
def test_figures_do_not_depend_on_order(documents: list[Document]) -> None:
    assert measure_documents(documents, frequent_tokens=2) == STATISTICS


def test_equally_frequent_tokens_come_by_name() -> None:
    package = measure_documents([Document("a.txt", "c b a c b a d\n")], frequent_tokens=3).packages[0]
    assert package.frequent_tokens == (TokenCount("a", 2), TokenCount("b", 2), TokenCount("c", 2))


@pytest.mark.parametrize(
    "source",
    ["print 'old syntax' (", "if x:\n  a\n b\n", '"""open', "((((("],
)
def test_python_that_does_not_tokenize_is_counted_as_words(source: str) -> None:
    assert identifiers(Document("a.py", source)) == identifiers(Document("a.txt", source))


def test_keywords_strings_and_comments_are_no_identifiers_of_python() -> None:
    assert identifiers(Document("a.py", "async def f(a): return None  # b\n'c'\n")) == ["f", "a"]


@given(st.text())
@example("\r\x80")  # CPython 3.12's tokenizer cuts this character in two
def test_any_text_can_be_measured_as_anything(text: str) -> None:
    text = text.encode("utf-8", "replace").decode().replace("\0", "")
    for name in ("a.py", "a.txt"):
        statistics = measure_documents([Document(name, text)], frequent_tokens=3)
        assert statistics.bytes == len(text.encode())


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_a_corpus_without_shards_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=name):
        shard_paths(str(tmp_path / name))
