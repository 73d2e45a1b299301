"""Laws of overlays: packages for one job, installed once, beside the environment."""

import zipfile
from pathlib import Path

import pytest

from marin_trace.errors import WorkerError
from marin_trace.workers import overlay as overlay_module
from marin_trace.workers.overlay import overlay_for, requirements_of

PYPROJECT = """
[project]
name = "p"
optional-dependencies.extra = ["tiny-dist"]
[dependency-groups]
base = ["one"]
more = ["two", {include-group = "base"}]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    return tmp_path


@pytest.fixture
def wheel(tmp_path: Path) -> str:
    return tiny_wheel(tmp_path)


def tiny_wheel(tmp_path: Path) -> str:
    """A requirement that pip needs no index for."""
    path = tmp_path / "tiny_dist-1.0-py3-none-any.whl"
    information = "tiny_dist-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_dist.py", "ANSWER = 42\n")
        archive.writestr(f"{information}/METADATA", "Metadata-Version: 2.1\nName: tiny-dist\nVersion: 1.0\n")
        archive.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{information}/RECORD", "")
    return f"tiny-dist @ file://{path}"


def test_groups_are_extras_dependency_groups_or_requirements(project: Path) -> None:
    assert requirements_of(["more", "extra", "numpy>=2"], project) == ["two", "one", "tiny-dist", "numpy>=2"]


def test_an_unknown_group_is_named_with_what_there_is(project: Path) -> None:
    with pytest.raises(WorkerError, match="names 'exra', which the project does not declare") as caught:
        requirements_of(["exra"], project)
    assert "declared: base, extra, more" in str(caught.value)
    with pytest.raises(WorkerError, match="none found"):
        requirements_of(["exra"], None)


def test_no_groups_need_no_overlay() -> None:
    assert overlay_for([]) is None


def test_an_overlay_is_installed_once(project: Path, wheel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    overlay = overlay_for([wheel], project=project, cache=project / "cache")
    assert overlay is not None
    assert (Path(overlay) / "tiny_dist.py").read_text() == "ANSWER = 42\n"
    monkeypatch.setattr(overlay_module, "_install", pytest.fail)
    assert overlay_for([wheel], project=project, cache=project / "cache") == overlay


def test_what_pip_says_is_shown_and_nothing_is_kept(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(WorkerError, match="pip could not install tiny-dist") as caught:
        overlay_for(["extra"], project=project, cache=project / "cache")
    assert "No matching distribution" in str(caught.value)
    assert list((project / "cache" / "overlays").iterdir()) == []


def test_an_environment_without_pip_says_so(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay_module, "find_spec", lambda name: None)
    with pytest.raises(WorkerError, match="has no pip to install tiny-dist with"):
        overlay_for(["extra"], project=project, cache=project / "cache")
