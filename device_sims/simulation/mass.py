"""Nothing of what devices learn vanishes or doubles on its way through codec and residual.

What a device learned is at any moment in one of four places: in updates that were accepted, in
updates that wait, in the residual, or let go on purpose (the ageing of residuals and their bound,
an update refused for its norm). Every step that moves something between these places is a call of
the device's trainer or storage, so that is where this watch stands. At each it checks, with what
the production functions gave:

- an update: learned + let in of the residual = decoded + left out, row by row, and what is let in
  of a row is a share, 0 to 1, of what the storage held of it;
- afterwards the storage holds exactly what was left out;
- an update taken back: the residual grows by just what a decoder reads in the message.

Sums over a device's life follow from these, and need no tolerance of their own. Equal means within
the rounding of float32.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edge_agent.durable_state import DurableState, OutboxEntry
from edge_agent.task import LocalTask
from edge_agent.trainer import Made, Trainer, Work, touched
from wire.codec import decode_delta
from wire.delta import Delta, RowBlock, Tensor, add
from wire.feedback import compensate
from wire.manifest import ParameterSpec
from wire.messages import Update

__all__ = ["MassWatch"]

ROUNDING = 8 * float(np.finfo(np.float32).eps)
"""Of the largest value that is added; each sum rounds twice at most."""


class MassWatch:
    """Watches the storage of devices.

    Args:
        specs: the federated parameters.

    Attributes:
        specs: as given.
        checked: updates that were looked at, taken back ones included.
        broken: those of them in which something is missing or too much.
    """

    def __init__(self, specs: Sequence[ParameterSpec]) -> None:
        self.specs = specs
        self.checked = self.broken = 0

    def over(self, store: DurableState) -> Any:
        """The same storage, watched; wrap it before anything that may refuse to write."""
        return _Watched(store, self)

    def trainer(self, trainer: Trainer, store: Any) -> Trainer:
        """The same trainer, watched, for the device of a watched storage."""
        return _WatchedTrainer(trainer, store)

    def recorded(
        self, store: DurableState, entry: OutboxEntry, left: Delta, met: Mapping[str, Any]
    ) -> None:
        """An update was made.

        Args:
            store: that keeps it.
            entry: what is sent.
            left: the new residual.
            met: what was learned, what was let in of the residual, and what was held of it.
        """
        self.checked += 1
        now = store.residual(entry.task, self.specs, met["learned"])
        self.broken += not self._adds_up(entry, met, left, now)

    def take_back(self, store: DurableState, entry: OutboxEntry, content: Delta) -> None:
        """Let a storage take back an update, and look at what it does."""
        before = store.residual(entry.task, self.specs, content)
        store.take_back(entry, content)
        self.checked += 1
        after = store.residual(entry.task, self.specs, content)
        returned = add(before, self._decoded(entry))
        self.broken += not _equal(after, returned, [before, returned])

    def _adds_up(self, entry: OutboxEntry, met: Mapping[str, Any], left: Delta, now: Delta) -> bool:
        learned, aged, held = met["learned"], met["aged"], met["held"]
        decoded = self._decoded(entry)
        wanted = compensate(learned, aged, met["policy"])
        let_in = add(wanted, learned, -1.0)
        return (
            _equal(wanted, add(decoded, left), [wanted, decoded, left])
            and _equal(now, left, [])
            and _is_share(let_in, held, learned)
        )

    def _decoded(self, entry: OutboxEntry) -> Delta:
        return decode_delta(Update.decode(entry.payload).payload, self.specs)


class _Watched:
    def __init__(self, store: DurableState, watch: MassWatch) -> None:
        self._store, self._watch = store, watch
        self._met: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            # What is being unpickled has no storage yet.
            raise AttributeError(name)
        return getattr(self._store, name)

    def made(self, task: str, work: Work, made: Made) -> None:
        """Something was learned and encoded."""
        specs, learned = self._watch.specs, made.learned
        held = self._store.residual(task, specs, learned)
        aged = touched(work.residual, learned)
        self._met = {"learned": learned, "aged": aged, "policy": work.codec, "held": held}

    def record_update(self, entry: OutboxEntry, *, residual: Delta, **others: Any) -> None:
        self._store.record_update(entry, residual=residual, **others)
        self._watch.recorded(self._store, entry, residual, self._met)
        self._met = {}

    def take_back(self, entry: OutboxEntry, content: Delta) -> None:
        self._watch.take_back(self._store, entry, content)


class _WatchedTrainer:
    def __init__(self, trainer: Trainer, store: _Watched) -> None:
        self._trainer, self._store = trainer, store

    def start(self, task: LocalTask, work: Work) -> Callable[[], Made]:
        result = self._trainer.start(task, work)

        def watched() -> Made:
            made = result()
            self._store.made(task.id, work, made)
            return made

        return watched


def _equal(left: Delta, right: Delta, summed: Sequence[Delta]) -> bool:
    """Whether two deltas are the same, but for the rounding of what was added up."""
    off = add(left, right, -1.0)
    return all(
        float(np.abs(_values(tensor)).max(initial=0.0))
        <= ROUNDING * max((_largest(one.get(name)) for one in summed), default=0.0)
        for name, tensor in off.items()
    )


def _is_share(let_in: Delta, held: Delta, learned: Delta) -> bool:
    """Whether each row that was let in is a share of what was held of it."""
    for name, tensor in let_in.items():
        shape = _values(tensor).shape
        rows = tensor.rows if isinstance(tensor, RowBlock) else None
        there = held.get(name)
        if isinstance(there, RowBlock) and rows is not None:
            whole = there.at(rows)
        else:
            whole = np.zeros(shape, np.float32) if there is None else _values(there)
        slack = ROUNDING * (_largest(held.get(name)) + _largest(learned.get(name)))
        value, most = _values(tensor), np.abs(whole) + slack
        if (np.abs(value) > most).any() or (value * np.sign(whole) < -slack).any():
            return False
    return True


def _largest(tensor: Tensor | None) -> float:
    return 0.0 if tensor is None else float(np.abs(_values(tensor)).max(initial=0.0))


def _values(tensor: Tensor) -> Any:
    return tensor.values if isinstance(tensor, RowBlock) else tensor
