import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.lib.corpus.documents import Document, document_line, read_documents
from experiments.lib.corpus.normalise import (
    NormaliseConfig,
    NormalisedCorpus,
    normalise_documents,
    normalise_text,
    shard_name,
)


def normalised(tmp_path: Path, texts: list[str], *, shards: int = 2) -> tuple[NormalisedCorpus, list[list[Document]]]:
    source = tmp_path / "documents.jsonl"
    source.write_text("".join(document_line(Document(str(index), text)) for index, text in enumerate(texts)))
    output = tmp_path / "out"
    corpus = normalise_documents(NormaliseConfig(str(source), str(output), shards=shards))
    return corpus, [list(read_documents(str(output / name))) for name in corpus.shards]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        (" \r\n\t", ""),
        ("a", "a\n"),
        ("\ufeffa\r\nb\rc", "a\nb\nc\n"),
        ("\n\n  a  \n\n\nb\n\n", "  a\n\n\nb\n"),
        ("e\u0301", "é\n"),
    ],
)
def test_normalised_text(text: str, expected: str) -> None:
    assert normalise_text(text) == expected


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]) | st.sampled_from(" \r\n\t\ufeff")))
def test_normalising_twice_is_normalising_once(text: str) -> None:
    once = normalise_text(text.replace("\ufeff", ""))
    assert normalise_text(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert not once or (once.endswith("\n") and "\r" not in once and " \n" not in once)


def test_equal_texts_leave_the_first_and_empty_ones_nothing(tmp_path: Path) -> None:
    corpus, shards = normalised(tmp_path, ["a\r\n", "", "b", "a", "\ufeffa ", "c"])
    assert corpus == NormalisedCorpus(
        documents=3, duplicates=2, empty=1, shards=("shard-00000-of-00002.jsonl", "shard-00001-of-00002.jsonl")
    )
    assert shards == [[Document("0", "a\n"), Document("5", "c\n")], [Document("2", "b\n")]]


@pytest.mark.parametrize("shards", [1, 2, 7])
def test_shards_differ_by_at_most_one_document_and_hold_all(tmp_path: Path, shards: int) -> None:
    corpus, dealt = normalised(tmp_path, [f"text {number}" for number in range(10)], shards=shards)
    sizes = [len(documents) for documents in dealt]
    assert len(dealt) == shards
    assert max(sizes) - min(sizes) <= 1
    assert sum(sizes) == corpus.documents == 10


def test_shard_names_sort_by_number() -> None:
    names = [shard_name(index, 12) for index in range(12)]
    assert names == sorted(names)


@pytest.mark.parametrize("texts", [[], ["", " \n"]])
def test_an_empty_corpus_is_an_error_and_leaves_nothing(tmp_path: Path, texts: list[str]) -> None:
    with pytest.raises(ValueError, match=f"an empty corpus: none of the {len(texts)} documents"):
        normalised(tmp_path, texts)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_broken_collection_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "documents.jsonl"
    source.write_text(document_line(Document("a", "a")) + "{\n")
    with pytest.raises(ValueError, match=r"documents\.jsonl:2: not a document"):
        normalise_documents(NormaliseConfig(str(source), str(tmp_path / "out")))
    assert list((tmp_path / "out").iterdir()) == []


def test_no_shards_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shards must be at least 1, not 0"):
        normalised(tmp_path, ["a"], shards=0)
