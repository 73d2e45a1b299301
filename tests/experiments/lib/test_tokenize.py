import inspect
import json
from pathlib import Path

import fsspec
import pytest

from experiments.lib.token_store import CorruptShardError, TokenStore, read_index, token_shard_name
from experiments.lib.tokenize import TokenizeConfig, TokenizedDataset, TokenizedSplit, tokenize
from experiments.lib.tokenizer import END_OF_DOCUMENT, TrainTokenizerConfig, load_tokenizer, train_tokenizer

LINES = inspect.getsource(inspect).splitlines(keepends=True)
TEXTS = ["".join(LINES[start : start + 20]) for start in range(0, 1200, 20)]
TRAIN = [TEXTS[:20], TEXTS[20:30], [], TEXTS[30:50]]
"""The texts of each file."""

VALIDATION = [[*TEXTS[50:], "", f"text with {END_OF_DOCUMENT} in it\n"]]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    for split, files in (("train", TRAIN), ("validation", VALIDATION)):
        (root / split).mkdir()
        for number, texts in enumerate(files):
            records = "".join(json.dumps({"text": text}) + "\n" for text in texts)
            (root / split / f"{number}.jsonl").write_text(records)
    train_tokenizer(TrainTokenizerConfig((str(root / "train"),), str(root / "bpe"), vocab_size=400))
    return root


def tokenized(corpus: Path, output: Path | str, **options) -> TokenizedDataset:
    settings = {"train_paths": (f"{corpus}/train",), "validation_paths": (f"{corpus}/validation",)} | options
    return tokenize(TokenizeConfig(**{"tokenizer": f"{corpus}/bpe", "output_path": str(output)} | settings))


def texts_of(path: Path, split: str) -> list[str]:
    tokenizer = load_tokenizer(str(path))
    return [tokenizer.decode(document.tolist()) for document in TokenStore.open(str(path / split)).documents()]


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_every_text_comes_back_from_its_split(corpus: Path, tmp_path: Path) -> None:
    tokenized(corpus, tmp_path)
    assert texts_of(tmp_path, "train") == TEXTS[:50]
    assert texts_of(tmp_path, "validation") == [text for text in VALIDATION[0] if text]


def test_the_result_says_what_the_stores_hold(corpus: Path, tmp_path: Path) -> None:
    dataset = tokenized(corpus, tmp_path)
    for split, texts in (("train", TEXTS[:50]), ("validation", VALIDATION[0])):
        store = TokenStore.open(str(tmp_path / split))
        assert getattr(dataset, split) == TokenizedSplit(store.num_documents, store.num_tokens, store.num_bytes)
        assert store.num_bytes == sum(len(text.encode()) for text in texts)
        assert store.tokenizer_sha256 == dataset.tokenizer_sha256
    assert (dataset.vocab_size, dataset.end_of_document) == (400, 0)


def test_a_file_of_records_is_a_shard_of_tokens(corpus: Path, tmp_path: Path) -> None:
    tokenized(corpus, tmp_path)
    assert [shard.documents for shard in read_index(str(tmp_path / "train")).shards] == [20, 10, 0, 20]


def test_stores_are_byte_identical_for_any_number_of_workers(corpus: Path, tmp_path: Path) -> None:
    datasets = [tokenized(corpus, tmp_path / str(workers), workers=workers) for workers in (1, 4)]
    assert datasets[0] == datasets[1]
    assert contents(tmp_path / "1") == contents(tmp_path / "4")


def test_outputs_may_be_urls(corpus: Path) -> None:
    dataset = tokenized(corpus, "memory://test-tokenize/out")
    assert TokenStore.open("memory://test-tokenize/out/train").num_tokens == dataset.train.tokens
    assert fsspec.filesystem("memory").isfile("/test-tokenize/out/tokenizer.json")


def test_a_corrupt_shard_is_named(corpus: Path, tmp_path: Path) -> None:
    tokenized(corpus, tmp_path)
    path = tmp_path / "train" / token_shard_name(1)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptShardError, match=rf"{path} has [\d,]+ bytes; .*\n\nhint: delete .*/train and tokenise"):
        TokenStore.open(str(tmp_path / "train"))


def test_a_split_without_text_is_an_error_and_no_store(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text('{"text": ""}\n')
    message = r"nothing to tokenise for validation: no text in the 1 files of .*empty\.jsonl\n\nhint: take a larger"
    with pytest.raises(ValueError, match=message):
        tokenized(corpus, tmp_path / "out", validation_paths=(f"{tmp_path}/empty.jsonl",))
    with pytest.raises(FileNotFoundError, match=r"no token store at .*/validation"):
        TokenStore.open(str(tmp_path / "out" / "validation"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"train_paths": ("/absent/train",)}, FileNotFoundError, "no such file or directory: /absent/train"),
        ({"tokenizer": "/absent/bpe"}, FileNotFoundError, "no tokenizer at /absent/bpe"),
        ({"end_of_document": "</s>"}, ValueError, "the tokenizer has no token '</s>'"),
        ({"text_field": "body"}, ValueError, r"0\.jsonl:1: no field 'body'; there is 'text'"),
        ({"workers": 0}, ValueError, "workers must be at least 1, not 0"),
    ],
)
def test_what_cannot_be_tokenised_says_why(corpus: Path, tmp_path: Path, options: dict, error, message: str) -> None:
    with pytest.raises(error, match=message):
        tokenized(corpus, tmp_path / "out", **options)
    assert not (tmp_path / "out" / "train" / "index.json").exists()
