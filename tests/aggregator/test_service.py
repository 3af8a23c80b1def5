"""The service as a whole, without a broker."""

import hashlib
from pathlib import Path

import httpx

from aggregator.broker import Broker
from aggregator.service import Service
from aggregator.settings import Settings
from tests.aggregator.mosquitto import free_port
from wire.bundle import Bundle


def test_a_damaged_version_0_is_mended_from_the_bundle(tmp_path: Path, bundle: Bundle) -> None:
    broker = Broker.from_url(f"mqtt://127.0.0.1:{free_port()}", client_id="x")
    data = tmp_path / "data"
    database = f"sqlite:///{data / 'ledger.db'}"
    settings = Settings(data=data, database=database, port=0, broker=broker)
    sha256 = bundle.manifest.file(bundle.manifest.initial).sha256
    with Service(settings, (bundle,)):
        pass
    (data / "blobs" / sha256[:2] / sha256).write_bytes(b"damaged")
    with Service(settings, (bundle,)) as service:
        content = httpx.get(f"{service.url}/v1/blobs/{sha256}").content
    assert hashlib.sha256(content).hexdigest() == sha256
