"""A web server of this machine that can be told how to misbehave."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

CONTENT = bytes(range(256)) * 5000  # more than one read of a source


@dataclass
class Answer:
    """How one request is answered."""

    content: bytes = CONTENT
    status: int = 200
    etag: str | None = '"one"'
    ranges: bool = True
    """Whether a range is given to whom it is due."""

    checks_if_range: bool = True
    stops_after: int | None = None
    """The connection breaks after so many bytes of the body."""

    announces: int | None = None
    """What Content-Length says; the truth where this is None."""

    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Server:
    """Answers requests for a path with the answers scripted for it, the last one again and again."""

    url: str
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def serve(self, path: str, *answers: Answer) -> str:
        """Scripts the answers; returns the URL."""
        self.answers[path] = list(answers)
        return f"{self.url}{path}"

    def ranges(self) -> list[str | None]:
        """The range that each request asked for."""
        return [headers.get("Range") for _, headers in self.requests]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    scripted: Server

    def do_GET(self) -> None:
        self.scripted.requests.append((self.path, dict(self.headers)))
        scripted = self.scripted.answers.get(urlsplit(self.path).path, [Answer(content=b"", status=404)])
        answer = scripted.pop(0) if len(scripted) > 1 else scripted[0]
        self.send(answer)

    def send(self, answer: Answer) -> None:
        start = self.start_of(answer)
        total = len(answer.content)
        self.send_response(206 if start else answer.status)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if answer.etag is not None:
            self.send_header("ETag", answer.etag)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        body = answer.content[start:]
        self.send_header("Content-Length", str(len(body) if answer.announces is None else answer.announces - start))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body if answer.stops_after is None else body[: answer.stops_after])

    def start_of(self, answer: Answer) -> int:
        if answer.status != 200 or not answer.ranges or "Range" not in self.headers:
            return 0
        if answer.checks_if_range and self.headers.get("If-Range") != answer.etag:
            return 0
        return int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@contextmanager
def running_server() -> Iterator[Server]:
    """A server on a free port, for as long as the block lasts."""
    handler = type("ScriptedHandler", (Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        handler.scripted = Server(f"http://127.0.0.1:{http.server_port}")
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield handler.scripted
        finally:
            http.shutdown()
            thread.join()
