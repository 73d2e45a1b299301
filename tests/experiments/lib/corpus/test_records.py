import gzip
import json
from pathlib import Path

import fsspec
import pyarrow
import pytest
from pyarrow import parquet

from experiments.lib.corpus.documents import Document
from experiments.lib.corpus.records import BATCH_ROWS, read_all_records, read_records, record_files

TEXTS = ["a\n", "", "naïve ☃", "x" * 1000]


def jsonl(records: list) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def encoded(name: str, records: list[dict]) -> bytes:
    if name.endswith(".parquet"):
        sink = pyarrow.BufferOutputStream()
        parquet.write_table(pyarrow.Table.from_pylist(records), sink)
        return sink.getvalue().to_pybytes()
    if name.endswith(".gz"):
        return gzip.compress(jsonl(records), mtime=0)
    if name.endswith(".zst"):
        # Two frames: as files look that were made by appending one to another.
        half = len(records) // 2
        parts = [jsonl(records[:half]), jsonl(records[half:])]
        return b"".join(pyarrow.compress(part, "zstd", asbytes=True) for part in parts)
    return jsonl(records)


def written(path: Path, records: list[dict]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(path.name, records))
    return str(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.json.gz", "a.parquet"])
def test_every_format_gives_the_texts_in_order(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, [{"text": text, "other": 1} for text in TEXTS])
    assert list(read_records(path)) == [Document(f"{name}:{n}", text) for n, text in enumerate(TEXTS, start=1)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_record_with_a_path_is_called_by_it_and_the_text_may_be_anywhere(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, [{"content": "a", "path": "x/a"}, {"content": None, "path": None}])
    assert list(read_records(path, text_field="content")) == [Document("x/a", "a"), Document(f"{name}:2", "")]


def test_a_parquet_file_is_read_in_batches(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", [{"text": str(number)} for number in range(BATCH_ROWS + 2)])
    assert [document.text for document in read_records(path)] == [str(number) for number in range(BATCH_ROWS + 2)]


def test_half_a_surrogate_pair_becomes_a_question_mark(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a\\ud83db"}\n{"text": "\\ud83d\\ude00"}\n')
    assert [document.text for document in read_records(str(tmp_path / "a.jsonl"))] == ["a?b", "😀"]


def test_a_url_is_read() -> None:
    fsspec.filesystem("memory").pipe("/test-records/b/a.jsonl.gz", encoded("a.jsonl.gz", [{"text": "a"}]))
    assert [document.text for document in read_all_records(["memory://test-records/b"])] == ["a"]


def test_files_come_in_the_order_of_their_paths_and_others_are_left_out(tmp_path: Path) -> None:
    for name in ("b/1.jsonl", "a.parquet", "c.jsonl.zst"):
        written(tmp_path / name, [{"text": name}])
    (tmp_path / "README.md").write_text("x")
    assert [document.text for document in read_all_records([str(tmp_path)])] == [
        "a.parquet",
        "b/1.jsonl",
        "c.jsonl.zst",
    ]
    assert [document.text for document in read_all_records([f"{tmp_path}/c*", f"{tmp_path}/b"])] == [
        "c.jsonl.zst",
        "b/1.jsonl",
    ]
    assert [path.rpartition("/")[2] for path in record_files(f"{tmp_path}/a.parquet")] == ["a.parquet"]


def test_a_directory_without_records_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(FileNotFoundError, match=r"no files of records in .*: none ends in \.jsonl, "):
        record_files(str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no such file or directory: .*/absent"):
        record_files(str(tmp_path / "absent"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", r"a\.txt is not a file of records: its name ends in none of \.jsonl"),
        ("a.jsonl", b'{"text": "a"}\n{', r"a\.jsonl:2: not a record: Expecting property name"),
        ("a.jsonl", b'["a"]\n', r"a\.jsonl:1: not a record: an object is needed, not list"),
        ("a.jsonl", b"\xff\n", r"a\.jsonl:1: not a record: "),
        ("a.jsonl", b'{"body": "a", "id": 1}\n', r"a\.jsonl:1: no field 'text'; there is 'body', 'id': name the one"),
        ("a.jsonl", b'{"text": 7}\n', r"a\.jsonl:1: 'text' is not text but int"),
        ("a.parquet", encoded("a.parquet", [{"body": "a"}]), r"a\.parquet:1: no field 'text'; there is 'body'"),
        ("a.parquet", encoded("a.parquet", [{"text": "a"}])[:-9], r"a\.parquet is damaged: .*\n\nhint: delete it and"),
        ("a.parquet", b"", r"a\.parquet is damaged: "),
        ("a.jsonl.gz", encoded("a.jsonl.gz", [{"text": "a" * 99}])[:-9], r"a\.jsonl\.gz is damaged: "),
        ("a.jsonl.zst", encoded("a.jsonl.zst", [{"text": "a" * 99}])[:-9], r"a\.jsonl\.zst is damaged: "),
        ("a.jsonl.zst", b"not zstd at all", r"a\.jsonl\.zst is damaged: "),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(read_records(str(tmp_path / name)))
