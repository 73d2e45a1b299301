import gc
import json
import pickle
from collections.abc import Sequence
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.lib.token_store import (
    INDEX_FILE,
    CorruptShardError,
    TokenIndex,
    TokenStore,
    read_index,
    token_shard_name,
    write_token_shard,
    write_token_store,
)

END = 0
DOCUMENTS = [[1, 2, 3], [], [4], [5, 6, 7, 8, 9], [3]]
TOKENS = [1, 2, 3, END, END, 4, END, 5, 6, 7, 8, 9, END, 3, END]


def written(path: Path | str, documents: Sequence[Sequence[int]] = DOCUMENTS, **options) -> TokenStore:
    settings = {"vocab_size": 10, "end_of_document": END, "num_bytes": 42} | options
    write_token_store(str(path), documents, **settings)
    return TokenStore.open(str(path))


def read_back(store: TokenStore, limit: int | None = None) -> list[list[int]]:
    return [document.tolist() for document in store.documents(limit)]


def test_a_store_gives_back_what_was_written(tmp_path: Path) -> None:
    store = written(tmp_path / "train")
    assert read_back(store) == DOCUMENTS
    assert store.window(0, store.num_tokens).tolist() == TOKENS
    assert (store.num_tokens, store.num_documents, store.num_bytes) == (15, 5, 42)
    assert (store.vocab_size, store.end_of_document) == (10, END)
    store.verify()


@pytest.mark.parametrize(
    ("tokens_per_shard", "shards"),
    [(1, [4, 1, 2, 6, 2]), (4, [4, 9, 2]), (5, [5, 8, 2]), (100, [15])],
)
def test_a_shard_ends_with_a_document(tmp_path: Path, tokens_per_shard: int, shards: list[int]) -> None:
    store = written(tmp_path / "train", tokens_per_shard=tokens_per_shard)
    assert [shard.tokens for shard in read_index(str(tmp_path / "train")).shards] == shards
    assert read_back(store) == DOCUMENTS


@given(
    documents=st.lists(st.lists(st.integers(1, 9), max_size=6), min_size=1, max_size=12),
    tokens_per_shard=st.integers(1, 20),
    numbers=st.data(),
)
def test_a_window_is_a_slice_of_all_tokens(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], tokens_per_shard: int, numbers
) -> None:
    store = written(tmp_path_factory.mktemp("store") / "train", documents, tokens_per_shard=tokens_per_shard)
    tokens = [token for document in documents for token in [*document, END]]
    start = numbers.draw(st.integers(0, len(tokens)))
    length = numbers.draw(st.integers(0, len(tokens) - start))
    window = store.window(start, length)
    assert window.dtype == np.int32
    assert window.tolist() == tokens[start : start + length]
    assert read_back(store) == documents


def test_a_window_belongs_to_its_caller(tmp_path: Path) -> None:
    store = written(tmp_path / "train")
    store.window(0, 3)[:] = 9
    assert store.window(0, 3).tolist() == [1, 2, 3]


@pytest.mark.parametrize(("start", "length"), [(-1, 1), (0, -1), (15, 1), (0, 16)])
def test_a_window_outside_the_tokens_is_an_error(tmp_path: Path, start: int, length: int) -> None:
    store = written(tmp_path / "train")
    with pytest.raises(IndexError, match=rf"no window of {length} tokens at {start}: .*train holds 15 tokens"):
        store.window(start, length)


@pytest.mark.parametrize("limit", [0, 1, 3, 5, 9])
def test_a_limit_takes_the_first_documents(tmp_path: Path, limit: int) -> None:
    assert read_back(written(tmp_path / "train", tokens_per_shard=4), limit) == DOCUMENTS[:limit]


def test_a_long_document_is_found_whole(tmp_path: Path) -> None:
    long = [7] * 10_000
    assert read_back(written(tmp_path / "train", [[1], long, [2]])) == [[1], long, [2]]


@pytest.mark.parametrize(("vocab_size", "width"), [(1 << 16, 2), ((1 << 16) + 1, 4), (1 << 31, 4)])
def test_tokens_take_two_bytes_where_the_vocabulary_allows_it(tmp_path: Path, vocab_size: int, width: int) -> None:
    store = written(tmp_path / "train", [[1, vocab_size - 1]], vocab_size=vocab_size)
    assert (tmp_path / "train" / token_shard_name(0)).stat().st_size == 3 * width
    assert store.window(0, 3).tolist() == [1, vocab_size - 1, END]


def test_a_slash_at_the_end_of_a_path_does_not_matter(tmp_path: Path) -> None:
    path = written(tmp_path / "train").path
    assert TokenStore.open(f"{path}/").path == path


def test_a_store_pickles_as_its_path(tmp_path: Path) -> None:
    store = written(tmp_path / "train", tokens_per_shard=4)
    content = pickle.dumps(store)
    assert len(content) < 500
    assert read_back(pickle.loads(content)) == DOCUMENTS


