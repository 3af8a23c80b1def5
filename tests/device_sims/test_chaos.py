"""The aggregator is killed again and again under load: nothing is lost, nothing doubled."""

import pytest

from device_sims.bench.chaos import run_chaos
from device_sims.bench.databases import POSTGRESQL, SQLITE
from device_sims.brokers import find_mosquitto
from device_sims.postgresql import installed


@pytest.mark.slow
@pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")
@pytest.mark.parametrize(("kind", "kills"), [(SQLITE, 20), (POSTGRESQL, 3)])
def test_kills_under_load_lose_nothing_and_double_nothing(kind: str, kills: int) -> None:
    if kind == POSTGRESQL and installed() is None:
        pytest.skip("PostgreSQL is not installed")
    chaos = run_chaos(kind, kills=kills, seed=5)
    assert set(chaos.sent.outcomes) <= {"accepted", "duplicate"}
    assert chaos.found.accepted == sum(chaos.sent.outcomes.values()) > kills
    assert (chaos.found.lost, chaos.found.doubled) == (0, 0)
    assert chaos.found.model_is_the_fold
    assert len(chaos.ready_s) == kills
