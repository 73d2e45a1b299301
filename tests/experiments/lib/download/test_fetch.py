import hashlib
import logging
import os
import ssl
import urllib.error
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from experiments.lib.download import fetch
from experiments.lib.download.errors import ChecksumError, DownloadError, TruncatedDownloadError
from experiments.lib.download.fetch import Checksums, FetchedFile, Retries, backoff_delay, fetch_file
from experiments.lib.download.sources import public_url
from marin_trace.errors import LeaseLostError
from marin_trace.io import lease_check
from tests.experiments.web_server import CONTENT, Answer, Server

DIGEST = hashlib.sha256(CONTENT).hexdigest()
WHOLE = FetchedFile(len(CONTENT), DIGEST)
HALF = len(CONTENT) // 2
PATIENT = Retries(attempts=3, base_delay=0.0, max_delay=0.0, timeout=5.0)


def fetched(url: str, tmp_path: Path, **options) -> FetchedFile:
    return fetch_file(url, str(tmp_path / "part"), **{"retries": PATIENT} | options)


def test_a_file_comes_whole_and_its_note_goes(server: Server, tmp_path: Path) -> None:
    assert fetched(server.serve("/a", Answer()), tmp_path) == WHOLE
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert os.listdir(tmp_path) == ["part"]


def test_a_broken_connection_is_resumed_where_it_broke(server: Server, tmp_path: Path) -> None:
    url = server.serve("/a", Answer(stops_after=100), Answer(stops_after=HALF), Answer())
    assert fetched(url, tmp_path) == WHOLE
    assert server.ranges() == [None, "bytes=100-", f"bytes={100 + HALF}-"]
    assert [headers.get("If-Range") for _, headers in server.requests] == [None, '"one"', '"one"']


def test_any_number_of_interruptions_is_borne_while_something_new_comes(server: Server, tmp_path: Path) -> None:
    assert fetched(server.serve("/a", *[Answer(stops_after=1000)] * 20, Answer()), tmp_path) == WHOLE
    assert len(server.requests) == 21


def test_another_call_goes_on_where_the_first_was_left(server: Server, tmp_path: Path) -> None:
    url = server.serve("/a", Answer(stops_after=HALF), Answer(status=503))
    with pytest.raises(TruncatedDownloadError, match="3 requests in a row brought nothing new"):
        fetched(url, tmp_path)
    server.serve("/a", Answer())
    server.requests.clear()
    assert fetched(url, tmp_path) == WHOLE
    assert server.ranges() == [f"bytes={HALF}-"]


def test_a_whole_partial_file_needs_no_request(server: Server, tmp_path: Path) -> None:
    url = server.serve("/a", Answer(stops_after=HALF), Answer())
    part = tmp_path / "part"
    fetched(url, tmp_path)
    # As a process leaves it that is killed just before the file is renamed.
    (tmp_path / "part.json").write_text(
        f'{{"url": "{hashlib.sha256(url.encode()).hexdigest()}", "validator": "\\"one\\"", "total": {len(CONTENT)}}}'
    )
    server.requests.clear()
    assert fetched(url, tmp_path) == WHOLE
    assert (part.read_bytes(), server.requests) == (CONTENT, [])


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(Answer(ranges=False), id="a server without ranges"),
        pytest.param(Answer(etag='"two"', content=b"x" * 2000), id="another file, sent whole"),
        pytest.param(Answer(etag='"two"', content=b"x" * len(CONTENT)), id="another file of the same size"),
    ],
)
def test_what_is_not_a_continuation_replaces_the_first_part(server: Server, tmp_path: Path, second: Answer) -> None:
    fetched(server.serve("/a", Answer(stops_after=1000), second), tmp_path)
    assert (tmp_path / "part").read_bytes() == second.content


