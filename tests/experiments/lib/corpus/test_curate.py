import json
import random
from pathlib import Path

import fsspec
import pytest
from pyarrow import parquet

from experiments.lib.corpus import curate
from experiments.lib.corpus.curate import CurateConfig, CuratedCorpus, curate_corpus
from experiments.lib.corpus.documents import Document
from experiments.lib.corpus.quality import QualityConfig
from experiments.lib.corpus.records import read_all_records
from experiments.lib.splits import TRAIN, VALIDATION


def text_of(seed: int, words: int = 60) -> str:
    drawn = random.Random(seed)
    return "\n".join(f"word{drawn.randrange(9999)} and word{drawn.randrange(9999)}" for _ in range(words // 3)) + "\n"


def source(path: Path, texts: list[str]) -> str:
    path.mkdir(exist_ok=True)
    (path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def curated(inputs: str, output: Path | str, **options) -> tuple[CuratedCorpus, dict[str, list[Document]]]:
    settings = {"validation_fraction": 0.3, **options}
    corpus = curate_corpus(CurateConfig((inputs,), str(output), **settings))
    return corpus, {split: list(read_all_records([f"{output}/{split}"])) for split in (TRAIN, VALIDATION)}


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    good = [text_of(seed) for seed in range(20)]
    near = good[3] + "one more line\n"
    bad = ["", " \r\n", good[0].replace("\n", "  \r\n"), near, "too short\n", "--- === *** +++ a b\n" * 10]
    corpus, documents = curated(source(tmp_path / "in", good + bad), tmp_path / "out")
    assert corpus.documents == 26
    assert (corpus.empty, corpus.duplicates, corpus.near_duplicates) == (2, 1, 1)
    assert corpus.rejected == {"max_symbol_ratio": 1, "min_words": 1}
    assert sorted(document.text for split in documents.values() for document in split) == sorted(good)


def test_the_result_says_what_the_shards_hold(tmp_path: Path) -> None:
    corpus, documents = curated(source(tmp_path / "in", [text_of(n) for n in range(20)]), tmp_path / "out", shards=3)
    for name, split in ((TRAIN, corpus.train), (VALIDATION, corpus.validation)):
        assert split.documents == len(documents[name])
        assert split.bytes == sum(len(document.text.encode()) for document in documents[name])
    assert corpus.train.shards == tuple(f"train/shard-0000{n}-of-00003.parquet" for n in range(3))
    assert corpus.validation.shards == ("validation/shard-00000-of-00001.parquet",)
    assert sorted(contents(tmp_path / "out")) == sorted((*corpus.train.shards, *corpus.validation.shards))


def test_shards_are_byte_identical_for_any_number_of_workers(tmp_path: Path) -> None:
    texts = [text_of(seed % 190, words=30 + seed % 7) for seed in range(400)]
    inputs = source(tmp_path / "in", texts)
    corpora = [curated(inputs, tmp_path / f"out{workers}", workers=workers)[0] for workers in (1, 4)]
    assert corpora[0] == corpora[1]
    assert corpora[0].near_duplicates > 50
    assert contents(tmp_path / "out1") == contents(tmp_path / "out4")


def test_a_shard_is_written_in_groups_of_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curate, "ROW_GROUP_DOCUMENTS", 3)
    texts = [text_of(seed) for seed in range(20)]
    corpus, documents = curated(source(tmp_path / "in", texts), tmp_path / "out", shards=1)
    shard = parquet.ParquetFile(tmp_path / "out" / corpus.train.shards[0])
    assert shard.num_row_groups == -(-corpus.train.documents // 3)
    assert len({document.text for document in documents[TRAIN]}) == corpus.train.documents


def test_a_document_stays_in_its_split_when_the_corpus_grows(tmp_path: Path) -> None:
    texts = [text_of(seed) for seed in range(40)]
    before = curated(source(tmp_path / "in", texts[:20]), tmp_path / "before")[1]
    after = curated(source(tmp_path / "in", texts[::-1]), tmp_path / "after")[1]
    for split in (TRAIN, VALIDATION):
        assert {document.text for document in before[split]} <= {document.text for document in after[split]}


def test_filters_and_near_duplicates_can_be_left_out(tmp_path: Path) -> None:
    texts = [f"text {n}\n" for n in range(20)] + [text_of(1), text_of(1) + "more\n"]
    corpus, _ = curated(source(tmp_path / "in", texts), tmp_path / "out", quality=None, near_duplicates=None)
    assert corpus.train.documents + corpus.validation.documents == 22


def test_outputs_and_inputs_may_be_urls() -> None:
    records = "".join(json.dumps({"text": text_of(seed)}) + "\n" for seed in range(10))
    fsspec.filesystem("memory").pipe("/test-curate/in/a.jsonl", records.encode())
    corpus, documents = curated("memory://test-curate/in", "memory://test-curate/out")
    assert corpus.documents == sum(map(len, documents.values())) == 10


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ([], {}, "an empty corpus: of 0 documents none is left"),
        (["", "short"], {}, r"of 2 documents none is left; 1 are empty, 1 rejected \{'min_words': 1\}\n\nhint: look"),
        ([text_of(0)], {"validation_fraction": 1e-9}, r"no document to validate on: 1 are left, .*\n\nhint: take more"),
        ([text_of(0)], {"validation_fraction": 1 - 1e-9}, r"no document to train on: 1 are left"),
        ([text_of(0)], {"validation_fraction": 0}, "validation_fraction must be above 0 and below 1, not 0"),
        ([text_of(0)], {"shards": 0}, "shards must be at least 1, not 0"),
        ([text_of(0)], {"workers": 0}, "workers must be at least 1, not 0"),
        ([text_of(0)], {"text_field": "body"}, r"a\.jsonl:1: no field 'body'; there is 'text'"),
    ],
)
def test_a_corpus_that_cannot_be_made_leaves_nothing(tmp_path: Path, texts, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        curated(source(tmp_path / "in", texts), tmp_path / "out", **options)
    assert contents(tmp_path / "out") == {}


def test_a_strict_filter_is_used(tmp_path: Path) -> None:
    texts = [text_of(seed, words=60 + 60 * (seed % 2)) for seed in range(20)]
    corpus, _ = curated(source(tmp_path / "in", texts), tmp_path / "out", quality=QualityConfig(min_words=100))
    assert corpus.rejected == {"min_words": 10}
