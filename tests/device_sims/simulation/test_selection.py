"""Synchronous rounds and forced staleness, in whole simulations."""

from dataclasses import replace

import numpy as np
import pytest

from device_sims.scenario import Faults, Scenario, Selection
from device_sims.simulation.old_news import OldNews
from device_sims.simulation.outcome import Outcome
from device_sims.simulation.workshop import Workshop
from wire.messages import Announcement
from wire.policy import CodecPolicy, TrainingPolicy

TASK = "0" * 32
HEAVY = {"update_s": 60.0, "update_sigma": 1.0, "offline_s": 0.0}
SYNCHRONOUS = Scenario.from_dict(
    {
        "task": {"training": {"interval_s": 1.0}},
        "data": {"users": 12},
        "fleet": HEAVY,
        "selection": {"places": 6, "rounds": True},
        "aggregation": {"kind": "fedavg", "buffer_size": 6, "max_wait_s": 1e6},
        "run": {"hours": 1.0, "evaluate_every_h": 0.0},
    },
    name="synchronous",
)


@pytest.fixture(scope="module")
def synchronous(workshop: Workshop) -> Outcome:
    return workshop.run(SYNCHRONOUS)


def test_a_synchronous_round_waits_for_its_slowest_device(synchronous: Outcome) -> None:
    outcome = synchronous
    assert outcome.audit.broken == []
    assert set(outcome.staleness) == {0}
    # Each merge took a whole cohort; what the end of the run cut short is merged with nobody.
    assert outcome.quality[-1].version == outcome.audit.accepted // 6 > 10


def test_the_slowest_are_not_waited_for_with_more_places_than_a_round_needs(
    workshop: Workshop, synchronous: Outcome
) -> None:
    over = replace(
        SYNCHRONOUS,
        selection=Selection(places=9, rounds=True),
        admission=replace(SYNCHRONOUS.admission, max_staleness=0),
    )
    waiting, hasty = synchronous, workshop.run(over)
    assert hasty.audit.broken == []
    assert set(hasty.staleness) == {0}
    assert hasty.refused["too-stale"] > 0
    assert hasty.quality[-1].version > waiting.quality[-1].version
    slow = hasty.groups["slow"].updates / hasty.audit.created
    assert slow < waiting.groups["slow"].updates / waiting.audit.created


def test_places_without_rounds_bound_staleness_and_lose_nothing(workshop: Workshop) -> None:
    plain = Scenario.from_dict(
        {
            "task": {"training": {"interval_s": 1.0}},
            "data": {"users": 12},
            "fleet": HEAVY,
            "selection": {"places": 3},
            "aggregation": {"buffer_size": 1},
            "run": {"hours": 0.2, "evaluate_every_h": 0.0},
        },
        name="places",
    )
    outcome = workshop.run(plain)
    assert outcome.audit.broken == []
    assert outcome.audit.created > 10
    everybody = replace(plain, selection=Selection())
    more = workshop.run(everybody)
    assert more.audit.created > 2 * outcome.audit.created
    mean = {
        run: sum(age * count for age, count in o.staleness.items()) / o.audit.accepted
        for run, o in (("places", outcome), ("all", more))
    }
    # Little's law: while one of three is at work, two others end; news comes up to a second late.
    assert mean["places"] < 4.0 < mean["all"]


def test_rounds_go_on_under_faults(workshop: Workshop) -> None:
    faults = Faults(lost=0.1, agent_crash=0.01, aggregator_crash=0.01, corrupted=0.02)
    fleet = replace(SYNCHRONOUS.fleet, offline_s=300.0, online_s=600.0)
    rule = SYNCHRONOUS.rule.changed({"max_wait_s": 600.0})
    outcome = workshop.run(replace(SYNCHRONOUS, fleet=fleet, faults=faults, rule=rule))
    assert outcome.audit.broken == []
    assert outcome.quality[-1].version > 3


def test_devices_are_as_many_versions_behind_as_is_said(workshop: Workshop) -> None:
    late = Scenario.from_dict(
        {
            "task": {"training": {"interval_s": 60.0}},
            "data": {"users": 12},
            "fleet": {
                **{"update_s": 0.1, "update_sigma": 0.0, "offline_s": 0.0},
                # Not all in the same second.
                **{"new_share": 1.0, "new_within_h": 0.02},
            },
            "selection": {"behind_versions": [5, 8]},
            "aggregation": {"buffer_size": 1, "max_wait_s": 10.0},
            "run": {"hours": 0.2, "evaluate_every_h": 0.0},
        },
        name="late",
    )
    outcome = workshop.run(late)
    assert outcome.audit.broken == []
    assert set(range(5, 9)) <= set(outcome.staleness)
    merged = sum(outcome.staleness.values())
    # At first nothing is that old; and while one is on its way another may be merged.
    assert sum(outcome.staleness[age] for age in range(5, 9)) > 0.9 * merged
    assert workshop.run(late).to_dict() == outcome.to_dict()


def announcement(version: int) -> bytes:
    return Announcement(
        task=TASK,
        version=version,
        sha256="0" * 64,
        size_bytes=1,
        paused=False,
        training=TrainingPolicy(),
        codec=CodecPolicy(),
    ).encode()


def test_old_news_is_the_newest_that_is_old_enough() -> None:
    news = OldNews(2, 3, np.random.default_rng(0))
    assert news.draw() is None
    news.announced(announcement(0))
    assert news.draw() == announcement(0)
    # Announced again, and with a gap.
    for version in (1, 1, 2, 4, 5):
        news.announced(announcement(version))
    assert {news.draw() for _ in range(30)} == {announcement(2)}
    news.announced(announcement(6))
    assert {news.draw() for _ in range(30)} == {announcement(2), announcement(4)}