def test_a_remote_store_is_copied_while_it_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = written("memory://test-token-store/train", tokens_per_shard=4)
    assert read_back(store) == DOCUMENTS
    assert len(list(tmp_path.rglob("*.bin"))) == 3
    del store
    assert list(tmp_path.iterdir()) == []


def test_a_corrupt_remote_shard_is_named_and_no_copy_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    written("memory://test-token-store-corrupt/train")
    memory = fsspec.filesystem("memory")
    name = f"/test-token-store-corrupt/train/{token_shard_name(0)}"
    content = memory.cat_file(name)
    for damaged, message in [
        (b"\x09" + content[1:], "has the SHA-256 digest"),
        (content[:-2], "has 28 bytes; its ind"),
    ]:
        memory.pipe(name, damaged)
        with pytest.raises(CorruptShardError, match=rf"memory://.*/tokens-00000\.bin {message}"):
            TokenStore.open("memory://test-token-store-corrupt/train")
    memory.rm_file(name)
    with pytest.raises(CorruptShardError, match=r"tokens-00000\.bin is missing"):
        TokenStore.open("memory://test-token-store-corrupt/train")
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_a_store_may_be_empty_in_places(tmp_path: Path) -> None:
    # As parallel writers leave it: a shard for every part of the corpus, whether it has documents of this split or not.
    shards = []
    for number, documents in enumerate([[], [[1]], [], [[2]], []]):
        path = str(tmp_path / token_shard_name(number))
        shards.append(write_token_shard(path, documents, vocab_size=10, end_of_document=END))
    (tmp_path / INDEX_FILE).write_text(
        json.dumps({"format_version": 1} | index_record(TokenIndex(10, END, 2, tuple(shards))))
    )
    store = TokenStore.open(str(tmp_path))
    assert [store.window(start, 4 - start).tolist() for start in range(5)] == [[1, 0, 2, 0], [0, 2, 0], [2, 0], [0], []]
    assert read_back(store) == [[1], [2]]


def index_record(index: TokenIndex) -> dict:
    return {**vars(index), "shards": [vars(shard) for shard in index.shards]}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0\0")


def end_otherwise(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2] + b"\x05\0")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, r"tokens-00001\.bin has 15 bytes; its index says 18\n\nhint: delete .*train and tokenise again"),
        (lengthen, r"tokens-00001\.bin has 20 bytes; its index says 18"),
        (end_otherwise, r"tokens-00001\.bin ends with token 5, not with the end token"),
        (Path.unlink, r"tokens-00001\.bin is missing"),
    ],
)
def test_a_corrupt_shard_is_named_when_the_store_is_opened(tmp_path: Path, damage, message: str) -> None:
    written(tmp_path / "train", tokens_per_shard=4)
    damage(tmp_path / "train" / token_shard_name(1))
    with pytest.raises(CorruptShardError, match=message):
        TokenStore.open(str(tmp_path / "train"))


def test_verify_finds_what_sizes_do_not_show(tmp_path: Path) -> None:
    written(tmp_path / "train")
    path = tmp_path / "train" / token_shard_name(0)
    path.write_bytes(b"\x09" + path.read_bytes()[1:])
    store = TokenStore.open(str(tmp_path / "train"))
    with pytest.raises(CorruptShardError, match=r"train/tokens-00000\.bin has the SHA-256 digest"):
        store.verify()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"index\.json is not JSON: "),
        ("[]", r"index\.json has format version None; this code reads 1"),
        ('{"format_version": 9}', r"index\.json has format version 9; this code reads 1"),
        ('{"format_version": 1}', r"index\.json is not the index of a token store: 'vocab_size'"),
    ],
)
def test_a_broken_index_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / INDEX_FILE).write_text(text)
    with pytest.raises(CorruptShardError, match=message):
        TokenStore.open(str(tmp_path))


def test_a_path_without_a_store_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no token store at .*; give the directory of one split"):
        TokenStore.open(str(tmp_path))


@pytest.mark.parametrize(
    ("documents", "options", "message"),
    [
        ([], {}, "no documents to write to "),
        ([[1], [10]], {}, "document 1: token 10 is not one of a vocabulary of 10"),
        ([[1], [2], [-1]], {"tokens_per_shard": 1}, "document 2: token -1 is not one of a vocabulary of 10"),
        ([[1, END]], {}, "document 0 contains the end token 0"),
        ([[1]], {"end_of_document": 10}, "end_of_document 10 is not a token of a vocabulary of 10"),
        ([[1]], {"vocab_size": 0}, "vocab_size must be from 1 to 2147483648, not 0"),
        ([[1]], {"tokens_per_shard": 0}, "tokens_per_shard must be at least 1, not 0"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, documents, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        written(tmp_path / "train", documents, **options)
    assert list(tmp_path.iterdir()) == []


def test_equal_documents_make_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        written(tmp_path / name, tokens_per_shard=4)
    files = [{file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("a", "b")]
    assert files[0] == files[1]
