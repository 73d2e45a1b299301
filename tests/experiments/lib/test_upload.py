import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import fsspec
import pytest

from experiments.lib.upload import UploadConfig, upload_directory


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "sub").mkdir(parents=True)
    (root / "a.txt").write_text("one")
    (root / "sub" / "b.bin").write_bytes(b"\x00" * 5)
    (root / ".executor_status").write_text("SUCCESS")
    return root


def test_every_visible_file_is_copied(source: Path, tmp_path: Path) -> None:
    upload = upload_directory(UploadConfig(str(source), str(tmp_path / "there") + "/"))
    assert (upload.files, upload.bytes) == (("a.txt", "sub/b.bin"), 8)
    assert (tmp_path / "there" / "sub" / "b.bin").read_bytes() == b"\x00" * 5
    assert not (tmp_path / "there" / ".executor_status").exists()


def test_any_file_system_will_do(source: Path) -> None:
    upload_directory(UploadConfig(str(source), "memory://uploaded"))
    again = upload_directory(UploadConfig("memory://uploaded", "memory://copied"))
    assert again.files == ("a.txt", "sub/b.bin")
    assert fsspec.filesystem("memory").cat_file("/copied/a.txt") == b"one"


@pytest.mark.parametrize("name", ["absent", "source/a.txt"])
def test_what_is_no_directory_is_named(name: str, source: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"no files to upload in \\S+/{name}"):
        upload_directory(UploadConfig(str(source.parent / name), "memory://nowhere"))


def test_the_hub_gets_one_commit(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []

    class HfApi:
        def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> None:
            calls.append((name, private, exist_ok))

        def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> None:
            files = sorted(str(path.relative_to(folder_path)) for path in Path(folder_path).rglob("*.*"))
            calls.append((repo_id, files, commit_message))

    hub = ModuleType("huggingface_hub")
    hub.HfApi = HfApi  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    upload_directory(UploadConfig(str(source), "hf://somebody/model", message="First"))
    assert calls == [
        ("somebody/model", True, True),
        ("somebody/model", ["a.txt", "sub/b.bin"], "First"),
    ]
