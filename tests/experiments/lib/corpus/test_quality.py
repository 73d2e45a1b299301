import inspect
import json

import pytest

from experiments.lib.corpus.quality import QualityConfig, rejection

PROSE = "The quick brown fox jumps over the lazy dog, and then it jumps over another one, since it likes to jump.\n"


@pytest.mark.parametrize("text", [PROSE, inspect.getsource(json.decoder), "日本語 の 文章 です " * 6])
def test_prose_and_source_code_are_fine(text: str) -> None:
    assert rejection(text, QualityConfig()) is None


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "min_words"),
        ("one two three", "min_words"),
        (PROSE * 10_000, "max_words"),
        ("abcdefghijklmnopqrstuvwxyz " * 30, "max_mean_word_length"),
        ("a --- === *** " * 30, "max_symbol_ratio"),
        ("one line that is often here\n" * 20, "max_duplicate_line_ratio"),
    ],
)
def test_a_rejected_text_names_the_rule_it_breaks(text: str, rule: str) -> None:
    assert rejection(text, QualityConfig()) == rule


def test_a_text_at_the_threshold_is_fine() -> None:
    config = QualityConfig(min_words=2, max_mean_word_length=3, max_symbol_ratio=0.5, max_duplicate_line_ratio=0.5)
    assert rejection("abc def", config) is None
    assert rejection("a+ b-", config) is None
    assert rejection("a\na\nb\nb\n", config) is None
    assert rejection("a\na\na\n\n \n", config) == "max_duplicate_line_ratio"
