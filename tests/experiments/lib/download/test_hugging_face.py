"""Against a stand-in for the Hub that knows as much of its interface as is used."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.lib.download.errors import ChecksumError, DownloadError
from experiments.lib.download.fetch import Retries
from experiments.lib.download.hugging_face import HuggingFaceConfig, dataset_files, download_hugging_face
from tests.experiments.web_server import Answer, Server

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"README.md": b"hello\n", ".gitattributes": b"x", "data/train.parquet": b"train", "data/test.parquet": b"test"}
LARGE = {"data/train.parquet"}
"""Kept in large file storage, whose SHA-256 the Hub knows."""

PATIENT = Retries(attempts=3, base_delay=0.0, max_delay=0.0, timeout=5.0)


@pytest.fixture
def hub(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    pytest.importorskip("huggingface_hub")
    # As `HF_ENDPOINT` sets them when huggingface_hub is imported.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    for revision in (COMMIT, COMMIT[:7]):
        server.serve(f"/api/datasets/me/words/revision/{revision}", as_json({"id": "me/words", "sha": COMMIT}))
    server.serve(f"/api/datasets/me/words/tree/{COMMIT}", as_json([entry(path) for path in ("data", *FILES)]))
    for path, content in FILES.items():
        server.serve(f"/datasets/me/words/resolve/{COMMIT}/{path}", Answer(content=content))
    return server


def as_json(record: object) -> Answer:
    return Answer(content=json.dumps(record).encode(), headers={"Content-Type": "application/json"})


def entry(path: str) -> dict:
    if path not in FILES:
        return {"type": "directory", "path": path, "oid": "d" * 40}
    content = FILES[path]
    oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    lfs = {"size": len(content), "oid": hashlib.sha256(content).hexdigest(), "pointerSize": 130}
    return {"type": "file", "path": path, "oid": oid, "size": len(content)} | ({"lfs": lfs} if path in LARGE else {})


def config(output: Path, **options) -> HuggingFaceConfig:
    return HuggingFaceConfig(
        **{"dataset_id": "me/words", "revision": COMMIT, "retries": PATIENT} | options, output_path=str(output)
    )


def test_the_files_of_a_commit_come_under_their_paths(hub: Server, tmp_path: Path) -> None:
    download = download_hugging_face(config(tmp_path / "out"))
    assert [file.name for file in download.files] == ["README.md", "data/test.parquet", "data/train.parquet"]
    assert [(tmp_path / "out" / file.name).read_bytes() for file in download.files] == [b"hello\n", b"test", b"train"]


def test_requests_carry_the_token_and_the_result_does_not(hub: Server, tmp_path: Path) -> None:
    download = download_hugging_face(config(tmp_path / "out"))
    # huggingface_hub has questions of its own that need no token.
    asked = [
        (path, headers.get("Authorization", headers.get("authorization")))  # as their senders spell it
        for path, headers in hub.requests
        if "/me/words/" in path
    ]
    assert len(asked) == 5  # the commit, its files, and three of them
    assert [path for path, token in asked if token != "Bearer hf_secret"] == []
    assert "hf_secret" not in repr(download)


def test_a_short_hash_becomes_the_whole_one(hub: Server, tmp_path: Path) -> None:
    files = dataset_files(config(tmp_path, revision=COMMIT[:7]))
    assert [f"/resolve/{COMMIT}/" in file.url for file in files] == [True] * 3


def test_patterns_choose_among_the_files(hub: Server, tmp_path: Path) -> None:
    files = dataset_files(config(tmp_path, allow_patterns=("data/*", "*.md"), ignore_patterns=("*/test*",)))
    assert [file.name for file in files] == ["README.md", "data/train.parquet"]


def test_no_match_names_what_there_is(hub: Server, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"no file of me/words matches \['\*\.csv'\]; among its 4 files are README\.md, "
    ):
        dataset_files(config(tmp_path, allow_patterns=("*.csv",)))


@pytest.mark.parametrize("path", ["README.md", "data/train.parquet"])
def test_a_file_that_the_hub_did_not_list_so_is_refused(hub: Server, tmp_path: Path, path: str) -> None:
    hub.serve(f"/datasets/me/words/resolve/{COMMIT}/{path}", Answer(content=b"other"))
    with pytest.raises(ChecksumError, match=rf"{path} is not the file that was asked for"):
        download_hugging_face(config(tmp_path / "out"))


def test_an_interrupted_file_is_resumed(hub: Server, tmp_path: Path) -> None:
    url = f"/datasets/me/words/resolve/{COMMIT}/data/train.parquet"
    content = FILES["data/train.parquet"]
    hub.serve(url, Answer(content=content, stops_after=2), Answer(content=content))
    download_hugging_face(config(tmp_path / "out"))
    assert [headers.get("Range") for path, headers in hub.requests if path == url] == [None, "bytes=2-"]


@pytest.mark.parametrize("revision", ["main", "v1.0", "", "ABCDEF0", COMMIT + "0", "refs/convert/parquet"])
def test_a_revision_that_moves_is_refused_at_once(revision: str, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=rf"revision '{revision}' of me/words is not a commit, and may move; give a hash"
    ):
        config(tmp_path, revision=revision)


def test_a_branch_that_looks_like_a_commit_is_refused(hub: Server, tmp_path: Path) -> None:
    hub.serve("/api/datasets/me/words/revision/deadbee", as_json({"id": "me/words", "sha": COMMIT}))
    with pytest.raises(DownloadError, match=rf"me/words knows deadbee as something else: it leads to commit {COMMIT}"):
        dataset_files(config(tmp_path, revision="deadbee"))


@pytest.mark.parametrize(("status", "hint"), [(404, "open the URL in a browser"), (403, "ask for access, and log in")])
def test_an_absent_or_gated_data_set_says_what_to_do(hub: Server, tmp_path: Path, status: int, hint: str) -> None:
    hub.serve(f"/api/datasets/me/words/revision/{COMMIT}", Answer(status=status, content=b""))
    with pytest.raises(DownloadError, match=rf"Hub answers {status} for me/words at {COMMIT}\n\nhint: {hint}"):
        dataset_files(config(tmp_path))


def test_a_hub_that_is_busy_is_asked_again(hub: Server, tmp_path: Path) -> None:
    path = f"/api/datasets/me/words/revision/{COMMIT}"
    good = hub.answers[path]
    hub.serve(path, Answer(status=503, content=b""), *good)
    assert len(dataset_files(config(tmp_path))) == 3
    hub.serve(path, Answer(status=503, content=b""))
    with pytest.raises(DownloadError, match=r"cannot list me/words at .*: 3 requests in a row failed; the last: 503"):
        dataset_files(config(tmp_path))


def test_the_hub_is_asked_where_the_environment_says(hub: Server, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from experiments.lib.download.hugging_face import *\n"
        f"config = HuggingFaceConfig('me/words', '{COMMIT}', sys.argv[1])\n"
        "print(*[file.name for file in download_hugging_face(config).files])"
    )
    environment = {**os.environ, "HF_ENDPOINT": hub.url}
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "README.md data/test.parquet data/train.parquet\n"
    assert (tmp_path / "out" / "data" / "train.parquet").read_bytes() == b"train"
