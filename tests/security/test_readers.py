"""Every reader of stored bytes: within bounds, and never with an error that is not of this package's tree.

The long series of damaged files is the soak's (``make soak ARGS="--only fuzz"``); here are arbitrary bytes and values.
"""

import contextlib
import json
import os
import pickle
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marin_trace.errors import ArtifactError, ControlFileError, FlagError, MarinTraceError, StorageError
from marin_trace.runtime.artifact import Artifact
from marin_trace.runtime.attempt import draft_claim
from marin_trace.runtime.distributed_lock import distributed_lock
from marin_trace.runtime.gang_records import DoneRecord, ReadyRecord
from marin_trace.runtime.liveness import owner_is_gone
from marin_trace.runtime.log_records import (
    AttemptLog,
    CancelRecord,
    ClaimRecord,
    EndKind,
    EndRecord,
    HeartbeatRecord,
    StartRecord,
)
from marin_trace.runtime.maintenance import check_output, collect_garbage, evidence_of
from marin_trace.runtime.manifest import Manifest
from marin_trace.runtime.records import read_step_info
from marin_trace.runtime.status import StatusKind, read_status
from marin_trace.storage import bounded
from marin_trace.storage.bounded import is_deeper, parsed_json
from tests.soak.fuzz import Hang, Measured, Victim, limited, prepared, read_everything
from tests.soak.mutations import VALUES

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(VALUES)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)
END = EndRecord(1, EndKind.SUCCESS, "n", "now", {"fingerprint": "f" * 64}, {"/in": 2}, "d" * 64)
CLAIM = ClaimRecord(1, "n", "host", 7, "p", 120.0, "now")
RECORDS: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
    "claim": (CLAIM.to_bytes(), lambda content: ClaimRecord.from_bytes(content, "/o/.executor/000001.claim")),
    "start": (StartRecord("n", "a", "h", 1, "p").to_bytes(), lambda content: StartRecord.from_bytes(content, "/o/s")),
    "cancel": (CancelRecord("me", "why").to_bytes(), lambda content: CancelRecord.from_bytes(content, "/o/c")),
    "end": (END.to_bytes(), lambda content: EndRecord.from_bytes(content, "/o/.executor/000001.end")),
    "ready": (ReadyRecord("a", "host:1").to_bytes(), lambda content: ReadyRecord.from_bytes(content, "/o/r")),
    "done": (DoneRecord("a", 1).to_bytes(), lambda content: DoneRecord.from_bytes(content, "/o/d")),
    "manifest": (
        b'{"epoch": 1, "files": [["a", 3, 1, "c", null, 0]]}',
        lambda content: Manifest.from_bytes(content, "/o/.executor/000001.manifest"),
    ),
}


@pytest.mark.parametrize("kind", RECORDS)
def test_a_record_is_read_as_it_was_written(kind: str) -> None:
    content, read = RECORDS[kind]
    record: Any = read(content)
    assert record == read(record.to_bytes())


def test_a_lone_surrogate_is_written_as_every_parser_reads_it() -> None:
    end, read = RECORDS["end"]
    content = read(json.dumps({**json.loads(end), "record": {"\ud800": "\udfff"}}).encode()).to_bytes()
    assert b"\\ud800" in content
    assert json.loads(content.decode())["record"] == {"\ud800": "\udfff"}


@pytest.mark.parametrize("kind", RECORDS)
@given(content=st.one_of(st.binary(max_size=60), JSON.map(lambda value: json.dumps(value).encode())))
@example(content=b"[" * 100_000)
@example(content=b'{"epoch": ' + b"9" * 5000 + b"}")
@example(content=b"\xff\xfe")
def test_arbitrary_bytes_are_refused_by_name(kind: str, content: bytes) -> None:
    with pytest.raises(ControlFileError, match="truncated or corrupt"):
        RECORDS[kind][1](content)


