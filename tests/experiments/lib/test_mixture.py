from pathlib import Path

import pytest

from experiments.lib.mixture import MixtureConfig, open_stores
from experiments.lib.token_store import write_token_store


def store(path: Path, **options) -> str:
    settings = {"vocab_size": 10, "end_of_document": 0, "num_bytes": 3, "tokenizer_sha256": "a" * 64} | options
    write_token_store(str(path), [[1, 2]], **settings)
    return str(path)


def test_the_stores_of_a_mixture_are_opened_by_name(tmp_path: Path) -> None:
    stores = open_stores({"a": store(tmp_path / "a"), "b": store(tmp_path / "b")})
    assert {name: opened.num_tokens for name, opened in stores.items()} == {"a": 3, "b": 3}
    assert open_stores({}) == {}


@pytest.mark.parametrize(
    "other", [{"vocab_size": 11}, {"end_of_document": 9}, {"tokenizer_sha256": "b" * 64}, {"tokenizer_sha256": ""}]
)
def test_stores_of_two_tokenizers_are_not_mixed(tmp_path: Path, other: dict) -> None:
    paths = {"a": store(tmp_path / "a"), "b": store(tmp_path / "b"), "c": store(tmp_path / "c", **other)}
    message = r"a and c were not tokenised with the same tokenizer\n  a: 10 tokens, end token 0, SHA-256 aaaa.*\n  c: "
    with pytest.raises(ValueError, match=message):
        open_stores(paths)


def test_a_store_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no token store at .*/absent"):
        open_stores({"a": str(tmp_path / "absent")})


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "a mixture of nothing: give it data sets and their weights"),
        ({"a": 1.0}, r"the data sets \['a', 'b'\], and weights of \['a'\]"),
        ({"a": 1.0, "b": 0.0}, r"the weight of b must be a positive number, not 0\.0; leave out"),
        ({"a": -1.0, "b": 1.0}, r"the weight of a must be a positive number, not -1\.0"),
        ({"a": 1.0, "b": float("nan")}, "the weight of b must be a positive number, not nan"),
    ],
)
def test_weights_without_meaning_are_refused_at_once(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MixtureConfig(paths={"a": "/x/a", "b": "/x/b"}, weights=weights)
