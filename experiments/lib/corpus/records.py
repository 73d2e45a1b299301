"""Reads the texts of data sets as they are published: JSON Lines, compressed or not, and Parquet.

pyarrow reads them, and is imported when the first file is opened.
"""

import io
import json
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, Final

import fsspec

from experiments.lib.corpus.collect import find_files
from experiments.lib.corpus.documents import Document

__all__ = ["RECORD_SUFFIXES", "read_all_records", "read_records", "record_files"]

COMPRESSION_BY_SUFFIX: Final = {".gz": "gzip", ".zst": "zstd"}

RECORD_SUFFIXES: Final = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json.gz", ".parquet")
"""What can be read; ``.json.gz`` holds JSON Lines too, as the C4 corpus has it."""

BATCH_ROWS: Final = 1024
"""Rows of a Parquet file that are in memory at a time."""


def read_all_records(paths: Sequence[str], *, text_field: str = "text") -> Iterator[Document]:
    """The texts below some paths, in the order of the paths, and of the files' names below each.

    Args:
        paths: As :func:`record_files` takes them.
        text_field: Which field or column holds the text.

    Raises:
        FileNotFoundError: Nothing lies at a path.
        ValueError: A file is damaged or has no such field.
    """
    for path in paths:
        for file in record_files(path):
            yield from read_records(file, text_field=text_field)


def record_files(path: str) -> list[str]:
    """The files of records below a path, ordered by their paths, each as a path that can be opened.

    Args:
        path: A file, a glob, or a directory, of which the files that end in one of :data:`RECORD_SUFFIXES` are taken;
            local or an fsspec URL.

    Raises:
        FileNotFoundError: There is no such file or directory, or it has no files of records.
    """
    file_system, files = find_files(path, suffixes=RECORD_SUFFIXES)
    if not files:
        raise FileNotFoundError(f"no files of records in {path}: none ends in {', '.join(RECORD_SUFFIXES)}")
    return [file_system.unstrip_protocol(file.location) for file in files]


def read_records(path: str, *, text_field: str = "text") -> Iterator[Document]:
    """The texts of one file, in order, one at a time.

    A document is called by its record's ``path``, else by the file's name and the record's number. A text that is null
    is empty; half a surrogate pair, which JSON can spell and UTF-8 cannot, becomes a question mark.

    Args:
        path: A file that ends in one of :data:`RECORD_SUFFIXES`; local or an fsspec URL.
        text_field: Which field or column holds the text.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file has another format, is damaged, or has no such field; the message says where.
    """
    name = path.rpartition("/")[2]
    if not name.endswith(RECORD_SUFFIXES):
        raise ValueError(f"{path} is not a file of records: its name ends in none of {', '.join(RECORD_SUFFIXES)}")
    with fsspec.open(path, "rb") as file:
        records = _parquet_records(file, path, text_field) if name.endswith(".parquet") else _json_records(file, path)
        for number, record in enumerate(records, start=1):
            if text_field not in record:
                raise ValueError(
                    f"{path}:{number}: no field {text_field!r}; there is {', '.join(map(repr, record)) or 'none'}: "
                    "name the one with the text: text_field=…"
                )
            called = record.get("path")
            yield Document(
                path=called if isinstance(called, str) else f"{name}:{number}",
                text=_text(record[text_field], f"{path}:{number}", text_field),
            )


def _text(value: object, location: str, text_field: str) -> str:
    match value:
        case None:
            return ""
        case str():
            return value.encode("utf-8", "replace").decode("utf-8")
        case _:
            raise ValueError(f"{location}: {text_field!r} is not text but {type(value).__name__}")


def _json_records(file: Any, path: str) -> Iterator[dict[str, Any]]:
    import pyarrow

    lines = file
    if (compression := COMPRESSION_BY_SUFFIX.get(f".{path.rpartition('.')[2]}")) is not None:
        # Of a truncated frame pyarrow says so; other readers of zstd end quietly where the bytes do.
        lines = io.BufferedReader(pyarrow.CompressedInputStream(file, compression))
    for number in count(1):
        try:
            line = lines.readline()
        except OSError as error:
            raise ValueError(_damaged(path, error)) from error
        if not line:
            return
        yield _json_object(line, f"{path}:{number}")


def _json_object(line: bytes, location: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{location}: not a record: {error}") from error
    if isinstance(record, dict):
        return record
    raise ValueError(f"{location}: not a record: an object is needed, not {type(record).__name__}")


def _parquet_records(file: Any, path: str, text_field: str) -> Iterator[dict[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(file, page_checksum_verification=True)
        names = table.schema_arrow.names
        # Without the text column the first record has to say which columns there are.
        columns = [name for name in names if name in (text_field, "path")] if text_field in names else names
        for batch in table.iter_batches(batch_size=BATCH_ROWS, columns=columns):
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(_damaged(path, error)) from error


def _damaged(path: str, error: Exception) -> str:
    return f"{path} is damaged: {error}\n\nhint: delete it and make or download it again"
