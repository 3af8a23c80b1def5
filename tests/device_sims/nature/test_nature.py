"""When devices are there: whatever is drawn, and whatever a trace says, keeps to the scenario."""

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from device_sims.nature import Energy, Nature, Population, Stretch
from device_sims.scenario import FleetBehaviour, Scenario, ScenarioError

HOUR_S = 3_600.0
DAY_H = 24.0
HOURS = st.tuples(*2 * (st.floats(0.0, DAY_H).map(lambda h: round(h, 2)),))


def fleet(**keys: object) -> FleetBehaviour:
    return Scenario.from_dict({"fleet": keys}, name="").fleet


def stretches(nature: Nature, until_s: float, rng: np.random.Generator) -> list[Stretch]:
    found: list[Stretch] = []
    now_s = 0.0
    while len(found) < 200 and (stretch := nature.next_stretch(now_s, rng)) is not None:
        if stretch.from_s > until_s:
            break
        found.append(stretch)
        now_s = stretch.to_s
    return found


def local_hour(at_s: float, fleet: FleetBehaviour) -> float:
    return (at_s / HOUR_S + fleet.start_hour + fleet.time_zones[0]) % DAY_H


def inside(hours: tuple[float, ...], hour: float) -> bool:
    start, end = hours
    return start <= hour < end if start < end else hour >= start or hour < end


@given(
    plugged=HOURS,
    metered=HOURS,
    start_hour=st.floats(0.0, 23.0),
    zone=st.integers(-12, 14),
    offline_s=st.sampled_from([0.0, 500.0]),
    seed=st.integers(0, 100),
)
@settings(max_examples=100, deadline=None)
def test_a_device_is_connected_only_in_plugged_in_hours_without_a_meter(
    plugged: tuple[float, float],
    metered: tuple[float, float],
    start_hour: float,
    zone: int,
    offline_s: float,
    seed: int,
) -> None:
    keys = {"plugged_hours": list(plugged), "metered_hours": list(metered)}
    try:
        behaviour = fleet(**keys, start_hour=start_hour, time_zones=[zone], offline_s=offline_s)
    except ScenarioError:
        reject()  # Equal hours, or a meter that leaves nothing.
    rng = np.random.default_rng(seed)
    nature = Population(behaviour, hours=48.0, seed=seed).nature(0)
    found = stretches(nature, 2 * DAY_H * HOUR_S, rng)
    assert found
    for before, after in pairwise(found):
        assert before.from_s < before.to_s <= after.from_s
    for stretch in found:
        for share in (0.001, 0.5, 0.999):
            at_s = stretch.from_s + share * (min(stretch.to_s, 1e7) - stretch.from_s)
            if math.isinf(stretch.to_s):
                continue
            hour = local_hour(at_s, behaviour)
            assert inside(plugged, hour) or _near(hour, plugged)
            assert not inside(metered, hour) or _near(hour, metered)


def _near(hour: float, edges: tuple[float, ...]) -> bool:
    return any(abs((hour - edge + 12.0) % DAY_H - 12.0) < 1e-3 for edge in edges)


def test_an_always_online_device_has_one_stretch_without_end() -> None:
    nature = Population(fleet(offline_s=0), hours=2.0, seed=0).nature(0)
    stretch = nature.next_stretch(5.0, np.random.default_rng(0))
    assert stretch == Stretch(5.0, math.inf, nature.conditions)


def test_plugged_in_by_night_in_two_time_zones() -> None:
    behaviour = fleet(plugged_hours=[22, 6], offline_s=0, time_zones=[-3], start_hour=12)
    nature = Population(behaviour, hours=48.0, seed=0).nature(0)
    # At noon in UTC it is nine there: thirteen hours until ten in the evening.
    found = stretches(nature, 40 * HOUR_S, np.random.default_rng(0))
    assert [(s.from_s / HOUR_S, s.to_s / HOUR_S) for s in found] == [(13.0, 21.0), (37.0, 45.0)]


def test_stretches_and_absences_have_the_means_of_the_scenario() -> None:
    nature = Population(fleet(online_s=600, offline_s=200), hours=1.0, seed=0).nature(0)
    rng, now_s, online_s, offline_s = np.random.default_rng(1), 0.0, 0.0, 0.0
    for _ in range(4_000):
        stretch = nature.next_stretch(now_s, rng)
        assert stretch is not None
        offline_s += stretch.from_s - now_s
        online_s += stretch.to_s - stretch.from_s
        now_s = stretch.to_s
    # Four standard errors of an exponential's mean over 4,000.
    assert online_s / 4_000 == pytest.approx(600, rel=0.065)
    assert offline_s / 4_000 == pytest.approx(200, rel=0.065)


def test_agents_have_the_versions_of_the_scenario_and_are_otherwise_as_they_were() -> None:
    shares = {"0.1.0": 0.8, "0.0.9": 0.2, "0.0.1": 0.0}
    plain, versioned = (
        Population(fleet(clock_skew_s=9, stay_h=1, hours_sigma=1, **keys), hours=1.0, seed=4)
        for keys in ({}, {"agent_versions": shares})
    )
    found = Counter[str | None]()
    for number in range(1_000):
        nature = versioned.nature(number)
        found[nature.agent_version] += 1
        assert plain.nature(number) == replace(nature, agent_version=None)
    # Four standard errors of a share of 0.8 among 1,000.
    assert found["0.1.0"] / 1_000 == pytest.approx(0.8, abs=0.05)
    assert found.keys() == {"0.1.0", "0.0.9"}


