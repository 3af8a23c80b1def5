"""Rows that come as they are looked at, from a state that is held here."""

import numpy as np
import pytest

from edge_agent.errors import PermanentDownloadError, TransientDownloadError
from edge_agent.remote_rows import RemoteRows
from wire.delta import FloatArray
from wire.manifest import ParameterSpec, Role
from wire.patch import (
    decode_row_numbers,
    encode_row_numbers,
    encode_rows,
    on_grid,
    rows_at_once,
)

ITEMS, WIDTH = 5_000, 1_000
SPECS = (
    ParameterSpec("item", Role.ROWS, (ITEMS, WIDTH)),
    ParameterSpec("bias", Role.ROWS, (ITEMS, 1)),
    ParameterSpec("head", Role.DENSE, (7, 4)),
)
EXPONENTS = {"item": -2, "bias": 100, "head": -100}


class Aggregator:
    """Answers requests for rows of a random state.

    Attributes:
        state: what it is.
        asked: how many rows each request asked for.
    """

    def __init__(self, scale: float = 1.0) -> None:
        rng = np.random.default_rng(0)
        self.state: dict[str, FloatArray] = {
            spec.name: on_grid(
                (rng.normal(size=spec.shape) * scale * 2.0**exponent).astype(np.float32), exponent
            )
            for spec, exponent in zip(SPECS, EXPONENTS.values(), strict=True)
        }
        self.asked: list[int] = []

    def __call__(self, wanted: bytes, most_bytes: int) -> bytes:
        rows = decode_row_numbers(wanted, ITEMS)
        raw = encode_rows(self.state, rows, SPECS, EXPONENTS)
        assert len(raw) <= most_bytes
        self.asked.append(len(rows))
        return raw


# On a grid that is right, and on one so fine that nothing is smaller than raw.
@pytest.mark.parametrize("scale", [3.0, 2.0**20])
def test_many_rows_come_in_portions_of_bounded_size(scale: float) -> None:
    aggregator = Aggregator(scale)
    found = RemoteRows(SPECS, ITEMS, aggregator).parameters()
    rows = np.random.default_rng(1).permutation(ITEMS)[:2_500]
    assert np.array_equal(found["bias"][rows], aggregator.state["bias"][rows])
    assert np.array_equal(found["item"][rows], aggregator.state["item"][rows])
    assert np.array_equal(found["head"][...], aggregator.state["head"])
    most = rows_at_once(SPECS)
    assert most < 1_100
    assert aggregator.asked == [0, most, most, 2_500 - 2 * most]


def test_a_task_of_tables_only_asks_for_nothing_else() -> None:
    def never(wanted: bytes, most_bytes: int) -> bytes:
        raise AssertionError(wanted, most_bytes)

    assert set(RemoteRows(SPECS[:2], ITEMS, never).parameters()) == {"item", "bias"}


def test_one_row_and_none() -> None:
    aggregator = Aggregator()
    found = RemoteRows(SPECS, ITEMS, aggregator).parameters()
    assert found["item"][np.zeros(0, np.int64)].shape == (0, WIDTH)
    assert found["item"][np.array([ITEMS - 1])].shape == (1, WIDTH)
    assert aggregator.asked == [0, 1]


def test_other_rows_than_those_asked_for_are_refused() -> None:
    aggregator = Aggregator()

    def wrong(wanted: bytes, most_bytes: int) -> bytes:
        if len(decode_row_numbers(wanted, ITEMS)):
            wanted = encode_row_numbers(np.array([17]), ITEMS)
        return aggregator(wanted, most_bytes)

    found = RemoteRows(SPECS, ITEMS, wrong).parameters()
    with pytest.raises(PermanentDownloadError, match="not those asked for"):
        found["item"][np.array([3])]


def test_a_request_that_failed_can_be_made_again() -> None:
    aggregator, away = Aggregator(), [False]

    def sometimes(wanted: bytes, most_bytes: int) -> bytes:
        if away[0]:
            raise TransientDownloadError("the network is down")
        return aggregator(wanted, most_bytes)

    found = RemoteRows(SPECS, ITEMS, sometimes).parameters()
    away[0], rows = True, np.array([3, 1])
    with pytest.raises(TransientDownloadError):
        found["item"][rows]
    away[0] = False
    assert np.array_equal(found["item"][rows], aggregator.state["item"][rows])
