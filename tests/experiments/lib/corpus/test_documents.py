from pathlib import Path

import pytest

from experiments.lib.corpus.documents import Document, document_line, read_documents


@pytest.mark.parametrize(
    ("path", "package"),
    [("json/decoder.py", "json"), ("a/b/c.txt", "a"), ("ast.py", "ast"), ("archive.tar.gz", "archive"), (".x", ".x")],
)
def test_package_is_the_top_level_directory_or_the_stem(path: str, package: str) -> None:
    assert Document(path, "").package == package


def test_documents_read_back_as_they_were_written(tmp_path: Path) -> None:
    documents = [Document("a", "line\nline\n"), Document("ü/b", "\u2028 \r \t \x1f 雪"), Document("c", "")]
    file = tmp_path / "documents.jsonl"
    file.write_bytes("".join(map(document_line, documents)).encode())
    assert list(read_documents(str(file))) == documents


@pytest.mark.parametrize("line", ["{", "[]", '{"path": "a"}', '{"path": "a", "text": "b", "more": 1}'])
def test_a_line_that_is_no_document_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "documents.jsonl"
    file.write_text(document_line(Document("a", "b")) + line + "\n")
    with pytest.raises(ValueError, match=r"documents\.jsonl:2: not a document: "):
        list(read_documents(str(file)))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        list(read_documents(str(tmp_path / "absent")))
