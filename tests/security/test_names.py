"""Names, subpaths and overrides stay below the prefix, on a real disk, whatever they are made of."""

import os
import random
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marin_trace import StepRef, StepSpec, deferred, lower, output, step
from marin_trace.errors import MarinTraceError, StepNameError

HOSTILE = (
    *("..", ".", "", "/", "//", "\\", "..\\", "\\\\host\\share", "~", "~root", "$HOME", "${HOME}", "`id`", "%2e%2e"),
    *(
        "%2f",
        "%252e%252e%252f",
        "%c0%ae",
        "..%00",
        "\0",
        "a\0b",
        "\n",
        "\r",
        "\t",
        " ",
        ".. ",
        " ..",
        "..;",
        "a:b",
        "C:",
    ),
    *(
        "gs://b/x",
        "file:///etc/passwd",
        "http://h/x",
        "simplecache::http://h/x",
        "zip://a::s3://b/c",
        "memory://x",
        "://",
    ),
    *("\uff0e\uff0e", "\u2024\u2024", "\u2025", "\uff0f", "\u2215", "\u2044", "\u29f8", "\u0338", "\uff3c", "\u1735"),
    *("\u202e", "\u200f", "\u2066", "\u200b", "\ufeff", "\u0000", "\x1b[2J", "\x9b", "\ud800", "\udfff", "\U0001f4a9"),
    *("\u0430", "\u0261", "\u212a", "\u0131", "e\u0301", "\u00e9", "\u0661", "\u00b2", "experiments", "Experiments"),
    *(".executor", ".executor_status", "a" * 255, "a" * 5000, "-", "--", "-rf", "*", "?", "[a]", "{a}", "CON", "nul"),
)
PIECES = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=6), st.sampled_from(["a", "b-1", "x.y", "1=2", "+@,"]))
TEXTS = st.one_of(
    st.lists(PIECES, max_size=5).map("/".join), st.lists(PIECES, max_size=4).map("".join), st.text(max_size=30)
)


@deferred
def write(path: str) -> None: ...


@step(name="{name}")
def named(name: str) -> StepRef:
    return write(output())


NAME, SPEC, SUBPATH, OVERRIDE = KINDS = range(4)
CORPUS = (*HOSTILE, "a", "b", "/", "a/b", "x.y", "-1")

SAFE = set(string.ascii_letters + string.digits + "._=+@,-/")


def path_of(kind: int, text: str, prefix: str) -> str:
    """Where a text leads, as a name, as that of a spec, as a subpath, or as an override."""
    match kind:
        case 0:
            return lower(named(text), prefix=prefix)[0].output_path
        case 1:
            return StepSpec(text, output_path_prefix=prefix).output_path
        case 2:
            return f"{prefix}/out/{(named('s') / text).subpath}"
        case _:
            return lower(named("s").with_output_path(text), prefix=prefix)[0].output_path


def accepted_path(kind: int, text: str, prefix: str) -> str | None:
    """Where an accepted text leads, after it was looked at; None where it was refused, or names a place by itself."""
    try:
        path = path_of(kind, text, prefix)
    except StepNameError as error:
        str(error).encode()  # it can be printed, lone surrogates and all
        return None
    if kind == OVERRIDE and (text.startswith("/") or "://" in text):
        return None  # the user's word
    assert os.path.realpath(path) == path
    assert path.startswith(f"{prefix}/")
    assert not path.startswith(f"{prefix}/experiments/")
    assert path.isascii()
    assert max(map(len, path.split("/"))) <= 255
    return path


@settings(max_examples=2_000, derandomize=True, database=None)
@given(text=TEXTS, kind=st.sampled_from(KINDS))
def test_no_text_leaves_the_prefix(tmp_path_factory: pytest.TempPathFactory, text: str, kind: int) -> None:
    accepted_path(kind, text, os.path.realpath(tmp_path_factory.getbasetemp()))


def test_ten_thousand_hostile_texts_stay_below_the_prefix(tmp_path: Path) -> None:
    prefix, dice = os.path.realpath(tmp_path), random.Random(1)
    accepted: set[str] = set()
    for number in range(12_000):
        kind, text = number % 4, "".join(dice.choices(CORPUS, k=dice.randrange(1, 4)))
        if accepted_path(kind, text, prefix):
            accepted.add(text)
            assert set(text) <= SAFE | (set("*?[]{}") if kind == SUBPATH else set())
    assert len(accepted) > 100


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("a" * 241, "it is longer than 800 characters, or a segment of it than 240"),
        ("/".join(["ab"] * 300), "it is longer than 800 characters"),
        ("out/.executor/000001.claim", "it holds '.executor', a control file's name"),
        ("out/.executor_status", "it holds '.executor_status', a control file's name"),
    ],
)
def test_a_name_that_no_store_could_keep_or_that_is_a_control_file_s(name: str, match: str) -> None:
    with pytest.raises(StepNameError, match=rf"(?s)is not a step name: {match}.*test_names\.py:\d+"):
        named(name)


@pytest.mark.parametrize("path", ["simplecache::http://h/x", "filecache::/x", "zip://a.zip::gs://b/c", "gs://b/../c"])
def test_a_chained_or_climbing_override_is_refused(path: str) -> None:
    with pytest.raises(StepNameError, match=r"is not an output path|is not a step name"):
        named("s").with_output_path(path)


@pytest.mark.parametrize("url", ["http://h/x", "https://h/x", "HTTPS://h/x", "hf://datasets/x", "ftp://h/x"])
def test_an_override_that_cannot_hold_outputs_is_refused_before_anything_runs(url: str, tmp_path: Path) -> None:
    from marin_trace import executor_main

    with pytest.raises(MarinTraceError, match=r"(?i)://.* cannot hold outputs"):
        executor_main([named("s").with_output_path(url)], argv=["--prefix", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []
