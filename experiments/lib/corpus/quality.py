"""Heuristic filters: which documents are too short, too long, too noisy or too repetitive to learn from.

After the rules of Gopher (Rae et al., "Scaling Language Models", 2021, table A1), with thresholds that suit source code
as well as prose.
"""

from dataclasses import dataclass

__all__ = ["QualityConfig", "rejection"]


@dataclass(frozen=True)
class QualityConfig:
    """What a document has to be like."""

    min_words: int = 20
    """Separated by white space. Gopher asks for 50; a short module of source code has fewer."""

    max_words: int = 100_000
    """As Gopher."""

    max_mean_word_length: float = 20.0
    """Characters. Gopher has 10, for prose; source code runs to 12, tables of data and minified code beyond 20."""

    max_symbol_ratio: float = 0.4
    """Of the characters that are not white space, the share of those that are neither letters nor digits: some 0.03 in
    prose, 0.1 to 0.3 in source code."""

    max_duplicate_line_ratio: float = 0.5
    """Of the lines that are not blank, the share of those that occurred above. Gopher has 0.3; of the modules of
    Python's standard library one in twenty has more than that, hardly any more than 0.5."""


def rejection(text: str, config: QualityConfig) -> str | None:
    """The name of the first rule that a text breaks; None if it is fine.

    Example:
        >>> rejection("too short", QualityConfig())
        'min_words'
        >>> rejection("a fine text of six words", QualityConfig(min_words=6)) is None
        True
    """
    words = text.split()
    if len(words) < config.min_words:
        return "min_words"
    if len(words) > config.max_words:
        return "max_words"
    characters = "".join(words)
    if len(characters) > config.max_mean_word_length * len(words):
        return "max_mean_word_length"
    if _symbols(characters) > config.max_symbol_ratio * len(characters):
        return "max_symbol_ratio"
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    if len(lines) - len(set(lines)) > config.max_duplicate_line_ratio * len(lines):
        return "max_duplicate_line_ratio"
    return None


def _symbols(characters: str) -> int:
    return sum(not character.isalnum() for character in characters)