@pytest.mark.parametrize(
    "second",
    [
        pytest.param({"etag": '"two"'}, id="another etag"),
        pytest.param({"etag": None}, id="no etag"),
        pytest.param({"content": b"x" * 2000}, id="another size"),
        pytest.param({"headers": {"Content-Range": "pages 1-2"}}, id="a range of pages"),
    ],
)
def test_a_continuation_of_another_file_is_never_appended(server: Server, tmp_path: Path, second: dict) -> None:
    other = Answer(**{"content": b"x" * len(CONTENT), "checks_if_range": False, **second})
    if "headers" in second:
        other = Answer(status=206, headers=second["headers"])
    last = Answer(content=b"y" * 3000, etag='"three"')
    fetched(server.serve("/a", Answer(stops_after=1000), other, last), tmp_path)
    assert (tmp_path / "part").read_bytes() == last.content
    assert server.ranges() == [None, "bytes=1000-", None]


@pytest.mark.parametrize("etag", [None, 'W/"one"'])
def test_a_file_without_a_strong_etag_begins_anew(server: Server, tmp_path: Path, etag: str | None) -> None:
    assert fetched(server.serve("/a", Answer(stops_after=1000, etag=etag), Answer(etag=etag)), tmp_path) == WHOLE
    assert server.ranges() == [None, None]


def test_a_range_beyond_the_file_begins_anew(server: Server, tmp_path: Path) -> None:
    answers = [Answer(stops_after=1000), Answer(status=416, content=b""), Answer(content=b"short", etag='"two"')]
    assert fetched(server.serve("/a", *answers), tmp_path).size == 5
    assert server.ranges() == [None, "bytes=1000-", None]


def test_a_part_of_another_url_is_not_continued(server: Server, tmp_path: Path) -> None:
    with pytest.raises(TruncatedDownloadError, match="here: 1,000 bytes"):
        fetched(server.serve("/a", Answer(stops_after=1000), Answer(status=500)), tmp_path)
    server.requests.clear()
    fetched(server.serve("/b", Answer(content=b"b" * 5000)), tmp_path)
    assert (server.ranges(), (tmp_path / "part").read_bytes()) == ([None], b"b" * 5000)


@pytest.mark.parametrize("announced", [len(CONTENT) + 1, 10**12])
def test_a_server_that_announces_too_much_is_an_error(server: Server, tmp_path: Path, announced: int) -> None:
    url = server.serve("/a", Answer(announces=announced, ranges=False))
    message = (
        rf"/a came only in part: 3 requests .* sent 1,280,000 of {announced:,} bytes\n  here: 1,280,000 bytes\n\nh"
    )
    with pytest.raises(TruncatedDownloadError, match=message):
        fetched(url, tmp_path)


def test_a_server_that_announces_too_little_is_found_by_the_checksum(server: Server, tmp_path: Path) -> None:
    url = server.serve("/a", Answer(announces=1000))
    with pytest.raises(ChecksumError, match=r"its SHA-256 is \w{64}, not \w{64}, in 1,000 bytes\n\nhint: "):
        fetched(url, tmp_path, checksums=Checksums(sha256=DIGEST))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_passing_failure_is_asked_again(server: Server, tmp_path: Path, status: int) -> None:
    assert fetched(server.serve("/a", Answer(status=status, content=b"busy"), Answer()), tmp_path) == WHOLE


def test_a_server_that_keeps_failing_is_given_up(server: Server, tmp_path: Path) -> None:
    url = server.serve("/a", Answer(status=500, content=b""))
    with pytest.raises(DownloadError, match=r"/a cannot be fetched: 3 requests in a row failed; .* answers 500"):
        fetched(url, tmp_path)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "hint"),
    [(404, "open the URL in a browser"), (410, "open the URL"), (403, "ask for access"), (401, "log in"), (405, "ref")],
)
def test_a_refusal_is_final_and_says_what_to_do(server: Server, tmp_path: Path, status: int, hint: str) -> None:
    with pytest.raises(DownloadError, match=rf"/a answers {status} .*\n\nhint: .*{hint}"):
        fetched(server.serve("/a", Answer(status=status, content=b"")) + "?token=secret", tmp_path)
    assert len(server.requests) == 1


def test_an_answer_without_a_file_is_an_error(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"/a answers 202 Accepted, without a file"):
        fetched(server.serve("/a", Answer(status=202, content=b"")), tmp_path)


