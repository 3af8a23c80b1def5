"""The examiner scores every user as their device would: its own parameters, history and context."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save
from torch import Tensor, nn

from device_sims.datasets import Events, LabelColumn, Split, index_events, split_latest
from device_sims.examiner import Examiner, newest_version
from device_sims.protocol import HeldOut, Quality, evaluate
from device_sims.service import AggregatorClient
from export import build_bundle
from export.losses import bce
from export.recommender import Recommender
from wire.bundle import Bundle
from wire.delta import FloatArray
from wire.manifest import BatchKind, Role

USERS, ITEMS, LENGTH, WINDOW, WIDTH = 20, 30, 9, 5, 4
MOODS, DAYS = 3, 4


class Moment(Recommender):
    """Reads everything that a recommender may read."""

    kind = "moment"
    batch = BatchKind.POINTWISE

    def __init__(self, items: int, context: Mapping[str, int]) -> None:
        super().__init__()
        self.items, self.context, self.history = items, context, WINDOW
        random = torch.Generator().manual_seed(0)
        self.rows = nn.Parameter(torch.randn(items, WIDTH, generator=random))
        self.places = nn.Parameter(torch.randn(WINDOW, 1, generator=random))
        self.days = nn.Parameter(torch.randn(sum(context.values()), WIDTH, generator=random))
        self.user = nn.Parameter(torch.randn(WIDTH, generator=random))
        self.fixed = nn.Parameter(torch.randn(items, WIDTH, generator=random))

    def roles(self) -> dict[str, Role]:
        return {
            "rows": Role.ROWS,
            "places": Role.DENSE,
            "days": Role.DENSE,
            "user": Role.PRIVATE,
            "fixed": Role.FROZEN_ROWS,
        }

    def loss(
        self, item: Tensor, label: Tensor, context: Tensor, history: Tensor, present: Tensor
    ) -> Tensor:
        states = self.user + self.days[MOODS + context[:, 1]]
        seen = (self.rows[history] * self.places * present.unsqueeze(2)).sum(1)
        return bce(((states + seen) * (self.rows + self.fixed)[item]).sum(1), label)

    def score(self, context: Tensor, history: Tensor, present: Tensor) -> Tensor:
        seen = (self.rows[history] * self.places * present.unsqueeze(1)).sum(0)
        state = self.user + self.days[MOODS + context[1]] + seen
        return ((self.rows + self.fixed) @ state.unsqueeze(1)).squeeze(1)


class Service(AggregatorClient):
    """An aggregator with one version."""

    def __init__(self, task: str, parameters: Mapping[str, FloatArray]) -> None:
        super().__init__("http://nowhere")
        self._task, self._parameters = task, parameters

    def get(self, path: str) -> Any:
        assert path == f"/v1/tasks/{self._task}"
        return {"published": 7}

    def get_bytes(self, path: str) -> bytes:
        assert path == f"/v1/tasks/{self._task}/versions/7/parameters"
        return save(dict(self._parameters))


@pytest.fixture(scope="module", params=[False, True], ids=["new-item", "next-action"])
def split(request: pytest.FixtureRequest) -> Split:
    """Users of whom some have less history than the window is long."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, LENGTH, USERS)
    count = int(lengths.sum())
    columns = {
        name: LabelColumn(codes=rng.integers(0, size, count), labels=[*"xyz"][:size])
        for name, size in (("mood", MOODS - 1), ("day", DAYS - 1))
    }
    return split_latest(
        index_events(
            "moments",
            Events(
                users=np.repeat(np.arange(USERS), lengths),
                items=np.concatenate([rng.permutation(ITEMS)[:length] for length in lengths]),
                times=np.arange(count),
                user_labels=[str(user) for user in range(USERS)],
                item_labels=[str(item) for item in range(ITEMS)],
                columns=columns,
            ),
            context=["mood", "day"],
            repeats=request.param,
        )
    )


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Split], tuple[Moment, Bundle]]:
    made: dict[int, tuple[Moment, Bundle]] = {}

    def bundle(split: Split) -> tuple[Moment, Bundle]:
        items = split.item_count
        if items not in made:
            sizes = {field.name: field.size for field in split.context}
            assert sizes == {"mood": MOODS, "day": DAYS}
            recommender = Moment(items, sizes)
            out = tmp_path_factory.mktemp("bundle") / "bundle"
            made[items] = recommender, build_bundle(recommender, out=out)
        return made[items]

    return bundle


def by_hand(
    split: Split,
    values: Mapping[str, FloatArray],
    users: Mapping[int, FloatArray],
    which: HeldOut,
) -> FloatArray:
    """Scores [users, items] by the formula of `Moment`, one user at a time."""
    scores = []
    for user in range(split.user_count):
        before = split.train.items_of(user).tolist()
        _, day = split.validation_context[user]
        if which == "test":
            before.append(int(split.validation[user]))
            _, day = split.test_context[user]
        state = users.get(user, values["user"]) + values["days"][MOODS + day]
        for place, item in zip(range(WINDOW - 1, -1, -1), reversed(before), strict=False):
            state = state + values["rows"][item] * values["places"][place]
        scores.append((values["rows"] + values["fixed"]) @ state)
    return np.stack(scores)


def test_every_user_is_scored_as_their_device_would_before_the_held_out_item(
    split: Split,
    bundles: Callable[[Split], tuple[Moment, Bundle]],
    tmp_path: Path,
) -> None:
    recommender, bundle = bundles(split)
    rng = np.random.default_rng(1)
    # A version that is not the bundle's own, and users of whom one half has trained.
    federated = {
        name: rng.normal(size=recommender.get_parameter(name).shape).astype(np.float32)
        for name in ("rows", "places", "days")
    }
    users = {user: rng.normal(size=WIDTH).astype(np.float32) for user in range(0, USERS, 2)}
    version, downloaded = newest_version(Service(bundle.task, federated), bundle, tmp_path)

    validation, test = Examiner(bundle, split).examine(
        downloaded, lambda user: {"user": users[user]} if user in users else {}
    )

    assert version == 7
    values = {name: value.detach().numpy() for name, value in recommender.named_parameters()}
    assert validation == quality(split, {**values, **federated}, users, "validation")
    assert test == quality(split, {**values, **federated}, users, "test")


def quality(
    split: Split, values: Mapping[str, FloatArray], users: Mapping[int, FloatArray], which: HeldOut
) -> Quality:
    return evaluate(by_hand(split, values, users, which).__getitem__, split, which=which)
