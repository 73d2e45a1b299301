"""Every Python block of the documents runs, and prints or raises what the text block below it says.

The blocks of one document run in order, as one module, in an empty directory. A ```` ```text ```` block that directly
follows a Python block is what that printed, or the message of the error that it raised (``Name: message`` also says
which). There, ``...`` stands for any text, and the line number of a ``file:line`` is not compared. A block that is
incomplete on purpose has ``<!-- skip: reason -->`` above it.
"""

import contextlib
import doctest
import io
import itertools
import re
import sys
import traceback
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cloudpickle
import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / name for name in ("README.md", "MIGRATION.md", "CONTRIBUTING.md")]
DOCUMENTS += sorted((ROOT / "docs").rglob("*.md"))

MOST_SKIPPED = 5
"""How many blocks of all documents together may be incomplete on purpose."""

FENCE = re.compile(
    r"(?:^<!-- skip: (?P<reason>.+?) -->\n+)?^```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
SOURCE_LINE = re.compile(r"[\w./<>-]*?([\w-]+\.(?:md|py)):\d+")


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    language: str
    text: str
    line: int
    """Of its first line of text, from 1."""

    directly_follows: bool
    """Nothing but blank lines stands between it and the block before it."""

    skip_reason: str | None


class DocumentError(AssertionError):
    """A document that does not tell the truth."""


def blocks_of(text: str) -> list[Block]:
    blocks: list[Block] = []
    end = 0
    for match in FENCE.finditer(text):
        blocks.append(
            Block(
                language=match["language"],
                text=match["text"],
                line=text.count("\n", 0, match.start("text")) + 1,
                directly_follows=bool(blocks) and not text[end : match.start()].strip(),
                skip_reason=match["reason"],
            )
        )
        end = match.end()
    return blocks


@contextlib.contextmanager
def module_of(path: Path) -> Iterator[types.ModuleType]:
    """A fresh module that functions and classes of the blocks belong to, and can be found in.

    What a job is given of it travels by value, as from a script: there is no file that it could import.
    """
    module = types.ModuleType(f"document_{path.stem.lower().replace('-', '_')}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    cloudpickle.register_pickle_by_value(module)
    try:
        yield module
    finally:
        cloudpickle.unregister_pickle_by_value(module)
        del sys.modules[module.__name__]


def run_block(block: Block, path: Path, module: types.ModuleType) -> tuple[str, BaseException | None]:
    """What a block printed, and what it raised."""
    # Blank lines in front, so that tracebacks and messages name the line of the document.
    code = compile("\n" * (block.line - 1) + block.text, str(path), "exec", dont_inherit=True)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec(code, vars(module))
    except (Exception, SystemExit) as error:
        return printed.getvalue(), error
    return printed.getvalue(), None


def comparable(text: str) -> str:
    return SOURCE_LINE.sub(r"\1:LINE", text).rstrip() + "\n"


def matches(expected: str, actual: str) -> bool:
    return doctest.OutputChecker().check_output(comparable(expected), comparable(actual), doctest.ELLIPSIS)


def check_block(block: Block, expected: Block | None, path: Path, module: types.ModuleType) -> None:
    printed, error = run_block(block, path, module)
    where = f"{path.name}:{block.line}"
    if error is not None:
        told = [f"{printed}{error}", f"{printed}{type(error).__name__}: {error}"]
        if expected is not None and any(matches(expected.text, actual) for actual in told):
            return
        trace = "".join(traceback.format_exception(error))
        raise DocumentError(f"{where} raised what the document does not say:\n{trace}") from error
    if expected is not None and not matches(expected.text, printed):
        raise DocumentError(f"{where} printed:\n{printed}\nthe document says:\n{expected.text}")


def check_document(path: Path, directory: Path) -> None:
    blocks = blocks_of(path.read_text(encoding="utf-8"))
    with contextlib.chdir(directory), module_of(path) as module:
        for block, following in itertools.zip_longest(blocks, blocks[1:]):
            if block.language != "python" or block.skip_reason:
                continue
            is_output = following is not None and following.language == "text" and following.directly_follows
            check_block(block, following if is_output else None, path, module)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_tell_the_truth(path: Path, tmp_path: Path) -> None:
    check_document(path, tmp_path)


def test_few_blocks_are_skipped() -> None:
    skipped = [block for path in DOCUMENTS for block in blocks_of(path.read_text()) if block.skip_reason]
    assert len(skipped) <= MOST_SKIPPED


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_fence_is_seen_and_every_link_leads_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n```") == 2 * len(blocks_of(text))
    targets = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", text)
    assert [target for target in targets if not (path.parent / target).exists()] == []


PYTHON = "```python\n{}\n```\n"
TEXT = "\n```text\n{}\n```\n"


@pytest.mark.parametrize(
    "document",
    [
        PYTHON.format("x = 1") + "words\n" + PYTHON.format("print(x)") + TEXT.format("1"),
        PYTHON.format("print('a 3 b')") + TEXT.format("a ... b"),
        PYTHON.format("raise KeyError('k')") + TEXT.format("'k'"),
        PYTHON.format("raise ValueError('bad\\n  at /x/y/README.md:3')")
        + TEXT.format("ValueError: bad\n  at README.md:99"),
        "<!-- skip: only a sketch -->\n" + PYTHON.format("1 +"),
        PYTHON.format("def f(): ...\nimport sys\nassert getattr(sys.modules[f.__module__], 'f') is f"),
    ],
)
def test_a_document_that_tells_the_truth_passes(document: str, tmp_path: Path) -> None:
    path = tmp_path / "example.md"
    path.write_text(document)
    check_document(path, tmp_path)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (PYTHON.format("print(1)") + TEXT.format("2"), r"example\.md:2 printed:\n1\n\nthe document says:\n2"),
        ("words\n\n" + PYTHON.format("\n1/0"), r'(?s)example\.md:4 raised .*example\.md", line 5.*ZeroDivisionError'),
        (PYTHON.format("raise KeyError('k')") + TEXT.format("'other'"), "raised what the document does not say"),
        (
            PYTHON.format("raise KeyError('k')") + "\nwords\n" + TEXT.format("'k'"),
            "raised what the document does not say",
        ),
        (PYTHON.format("x = 1") + TEXT.format("KeyError: 'k'"), "printed:"),
        (PYTHON.format("raise SystemExit(3)"), "SystemExit"),
    ],
)
def test_a_document_that_does_not_fails(document: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "example.md"
    path.write_text(document)
    with pytest.raises(DocumentError, match=message):
        check_document(path, tmp_path)
