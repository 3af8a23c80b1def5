"""Every ledger test runs against every database that the aggregator supports."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from aggregator.ledger import Ledger, Reports, open_database


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    engine = open_database(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def ledger(database: Engine) -> Ledger:
    return Ledger(database)


@pytest.fixture
def reports(database: Engine) -> Reports:
    return Reports(database)
