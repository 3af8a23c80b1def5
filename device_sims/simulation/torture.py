"""Random scenarios with random faults, and the smallest of those that break something."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from device_sims.scenario import (
    Attack,
    Attackers,
    DeviceClass,
    Faults,
    FleetBehaviour,
    Scenario,
    Selection,
    Traits,
)
from device_sims.scenario.selection import most_behind
from device_sims.simulation.outcome import Outcome

__all__ = ["Failure", "draw_scenario", "shrink", "smaller"]

Simulate = Callable[[Scenario], Outcome]

FAULTS = {
    "lost": 0.3,
    "duplicated": 0.3,
    "delayed": 0.3,
    "corrupted": 0.1,
    "agent_crash": 0.05,
    "aggregator_crash": 0.05,
    "backup": 1.0,
    "agent_full": 0.05,
    "aggregator_full": 0.05,
    "broker_restarts_h": 6.0,
}
"""The largest that is drawn of each."""
MOST_HOSTILE = 0.4
MOST_BEHIND = 19
VERSIONS = {"0.1.0": 0.8, "0.0.9": 0.2}
PLAIN_FLEET: Mapping[str, Any] = {
    name: getattr(FleetBehaviour(), name)
    for name in (
        *("classes", "metered_hours", "plugged_hours", "hours_sigma", "time_zones"),
        *("new_share", "stay_h", "clock_skew_s", "agent_versions"),
    )
} | {"offline_s": 0.0}
"""What a fleet is without what makes it complicated; a class keeps what [fleet] loses."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A scenario after which something was not as it must be.

    Attributes:
        scenario: the smallest one that was found.
        broken: names of the invariants.
    """

    scenario: Scenario
    broken: tuple[str, ...]


def draw_scenario(like: Scenario, seed: int) -> Scenario:
    """A random variation of a scenario: other devices, other faults, another way of merging."""
    rng = np.random.default_rng([seed, 7])
    drawn = replace(
        like,
        faults=_faults(rng),
        fleet=_fleet(like, rng),
        attackers=_attackers(like, rng),
        data=replace(like.data, replay=rng.random() < 0.3),
        rule=like.rule.changed(_rule(rng)),
    )
    if rng.random() < 0.3:
        drawn = replace(drawn, fleet=replace(drawn.fleet, agent_versions=VERSIONS))
    drawn = replace(drawn, selection=_selection(like, rng))
    return drawn.with_seed(seed)


def _faults(rng: np.random.Generator) -> Faults:
    struck = {name: rng.random() < 0.5 for name in FAULTS}
    drawn: dict[str, Any] = {
        name: float(most * rng.random() ** 2) if struck[name] else 0.0
        for name, most in FAULTS.items()
    }
    return Faults(
        **drawn,
        delay_s=_spread(rng, 1.0, 3_600.0),
        restart_s=_spread(rng, 0.1, 600.0),
        full_s=_spread(rng, 1.0, 3_600.0),
    )


def _fleet(like: Scenario, rng: np.random.Generator) -> FleetBehaviour:
    fleet = replace(
        like.fleet,
        update_s=_spread(rng, 0.5, 300.0),
        update_sigma=float(rng.uniform(0.0, 2.0)),
        online_s=_spread(rng, 30.0, 7_200.0),
        offline_s=_spread(rng, 1.0, 3_600.0) if rng.random() < 0.7 else 0.0,
        latency_s=_spread(rng, 0.01, 10.0),
        up_bytes_s=_spread(rng, 100.0, 1e6),
        down_bytes_s=_spread(rng, 1_000.0, 1e7),
        clock_skew_s=_spread(rng, 0.1, 1e5) if rng.random() < 0.3 else 0.0,
        new_share=float(rng.random()) if rng.random() < 0.3 else 0.0,
        stay_h=_spread(rng, 0.2, 20.0) if rng.random() < 0.3 else 0.0,
    )
    if rng.random() < 0.3:
        # Windows that open and close within the run, at another time for each device.
        fleet = replace(
            fleet,
            plugged_hours=(0.0, float(rng.uniform(6.0, 20.0))),
            metered_hours=(1.0, 1.0 + float(rng.uniform(0.1, 4.0))) if rng.random() < 0.5 else (),
            hours_sigma=float(rng.uniform(0.1, 3.0)),
            time_zones=(-1.0, 0.0, 1.0),
        )
    if rng.random() < 0.3:
        slow = _spread(rng, 2.0, 30.0)
        kinds = (("quick", 1.0, 1.0), ("slow", slow, float(rng.uniform(0.2, 2.0))))
        traits = {entry.name: getattr(fleet, entry.name) for entry in fields(Traits)}
        classes = tuple(
            DeviceClass(name=name, share=share, **{**traits, "update_s": factor * fleet.update_s})
            for name, factor, share in kinds
        )
        fleet = replace(fleet, classes=classes)
    return fleet


def _attackers(like: Scenario, rng: np.random.Generator) -> Attackers:
    kinds = list(Attack) if like.model.recommender == "mf" else [Attack.SIGN_FLIP, Attack.NOISE]
    kind = kinds[int(rng.integers(len(kinds)))]
    share = float(MOST_HOSTILE * rng.random()) if rng.random() < 0.4 else 0.0
    return Attackers(share=share, kind=kind, factor=_spread(rng, 0.5, 100.0))


def _rule(rng: np.random.Generator) -> dict[str, Any]:
    buffer_size = int(rng.integers(1, 12))
    robust: list[dict[str, Any]] = [
        {},
        {"row_clip": 5.0},
        {"trim": 0.2},
        {"krum_byzantine": 1, "buffer_size": max(5, buffer_size)},
        {"optimizer": "adam"},
    ]
    return {"buffer_size": buffer_size, **robust[int(rng.integers(len(robust)))]}


def _selection(like: Scenario, rng: np.random.Generator) -> Selection:
    places = int(rng.integers(1, 12)) if rng.random() < 0.4 else 0
    most = min(MOST_BEHIND, most_behind(like.service.retention.keep_publications))
    low, high = sorted(rng.integers(0, most + 1, 2).tolist())
    return Selection(
        places=places,
        rounds=bool(places and rng.random() < 0.5),
        behind_versions=(low, high) if rng.random() < 0.3 else (0, 0),
    )


def shrink(failed: Scenario, broken: tuple[str, ...], simulate: Simulate) -> Failure:
    """The smallest scenario at hand after which one of the same invariants is broken.

    Args:
        failed: the scenario that failed.
        broken: what was broken.
        simulate: runs a scenario.
    """
    smallest, progress = Failure(failed, broken), True
    while progress:
        progress = False
        for candidate in smaller(smallest.scenario):
            found = tuple(simulate(candidate).audit.broken)
            if set(found) & set(broken):
                smallest, progress = Failure(candidate, found), True
                break
    return smallest


def smaller(scenario: Scenario) -> Iterator[Scenario]:
    """Simpler scenarios, the simplest first: less time, fewer devices, one thing less."""
    run, data, faults = scenario.run, scenario.data, scenario.faults
    if run.hours > 0.1:
        yield replace(scenario, run=replace(run, hours=run.hours / 2))
    if data.users > 2:
        yield replace(scenario, data=replace(data, users=data.users // 2))
    for name in FAULTS:
        if getattr(faults, name):
            without: dict[str, Any] = {name: 0.0}
            yield replace(scenario, faults=replace(faults, **without))
    if scenario.attackers.share:
        yield replace(scenario, attackers=replace(scenario.attackers, share=0.0))
    if scenario.selection != Selection():
        yield replace(scenario, selection=Selection())
    if data.replay:
        yield replace(scenario, data=replace(data, replay=False))
    for name, plain in PLAIN_FLEET.items():
        if getattr(scenario.fleet, name) != plain:
            simpler: dict[str, Any] = {name: plain}
            yield replace(scenario, fleet=replace(scenario.fleet, **simpler))


def _spread(rng: np.random.Generator, low: float, high: float) -> float:
    """Evenly over the orders of magnitude."""
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))
