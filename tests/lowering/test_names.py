"""Names, subpaths and overrides are safe by allow-list: no text leaves the prefix."""

import posixpath
import re
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from marin_trace import StepRef, StepSpec, deferred, lower, output, step
from marin_trace.errors import StepNameError

LAW = settings(deadline=None, derandomize=True, max_examples=200)
PREFIX = "/data/prefix"
SEPARATORS = "/.\\:%?#~$ \t\n\0*[]{}|;&'\"`<>!^é\u2024\uff0e\u2215\u202e"
TEXTS = st.one_of(
    st.text(max_size=12),
    st.text(alphabet="ab" + SEPARATORS, max_size=12),
    st.lists(st.sampled_from(["..", ".", "", "a", "experiments", "gs:", "%2e%2e", "~", "*"]), max_size=5).map("/".join),
)
SAFE_SEGMENT = re.compile(r"[A-Za-z0-9._=+@,-]+")


@deferred
def write(path: str) -> None: ...


@step(name="{name}")
def named(name: str) -> StepRef:
    return write(output())


def paths_for(**options: Any) -> str:
    return lower(named.with_options(**options)("s"), prefix=PREFIX)[0].output_path


def stays_below_the_prefix(path: str) -> bool:
    return posixpath.normpath(path) == path and path.startswith(f"{PREFIX}/") and path != PREFIX


@LAW
@given(TEXTS)
@example("..")
@example("a/../../b")
@example("%2e%2e/x")
def test_no_name_leaves_the_prefix(text: str) -> None:
    try:
        path = lower(named(text), prefix=PREFIX)[0].output_path
    except StepNameError:
        return
    assert stays_below_the_prefix(path)
    assert all(SAFE_SEGMENT.fullmatch(segment) for segment in text.split("/"))
    assert not path.startswith(f"{PREFIX}/experiments/")


@LAW
@given(TEXTS)
def test_no_name_of_a_handwritten_spec_leaves_the_prefix(text: str) -> None:
    try:
        spec = StepSpec(text, output_path_prefix=PREFIX)
    except StepNameError:
        return
    assert stays_below_the_prefix(spec.output_path)


@LAW
@given(TEXTS)
def test_no_subpath_leaves_its_output(text: str) -> None:
    ref = named("s")
    try:
        below = ref / text
    except StepNameError:
        return
    assert posixpath.normpath(below.subpath) == below.subpath
    assert not below.subpath.startswith(("/", ".."))
    assert "://" not in below.subpath


@LAW
@given(TEXTS)
def test_no_relative_override_leaves_the_prefix(text: str) -> None:
    try:
        path = lower(named("s").with_output_path(text), prefix=PREFIX)[0].output_path
    except StepNameError:
        return
    is_absolute = text.startswith("/") or "://" in text
    assert is_absolute or stays_below_the_prefix(path)
    assert ".." not in path.split("/")


BAD_NAMES = {
    "": "it is empty",
    "/abs": "it is absolute",
    "gs://b/x": "it is a URL",
    "a/../b": r"it holds '\.\.' or '\.'",
    ".": r"it holds '\.\.' or '\.'",
    "a//b": "it holds an empty segment",
    "a/": "it holds an empty segment",
    "a b": "it holds ' '",
    "a%2fb": "it holds '%'",
    "a\nb": r"it holds '\\n'",
    "a\\b": r"it holds '\\\\'",
    "a*": r"it holds '\*'",
    "tête": "it holds 'ê'",
}


@pytest.mark.parametrize("name", BAD_NAMES)
def test_an_unsafe_name_is_an_error_that_says_why_and_where(name: str) -> None:
    with pytest.raises(StepNameError, match=rf"(?s)is not a step name: {BAD_NAMES[name]}.*test_names\.py:\d+"):
        named(name)


@pytest.mark.parametrize("name", ["experiments", "experiments/x"])
def test_the_directory_of_the_run_records_is_no_step(name: str) -> None:
    with pytest.raises(StepNameError, match=r"(?s)experiments/ under the prefix holds the run records.*test_names\.py"):
        named(name)
    with pytest.raises(StepNameError, match="run records"):
        StepSpec(name)
    with pytest.raises(StepNameError, match="run records"):
        named("s").with_output_path(name)


@pytest.mark.parametrize("name", ["a", "a/b/c", "a.b-c_d=e+f@g,h", "...", "a/..b", "-", "my/experiments"])
def test_a_safe_name_is_kept(name: str) -> None:
    assert lower(named(name), prefix="/p")[0].output_path.startswith(f"/p/{name}-")


@pytest.mark.parametrize("sub", ["*.jsonl", "a/**/b?.[ch]", "{x,y}/z", "a", "…"[:0] or "b"])
def test_a_subpath_may_hold_globs(sub: str) -> None:
    assert (named("s") / sub).subpath == sub


@pytest.mark.parametrize("sub", ["..", "a/../b", "/a", "a//b", "", "gs://x", "a%20", "a\x00", "a b"])
def test_an_unsafe_subpath_is_an_error_with_its_line(sub: str) -> None:
    for ref in (named("s"), StepRef.hardcoded("gs://b")):
        with pytest.raises(StepNameError, match=r"(?s)is not a path below an output.*test_names\.py:\d+"):
            ref / sub


def test_a_subpath_may_be_a_pure_path() -> None:
    assert (named("s") / PurePosixPath("a/b")).subpath == "a/b"


def test_a_relative_override_lies_under_the_prefix() -> None:
    assert paths_for(override_output_path="models/final/") == f"{PREFIX}/models/final"


@pytest.mark.parametrize("path", ["/abs/x", "gs://bucket/x", "memory://m/x"])
def test_an_absolute_override_is_used_as_it_is(path: str) -> None:
    assert paths_for(override_output_path=path) == path


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/a/../b", "gs://b/../c", "zip::/a", "/a\n", ""])
def test_an_unsafe_override_is_an_error_with_its_line(path: str) -> None:
    with pytest.raises(StepNameError, match=r"test_names\.py:\d+"):
        named("s").with_output_path(path)
    with pytest.raises(StepNameError, match=r"test_names\.py:\d+"):
        StepSpec("s", override_output_path=path)


def test_output_paths_are_absolute_without_a_trailing_slash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = lower(named("a/s"), prefix="out/")[0]
    assert spec.output_path == f"{tmp_path}/out/a/s-{spec.hash_id}"
    assert spec.hash_id == spec.fingerprint[:8]
    assert lower(named("s"), prefix="gs://b/c/")[0].output_path.startswith("gs://b/c/s-")


def test_a_spec_without_a_prefix_follows_the_current_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = lower(named("s"))[0]
    for prefix in (tmp_path / "a", tmp_path / "b"):
        monkeypatch.setenv("MARIN_PREFIX", str(prefix))
        assert spec.output_path == f"{prefix}/{spec.name_with_hash}"
