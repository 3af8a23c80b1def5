"""A part of the large scenario is to the whole as fewer devices are to all of them."""

from dataclasses import replace

import pytest

from device_sims.bench.scale import SCENARIO, UPDATES, shortened
from device_sims.scenario import Scenario, read_scenario


@pytest.fixture(scope="module")
def whole() -> Scenario:
    return read_scenario(SCENARIO)


def test_the_whole_is_as_its_file_says(whole: Scenario) -> None:
    assert shortened(whole, devices=None, updates=UPDATES) == whole
    expected = whole.data.users * 3600.0 * whole.run.hours / whole.model.training.interval_s
    assert UPDATES < expected < 1.5 * UPDATES


@pytest.mark.parametrize(("devices", "updates"), [(1_000, 1_000_000), (50_000, 10_000), (3, 7)])
def test_an_hour_of_a_part_brings_as_many_updates(
    whole: Scenario, devices: int, updates: int
) -> None:
    part = shortened(whole, devices=devices, updates=updates)
    assert part.data.users == devices
    assert part.data.users / part.model.training.interval_s == pytest.approx(
        whole.data.users / whole.model.training.interval_s
    )
    assert part.run.hours == pytest.approx(whole.run.hours * updates / UPDATES)
    for name in ("online_s", "offline_s", "new_within_h"):
        share = getattr(part.fleet, name) / getattr(whole.fleet, name)
        assert share == pytest.approx(devices / whole.data.users)


def test_nothing_else_changes(whole: Scenario) -> None:
    part = shortened(whole, devices=10, updates=10)
    training = replace(part.model.training, interval_s=whole.model.training.interval_s)
    again = replace(
        part,
        data=replace(part.data, users=whole.data.users),
        model=replace(part.model, training=training),
        fleet=whole.fleet,
        run=replace(part.run, hours=whole.run.hours),
    )
    assert again == whole
