"""Fixtures that the aggregator's tests share."""

from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import pytest

from device_sims.postgresql import PostgreSQL, installed
from tests.aggregator.bucket import CREDENTIALS, BucketServer
from tests.aggregator.workshop import Workshop, make_bundle, open_workshop
from wire.bundle import Bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "bundle")


@pytest.fixture
def workshop(tmp_path: Path, bundle: Bundle) -> Iterator[Workshop]:
    with open_workshop(tmp_path / "data") as workshop:
        workshop.engine.start()
        workshop.engine.register(bundle)
        yield workshop


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """One server for the whole session; whoever stops it starts it again."""
    if installed() is None:
        pytest.skip("PostgreSQL is not installed; `apt-get install postgresql` brings it")
    with PostgreSQL() as server:
        yield server


@pytest.fixture
def postgresql_url(postgresql: PostgreSQL) -> Iterator[str]:
    """An empty database."""
    url = postgresql.create_database()
    yield url
    postgresql.drop_database(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, of each kind that the ledger can be in."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    url: str = request.getfixturevalue("postgresql_url")
    return url


@pytest.fixture(scope="session")
def bucket_server() -> Iterator[BucketServer]:
    """One server for the whole session; whoever stops it starts it again."""
    with BucketServer() as server:
        yield server


@pytest.fixture
def bucket_url(bucket_server: BucketServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place in a bucket, with the credentials for it in the environment."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return bucket_server.url(token_hex(6))
