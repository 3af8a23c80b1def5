"""What one aggregator process takes: updates a second, memory and start as its ledger grows.

Everything is real: the service, Mosquitto, SQLite and PostgreSQL, encoded updates of about 700
bytes that are published at QoS 1 and answered. Beside it stands what this machine could do at all:
the same load into a subscriber that only counts. Broker and load run on the same cores.
"""

import argparse
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from aggregator.ledger import Intake, Ledger, NewUpdate, UpdateKey, VersionRecord, open_database
from device_sims.bench import load as loading
from device_sims.bench.databases import kinds
from device_sims.bench.figures import Figure, publish
from device_sims.bench.load import Load, Sent, make_payload
from device_sims.bench.merging import merging_figures
from device_sims.bench.site import Site, open_site
from edge_agent.runtimes.trial import memory_bytes

__all__ = ["main"]

ITEMS, WIDTH = 100_000, 64
GOAL_RATE = 2_000
MANY, FEW, START = 1_000_000, 10_000, 100_000
AT_ONCE, DEVICES = 5_000, 2_000
A_LITTLE = 2_000
BUFFER, FILLED = 20, 500
SETTINGS = {"rule.buffer_size": BUFFER}


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=40_000, help="of a load")
    parser.add_argument("--many", type=int, default=MANY, help="updates in the large ledger")
    options = parser.parse_args()
    figures: list[Figure] = []
    for kind in kinds():
        print(f"{kind}: throughput", flush=True)
        figures += _throughput(kind, options.updates)
        print(f"{kind}: ledgers of {FEW:,}, {START:,} and {options.many:,} updates", flush=True)
        figures += _growth(kind, options.many)
    publish("aggregator", [*figures, *merging_figures()])


def _throughput(kind: str, updates: int) -> list[Figure]:
    with open_site(kind, items=ITEMS, width=WIDTH, settings=SETTINGS) as site:
        _send(site.load(A_LITTLE))
        sent = _send(site.load(updates))
        site.wait_until_merged(BUFFER)
        rate = updates / sent.seconds
        half = min(rate, GOAL_RATE) / 2
        calm = _send(site.load(round(half * 15), rate=half))
        site.aggregator.stop()
        ceiling = _ceiling(site.load(min(updates, 50_000), window=0))
    p50, p99 = np.percentile(calm.latencies_s, [50, 99])
    said = ", ".join(f"{count:,} {outcome}" for outcome, count in sent.outcomes.items())
    return [
        Figure(
            figure=f"{kind}: updates accepted, durable and merged",
            value=rate,
            unit="a second",
            goal=GOAL_RATE,
            at_least=True,
            compared_with=(
                f"{said}, of {sent.size_bytes:.0f} bytes, into {ITEMS:,} x {WIDTH}; "
                f"a subscriber that only counts: {ceiling:,.0f}"
            ),
        ),
        Figure(
            figure=f"{kind}: publish to receipt, p99 at {half:,.0f} a second",
            value=float(p99),
            unit="s",
            goal=1,
            at_least=False,
            compared_with=f"median {p50:.3f} s",
        ),
    ]


def _send(load: Load) -> Sent:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(loading.send, load).result()


def _ceiling(load: Load) -> float:
    """Messages a second that a subscriber gets which does nothing with them."""
    spawn = multiprocessing.get_context("spawn")
    ready, (here, there) = spawn.Event(), spawn.Pipe(duplex=False)
    counter = spawn.Process(target=loading.count_only, args=(load, ready, there), daemon=True)
    counter.start()
    ready.wait()
    _send(load)
    seconds: float = here.recv()
    counter.join()
    return load.updates / seconds


def _growth(kind: str, many: int) -> list[Figure]:
    memory_mb: dict[int, float] = {}
    start_s = 0.0
    with open_site(kind, items=ITEMS, width=WIDTH, settings=SETTINGS) as site:
        there = 0
        for target in sorted({FEW, START, many}):
            site.aggregator.kill()
            there = _fill(site, there, target)
            begin = time.monotonic()
            site.aggregator.restart()
            if target == START:
                start_s = time.monotonic() - begin
            there += A_LITTLE
            _send(site.load(A_LITTLE))
            site.wait_until_merged(BUFFER)
            memory_mb[target] = memory_bytes("VmRSS", site.aggregator.pid) / 1e6
    return [
        Figure(
            figure=f"{kind}: memory, {many:,} / {FEW:,} updates",
            value=memory_mb[many] / memory_mb[FEW],
            unit="",
            goal=1.2,
            at_least=False,
            compared_with=", ".join(f"{n:,}: {mb:.0f} MB" for n, mb in memory_mb.items()),
        ),
        Figure(
            figure=f"{kind}: kill -9 to ready, {START:,} updates in the ledger",
            value=start_s,
            unit="s",
            goal=5,
            at_least=False,
            compared_with="process start included",
        ),
    ]


def _fill(site: Site, there: int, target: int) -> int:
    """Add merged updates to a ledger that nobody uses, as if the merges had changed nothing."""
    database = open_database(site.database)
    ledger, task = Ledger(database), site.bundle.task
    rng = np.random.default_rng(2)
    payloads = [make_payload(site.bundle.manifest.federated, rng) for _ in range(100)]
    snapshot = next(iter(ledger.between(task, 0, 0)))
    waiting = [update.id for update in ledger.members(task, None)]
    while there < target or waiting:
        ids = waiting or ledger.take_in(_intake(task, there, payloads))
        there += 0 if waiting else len(ids)
        waiting = []
        _add_versions(ledger, task, ids, snapshot)
    database.dispose()
    return there


def _intake(task: str, first: int, payloads: Sequence[bytes]) -> Intake:
    now = time.time()
    numbers = range(first, first + AT_ONCE)
    updates = [
        NewUpdate(
            key=UpdateKey(task, f"former-{number % DEVICES}", 1 + number // DEVICES),
            base_version=0,
            examples=10,
            payload=payloads[number % len(payloads)],
            size_bytes=700,
            metrics={},
            received_at=now,
        )
        for number in numbers
    ]
    return Intake(at=now, known_tasks=frozenset([task]), updates=updates)


def _add_versions(ledger: Ledger, task: str, ids: Sequence[int], snapshot: VersionRecord) -> None:
    """Versions of a few hundred updates each, the last one with a snapshot."""
    version = ledger.newest_version(task)
    for start in range(0, len(ids), FILLED):
        members = ids[start : start + FILLED]
        version = VersionRecord(
            task=task,
            version=version.version + 1,
            digest=version.digest,
            rule=version.rule,
            created_at=time.time(),
            updates=len(members),
        )
        ledger.add_version(version, members, {0: len(members)})
    ledger.add_snapshot(task, version.version, snapshot.sha256 or "", snapshot.size_bytes or 0)


if __name__ == "__main__":
    main()
