"""A task's past in little: rules that change, and stale, compressed updates of a few devices."""

import numpy as np

from aggregator.merging import Kind, Optimizer, RowCorrection, Rule, StalenessScope, Weighting
from aggregator.orders import Steering
from aggregator.retention import Retention
from tests.aggregator.workshop import Workshop, make_update
from wire.bundle import Bundle
from wire.policy import CodecPolicy

__all__ = ["OFTEN", "RULES", "VERSIONS", "go_on", "train"]

VERSIONS = 9
OFTEN = Retention(snapshot_every=1, keep_snapshots=1, keep_every=5)
RULES = {
    "plain": Rule(buffer_size=3),
    "touched": Rule(buffer_size=3, row_correction=RowCorrection.TOUCHED),
    "heat": Rule(buffer_size=3, row_correction=RowCorrection.HEAT),
    "row staleness": Rule(buffer_size=3, staleness_scope=StalenessScope.ROW),
    "participation": Rule(buffer_size=3, participation_exponent=0.5),
    "cached": Rule(kind=Kind.CA2FL, buffer_size=3),
    "adaptive": Rule(kind=Kind.FADAS, buffer_size=3, optimizer=Optimizer.AMSGRAD),
    "robust": Rule(
        buffer_size=3,
        row_clip=1.0,
        trim=0.2,
        row_correction=RowCorrection.HEAT,
        staleness_scope=StalenessScope.ROW,
    ),
    "yogi": Rule(buffer_size=3, optimizer=Optimizer.YOGI),
}


def train(workshop: Workshop, bundle: Bundle) -> list[str]:
    """Some versions of changing rules and stale, compressed updates; their digests."""
    workshop.engine.start()
    workshop.engine.register(bundle)
    task = workshop.engine.tasks[bundle.task]
    rng = np.random.default_rng(3)
    digests, sequence = [task.newest.digest], 0
    for version in range(VERSIONS):
        if version == 4:
            rule: dict[str, float | str] = {"server_learning_rate": 0.5}
            if task.orders.rule.kind is not Kind.CA2FL:
                rule["weighting"] = Weighting.EXAMPLES.value
            workshop.engine.steer(bundle.task, Steering(rule=rule))
        for device in "abc" if version % 2 else "aab":
            sequence += 1
            base = int(rng.integers(0, version + 1))
            update = make_update(bundle, sequence, base=base, codec=CodecPolicy())
            workshop.send(device, update)
        digests.append(task.newest.digest)
    return digests


def go_on(workshop: Workshop, bundle: Bundle, devices: str, *, first: int) -> None:
    """One update of each of these devices, in turn, from about the current version."""
    task = workshop.engine.tasks[bundle.task]
    for sequence, device in enumerate(devices, start=first):
        base = max(0, task.version - sequence % 3)
        workshop.send(device, make_update(bundle, sequence, base=base, codec=CodecPolicy()))
