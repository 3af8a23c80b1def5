"""Fixtures that the aggregator's tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

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
