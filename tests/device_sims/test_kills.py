"""Aggregator, broker and agents are killed at random: nothing is lost, nothing doubled."""

from pathlib import Path

import pytest

from device_sims.bench.kills import run_with_kills
from device_sims.brokers import find_mosquitto


@pytest.mark.slow
@pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")
def test_kills_at_random_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    outcome = run_with_kills(tmp_path, seed=11)
    assert set(outcome.killed) == {"broker", "aggregator", "agent"}
    found = outcome.found
    assert found.accepted == outcome.created > len(outcome.killed)
    assert (found.lost, found.doubled) == (0, 0)
    assert found.model_is_the_fold
