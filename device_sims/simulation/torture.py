"""Random scenarios with random faults, and the smallest of those that break something."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

import numpy as np

from device_sims.scenario import Faults, Scenario
from device_sims.simulation.run import Outcome

__all__ = ["Failure", "draw_scenario", "shrink", "smaller"]

Simulate = Callable[[Scenario], Outcome]

PROBABILITIES = {
    "lost": 0.3,
    "duplicated": 0.3,
    "delayed": 0.3,
    "corrupted": 0.1,
    "agent_crash": 0.05,
    "aggregator_crash": 0.05,
    "backup": 1.0,
}
"""The largest that is drawn of each."""


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
    struck = {name: rng.random() < 0.6 for name in PROBABILITIES}
    faults = Faults(
        **{
            name: float(most * rng.random() ** 2) if struck[name] else 0.0
            for name, most in PROBABILITIES.items()
        },
        delay_s=_spread(rng, 1.0, 3_600.0),
        restart_s=_spread(rng, 0.1, 600.0),
    )
    fleet = replace(
        like.fleet,
        update_s=_spread(rng, 0.5, 300.0),
        update_sigma=float(rng.uniform(0.0, 2.0)),
        online_s=_spread(rng, 30.0, 7_200.0),
        offline_s=_spread(rng, 1.0, 3_600.0) if rng.random() < 0.7 else 0.0,
        latency_s=_spread(rng, 0.01, 10.0),
        clock_skew_s=_spread(rng, 0.1, 1e5) if rng.random() < 0.3 else 0.0,
    )
    rule = like.rule.changed({"buffer_size": int(rng.integers(1, 12))})
    return replace(like, fleet=fleet, faults=faults, rule=rule).with_seed(seed)


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
    """Simpler scenarios, the simplest first: less time, fewer devices, one kind of fault less."""
    run, data, faults = scenario.run, scenario.data, scenario.faults
    if run.hours > 0.1:
        yield replace(scenario, run=replace(run, hours=run.hours / 2))
    if data.users > 2:
        yield replace(scenario, data=replace(data, users=data.users // 2))
    for entry in fields(Faults):
        if entry.name in PROBABILITIES and getattr(faults, entry.name):
            yield replace(scenario, faults=replace(faults, **{entry.name: 0.0}))
    if scenario.fleet.offline_s:
        yield replace(scenario, fleet=replace(scenario.fleet, offline_s=0.0))
    if scenario.fleet.clock_skew_s:
        yield replace(scenario, fleet=replace(scenario.fleet, clock_skew_s=0.0))


def _spread(rng: np.random.Generator, low: float, high: float) -> float:
    """Evenly over the orders of magnitude."""
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))