def test_devices_come_and_go_for_good() -> None:
    behaviour = fleet(new_share=0.5, new_within_h=2, stay_h=1, offline_s=0)
    population = Population(behaviour, hours=4.0, seed=3)
    natures = [population.nature(number) for number in range(400)]
    new = [nature for nature in natures if nature.joins_s > 0.0]
    assert 150 < len(new) < 250
    assert max(nature.joins_s for nature in new) <= 2 * HOUR_S
    stays = np.mean([nature.leaves_s - nature.joins_s for nature in natures])
    assert stays == pytest.approx(HOUR_S, rel=0.2)
    for nature in natures:
        (stretch,) = stretches(nature, 1e9, np.random.default_rng(0))
        assert (stretch.from_s, stretch.to_s) == (nature.joins_s, nature.leaves_s)
        assert nature.next_stretch(nature.leaves_s, np.random.default_rng(0)) is None


def test_classes_have_their_shares_and_their_own_speeds() -> None:
    behaviour = fleet(
        update_sigma=0.5,
        up_bytes_s=1_000,
        classes=[
            {"name": "hub", "share": 1, "update_s": 2},
            {"name": "phone", "share": 3, "update_s": 20, "up_bytes_s": 50, "train_w": 3},
        ],
    )
    population = Population(behaviour, hours=1.0, seed=0)
    natures = [population.nature(number) for number in range(2_000)]
    phones = [nature for nature in natures if nature.kind == "phone"]
    assert len(phones) == pytest.approx(1_500, abs=80)
    times = np.log([nature.conditions.update_s for nature in phones])
    assert np.median(times) == pytest.approx(math.log(20), abs=0.06)
    assert times.std() == pytest.approx(0.5, abs=0.04)
    assert {nature.conditions.up_bytes_s for nature in phones} == {50.0}
    assert {nature.energy.train_w for nature in phones} == {3.0}
    hubs = [nature for nature in natures if nature.kind == "hub"]
    assert {nature.conditions.up_bytes_s for nature in hubs} == {1_000.0}


def test_a_nature_hangs_on_seed_and_number_alone() -> None:
    behaviour = fleet(clock_skew_s=60, hours_sigma=2, plugged_hours=[1, 5], stay_h=3)
    first, again = (Population(behaviour, hours=2.0, seed=7) for _ in range(2))
    assert [first.nature(n) for n in (3, 1)] == [again.nature(n) for n in (3, 1)]
    assert first.nature(3) != Population(behaviour, hours=2.0, seed=8).nature(3)


def test_a_trace_is_dealt_out_kept_to_and_repeated(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(
        "device,from_s,to_s,update_s,up_bytes_s\nb,100,200,,\na,50,60,7,\na,0,10,,500\n"
    )
    behaviour = fleet(trace=str(path), trace_repeats_h=1, update_s=3, update_sigma=0)
    population = Population(behaviour, hours=2.0, seed=0)
    rng = np.random.default_rng(0)
    b, a = (stretches(population.nature(n), 2 * HOUR_S, rng) for n in (0, 1))
    assert [(s.from_s, s.to_s) for s in b] == [(100, 200), (3_700, 3_800)]
    assert [(s.from_s, s.to_s) for s in a][:4] == [
        (0, 10),
        (50, 60),
        (3_600, 3_610),
        (3_650, 3_660),
    ]
    assert [s.conditions.update_s for s in a][:2] == [3.0, 7.0]
    assert [s.conditions.up_bytes_s for s in a][:2] == [500.0, 1e5]
    # The third device has the first one's lines.
    assert population.nature(2).trace == population.nature(0).trace
    midway = population.nature(0).next_stretch(150.0, rng)
    assert midway is not None
    assert (midway.from_s, midway.to_s) == (150.0, 200.0)


def test_a_trace_that_does_not_repeat_ends(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("device;from_s;to_s\na;0;10\n")
    nature = Population(fleet(trace=str(path)), hours=1.0, seed=0).nature(0)
    assert nature.next_stretch(10.0, np.random.default_rng(0)) is None


def test_the_energy_model_is_linear_in_seconds_and_bytes() -> None:
    energy = Energy(train_w=2.0, up_j_mb=3.0, down_j_mb=0.5)
    assert energy.of(trained_s=10.0, up_bytes=2e6, down_bytes=4e6) == 20.0 + 6.0 + 2.0
    assert energy.of() == 0.0


@pytest.mark.parametrize("traced", [False, True])
def test_what_rounding_leaves_of_a_stretch_is_none(tmp_path: Path, traced: bool) -> None:
    """A clock that counts from 1970 rings a little early: nothing may begin again until then."""
    trace = tmp_path / "trace.csv"
    trace.write_text("device,from_s,to_s\na,0,100\n")
    keys: dict[str, object] = {"trace": str(trace)} if traced else {"stay_h": 0.5, "offline_s": 0.0}
    nature = Population(fleet(**keys), hours=1.0, seed=0).nature(0)
    rng = np.random.default_rng(0)
    (stretch,) = stretches(nature, math.inf, rng)
    early_s = (1.7e9 + stretch.to_s) - 1.7e9 - 2.0**-22
    assert stretch.from_s < early_s < stretch.to_s
    assert nature.next_stretch(early_s, rng) is None
