"""Hostile devices: what they send in the place of what they learned.

They hold the whole protocol: what they forge is encoded as the task says, and goes through the same
outbox. Their own training and their residuals go on as if they were honest.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from device_sims.datasets import Split
from device_sims.datasets.interactions import IntArray
from device_sims.scenario import Attack, Attackers, ScenarioError
from wire.delta import Delta, FloatArray, RowBlock, Tensor, add
from wire.manifest import Manifest, Role
from wire.parameters import Table

__all__ = ["Forge", "Moment", "forge_of", "hostile", "promoted_item", "sparsest_item"]

REACH = 2.0
"""The promoted row is to be so many times as long as the longest other row of the table."""
KNOWN_BY = 5
"""The promoted item is one of those that so many users know, or the next that there is."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A device that is about to encode what it learned.

    Attributes:
        user: its number.
        version: the version that it started from.
        federated: that version's parameters, as the device has them.
        private: its private parameters after training.
        delta: what it would send.
    """

    user: int
    version: int
    federated: Mapping[str, Table]
    private: Mapping[str, FloatArray]
    delta: Delta


Forge = Callable[[Moment], Delta]
"""What a device sends in the place of its delta."""


def hostile(attackers: Attackers, devices: int) -> frozenset[int]:
    """The numbers of the hostile devices: so many that their share is at least the given one."""
    count = math.ceil(attackers.share * devices)
    chosen = np.random.default_rng(attackers.seed).choice(devices, count, replace=False)
    return frozenset(chosen.tolist())


def forge_of(attackers: Attackers, item: int, rng: np.random.Generator) -> Forge:
    """What all hostile devices of a fleet do.

    Args:
        attackers: what the scenario says.
        item: which one is promoted.
        rng: draws noise.
    """
    if attackers.kind is Attack.SIGN_FLIP:
        return lambda moment: add({}, moment.delta, -1.0)
    if attackers.kind is Attack.SCALE:
        return lambda moment: add({}, moment.delta, attackers.factor)
    if attackers.kind is Attack.NOISE:
        return lambda moment: _noisy(moment.delta, attackers.factor, rng)
    return _Promotion(attackers, item)


def promoted_item(attackers: Attackers, split: Split, manifest: Manifest) -> int | None:
    """The item that a scenario's attackers promote; None if they do not.

    Raises:
        ScenarioError: there is no such item, or the model has no place for such an attack.
    """
    if not attackers.kind.promotes:
        return None
    if attackers.item >= split.item_count:
        raise ScenarioError(
            f"attackers.item is {attackers.item}; expected -1 to {split.item_count - 1}"
        )
    tables = [spec for spec in manifest.federated if spec.role is Role.ROWS]
    private = manifest.private_parameters
    width = tables[0].shape[1:] if tables else None
    if len(manifest.federated) != 1 or [spec.shape for spec in private] != [width]:
        raise ScenarioError(
            f"attackers.kind is {attackers.kind.value!r}; expected sign-flip, scale or noise, for "
            "only a recommender of one item table and one user vector of its width, such as mf, "
            "has a row that points at users"
        )
    if attackers.item >= 0:
        return attackers.item
    items = np.concatenate([split.train.items, split.validation, split.test])
    return sparsest_item(items, split.item_count)


def sparsest_item(items: IntArray, item_count: int) -> int:
    """An item that few users know: the first of those that come closest to ``KNOWN_BY``.

    Args:
        items: int64 [n], of all interactions.
        item_count: how many items there are.
    """
    known_by = np.bincount(items, minlength=item_count)
    return int(np.abs(known_by - KNOWN_BY).argmin())


class _Promotion:
    """Devices that push one row of the item table along their user vectors.

    Args:
        attackers: how hard they push, and whether along their own vector or the mean of all.
        item: the row.
    """

    def __init__(self, attackers: Attackers, item: int) -> None:
        self._attackers, self._item = attackers, item
        self._vectors: dict[int, FloatArray] = {}

    def __call__(self, moment: Moment) -> Delta:
        """What the device of this moment sends."""
        ((name, own),) = moment.delta.items()
        if not isinstance(own, RowBlock):
            raise ValueError("expected a delta of one table")
        (vector,) = moment.private.values()
        self._vectors[moment.user] = vector
        shared = self._attackers.kind is Attack.COLLUDE
        aim = np.mean(list(self._vectors.values()), axis=0) if shared else vector
        table = np.asarray(moment.federated[name][...], np.float32)
        # Of the other rows: or it would have to outgrow itself, and run away.
        length = REACH * float(np.linalg.norm(np.delete(table, self._item, axis=0), axis=1).max())
        wanted = aim / max(float(np.linalg.norm(aim)), 1e-12) * length
        step = self._attackers.factor * (wanted - table[self._item])
        if self._attackers.quiet:
            longest = float(np.linalg.norm(own.values, axis=1).max(initial=0.0))
            step *= min(1.0, longest / max(float(np.linalg.norm(step)), 1e-12))
        return {name: _with_row(own, self._item, step.astype(np.float32))}


def _with_row(block: RowBlock, row: int, values: FloatArray) -> RowBlock:
    rows = np.union1d(block.rows, [row])
    replaced = block.at(rows)
    replaced[np.searchsorted(rows, row)] = values
    return RowBlock(rows, replaced)


def _noisy(delta: Delta, factor: float, rng: np.random.Generator) -> Delta:
    return {name: _with_noise(tensor, factor, rng) for name, tensor in delta.items()}


def _with_noise(tensor: Tensor, factor: float, rng: np.random.Generator) -> Tensor:
    values = tensor.values if isinstance(tensor, RowBlock) else tensor
    size = factor * float(np.abs(values).mean()) if values.size else 0.0
    noisy = (values + size * rng.standard_normal(values.shape)).astype(np.float32)
    return RowBlock(tensor.rows, noisy) if isinstance(tensor, RowBlock) else noisy