def test_a_server_that_is_not_there_is_given_up(tmp_path: Path) -> None:
    message = r"127\.0\.0\.1:1/a cannot be fetched: 3 requests in a row failed; the last: .* refused\n\nhint: check"
    with pytest.raises(DownloadError, match=message):
        fetched("http://127.0.0.1:1/a", tmp_path)


def test_a_wrong_checksum_is_an_error_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ChecksumError, match=r"/a is not the file that was asked for: its SHA-256 is .*\n\nhint: if"):
        fetched(server.serve("/a", Answer()), tmp_path, checksums=Checksums(sha256="0" * 64))
    assert (len(server.requests), os.listdir(tmp_path)) == (1, [])


def test_a_file_put_together_wrongly_is_fetched_once_more(server: Server, tmp_path: Path) -> None:
    # A server that gives two files the same ETag and the same size.
    changed = Answer(content=b"x" * len(CONTENT))
    url = server.serve("/a", Answer(stops_after=1000), changed, Answer())
    assert fetched(url, tmp_path, checksums=Checksums(sha256=DIGEST.upper())) == WHOLE
    assert server.ranges() == [None, "bytes=1000-", None]


def test_the_name_that_git_has_of_a_file_is_compared(server: Server, tmp_path: Path) -> None:
    url = server.serve("/a", Answer(content=b"hello\n"))
    # What `git hash-object` says of it.
    assert fetched(url, tmp_path, checksums=Checksums(git_oid="ce013625030ba8dba906f756967f9e9ca394464a")).size == 6
    with pytest.raises(ChecksumError, match="git's name for it is ce013625030ba8dba906f756967f9e9ca394464a, not 0123"):
        fetched(url, tmp_path, checksums=Checksums(git_oid="0123"))


def test_credentials_go_to_the_server_and_not_to_where_it_redirects(server: Server, tmp_path: Path) -> None:
    server.serve("/b", Answer())
    url = server.serve("/a", Answer(status=302, content=b"", headers={"Location": f"{server.url}/b?signature=1"}))
    assert fetched(url, tmp_path, headers={"Authorization": "Bearer secret"}) == WHOLE
    assert [headers.get("Authorization") for _, headers in server.requests] == ["Bearer secret", None]


def test_progress_is_told(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fetch, "PROGRESS_INTERVAL", 0.0)
    caplog.set_level(logging.INFO)
    fetched(server.serve("/a", Answer()), tmp_path)
    assert "/a: 1,048,576 of 1,280,000 bytes, " in caplog.text


def test_a_local_file_and_any_url_of_fsspec_are_sources(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(CONTENT)
    fsspec.filesystem("memory").pipe("/test-fetch/a", CONTENT)
    for url in (str(tmp_path / "source"), f"file://{tmp_path}/source", "memory://test-fetch/a"):
        assert fetched(url, tmp_path) == WHOLE


@pytest.mark.parametrize(("changed", "position"), [(False, 1000), (True, 0)])
def test_a_part_from_fsspec_goes_on_if_its_file_is_the_same(tmp_path: Path, changed: bool, position: int) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/test-fetch/b", CONTENT)
    url = "memory://test-fetch/b"
    validator = memory.ukey("/test-fetch/b")
    (tmp_path / "part").write_bytes(b"p" * 1000)
    (tmp_path / "part.json").write_text(
        f'{{"url": "{hashlib.sha256(url.encode()).hexdigest()}", "validator": "{validator}", "total": {len(CONTENT)}}}'
    )
    if changed:
        memory.pipe("/test-fetch/b", b"")
        memory.pipe("/test-fetch/b", CONTENT)
    fetched(url, tmp_path)
    assert (tmp_path / "part").read_bytes() == b"p" * position + CONTENT[position:]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://test-fetch/absent", "memory://test-fetch/absent does not exist\n\nhint: open"),
        ("absurd://a", r"absurd://a cannot be opened: Protocol not known: absurd"),
        ("{tmp_path}", r"is a directory\n\nhint: name the files below it"),
    ],
)
def test_what_fsspec_cannot_open_is_an_error(tmp_path: Path, url: str, message: str) -> None:
    with pytest.raises(DownloadError, match=message):
        fetched(url.format(tmp_path=tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://me:secret@127.0.0.1/a", r"http://127\.0\.0\.1/a is given with a user and password.*\n\nhint: use"),
        ("http://127.0.0.1/a b", r"http://127\.0\.0\.1/a b is not a URL: .*\n\nhint: urllib\.parse\.quote"),
        ("http://127.0.0.1/☃", "is not a URL: "),
        ("http://127.0.0.1:port/", "is not a URL: "),
    ],
)
def test_what_is_not_a_url_is_refused_without_a_request(tmp_path: Path, url: str, message: str) -> None:
    with pytest.raises(DownloadError, match=message) as caught:
        fetched(url, tmp_path)
    assert "secret" not in str(caught.value)


