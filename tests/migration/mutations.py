"""Files as nobody would write them: those of the corpus with changes that a seed chooses."""

import random
import re
from collections.abc import Callable
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"

Mutation = Callable[[random.Random, str], str]


def without_a_line(rng: random.Random, text: str) -> str:
    lines = text.splitlines(keepends=True)
    del lines[rng.randrange(len(lines))]
    return "".join(lines)


def with_a_line_elsewhere(rng: random.Random, text: str) -> str:
    lines = text.splitlines(keepends=True)
    lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
    return "".join(lines)


def with_lines_swapped(rng: random.Random, text: str) -> str:
    lines = text.splitlines(keepends=True)
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[i], lines[j] = lines[j], lines[i]
    return "".join(lines)


def with_a_word_for_another(rng: random.Random, text: str) -> str:
    words = list(re.finditer(r"\w+", text))
    old, new = rng.choice(words), rng.choice(words)
    return text[: old.start()] + new.group() + text[old.end() :]


def with_a_character(rng: random.Random, text: str) -> str:
    index = rng.randrange(len(text) + 1)
    return text[:index] + rng.choice("()[]{}\"'\\#:,=* \t\n\r\fäλ🙂\0") + text[index:]


def without_a_stretch(rng: random.Random, text: str) -> str:
    start = rng.randrange(len(text))
    return text[:start] + text[start + rng.randrange(1, 40) :]


def indented_differently(rng: random.Random, text: str) -> str:
    lines = text.splitlines(keepends=True)
    start = rng.randrange(len(lines))
    for index in range(start, min(start + rng.randrange(1, 6), len(lines))):
        lines[index] = "    " + lines[index] if rng.random() < 0.5 else lines[index].removeprefix("    ")
    return "".join(lines)


def in_a_function(rng: random.Random, text: str) -> str:
    kind = rng.choice(
        ["def f():", "class A:", "if True:", "for _ in range(2):", "with open('x'):", "async def f():", "try:"]
    )
    body = "".join(f"    {line}" if line.strip() else line for line in text.splitlines(keepends=True))
    return f"{kind}\n{body}\n" + ("finally:\n    pass\n" if kind == "try:" else "")


def on_one_line(rng: random.Random, text: str) -> str:
    lines = text.split("\n")
    index = rng.randrange(len(lines))
    lines[index : index + 2] = ["; ".join(lines[index : index + 2])]
    return "\n".join(lines)


def twice(rng: random.Random, text: str) -> str:
    return text + text


MUTATIONS: list[Mutation] = [
    without_a_line,
    with_a_line_elsewhere,
    with_lines_swapped,
    with_a_word_for_another,
    with_a_word_for_another,
    with_a_character,
    without_a_stretch,
    indented_differently,
    in_a_function,
    on_one_line,
    twice,
]


def sources() -> list[Path]:
    return sorted(CORPUS.glob("*/experiments/**/*.py")) + sorted(CORPUS.glob("*/lib/**/*.py"))


def mutated(seed: int) -> str:
    """A text that a seed makes of a file of the corpus, with one to four changes."""
    rng = random.Random(seed)
    text = rng.choice(sources()).read_text()
    for _ in range(rng.randrange(1, 5)):
        if text:
            text = rng.choice(MUTATIONS)(rng, text)
    return text
