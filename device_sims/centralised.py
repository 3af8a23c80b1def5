"""The same recommender trained on all data in one place, which no device could: an upper reference.

The shared parameters are one set, each user has private ones of its own, and a step sees samples of
many users. Loss, optimiser, learning rate, negatives and initial parameters are those of the task,
and so is the examination. What differs from a fleet is only that nothing is late, encoded, averaged
or kept apart.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, vmap

from device_sims.datasets import Split
from device_sims.examiner import Examiner
from device_sims.protocol import Quality
from edge_agent.history import History
from edge_agent.sampling import draw_batches
from export.recommender import TRAINED, Recommender, batch_inputs
from export.reference import make_optimizer
from wire.bundle import Bundle
from wire.manifest import Role

__all__ = ["BATCH", "PATIENCE", "Centralised", "train_centralised"]

BATCH = 256
"""Samples a step. A step sums over its samples, so the learning rate is that of single ones."""
PATIENCE = 5
"""Training ends after so many epochs without a better NDCG@10 on the validation items."""
MOST_EPOCHS = 200
POSITIONS = ("item", "positive", "negative", "history")
"""Batch inputs that hold positions of items."""

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Centralised:
    """What came of it.

    Attributes:
        epoch: the one with the highest NDCG@10 on the validation items, counted from 1.
        quality: on the test items, after that epoch.
    """

    epoch: int
    quality: Quality


def train_centralised(
    recommender: Recommender,
    bundle: Bundle,
    split: Split,
    *,
    seed: int,
    progress: Callable[[int], object] = lambda _epoch: None,
    most_epochs: int = MOST_EPOCHS,
) -> Centralised:
    """Train until the validation items are ranked no better.

    Args:
        recommender: the model, with its initial parameters; it is not changed.
        bundle: the task that was made of it.
        split: the data.
        seed: of negatives and of the order of samples.
        progress: told of each epoch that is done.
        most_epochs: when to end at the latest, at least 1.
    """
    pooled = _Pooled(recommender, bundle, split, seed)
    examiner = Examiner(bundle, split)
    best, found, since = -1.0, None, 0
    for epoch in range(1, most_epochs + 1):
        pooled.train_epoch()
        validation, test = examiner.examine(pooled.federated(), pooled.private)
        since += 1
        if validation.ndcg_at_10 > best:
            best, found, since = validation.ndcg_at_10, Centralised(epoch, test), 0
        progress(epoch)
        if since == PATIENCE:
            break
    if found is None:
        raise ValueError(f"most_epochs is {most_epochs}; expected at least 1")
    return found


class _Pooled:
    """The model of all users together."""

    def __init__(self, recommender: Recommender, bundle: Bundle, split: Split, seed: int) -> None:
        roles, self._split = recommender.roles(), split
        fields = [field.name for field in split.context]
        self._fields = [fields.index(field.name) for field in bundle.manifest.context]
        self._manifest, self._rng = bundle.manifest, np.random.default_rng(seed)
        values = {n: p.detach().clone() for n, p in recommender.named_parameters()}
        self._frozen = {n: v for n, v in values.items() if roles[n] not in TRAINED}
        self._private = {
            name: value.repeat(split.user_count, *[1] * value.ndim).requires_grad_()
            for name, value in values.items()
            if roles[name] is Role.PRIVATE
        }
        self._shared = {
            name: value.requires_grad_()
            for name, value in values.items()
            if roles[name] in TRAINED and roles[name] is not Role.PRIVATE
        }
        self._loss, self._inputs = _Loss(recommender), tuple(batch_inputs(recommender))
        training = bundle.manifest.training
        # All samples of a user's epoch come as one step, and are cut into steps here.
        self._policy = replace(training, epochs=1, batch_size=1 << 16)
        self._engine = make_optimizer(
            bundle.manifest.optimizer,
            [*self._shared.values(), *self._private.values()],
            training.learning_rate,
        )

    def train_epoch(self) -> None:
        """Every user's positives once, with fresh negatives, in random order."""
        columns = self._draw()
        users, samples = torch.from_numpy(columns.pop("user")), len(columns["weight"])
        tensors = [torch.from_numpy(columns[name]) for name in self._inputs]
        order = torch.from_numpy(self._rng.permutation(samples))
        for chosen in torch.split(order, BATCH):
            loss = self._losses(users[chosen], [tensor[chosen] for tensor in tensors])
            self._engine.zero_grad()
            torch.autograd.backward(loss.sum())
            self._engine.step()

    def federated(self) -> dict[str, NDArray[np.float32]]:
        """The shared parameters."""
        return {name: value.detach().numpy().copy() for name, value in self._shared.items()}

    def private(self, user: int) -> Mapping[str, NDArray[np.float32]]:
        """A user's own parameters."""
        return {name: value.detach()[user].numpy().copy() for name, value in self._private.items()}

    def _losses(self, users: Tensor, batch: list[Tensor]) -> Tensor:
        own = {name: value[users] for name, value in self._private.items()}

        def one(own: dict[str, Tensor], *sample: Tensor) -> Tensor:
            parameters = {**self._frozen, **self._shared, **own}
            named = {f"recommender.{name}": value for name, value in parameters.items()}
            inputs = tuple(value.unsqueeze(0) for value in sample)
            losses: Tensor = functional_call(self._loss, named, inputs)
            return losses.squeeze(0)

        losses: Tensor = vmap(one)(own, *batch)
        return losses

    def _draw(self) -> Columns:
        drawn = list(self._users())
        return {name: np.concatenate([columns[name] for columns in drawn]) for name in drawn[0]}

    def _users(self) -> Iterator[Columns]:
        """Each user's samples of one epoch, flat; items by their number in the catalogue."""
        train = self._split.train
        for user in range(self._split.user_count):
            history = History(train.items_of(user), train.context_of(user)[:, self._fields])
            batches = draw_batches(self._manifest, history, self._policy, self._rng)
            if not batches.samples:
                continue
            columns = {
                name: batches.rows[column] if name in POSITIONS else column
                for name, column in batches.inputs.items()
            }
            flat = {name: value.reshape(-1, *value.shape[2:]) for name, value in columns.items()}
            real = np.flatnonzero(flat["weight"])
            yield {
                **{name: value[real] for name, value in flat.items()},
                "user": np.full(len(real), user),
            }


class _Loss(nn.Module):
    """A recommender whose loss can be called by `functional_call`."""

    def __init__(self, recommender: Recommender) -> None:
        super().__init__()
        self.recommender = recommender

    def forward(self, *inputs: Tensor) -> Tensor:
        """The loss of each sample."""
        losses: Tensor = self.recommender.loss(*inputs)
        return losses
