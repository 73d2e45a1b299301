"""moto's S3 on this machine, with faults: a WSGI layer in front of its application decides about each request."""

import io
import logging
import socket
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from typing import Any

from moto.server import ThreadedMotoServer

from tests.storage.faults import Call, Faults, Reply


class FakeS3:
    """The server. Used as a context. Buckets have to be made: `make_bucket`."""

    def __init__(self, *, honours_preconditions: bool = True) -> None:
        self.faults = Faults()
        self.honours_preconditions = honours_preconditions
        self.written_ns: dict[str, int] = {}
        """When each object was last written, by this machine's clock; bucket and key."""
        self._lock = threading.Lock()
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)

    def lie(self) -> None:
        """Ignores conditions from here on."""
        self.honours_preconditions = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.get_host_and_port()[1]}"

    def __enter__(self) -> "FakeS3":
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server.start()
        server: Any = self._server._server
        self._application = server.app
        server.app = self._answer
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def make_bucket(self, name: str) -> None:
        """Makes a bucket."""
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/{name}", method="PUT")) as answer:
            assert answer.status == 200

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        content = environ["wsgi.input"].read(length)
        if len(content) < length:
            raise ConnectionError("who sent it was killed: half a request is none")
        headers = {name[5:].replace("_", "-").title(): environ[name] for name in environ if name.startswith("HTTP_")}
        path = f"{environ.get('RAW_URI') or environ['PATH_INFO']}"
        call = Call(environ["REQUEST_METHOD"], path, headers, content)

        def ask(call: Call) -> Reply:
            environ["wsgi.input"] = io.BytesIO(call.content)
            if not self.honours_preconditions:
                environ.pop("HTTP_IF_NONE_MATCH", None)
            answered: list[Any] = []
            # moto looks, and then writes: without a lock two of its threads may both find nothing there.
            with self._lock:
                body = b"".join(self._application(environ, lambda *answer: answered.extend(answer[:2])))
                status = int(answered[0].split()[0])
                if call.method == "PUT" and status == 200:
                    name = urllib.parse.unquote(urllib.parse.urlsplit(call.path).path).lstrip("/")
                    self.written_ns[name] = time.time_ns()
            return Reply(status, body, dict(answered[1]))

        reply = self.faults.applied(call, ask)
        if reply is None:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionError("a lost answer")
        lengthless = [(name, value) for name, value in reply.headers.items() if name.lower() != "content-length"]
        start_response(f"{reply.status} X", [*lengthless, ("Content-Length", str(_length(call, reply)))])
        return [reply.content[: reply.sent_bytes]]


def _length(call: Call, reply: Reply) -> int:
    told = next((value for name, value in reply.headers.items() if name.lower() == "content-length"), None)
    return int(told) if call.method == "HEAD" and told is not None else len(reply.content)
