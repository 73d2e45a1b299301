import hashlib
from pathlib import Path

import fsspec
import pytest

from experiments.lib.download.errors import ChecksumError, DownloadError
from experiments.lib.download.fetch import Retries
from experiments.lib.download.files import Download, DownloadConfig, DownloadedFile, RemoteFile, download_files
from tests.experiments.web_server import CONTENT, Answer, Server

PATIENT = Retries(attempts=2, base_delay=0.0, max_delay=0.0, timeout=5.0)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def downloaded(output: Path | str, *files: RemoteFile, workers: int = 2) -> Download:
    return download_files(DownloadConfig(files, str(output), workers=workers, retries=PATIENT))


def names_below(path: Path) -> list[str]:
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


@pytest.mark.parametrize("workers", [1, 4])
def test_files_come_under_their_names_in_order(server: Server, tmp_path: Path, workers: int) -> None:
    contents = {f"{letter}.txt": letter.encode() * 10 for letter in "dbac"}
    files = [
        RemoteFile(server.serve(f"/x/{name}", Answer(content=content)) + "?key=secret")
        for name, content in contents.items()
    ]
    download = downloaded(tmp_path / "out", *files, workers=workers)
    assert names_below(tmp_path / "out") == ["a.txt", "b.txt", "c.txt", "d.txt"]
    assert download == Download(
        tuple(DownloadedFile(name, f"{server.url}/x/{name}", 10, digest(contents[name])) for name in sorted(contents)),
        size=40,
    )


def test_a_given_name_may_have_directories(server: Server, tmp_path: Path) -> None:
    downloaded(tmp_path / "out", RemoteFile(server.serve("/a", Answer()), name="train/part 0.bin"))
    assert (tmp_path / "out" / "train" / "part 0.bin").read_bytes() == CONTENT


def test_an_output_may_be_a_url(server: Server) -> None:
    downloaded("memory://test-files/out", RemoteFile(server.serve("/a", Answer(stops_after=1000), Answer())))
    memory = fsspec.filesystem("memory")
    assert memory.cat_file("/test-files/out/a") == CONTENT
    assert memory.find("/test-files/out") == ["/test-files/out/a"]


@pytest.mark.parametrize("output", ["{tmp_path}/out", "memory://test-files-again/out"])
def test_what_was_complete_is_not_fetched_again(server: Server, tmp_path: Path, output: str) -> None:
    output = output.format(tmp_path=tmp_path)
    files = [RemoteFile(server.serve("/a", Answer())), RemoteFile(server.serve("/b", Answer(status=404, content=b"")))]
    with pytest.raises(DownloadError, match="/b answers 404"):
        downloaded(output, *files, workers=1)
    server.serve("/b", Answer(content=b"b"))
    server.requests.clear()
    assert [file.size for file in downloaded(output, *files).files] == [len(CONTENT), 1]
    assert [path for path, _ in server.requests] == ["/b"]


def test_a_part_is_kept_beside_a_local_output(server: Server, tmp_path: Path) -> None:
    file = RemoteFile(server.serve("/a", Answer(stops_after=1000), Answer(status=500)))
    with pytest.raises(DownloadError, match="brought nothing new"):
        downloaded(tmp_path / "out", file)
    assert not (tmp_path / "out" / "a").exists()
    server.serve("/a", Answer())
    server.requests.clear()
    downloaded(tmp_path / "out", file)
    assert server.ranges() == ["bytes=1000-"]
    assert names_below(tmp_path / "out") == ["a"]


def test_a_checksum_that_changed_fetches_the_file_again(server: Server, tmp_path: Path) -> None:
    url = server.serve("/a", Answer(content=b"old"))
    gone = RemoteFile(f"{server.url}/gone")
    with pytest.raises(DownloadError, match="/gone answers 404"):
        downloaded(tmp_path / "out", RemoteFile(url), gone, workers=1)
    server.serve("/a", Answer(content=b"new"))
    downloaded(tmp_path / "out", RemoteFile(url, sha256=digest(b"new")))
    assert (tmp_path / "out" / "a").read_bytes() == b"new"


def test_a_file_with_a_wrong_checksum_does_not_appear(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ChecksumError, match="/a is not the file that was asked for"):
        downloaded(tmp_path / "out", RemoteFile(server.serve("/a", Answer()), sha256=digest(b"other")))
    assert names_below(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "no files to download"),
        ([RemoteFile("https://u:p@a.org/")], r"https://a\.org/ has no name below the output: ''; give it one: RemoteF"),
        ([RemoteFile("https://a.org/x", name="../x")], r"no name below the output: '\.\./x'"),
        ([RemoteFile("https://a.org/x", name="/x")], "no name below the output: '/x'"),
        ([RemoteFile("https://a.org/x", name=".download/x")], r"no name below the output: '\.download/x'"),
        (
            [RemoteFile("https://a.org/x/1"), RemoteFile("https://b.org/1?k=s")],
            r"two .* 1: .*org/x/1 and .*org/1; give",
        ),
    ],
)
def test_names_are_checked_before_anything_is_fetched(tmp_path: Path, files: list[RemoteFile], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        downloaded(tmp_path / "out", *files)
    assert not (tmp_path / "out").exists()


def test_no_workers_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="workers must be at least 1, not 0"):
        downloaded(tmp_path / "out", RemoteFile("https://a.org/x"), workers=0)