@pytest.mark.parametrize("kind", RECORDS)
@given(data=st.data())
def test_a_record_with_another_value_somewhere_is_refused_or_read(kind: str, data: st.DataObject) -> None:
    content, read = RECORDS[kind]
    record = json.loads(content)
    key = data.draw(st.sampled_from(sorted(record)))
    record[key] = data.draw(JSON)
    try:
        found: Any = read(json.dumps(record).encode())
    except ControlFileError:
        return
    # Another value is one that could stand there: it is kept as it is, but for what only people read.
    assert set(json.loads(found.to_bytes())) == set(json.loads(content))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("claim", {"lease_s": 1e300}),
        ("claim", {"lease_s": 0}),
        ("claim", {"epoch": 2}),
        ("claim", {"nonce": "another"}),
        ("claim", {"pid": "7"}),
        ("end", {"epoch": 3}),
        ("end", {"kind": "FAILED"}),
        ("end", {"record": {"fingerprint": ["f"]}}),
        ("end", {"error": {"type": "E", "message": "m", "phase": "body", "traceback": ""}}),
        ("end", {"inputs": {"/in": 1.5}}),
        ("start", {"attempt": "another"}),
        ("ready", {"coordinator": "http://elsewhere/"}),
        ("done", {"rank": 2}),
        ("manifest", {"epoch": 9}),
        ("manifest", {"files": [["a", "3", 1, "c", None, 0]]}),
    ],
)
def test_a_record_that_contradicts_itself_or_its_name_is_refused(kind: str, changes: dict[str, Any]) -> None:
    content, read = RECORDS[kind]
    with pytest.raises(ControlFileError, match="truncated or corrupt"):
        read(json.dumps({**json.loads(content), **changes}).encode())


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 2}', "[NaN]", "[Infinity]", "[" * 101 + "]" * 101, "[" * 10**6, "", "1 2"]
)
def test_json_is_read_strictly(text: str) -> None:
    with pytest.raises(ValueError, match=r"twice|is no JSON|nested more than 100 deep|Expecting|Extra data"):
        parsed_json(text)


@given(JSON.filter(lambda value: not is_deeper(value, 100)))
def test_what_json_can_say_is_read(value: Any) -> None:
    try:
        text = json.dumps(value, allow_nan=False)
    except ValueError:
        return
    assert parsed_json(text) == value


@pytest.fixture
def finished(prefix: str) -> str:
    """A finished output with everything beside it."""
    output = f"{prefix}/out"

    def body(path: str) -> Any:
        Path(path, "data").write_text("data")
        return {"array": np.arange(4.0), "n": 1}

    distributed_lock(body).finishing(Artifact.save)(output)
    Path(output, ".executor_info").write_text('{"parts": {"a": "1"}}')
    return output


def log_file(output: str, kind: str) -> Path:
    return Path(AttemptLog(output).directory, f"000001.{kind}")


READERS: dict[str, tuple[Callable[[str], Path], Callable[[str], object]]] = {
    "claim": (lambda output: log_file(output, "claim"), evidence_of),
    "end": (lambda output: log_file(output, "end"), read_status),
    "heartbeat": (lambda output: log_file(output, "hb"), lambda output: _observed(output)),
    "manifest": (lambda output: log_file(output, "manifest"), lambda output: _unwrapped(output)),
    "artifact": (lambda output: Path(output, ".artifact.json"), Artifact.load),
    "info": (lambda output: Path(output, ".executor_info"), read_step_info),
}


def _unwrapped(output: str) -> None:
    check = check_output(output)
    if check.kind.value == "corrupt":
        raise ControlFileError(check.detail)


def _observed(output: str) -> None:
    from marin_trace.runtime.driver import driver_for
    from marin_trace.runtime.protocol import observe, read_state

    driver, log = driver_for(output), AttemptLog(output)
    claim = driver.run(read_state(log)).claim
    assert claim is not None
    driver.run(observe(log, claim, draft_claim(lease_s=30.0), None))


