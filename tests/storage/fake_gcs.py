"""A fake of Google Cloud Storage on this machine: the JSON API that gcsfs and the control store speak, and faults.

Objects have generations, conditions (``ifGenerationMatch``) are honoured under one lock, listings have pages. Buckets
need not be made. `FakeGcs.faults` decides about each request: see `tests.storage.faults`.
"""

import base64
import email.parser
import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.storage.faults import Call, Faults, Reply


@dataclass(frozen=True, slots=True)
class StoredObject:
    content: bytes
    generation: int
    digest: str = ""
    """MD5 in base 64: taken once, since large objects are read in many parts."""


class FakeGcs:
    """The server. Used as a context."""

    def __init__(self, *, honours_preconditions: bool = True, page_size: int = 1000) -> None:
        self.faults = Faults()
        self.honours_preconditions = honours_preconditions
        self.page_size = page_size
        self.objects: dict[tuple[str, str], StoredObject] = {}
        self.lock = threading.Lock()
        self.written_ns: dict[str, int] = {}
        """When each object was last written, by this machine's clock; bucket and name."""
        self._uploads: dict[str, tuple[str, str, str | None]] = {}
        self._last_generation = 1_700_000_000_000_000
        self._server = _Server(self)

    def lie(self) -> None:
        """Ignores conditions from here on."""
        self.honours_preconditions = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "FakeGcs":
        # Looked at for the end twenty times a second: a test waits for it.
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def put(self, bucket: str, name: str, content: bytes, condition: str | None) -> Reply:
        digest = base64.b64encode(hashlib.md5(content).digest()).decode()
        with self.lock:
            there = self.objects.get((bucket, name))
            if condition is not None and self.honours_preconditions:
                generation = 0 if there is None else there.generation
                if generation != int(condition):
                    return _problem(412, "At least one of the pre-conditions you specified did not hold.")
            self._last_generation += 1
            self.objects[bucket, name] = StoredObject(content, self._last_generation, digest)
            self.written_ns[f"{bucket}/{name}"] = time.time_ns()
            return _json(self.metadata(bucket, name))

    def metadata(self, bucket: str, name: str) -> dict[str, Any]:
        stored = self.objects[bucket, name]
        return {
            "kind": "storage#object",
            "name": name,
            "bucket": bucket,
            "size": str(len(stored.content)),
            "generation": str(stored.generation),
            "metageneration": "1",
            "md5Hash": stored.digest,
            "etag": f"e{stored.generation}",
            "timeCreated": "2026-01-01T00:00:00.000Z",
            "updated": "2026-01-01T00:00:00.000Z",
        }

    def answer(self, call: Call) -> Reply:
        """What the API says to a request without a fault."""
        path, query = urlsplit(call.path).path, _query(call.path)
        if matched := re.fullmatch(r"/upload/(?:resumable/(\w+)|storage/v1/b/([^/]+)/o)", path):
            return self._upload(call, matched[1], matched[2] and unquote(matched[2]), query)
        if matched := re.fullmatch(r"/storage/v1/b/([^/]+)/o/([^/]+)/rewriteTo/b/([^/]+)/o/([^/]+)", path):
            return self._copy(*map(unquote, matched.groups()))
        if matched := re.fullmatch(r"(?:/download)?/storage/v1/b/([^/]+)/o/(.+)", path):
            return self._object(call, unquote(matched[1]), unquote(matched[2]), query)
        if matched := re.fullmatch(r"/storage/v1/b/([^/]+)/o/?", path):
            return self._list(unquote(matched[1]), query)
        if matched := re.fullmatch(r"/storage/v1/b/([^/]+)", path):
            return _json({"kind": "storage#bucket", "name": unquote(matched[1])})
        return _problem(404, f"nothing at {path}")

    def _upload(self, call: Call, upload: str | None, bucket: str | None, query: Mapping[str, str]) -> Reply:
        if upload is not None:
            return self._resume(call, upload)
        assert bucket is not None
        condition = query.get("ifGenerationMatch")
        match query["uploadType"]:
            case "media":
                return self.put(bucket, query["name"], call.content, condition)
            case "multipart":
                about, content = _parts(call)
                return self.put(bucket, about["name"], content, condition)
            case _:
                about = json.loads(call.content or b"{}")
                upload = f"upload{len(self._uploads)}"
                self._uploads[upload] = (bucket, about.get("name") or query["name"], condition)
                self.partial(upload, b"")
                return Reply(200, b"", {"Location": f"{self.url}/upload/resumable/{upload}"})

    def partial(self, upload: str, content: bytes) -> bytes:
        with self.lock:
            key = ("", upload)
            there = self.objects.get(key, StoredObject(b"", 0)).content + content
            self.objects[key] = StoredObject(there, 0)
            return there

    def _resume(self, call: Call, upload: str) -> Reply:
        bucket, name, condition = self._uploads[upload]
        if call.method == "DELETE":
            return Reply(499, b"")
        there = self.partial(upload, call.content)
        total = call.headers.get("Content-Range", "*/*").rpartition("/")[2]
        if total != "*" and len(there) >= int(total):
            return self.put(bucket, name, there, condition)
        return Reply(308, b"", {"Range": f"bytes=0-{len(there) - 1}"})

    def _copy(self, bucket: str, name: str, to_bucket: str, to_name: str) -> Reply:
        with self.lock:
            stored = self.objects.get((bucket, name))
        if stored is None:
            return _problem(404, f"No such object: {bucket}/{name}")
        self.put(to_bucket, to_name, stored.content, None)
        return _json({"done": True, "resource": self.metadata(to_bucket, to_name)})

    def _object(self, call: Call, bucket: str, name: str, query: Mapping[str, str]) -> Reply:
        with self.lock:
            stored = self.objects.get((bucket, name))
            if stored is None:
                return _problem(404, f"No such object: {bucket}/{name}")
            if call.method == "DELETE":
                del self.objects[bucket, name]
                return Reply(204, b"")
            if query.get("alt") != "media":
                return _json(self.metadata(bucket, name))
            headers = {"x-goog-generation": str(stored.generation), "x-goog-hash": f"md5={stored.digest}"}
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", call.headers.get("Range", ""))
            if wanted is None:
                return Reply(200, stored.content, headers)
            first, last = int(wanted[1]), int(wanted[2] or len(stored.content) - 1)
            if first >= len(stored.content):
                return Reply(416, b"")
            part = stored.content[first : last + 1]
            return Reply(206, part, {"Content-Range": f"bytes {first}-{last}/{len(stored.content)}"})

    def _list(self, bucket: str, query: Mapping[str, str]) -> Reply:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        with self.lock:
            names = sorted(name for held, name in self.objects if held == bucket and name.startswith(prefix))
            shown: dict[str, bool] = {}
            for name in names:
                below, found, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
                shown[prefix + below + delimiter if found else name] = bool(found)
            ordered = [name for name in shown if name > query.get("pageToken", "")]
            page = ordered[: min(self.page_size, int(query.get("maxResults", self.page_size)))]
            answer: dict[str, Any] = {
                "items": [self.metadata(bucket, name) for name in page if not shown[name]],
                "prefixes": [name for name in page if shown[name]],
            }
            if len(page) < len(ordered):
                answer["nextPageToken"] = page[-1]
            return _json({name: value for name, value in answer.items() if value})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, fake: FakeGcs) -> None:
        self.fake = fake
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    disable_nagle_algorithm = True
    wbufsize = -1

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        content = self.rfile.read(length)
        if len(content) < length:  # who sent it was killed: half a request is none
            self.close_connection = True
            return
        call = Call(self.command, self.path, dict(self.headers.items()), content)
        reply = self.server.fake.faults.applied(call, self.server.fake.answer)
        if reply is None:
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.content)))
        self.end_headers()
        self.wfile.write(reply.content[: reply.sent_bytes])
        self.wfile.flush()
        if reply.sent_bytes is not None:
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_any

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: requests are many."""


def _query(path: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(path).query, keep_blank_values=True).items()}


def _parts(call: Call) -> tuple[dict[str, Any], bytes]:
    boundary = email.parser.HeaderParser().parsestr(f"Content-Type: {call.headers['Content-Type']}").get_boundary()
    assert boundary is not None
    # By hand: the standard library's parser turns line ends in the content.
    _, about, content = call.content.split(b"--" + boundary.encode(), 2)
    content = content[: content.rindex(b"--" + boundary.encode())]
    return json.loads(_body_of_part(about)), _body_of_part(content)


def _body_of_part(part: bytes) -> bytes:
    line = b"\r\n" if part.startswith(b"\r\n") else b"\n"
    return part.partition(line + line)[2].removesuffix(line)


def _json(value: dict[str, Any]) -> Reply:
    return Reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})


def _problem(status: int, message: str) -> Reply:
    content = json.dumps({"error": {"code": status, "message": message}}).encode()
    return Reply(status, content, {"Content-Type": "application/json"})
