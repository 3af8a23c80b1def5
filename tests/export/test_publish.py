import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from export.errors import PublishError
from export.publish import publish
from wire.bundle import Bundle
from wire.manifest import BatchKind, FileEntry, Manifest, ParameterSpec, Role, task_id
from wire.policy import CodecPolicy, TrainingPolicy


@dataclass
class Aggregator:
    """What the aggregator promises: blobs by digest first, then the manifest that names them."""

    url: str = ""
    token: str | None = None
    blobs: dict[str, bytes] = field(default_factory=dict)
    tasks: dict[str, bytes] = field(default_factory=dict)

    def answer(self, method: str, path: str, body: bytes, token: str | None) -> tuple[int, object]:
        if self.token is not None and token != f"Bearer {self.token}":
            return 401, {"detail": "a token is needed"}
        if method == "PUT" and path == f"/v1/blobs/{hashlib.sha256(body).hexdigest()}":
            self.blobs[path.rpartition("/")[2]] = body
            return 201, {}
        if method == "POST" and path == "/v1/tasks":
            missing = {e.sha256 for e in Manifest.from_json(body).files} - self.blobs.keys()
            if missing:
                return 409, {"detail": f"{len(missing)} files are missing"}
            self.tasks[task_id(body)] = body
            return 201, {"task": task_id(body)}
        return 404, "<html>not here</html>"


@pytest.fixture
def aggregator() -> Iterator[Aggregator]:
    state = Aggregator()

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            token = self.headers["Authorization"]
            status, answer = state.answer(self.command, self.path, body, token)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(answer.encode() if isinstance(answer, str) else encode(answer))

        do_PUT = do_POST = _handle  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def encode(answer: object) -> bytes:
    return json.dumps(answer).encode()


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    contents = {"update.onnx": b"program" * 50_000, "scorer.onnx": b"scorer", "p": b"1", "q": b""}
    for path, content in contents.items():
        (tmp_path / path).write_bytes(content)
    manifest = Manifest(
        name="small",
        recommender="mf",
        items=2,
        batch=BatchKind.POINTWISE,
        parameters=(ParameterSpec("rows", Role.ROWS, (2, 3)),),
        programs={"onnx": {"update": "update.onnx", "scorer": "scorer.onnx"}},
        initial="p",
        private="q",
        frozen="q",
        files=tuple(
            FileEntry(path, hashlib.sha256(content).hexdigest(), len(content))
            for path, content in contents.items()
        ),
        training=TrainingPolicy(),
        codec=CodecPolicy(),
    )
    raw = manifest.to_json()
    return Bundle(tmp_path, manifest, raw, task_id(raw))


def test_files_go_first_and_the_manifest_makes_the_task(
    aggregator: Aggregator, bundle: Bundle
) -> None:
    assert publish(bundle, aggregator.url + "/") == bundle.task
    assert aggregator.tasks == {bundle.task: bundle.raw_manifest}
    for entry in bundle.manifest.files:
        assert aggregator.blobs[entry.sha256] == bundle.path(entry).read_bytes()
    assert publish(bundle, aggregator.url) == bundle.task


def test_the_token_is_sent(aggregator: Aggregator, bundle: Bundle) -> None:
    aggregator.token = "secret"
    with pytest.raises(PublishError, match="401 Unauthorized: a token is needed"):
        publish(bundle, aggregator.url)
    assert publish(bundle, aggregator.url, token="secret") == bundle.task


def test_a_refusal_tells_the_reason(aggregator: Aggregator, bundle: Bundle) -> None:
    with pytest.raises(PublishError, match="404 Not Found: <html>not here</html>"):
        publish(bundle, aggregator.url + "/wrong")


def test_an_answer_that_names_another_task_is_an_error(
    aggregator: Aggregator, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Aggregator, "answer", lambda *_: (200, {"task": "other"}))
    with pytest.raises(PublishError, match="named the task 'other'"):
        publish(bundle, aggregator.url)
    monkeypatch.setattr(Aggregator, "answer", lambda *_: (200, "<html>"))
    with pytest.raises(PublishError, match="named the task None"):
        publish(bundle, aggregator.url)


def test_nobody_there(aggregator: Aggregator, bundle: Bundle) -> None:
    closed = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    port = closed.server_port
    closed.server_close()
    with pytest.raises(PublishError, match=f"no aggregator at http://127.0.0.1:{port}"):
        publish(bundle, f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://host", "http://", "", "http://h:port"])
def test_what_is_no_address(bundle: Bundle, url: str) -> None:
    with pytest.raises(PublishError, match="is no address of an aggregator"):
        publish(bundle, url)
