"""Small states, updates and rules for the tests of merging, and a ledger's part in it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from aggregator.merging import (
    Contribution,
    Kind,
    Optimizer,
    RowCorrection,
    Rule,
    ServerState,
    Staleness,
    StalenessScope,
    Weighting,
    merge,
)
from wire.delta import Delta, RowBlock, Tensor

ITEMS, WIDTH = 6, 2
DEVICES = "abcd"
WAYS = [
    (kind, optimizer)
    for kind in Kind
    for optimizer in Optimizer
    if kind is not Kind.FEDASYNC or optimizer is Optimizer.SGD
]


def state(version: int = 0, *, items: int = ITEMS) -> ServerState:
    table = np.linspace(0, 2, items * WIDTH, dtype=np.float32).reshape(items, WIDTH)
    return ServerState(version, {"item": table, "bias": np.zeros(3, np.float32)})


def make_delta(rows: Mapping[int, ArrayLike], bias: float | None = 0.0) -> dict[str, Tensor]:
    ids = np.array(sorted(rows), np.int64)
    values = np.array([rows[i] for i in sorted(rows)], np.float32).reshape(-1, WIDTH)
    dense = {} if bias is None else {"bias": np.full(3, bias, np.float32)}
    return {"item": RowBlock(ids, values), **dense}


def contribution(
    id: int,
    rows: Mapping[int, ArrayLike],
    *,
    base: int = 0,
    examples: int = 1,
    bias: float | None = 0.0,
    device: str = "",
    device_updates: int = 0,
) -> Contribution:
    return Contribution(
        id, base, examples, make_delta(rows, bias), device, device_updates=device_updates
    )


def touched(batch: Sequence[Contribution]) -> set[int]:
    blocks = [c.delta["item"] for c in batch]
    return {row for b in blocks if isinstance(b, RowBlock) for row in b.rows.tolist()}


def moved(before: ServerState, after: ServerState, name: str) -> NDArray[np.float32]:
    return after.parameters[name] - before.parameters[name]


def assert_same_bits(left: ServerState, right: ServerState) -> None:
    assert left.version == right.version
    for ours, theirs in ((left.parameters, right.parameters), (left.memory, right.memory)):
        assert set(ours) == set(theirs)
        for name in ours:
            assert ours[name].dtype == theirs[name].dtype
            assert ours[name].tobytes() == theirs[name].tobytes(), name


class Ledger:
    """Merges batches one after the other, and tells each update what came before it."""

    def __init__(self, start: ServerState, rule: Rule) -> None:
        self.state, self.rule = start, rule
        self._accepted: dict[str, int] = {}
        self._newest: dict[str, tuple[Delta, int]] = {}

    def annotate(self, batch: Sequence[Contribution]) -> list[Contribution]:
        """The batch as the engine hands it to the merge."""
        known = []
        for c in sorted(batch, key=lambda c: c.id):
            previous, version = self._newest.get(c.device, (None, 0))
            count = self._accepted.get(c.device, 0)
            known.append(
                replace(c, previous=previous, previous_version=version, device_updates=count)
            )
            self._accepted[c.device] = count + 1
        return known

    def merge(self, batch: Sequence[Contribution]) -> None:
        known = self.annotate(batch)
        self.state = merge(self.state, known, self.rule)
        for c in known:
            self._newest[c.device] = (c.delta, self.state.version)


finite = st.floats(-4, 4, width=32)
row_deltas = st.dictionaries(
    st.integers(0, ITEMS - 1), st.lists(finite, min_size=WIDTH, max_size=WIDTH), min_size=1
)


@st.composite
def batches(
    draw: st.DrawFn, *, version: int = 5, stale: bool = True, most: int = 8
) -> list[Contribution]:
    """A buffer for the merge of a state of this version."""
    return [
        contribution(
            id,
            draw(row_deltas),
            base=draw(st.integers(0, version)) if stale else version,
            examples=draw(st.integers(1, 50)),
            bias=draw(finite | st.none()),
            device=draw(st.sampled_from(DEVICES)),
        )
        for id in range(1, draw(st.integers(1, most)) + 1)
    ]


def random_batch(
    rng: np.random.Generator, version: int, *, stale: bool = True
) -> list[Contribution]:
    """A buffer, faster made than drawn: for laws that are tried on many rules."""
    batch = []
    for id in range(1, int(rng.integers(1, 8)) + 1):
        rows = rng.choice(ITEMS, rng.integers(1, 4), replace=False)
        made = contribution(
            id,
            {int(row): rng.choice([0.0, *rng.normal(size=3)], WIDTH) for row in rows},
            base=int(rng.integers(0, version + 1)) if stale else version,
            examples=int(rng.integers(1, 50)),
            bias=rng.choice([None, *rng.normal(size=3)]),
            device=str(rng.choice([*DEVICES])),
        )
        batch.append(made)
    return batch


seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@st.composite
def rules(draw: st.DrawFn, kind: Kind, optimizer: Optimizer) -> Rule:
    """Any rule of a kind with an optimizer."""
    values: dict[str, object] = {"kind": kind, "optimizer": optimizer}
    if kind in (Kind.FEDAVG, Kind.FEDBUFF, Kind.FADAS):
        values["weighting"] = draw(st.sampled_from(Weighting))
        values["row_correction"] = draw(st.sampled_from(RowCorrection))
        values["row_clip"] = draw(st.sampled_from([0.0, 0.5, 2.0]))
        values["trim"] = draw(st.sampled_from([0.0, 0.1, 0.4]))
        values["krum_byzantine"] = draw(st.sampled_from([0, 1, 4]))
    if kind in (Kind.FEDASYNC, Kind.FEDBUFF):
        values["staleness"] = draw(st.sampled_from(Staleness))
        values["staleness_scope"] = draw(st.sampled_from(StalenessScope))
    if kind in (Kind.FEDBUFF, Kind.FADAS):
        values["participation_exponent"] = draw(st.sampled_from([0.0, 0.5, 1.0]))
    return Rule.from_dict(values)


def portion(batch: list[Contribution], rule: Rule) -> list[Contribution]:
    """As much of a buffer as the rule merges at once."""
    return batch[: rule.buffer_size]


def fedavg(before: ServerState, batch: Sequence[Contribution], *, examples: bool) -> ServerState:
    """Synchronous FedAvg by its definition: the weighted mean of the devices' final models."""
    weights = np.array([c.examples if examples else 1 for c in batch], np.float64)
    means = {}
    for name, old in before.parameters.items():
        models = []
        for c in batch:
            model, tensor = old.astype(np.float64), c.delta.get(name)
            if isinstance(tensor, RowBlock):
                model[tensor.rows] += tensor.values
            elif tensor is not None:
                model += tensor
            models.append(model)
        means[name] = np.average(models, axis=0, weights=weights).astype(np.float32)
    return ServerState(before.version + 1, means)