def test_a_lost_lease_ends_a_download_and_keeps_its_part(server: Server, tmp_path: Path) -> None:
    def lost() -> None:
        if os.path.exists(tmp_path / "part.json"):
            raise LeaseLostError("somebody else owns the step")

    reset = lease_check.set(lost)
    try:
        with pytest.raises(LeaseLostError, match="somebody else"):
            fetched(server.serve("/a", Answer()), tmp_path)
    finally:
        lease_check.reset(reset)
    assert fetched(server.url + "/a", tmp_path) == WHOLE


def test_a_certificate_that_is_not_trusted_is_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def distrusting(request: object, timeout: float) -> None:
        error = ssl.SSLCertVerificationError(1, "certificate verify failed")
        error.verify_message = "self-signed certificate"
        raise urllib.error.URLError(error)

    monkeypatch.setattr("urllib.request.urlopen", distrusting)
    message = (
        r"https://a\.org/x has no trusted certificate: self-signed certificate\n\nhint: check the URL; .* SSL_CERT_FILE"
    )
    with pytest.raises(DownloadError, match=message):
        fetched("https://a.org/x", tmp_path)


def test_a_file_that_may_not_be_read_is_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryFileSystem, "info", failing([PermissionError(13, "denied")]))
    with pytest.raises(DownloadError, match=r"memory://test-fetch/a may not be read\n\nhint: ask for access"):
        fetched("memory://test-fetch/a", tmp_path)


def test_a_file_system_that_fails_for_a_while_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.filesystem("memory").pipe("/test-fetch/a", CONTENT)
    monkeypatch.setattr(MemoryFile, "read", failing([OSError("reset by peer")], then=MemoryFile.read))
    monkeypatch.setattr(MemoryFileSystem, "info", failing([OSError("busy")], then=MemoryFileSystem.info))
    assert fetched("memory://test-fetch/a", tmp_path) == WHOLE


def failing(errors: list[OSError], then: Callable[..., object] | None = None) -> Callable[..., object]:
    """A function that raises these errors, one in each call, and after them does what it is to do then."""

    def function(*arguments: object, **options: object) -> object:
        if errors:
            raise errors.pop(0)
        assert then is not None
        return then(*arguments, **options)

    return function


def test_a_full_disk_is_not_blamed_on_the_source(server: Server, tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    with pytest.raises(IsADirectoryError, match="part"):
        fetched(server.serve("/a", Answer()), tmp_path)
    assert len(server.requests) == 1


@given(failures=st.integers(1, 2000), uniform=st.floats(0, 1), asked=st.floats(0, 1e6))
def test_a_wait_is_never_longer_than_agreed(failures: int, uniform: float, asked: float) -> None:
    retries = Retries(base_delay=0.5, max_delay=30)
    delay = backoff_delay(failures, retries, asked=asked, uniform=uniform)
    assert min(asked, 30) <= delay <= 30
    assert delay <= max(asked, 0.5 * 2 ** (min(failures, 40) - 1))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pass@host:8/a?b=c#d", "https://host:8/a"),
        ("s3://bucket/a?b", "s3://bucket/a?b"),
        ("sftp://user:pass@host/a", "sftp://host/a"),
        ("/a/b", "/a/b"),
    ],
)
def test_a_shown_url_holds_no_secret(url: str, shown: str) -> None:
    assert public_url(url) == shown
