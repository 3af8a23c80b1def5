"""How fast a scenario's time passes on the wall."""

import time
from dataclasses import dataclass, replace

from device_sims.scenario import Scenario

__all__ = ["Pace", "hurried"]

LEAST_WAIT_S = 0.01
"""The shortest ``rule.max_wait_s`` that a rule takes."""


@dataclass(frozen=True, slots=True)
class Pace:
    """A clock of scenario seconds.

    Attributes:
        speed_up: scenario seconds that pass in a second.
        began_at: unix seconds at which the run began.
    """

    speed_up: float
    began_at: float

    def now_s(self) -> float:
        """Scenario seconds since the run began."""
        return (time.time() - self.began_at) * self.speed_up

    def wall_s(self, seconds: float) -> float:
        """How long a stretch of the scenario takes."""
        return seconds / self.speed_up


def hurried(scenario: Scenario, speed_up: float) -> Scenario:
    """The scenario whose task and aggregator keep up with a faster clock.

    What the fleet's nature and its faults say stays in scenario seconds, for ``Pace`` to divide.

    Args:
        scenario: as it is meant.
        speed_up: scenario seconds in a second, above 0.
    """
    training, service, rule = scenario.model.training, scenario.service, scenario.rule
    wait_s = rule.to_dict().get("max_wait_s")
    if wait_s is not None:
        rule = rule.changed({"max_wait_s": max(LEAST_WAIT_S, wait_s / speed_up)})
    return replace(
        scenario,
        model=replace(
            scenario.model,
            training=replace(training, interval_s=training.interval_s / speed_up),
        ),
        service=replace(service, announce_interval_s=service.announce_interval_s / speed_up),
        rule=rule,
    )
