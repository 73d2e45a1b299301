import hashlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from experiments.lib.tokenizer import (
    END_OF_DOCUMENT,
    TOKENIZER_FILE,
    TrainedTokenizer,
    TrainTokenizerConfig,
    load_tokenizer,
    token_id,
    train_tokenizer,
)

TEXTS = [inspect.getsource(module) for module in (inspect, json.decoder, json.encoder)]
AWKWARD = ["", " ", "naïve ☃ 日本語 😀\r\n\t\x00", f"{END_OF_DOCUMENT} in a text", "def f(x):\n    return x\n"]


def source(path: Path, texts: list[str] = TEXTS) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def trained(tmp_path: Path, texts: list[str] = TEXTS, **options) -> TrainedTokenizer:
    settings = {"vocab_size": 500, **options}
    return train_tokenizer(
        TrainTokenizerConfig((source(tmp_path / "a.jsonl", texts),), str(tmp_path / "out"), **settings)
    )


def test_the_result_says_what_was_trained_on_what(tmp_path: Path) -> None:
    tokenizer = trained(tmp_path)
    assert tokenizer == TrainedTokenizer(
        vocab_size=500,
        end_of_document=0,
        documents=3,
        bytes=sum(len(text.encode()) for text in TEXTS),
        sha256=hashlib.sha256((tmp_path / "out" / TOKENIZER_FILE).read_bytes()).hexdigest(),
    )


@pytest.mark.parametrize("text", AWKWARD)
def test_any_text_comes_back_and_none_holds_the_end_token(tmp_path: Path, text: str) -> None:
    trained(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path / "out"))
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids) == text
    assert token_id(tokenizer, END_OF_DOCUMENT) not in ids


def test_frequent_words_are_one_token(tmp_path: Path) -> None:
    trained(tmp_path)
    assert len(load_tokenizer(str(tmp_path / "out")).encode(" return").ids) == 1


def test_equal_texts_make_the_same_file_in_another_process_with_other_threads(tmp_path: Path) -> None:
    first = trained(tmp_path)
    code = (
        "import sys\n"
        "from experiments.lib.tokenizer import *\n"
        "print(train_tokenizer(TrainTokenizerConfig((sys.argv[1],), sys.argv[2], vocab_size=500)).sha256)"
    )
    second = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.jsonl"), str(tmp_path / "again")],
        env={"PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert second.stdout.strip() == first.sha256


def test_only_so_much_text_is_looked_at(tmp_path: Path) -> None:
    assert trained(tmp_path, max_bytes=len(TEXTS[0])).documents == 1
    assert trained(tmp_path, max_bytes=len(TEXTS[0].encode()) + 1).documents == 2


def test_a_url_is_an_output_and_a_place_to_load_from(tmp_path: Path) -> None:
    config = TrainTokenizerConfig((source(tmp_path / "a.jsonl"),), "memory://test-tokenizer/out", vocab_size=300)
    train_tokenizer(config)
    assert load_tokenizer("memory://test-tokenizer/out").get_vocab_size() == 300
    assert load_tokenizer(f"memory://test-tokenizer/out/{TOKENIZER_FILE}").get_vocab_size() == 300
    assert fsspec.filesystem("memory").isfile("/test-tokenizer/out/tokenizer_config.json")


def test_transformers_loads_it(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    trained(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "out"))
    assert isinstance(tokenizer, transformers.PreTrainedTokenizerFast)
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == (END_OF_DOCUMENT, 0)
    assert tokenizer.decode(tokenizer("return x")["input_ids"]) == "return x"


def test_truncation_and_padding_that_were_saved_do_not_apply(tmp_path: Path) -> None:
    trained(tmp_path)
    saved = load_tokenizer(str(tmp_path / "out"))
    saved.enable_truncation(2)
    saved.enable_padding(length=9)
    saved.save(str(tmp_path / TOKENIZER_FILE))
    assert len(saved.encode("a b c d e").ids) == 9
    assert len(load_tokenizer(str(tmp_path)).encode("a b c d e").ids) == 5


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (TEXTS, {"vocab_size": 256}, "vocab_size must be at least 257, one special token and 256 bytes"),
        (["ab ab ab"], {}, r"too little text for 500 tokens: 1 documents of 8 bytes hold only 259\n\nhint: .*size=259"),
        ([], {"vocab_size": 258}, "too little text for 258 tokens: 0 documents of 0 bytes hold only 257"),
    ],
)
def test_a_vocabulary_that_does_not_fit_the_texts_is_an_error(tmp_path: Path, texts, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trained(tmp_path, texts, **options)
    assert not (tmp_path / "out").exists()


def test_what_is_not_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no tokenizer at .*/absent: give a tokenizer\.json, or the directory"):
        load_tokenizer(str(tmp_path / "absent"))
    (tmp_path / TOKENIZER_FILE).write_text("{}")
    with pytest.raises(ValueError, match=r"is not a tokenizer: .*\n\nhint: train it again"):
        load_tokenizer(str(tmp_path))


def test_a_token_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    trained(tmp_path)
    with pytest.raises(ValueError, match=r"no token '</s>'; its special tokens are \['<\|endoftext\|>'\]"):
        token_id(load_tokenizer(str(tmp_path / "out")), "</s>")
