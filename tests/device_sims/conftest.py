from collections.abc import Iterator

import pytest

from tests.onnx_operators import listed_once


@pytest.fixture(scope="session", autouse=True)
def operators() -> Iterator[None]:
    with listed_once():
        yield
