"""Faults that a real run does to its own aggregator and broker."""

import time
from collections import Counter
from collections.abc import Callable

import numpy as np

from device_sims.brokers import Broker, MosquittoBroker
from device_sims.live.pace import Pace
from device_sims.scenario import Faults
from device_sims.service import AggregatorProcess

__all__ = ["Troubles"]

POLL_S = 0.25


class Troubles:
    """Kills the aggregator and restarts the broker, as often as a scenario says.

    Nobody outside can kill the aggregator *at* a write to its ledger. Instead it is killed, as hard
    as that, with the scenario's probability after each update that it has answered.

    Args:
        faults: how often.
        aggregator: ours; None for one that is not.
        broker: restarted if it is a Mosquitto of ours.
        pace: the clock.
        rng: decides.
        stopped: whether the run is to end; then nothing waits to be started again.

    Attributes:
        happened: how often, by kind.
    """

    def __init__(
        self,
        faults: Faults,
        aggregator: AggregatorProcess | None,
        broker: Broker,
        pace: Pace,
        rng: np.random.Generator,
        stopped: Callable[[], bool],
    ) -> None:
        self._faults, self._aggregator, self._pace, self._rng = faults, aggregator, pace, rng
        self._stopped = stopped
        self._broker = broker if isinstance(broker, MosquittoBroker) else None
        self.happened: Counter[str] = Counter()
        self._answered = 0
        self._restart_at_s = self._next_restart_s()

    def strike(self, answered: int) -> None:
        """Do what is due; returns when everything runs again.

        Args:
            answered: updates that were answered so far.
        """
        new, self._answered = answered - self._answered, answered
        survives = (1.0 - self._faults.aggregator_crash) ** max(0, new)
        if self._aggregator is not None and self._rng.random() >= survives:
            self.happened["aggregator_crash"] += 1
            self._aggregator.kill()
            self._wait()
            self._aggregator.restart()
        if self._broker is not None and self._pace.now_s() >= self._restart_at_s:
            self.happened["broker_restart"] += 1
            self._broker.stop()
            self._wait()
            self._broker.restart()
            self._restart_at_s = self._next_restart_s()

    def _wait(self) -> None:
        until = time.monotonic() + self._pace.wall_s(self._faults.restart_s)
        while not self._stopped() and (left_s := until - time.monotonic()) > 0.0:
            time.sleep(min(POLL_S, left_s))

    def _next_restart_s(self) -> float:
        often = self._faults.broker_restarts_h
        return self._pace.now_s() + self._rng.exponential(3600.0 / often) if often else np.inf
