"""Real agents on a real broker, on this machine: how many connect, and how many take part.

Thousands of production agents, each with its own MQTT connection and its own database, in two
processes; the broker and the aggregator beside them. Every one that is connected is due to train
once in some minutes. Prints each figure beside its goal and writes `runs/bench/real_agents.json`.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from device_sims.bench.figures import Figure, publish
from device_sims.live.run import LiveSettings, Seen, run_live
from device_sims.scenario import Scenario

__all__ = ["measure"]

DEVICES, TAKE_PART = 5_000, 2_000
PROCESSES = 2
LONGEST_H = 0.3
SCENARIO = {
    "task": {"training": {"interval_s": 240.0}},
    "fleet": {"update_s": 5.0, "offline_s": 0.0, "down_bytes_s": 1e9},
    "aggregation": {"buffer_size": 50},
    "service": {"announce_interval_s": 10.0},
    # Looking into every message and ranking for every user would be measured with the agents.
    "run": {"hours": LONGEST_H, "evaluate_every_h": 0.0, "evaluate_users": 200, "checks": False},
}


class _Watch:
    """Notes when how many were connected and took part; has enough when both goals are reached."""

    def __init__(self, devices: int, take_part: int) -> None:
        self._devices, self._take_part = devices, take_part
        self._began = time.monotonic()
        self.connected_s = self.took_part_s = 0.0

    def __call__(self, seen: Seen) -> bool:
        now_s = time.monotonic() - self._began
        if not self.connected_s and seen.connected >= self._devices:
            self.connected_s = now_s
        if not self.took_part_s and seen.sum("took_part") >= self._take_part:
            self.took_part_s = now_s
        if not seen.sum("connected"):
            self._began = time.monotonic()
        return bool(self.connected_s and self.took_part_s)


def measure(devices: int = DEVICES, take_part: int = TAKE_PART) -> list[Figure]:
    """Run the fleet until all are connected and enough of them had an update accepted.

    Args:
        devices: agents, at least ``take_part``.
        take_part: so many of them are waited for.

    Raises:
        FleetError: a process of the fleet ended.
        DescriptorsError: the system allows too few open files.
    """
    scenario = Scenario.from_dict({**SCENARIO, "data": {"users": devices}}, name="real agents")
    watch = _Watch(devices, take_part)
    with tempfile.TemporaryDirectory() as folder:
        settings = LiveSettings(out=Path(folder), processes=PROCESSES)
        live = run_live(scenario, settings, enough=watch)
    audit = live.outcome.audit
    beside = (
        f"{PROCESSES} processes, {live.memory_bytes / 1e6:,.0f} MB, "
        f"{live.cpu_s:,.0f} s of CPU in {live.wall_s:,.0f} s"
    )
    broken = ", ".join(audit.broken) or "none"
    return [
        Figure(
            figure="real agents connected at a time",
            value=live.connected,
            unit="agents",
            goal=devices,
            at_least=True,
            compared_with=f"after {watch.connected_s:,.0f} s; {beside}",
        ),
        Figure(
            figure="of them with an update accepted",
            value=live.took_part,
            unit="agents",
            goal=take_part,
            at_least=True,
            compared_with=(
                f"{take_part:,} after {watch.took_part_s:,.0f} s; {audit.accepted:,} updates, "
                f"invariants broken: {broken}"
            ),
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and publish; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=DEVICES, help="agents: %(default)s")
    parser.add_argument(
        "--take-part", type=int, default=TAKE_PART, help="waited for: %(default)s of them"
    )
    given = parser.parse_args(arguments)
    if not 0 < given.take_part <= given.devices:
        parser.error(f"--take-part is {given.take_part}; expected 1 to {given.devices}")
    figures = measure(given.devices, given.take_part)
    publish("real_agents", figures)
    return 0 if all(figure.met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
