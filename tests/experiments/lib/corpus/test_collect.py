import os
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import fsspec
import pytest

from experiments.lib.corpus.collect import (
    DOCUMENTS_FILE,
    READ_AHEAD,
    STDLIB,
    CollectConfig,
    Collection,
    SourceFile,
    Unreadable,
    collect_documents,
    find_files,
    read_document,
)
from experiments.lib.corpus.documents import Document, read_documents

FILES = {"a.py": "a = 1\n", "b/c.txt": "text\n", "b/d/e.py": "e = 2\n"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_files(tmp_path / "source", FILES)


def write_files(root: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def collected(source: str | Path, output: Path, **options) -> tuple[Collection, list[Document]]:
    collection = collect_documents(CollectConfig(str(source), str(output), **options))
    return collection, list(read_documents(str(output / DOCUMENTS_FILE)))


def paths(source: str | Path, **options) -> list[str]:
    return [file.path for file in find_files(str(source), **options)[1]]


def test_a_directory_is_collected_in_order_of_path(source: Path, tmp_path: Path) -> None:
    collection, documents = collected(source, tmp_path / "out")
    assert documents == [Document(path, text) for path, text in sorted(FILES.items())]
    assert collection == Collection(str(source), documents=3, bytes=17, unreadable=())


@pytest.mark.parametrize("workers", [1, 2, 16])
def test_the_number_of_workers_changes_nothing(tmp_path: Path, workers: int) -> None:
    files = {f"{number:04d}.txt": f"{number}\n" for number in range(READ_AHEAD + 44)}
    source = write_files(tmp_path / "source", files)
    collection, documents = collected(source, tmp_path / "out", workers=workers)
    assert [(document.path, document.text) for document in documents] == sorted(files.items())
    assert collection.documents == len(files)


def test_suffixes_and_excluded_names_choose_among_the_files_of_a_directory(tmp_path: Path) -> None:
    names = ["a.py", "a.txt", "tests/b.py", "x/tests/b.py", ".git/c.py", ".hidden.py", "x/__pycache__/d.py", "x/e.py"]
    source = write_files(tmp_path / "source", dict.fromkeys(names, "x\n"))
    config = CollectConfig(source="", output_path="")
    assert paths(source, excluded_names=config.excluded_names) == ["a.py", "a.txt", "x/e.py"]
    assert paths(source, suffixes=(".py",), excluded_names=("x",)) == ["a.py", "tests/b.py"]


def test_a_single_file_is_taken_as_it_is(source: Path) -> None:
    assert paths(source / "b" / "c.txt", suffixes=(".py",), excluded_names=("b",)) == ["c.txt"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.py", ["a.py"]),
        ("**/*.py", ["a.py", "b/d/e.py"]),
        ("b/*", ["c.txt"]),
        ("b/[c]*", ["c.txt"]),
        ("b*/c.t?t", ["b/c.txt"]),
    ],
)
def test_a_glob_gives_paths_relative_to_its_fixed_part(source: Path, pattern: str, expected: list[str]) -> None:
    assert paths(f"{source}/{pattern}") == expected


def test_a_directory_whose_name_looks_like_a_glob_is_a_directory(tmp_path: Path) -> None:
    assert paths(write_files(tmp_path / "run[12]", {"a.txt": "a"})) == ["a.txt"]


def test_a_url_is_a_source_and_an_output() -> None:
    fsspec.filesystem("memory").pipe({"/test-collect/in/a.txt": b"a", "/test-collect/in/b/c.txt": b"c"})
    collection = collect_documents(CollectConfig("memory://test-collect/in", "memory://test-collect/out"))
    documents = list(read_documents(f"memory://test-collect/out/{DOCUMENTS_FILE}"))
    assert documents == [Document("a.txt", "a"), Document("b/c.txt", "c")]
    assert collection.documents == 2


def test_stdlib_is_the_library_of_this_python() -> None:
    file_system, files = find_files(STDLIB, suffixes=(".py",), excluded_names=("test", "site-packages"))
    located = {file.path: file.location for file in files}
    assert located["json/decoder.py"] == os.path.join(sysconfig.get_paths()["stdlib"], "json/decoder.py")
    assert file_system.isfile(located["ast.py"])
    assert not [path for path in located if path.startswith(("test/", "site-packages/")) or not path.endswith(".py")]


def test_a_part_of_the_stdlib_is_named_by_its_path() -> None:
    _, files = find_files(f"{STDLIB}/json", suffixes=(".py",))
    assert "decoder.py" in [file.path for file in files]
    assert {os.path.dirname(file.location) for file in files} == {os.path.join(sysconfig.get_paths()["stdlib"], "json")}


def test_what_is_not_text_is_counted_and_named(tmp_path: Path) -> None:
    source = write_files(tmp_path / "source", {"a.txt": "fine\n", "b.bin": b"\0\1", "c.txt": b"ab\xff"})
    os.symlink("nowhere", source / "d.txt")
    os.mkfifo(source / "e.txt")
    collection, documents = collected(source, tmp_path / "out")
    assert documents == [Document("a.txt", "fine\n")]
    assert collection.unreadable == (
        Unreadable("b.bin", "binary: contains NUL"),
        Unreadable("c.txt", "not UTF-8 at byte 2"),
        Unreadable("d.txt", "not a regular file"),
        Unreadable("e.txt", "not a regular file"),
    )


def test_a_file_that_cannot_be_read_says_why() -> None:
    class Forbidding(fsspec.AbstractFileSystem):
        def isfile(self, path: str) -> bool:
            return True

        def cat_file(self, path: str, start=None, end=None, **kwargs) -> bytes:
            raise PermissionError(13, "Permission denied", path)

    assert read_document(Forbidding(), SourceFile("/x/a", "a")) == Unreadable("a", "Permission denied")


def test_a_name_that_is_not_utf8_does_not_stop_the_collection(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    try:
        (source / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    except OSError as error:
        pytest.skip(f"this file system has no such names: {error}")
    assert collected(source, tmp_path / "out")[1] == [Document("caf\ufffd.txt", "x")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", r"no such file or directory: .*/source/absent"),
        ("*.rs", r"no file matches .*/source/\*\.rs"),
        ("b*", r"no file matches .*/source/b\*"),
    ],
)
def test_a_source_without_files_is_named(source: Path, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(FileNotFoundError, match=message):
        collected(f"{source}/{name}", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.bin": b"\0", "b.bin": b"\0"}, r"none of the 2 files of .* is readable text; the first, a\.bin: binary"),
        ({"tests/a.txt": b"a"}, r"no files to collect in "),
    ],
)
def test_an_empty_collection_is_an_error_and_leaves_nothing(tmp_path: Path, files: dict, message: str) -> None:
    source = write_files(tmp_path / "source", files)
    with pytest.raises(ValueError, match=message):
        collected(source, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_no_workers_is_an_error(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="workers must be at least 1, not 0"):
        collected(source, tmp_path / "out", workers=0)