def _without_end(reader: str, output: str) -> None:
    if reader in ("claim", "heartbeat"):
        log_file(output, "end").unlink()


def _make_huge(path: Path) -> None:
    path.unlink(missing_ok=True)
    with path.open("wb") as stream:
        stream.truncate(2 << 30)


def _make_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def _make_endless(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


PLANTED = {"huge": _make_huge, "pipe": _make_pipe, "endless": _make_endless}


@pytest.mark.parametrize("what", PLANTED)
@pytest.mark.parametrize("reader", READERS)
def test_a_huge_file_or_a_pipe_is_named_and_not_read(finished: str, reader: str, what: str) -> None:
    find, read = READERS[reader]
    _without_end(reader, finished)
    path = find(finished)
    PLANTED[what](path)
    with (
        limited(20.0),
        pytest.raises(MarinTraceError, match=rf"cannot read {path}: it is (?:larger than \d+ MiB|no regular file)"),
    ):
        read(finished)


@pytest.mark.parametrize("reader", [name for name in READERS if name != "heartbeat"])
def test_what_is_nested_too_deep_is_named(finished: str, reader: str) -> None:
    find, read = READERS[reader]
    _without_end(reader, finished)
    for depth in (1_100, 1_000_000):
        find(finished).write_bytes(b'{"a":' * depth + b"1" + b"}" * depth)
        # A manifest is not even parsed where it is not the one that was committed.
        with pytest.raises(MarinTraceError, match=rf"{find(finished)} is (?:truncated|not the one)"):
            read(finished)


def test_the_bounds_are_those_of_what_is_written(finished: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from marin_trace.runtime import artifact

    deep: Any = "x"
    for _ in range(99):
        deep = [deep]
    Artifact.save(deep, finished)
    assert Artifact.load(finished) == deep
    with pytest.raises(ArtifactError, match="nested more than 100 deep"):
        Artifact.save([[deep]], finished)
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(ArtifactError, match="nested more than 100 deep"):
        Artifact.save(deep, finished)
    monkeypatch.setattr(artifact, "LARGEST_ARTIFACT", 2 << 20)
    with pytest.raises(ArtifactError, match="as JSON it has 3 MiB, and at most 2 MiB are read back"):
        Artifact.save("x" * (3 << 20), finished)
    assert bounded.LARGEST_ARTIFACT > 100 << 20


@given(tree=JSON, annotated=st.sampled_from([None, Measured, dict[str, int], list[bytes], set[float], "ndarray"]))
@example(tree={"$array": "../../../../etc/passwd", "dtype": "float64"}, annotated=None)
@example(tree={"$array": ".artifact-0123456789abcdef.npy", "dtype": "float64"}, annotated=None)
@example(tree={"$items": [[{}, 1]]}, annotated=None)
@example(tree={"$items": [1]}, annotated=dict[str, int])
@example(tree=10**400, annotated=set[float])
def test_an_arbitrary_artifact_is_loaded_or_refused(
    tmp_path_factory: pytest.TempPathFactory, tree: Any, annotated: Any
) -> None:
    output = tmp_path_factory.getbasetemp() / "artifact"
    output.mkdir(exist_ok=True)
    (output / ".artifact.json").write_text(json.dumps(tree))
    with contextlib.suppress(ArtifactError):
        Artifact.load(str(output), np.ndarray if annotated == "ndarray" else annotated)


def test_an_array_is_read_only_from_beside_its_artifact(finished: str, tmp_path: Path) -> None:
    np.save(tmp_path / "secret.npy", np.arange(3.0))
    for name in (
        "../../secret.npy",
        str(tmp_path / "secret.npy"),
        "sub/../.artifact-0123456789abcdef.npy",
        "https://h/x.npy",
    ):
        Path(finished, ".artifact.json").write_text(json.dumps({"$array": name, "dtype": "float64"}))
        with pytest.raises(ArtifactError, match=r"\$array cannot be"):
            Artifact.load(finished)


def test_a_huge_array_is_not_read(finished: str) -> None:
    (file,) = Path(finished).glob(".artifact-*.npy")
    _make_huge(file)
    with limited(5.0), pytest.raises(ControlFileError, match=rf"cannot read {file}: it is larger than 1 MiB"):
        Artifact.load(finished)
    Path(finished, ".artifact.json").write_text(json.dumps({"$array": file.name, "dtype": "float64", "shape": "x"}))
    with pytest.raises(ArtifactError, match="the shape of an array cannot be 'x'"):
        Artifact.load(finished)


def test_an_array_that_is_a_link_to_itself_is_named(finished: str) -> None:
    (file,) = Path(finished).glob(".artifact-*.npy")
    file.unlink()
    file.symlink_to(file.name)
    with pytest.raises(StorageError, match=rf"cannot read {file}: Too many levels of symbolic links"):
        Artifact.load(finished)


def test_an_array_s_header_cannot_ask_for_memory(finished: str) -> None:
    (file,) = Path(finished).glob(".artifact-*.npy")
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117) + b"\n"
    file.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"x" * 32)
    with pytest.raises(ArtifactError, match="its header tells of float64"):
        Artifact.load(finished)


