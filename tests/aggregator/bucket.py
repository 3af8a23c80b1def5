"""A real server that speaks S3, for the aggregator's tests."""

import urllib.request
from types import TracebackType
from typing import Self

from moto.server import ThreadedMotoServer

from tests.aggregator.mosquitto import free_port

__all__ = ["BUCKET", "CREDENTIALS", "BucketServer"]

BUCKET = "rivulet"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "open-sesame"}


class BucketServer:
    """Moto's server with one bucket; it keeps what is in it while it is stopped."""

    def __init__(self) -> None:
        self.port = free_port()
        self._server: ThreadedMotoServer | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def url(self, prefix: str) -> str:
        return f"s3://{BUCKET}/{prefix}?endpoint={self.endpoint}"

    def start(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    def put(self, key: str, content: bytes | None = None) -> None:
        """Put an object in, behind the back of whoever thinks to own the bucket."""
        request = urllib.request.Request(f"{self.endpoint}/{BUCKET}{key}", content, method="PUT")
        with urllib.request.urlopen(request, timeout=10):
            pass

    def __enter__(self) -> Self:
        self.start()
        self.put("")
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.stop()
