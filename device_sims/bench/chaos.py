"""Kill -9 of the aggregator at random points under load, again and again, and what it cost.

Everything is real: the service, Mosquitto, SQLite and PostgreSQL, and a load of encoded updates
that are sent until they are answered. Some kills fall into the start of the service.
"""

import argparse
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from typing import Any

import numpy as np

from aggregator.blobs import FolderBlobs
from device_sims.bench.audit import Audit, audit
from device_sims.bench.databases import kinds
from device_sims.bench.figures import Figure, publish
from device_sims.bench.load import Load, Sent, send
from device_sims.bench.site import Site, open_site

__all__ = ["Chaos", "run_chaos"]

ITEMS, WIDTH = 2_000, 32
BUFFER = 5
SETTINGS = {"rule.buffer_size": BUFFER, "retention.snapshot_every": 100, "announce_interval_s": 0}
RATE, WINDOW = 300.0, 500
LONGEST_LIFE_S, LONGEST_BIRTH_S = 1.0, 1.5
BIRTHS = 0.2
GOAL_READY_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Chaos:
    """What a run with kills left behind.

    Attributes:
        kills: how many there were, those of services that were not ready yet included.
        sent: what the load has to say.
        found: what the ledger has to say.
        ready_s: for each start that was waited for, from the process to the first message.
    """

    kills: int
    sent: Sent
    found: Audit
    ready_s: list[float]


def run_chaos(
    kind: str, *, kills: int, seed: int, tell: Callable[[str], None] = lambda _line: None
) -> Chaos:
    """Load, kill and start, let everything settle, stop, and audit.

    Args:
        kind: of the database, see ``databases``.
        kills: how many.
        seed: of when.
        tell: is told how it goes, in lines.

    Raises:
        TimeoutError: updates stayed without a receipt.
    """
    rng, ready_s = random.Random(seed), [0.0][:0]
    with open_site(kind, items=ITEMS, width=WIDTH, settings=SETTINGS) as site:
        load = site.load(10**9, rate=RATE, window=WINDOW)
        with _loaded(load) as finish:
            for number in range(1, kills + 1):
                ready_s += _kill(site, rng)
                if number % 10 == 0:
                    accepted = site.summary()["updates"]["accepted"]
                    tell(
                        f"{kind}: {number} kills, {accepted:,} updates accepted, "
                        f"ready in {ready_s[-1]:.2f} s"
                    )
            sent = finish()
        site.wait_until_merged(BUFFER)
        site.aggregator.kill()
        found = audit(site.database, FolderBlobs(site.blobs), site.bundle, sent.sequences)
    return Chaos(kills=kills, sent=sent, found=found, ready_s=ready_s)


def _kill(site: Site, rng: random.Random) -> list[float]:
    """Kill at some moment, of a life or of a birth; returns how long the next start took."""
    if rng.random() < BIRTHS:
        site.aggregator.kill()
        site.aggregator.restart(wait=False)
        time.sleep(rng.uniform(0.0, LONGEST_BIRTH_S))
    else:
        time.sleep(rng.uniform(0.0, LONGEST_LIFE_S))
    site.aggregator.kill()
    begin = time.monotonic()
    site.aggregator.restart()
    return [time.monotonic() - begin]


@contextmanager
def _loaded(load: Load) -> Iterator[Callable[[], Sent]]:
    """Send from a process of its own; what is yielded ends that and gives what became of it."""
    spawn = multiprocessing.get_context("spawn")
    enough, (here, there) = spawn.Event(), spawn.Pipe(duplex=False)
    process = spawn.Process(target=_send, args=(load, enough, there), daemon=True)
    process.start()

    def finish() -> Sent:
        enough.set()
        sent: Sent = here.recv()
        return sent

    there.close()
    try:
        # It imports for seconds; until then there is no load to kill under.
        here.recv()
        yield finish
    finally:
        process.kill()
        process.join()


def _send(load: Load, enough: Event, there: Any) -> None:
    there.send("ready")
    there.send(send(load, enough))


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    figures: list[Figure] = []
    for kind in kinds():
        chaos = run_chaos(
            kind,
            kills=options.kills,
            seed=options.seed,
            tell=lambda line: print(line, flush=True),
        )
        figures += _figures(kind, chaos)
    publish("chaos", figures)


def _figures(kind: str, chaos: Chaos) -> list[Figure]:
    found = chaos.found
    compared = (
        f"{chaos.kills} kills; {found.accepted:,} accepted, {found.versions:,} versions, "
        f"{found.replayed:,} updates folded again"
    )
    figures = {
        "accepted updates lost": (found.lost, "", 0),
        "updates applied twice": (found.doubled, "", 0),
        "models that differ from the fold": (int(not found.model_is_the_fold), "", 0),
        "ready again, median": (float(np.median(chaos.ready_s)), "s", GOAL_READY_S),
        "ready again, worst": (max(chaos.ready_s), "s", GOAL_READY_S),
    }
    return [
        Figure(
            figure=f"{kind}: {name}",
            value=value,
            unit=unit,
            goal=goal,
            at_least=False,
            compared_with=compared,
        )
        for name, (value, unit, goal) in figures.items()
    ]


if __name__ == "__main__":
    _main()