@pytest.mark.parametrize("nonce", ["", ".", "..", "../../etc/passwd", "/etc/passwd", "a/b", "x" * 300, "\0", "\ud800"])
def test_a_process_nonce_from_a_store_names_no_file_of_this_machine(nonce: str) -> None:
    assert not owner_is_gone(ClaimRecord(1, "n", "host", 1, nonce, 120.0, "now"))


def test_a_file_that_only_looks_like_an_epoch_opens_none(finished: str) -> None:
    for name in (
        "7.claim",
        "0000007.claim",
        "\u0660\u0660\u0660\u0660\u0660\u0667.claim",
        "000007.claim.bak",
        "-00007.end",
        "9999999999.claim",
    ):
        Path(finished, ".executor", name).write_text("{}")
    assert read_status(finished).kind is StatusKind.SUCCESS


def test_a_high_epoch_costs_no_more_than_a_low_one(prefix: str) -> None:
    output = f"{prefix}/out"
    directory = Path(AttemptLog(output).directory)
    directory.mkdir(parents=True)
    Path(output, "data").write_text("x")
    end = EndRecord(999_999_999, EndKind.FAILED, "n", "now")
    (directory / "999999999.end").write_bytes(end.to_bytes())
    with limited(20.0):
        assert [garbage.kind.value for garbage in collect_garbage(output)] == ["unfinished"]


def test_a_heartbeat_may_say_anything(finished: str) -> None:
    log_file(finished, "end").unlink()
    for content in (b"", b"\xff", HeartbeatRecord("n", 1, "n", 0.0).to_bytes(), pickle.dumps({})):
        log_file(finished, "hb").write_bytes(content)
        _observed(finished)


def test_the_series_finds_a_wrong_success_and_a_hang(tmp_path: Path) -> None:
    victim = prepared(tmp_path)[0]
    refused: Counter[str] = Counter()
    assert read_everything(victim, victim.files[0], refused) is None
    unfinished = Victim(victim.spec, is_finished=False, artifact_type=None, files=victim.files)
    assert read_everything(unfinished, victim.files[0], refused) == "a hit on what was not finished"
    with pytest.raises(Hang), limited(0.01):
        signal.pause()


@pytest.mark.parametrize("lease", ["inf", "nan", "1e300", "2592001"])
def test_no_lease_outlasts_everybody(lease: str) -> None:
    from marin_trace.cli.flags import parse_executor_flags

    with pytest.raises(FlagError, match="--lease_seconds does not fit"):
        parse_executor_flags(["--lease_seconds", lease])
