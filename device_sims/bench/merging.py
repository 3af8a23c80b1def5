"""`python -m device_sims.bench.merging`: time to decode and merge one update, as the table grows.

The aggregator must not get slower with the catalogue: an update of a few rows is decoded, combined
and written into tables of 100,000 and of 1,000,000 rows, which take turns.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aggregator.merging import (
    Contribution,
    Kind,
    Optimizer,
    RowCorrection,
    Rule,
    ServerState,
    StalenessScope,
    advance,
    combine,
)
from device_sims.bench.figures import Figure, publish
from device_sims.bench.load import make_payload
from wire.codec import decode_delta
from wire.delta import Delta
from wire.manifest import ParameterSpec, Role

__all__ = ["main", "merging_figures"]

WIDTH = 64
ITEMS = (100_000, 1_000_000)
UPDATES, WARM = 400, 50
GOAL_MS = 0.5
RULES = {
    "FedBuff": Rule(buffer_size=1),
    "FedAdam": Rule(buffer_size=1, optimizer=Optimizer.ADAM),
    "heat": Rule(buffer_size=1, row_correction=RowCorrection.HEAT),
    "row staleness": Rule(buffer_size=1, staleness_scope=StalenessScope.ROW),
    "CA2FL": Rule(buffer_size=1, kind=Kind.CA2FL),
}


@dataclass(slots=True)
class _Server:
    """One table, and what it is told."""

    specs: Sequence[ParameterSpec]
    state: ServerState
    previous: Delta | None = None

    def take(self, payload: bytes, rule: Rule) -> None:
        """Decode an update and merge it in place."""
        delta, version = decode_delta(payload, self.specs), self.state.version
        update = Contribution(version, version, 10, delta, "device", self.previous, 0, version)
        self.state = advance(self.state, combine(self.state, [update], rule))
        self.previous = delta


def main() -> None:
    """Measure every rule and publish."""
    publish("merging", merging_figures(*RULES))


def merging_figures(*names: str) -> list[Figure]:
    """Measure some of the rules; without a name the default one."""
    rng = np.random.default_rng(0)
    figures = []
    for name in names or ("FedBuff",):
        rule = RULES[name]
        payloads = {
            items: [make_payload(_specs(items), rng) for _ in range(UPDATES)] for items in ITEMS
        }
        small, large = _times_ms(rule, payloads)
        size = np.mean([len(payload) for sent in payloads.values() for payload in sent])
        for items, value, other in ((ITEMS[0], small, large), (ITEMS[1], large, small)):
            figures.append(
                Figure(
                    figure=f"{name}: update into {items:,} x {WIDTH}",
                    value=value,
                    unit="ms",
                    goal=GOAL_MS,
                    at_least=False,
                    compared_with=f"{size:.0f} bytes; {other:.3f} ms into the other table",
                )
            )
    return figures


def _times_ms(rule: Rule, payloads: dict[int, list[bytes]]) -> list[float]:
    """The median time of an update, for each table."""
    servers = {items: _Server(_specs(items), _start(items)) for items in payloads}
    times: dict[int, list[float]] = {items: [] for items in payloads}
    for number in range(UPDATES):
        for items, server in servers.items():
            begin = time.perf_counter()
            server.take(payloads[items][number], rule)
            times[items].append(time.perf_counter() - begin)
    return [1e3 * float(np.median(taken[WARM:])) for taken in times.values()]


def _specs(items: int) -> tuple[ParameterSpec, ...]:
    return (ParameterSpec("item", Role.ROWS, (items, WIDTH)),)


def _start(items: int) -> ServerState:
    return ServerState(0, {"item": np.full((items, WIDTH), 0.1, np.float32)})


if __name__ == "__main__":
    main()
