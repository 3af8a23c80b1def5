"""A real HTTP server for downloads, which can be told to misbehave."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.edge_agent.tiny_task import TinyTask

__all__ = ["BlobServer", "serve_blobs"]


@dataclass
class BlobServer:
    """What it serves, and how.

    Attributes:
        url: where it listens.
        resources: body by path.
        requests: (path, Range header) of each request.
        cut_after: send only so many bytes of a body, then close; None sends all.
        ranges: honour Range headers.
        lie: changes a body on its way out.
        status: answer with this code instead.
    """

    url: str = ""
    resources: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    cut_after: int | None = None
    ranges: bool = True
    lie: Callable[[bytes], bytes] = bytes
    status: HTTPStatus | None = None
    sent_bytes: int = 0

    def add_task(self, task: TinyTask) -> None:
        self.resources[f"/v1/tasks/{task.task}/manifest"] = task.raw
        for sha256, blob in task.blobs.items():
            self.resources[f"/v1/blobs/{sha256}"] = blob

    def add(self, sha256: str, blob: bytes) -> None:
        self.resources[f"/v1/blobs/{sha256}"] = blob


@contextmanager
def serve_blobs() -> Iterator[BlobServer]:
    """Serve on a free port until the end of the block."""
    state = BlobServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.requests.append((self.path, wanted))
            body = state.resources.get(self.path)
            if state.status is not None or body is None:
                self.send_error(state.status or HTTPStatus.NOT_FOUND)
                return
            body, first = state.lie(body), 0
            if wanted and state.ranges:
                first = int(wanted.removeprefix("bytes=").removesuffix("-"))
                self.send_response(HTTPStatus.PARTIAL_CONTENT)
                self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
            else:
                self.send_response(HTTPStatus.OK)
            self.send_header("Content-Length", str(len(body) - first))
            self.end_headers()
            last = len(body) if state.cut_after is None else first + state.cut_after
            state.sent_bytes += len(body[first:last])
            self.wfile.write(body[first:last])

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
