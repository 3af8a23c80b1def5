"""Quality of a fleet: every device's own parameters with one version of the federated ones."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from device_sims.datasets import Split
from device_sims.datasets.interactions import IntArray
from device_sims.protocol import HeldOut, Quality, Ranks, Scorer, evaluate, exposure, rank
from device_sims.service import AggregatorClient
from edge_agent.evaluation import score
from edge_agent.history import History
from edge_agent.runtimes import ProgramFile, open_runtime
from edge_agent.task import map_checked
from wire.bundle import Bundle
from wire.delta import FloatArray
from wire.manifest import ParameterSpec
from wire.parameters import Table

__all__ = ["Examiner", "newest_version"]

Private = Callable[[int], Mapping[str, FloatArray]]


class Examiner:
    """Ranks the held-out items with the bundle's own scorer, as a device would at that moment.

    What a device knows then is its history before the held-out item, and the item's context: for
    the validation item the training items, for the test item the validation item too. Its private
    parameters are those of its last update, which saw the training items only.

    Args:
        bundle: the task.
        split: the data set.
    """

    def __init__(self, bundle: Bundle, split: Split) -> None:
        self._bundle, self._split = bundle, split
        manifest = bundle.manifest
        parts = manifest.program("onnx").items()
        files = {part: ProgramFile(bundle.path(entry), entry.sha256) for part, entry in parts}
        self._scorer = open_runtime("onnx").open_scorer(manifest, files)
        self._initial = self._map(manifest.private, manifest.private_parameters)
        self._frozen = self._map(manifest.frozen, manifest.frozen_parameters)
        fields = [field.name for field in split.context]
        self._fields = [fields.index(field.name) for field in manifest.context]
        self._items = np.arange(split.item_count)

    def examine(self, federated: Mapping[str, Table], private: Private) -> tuple[Quality, Quality]:
        """Evaluate a version.

        Args:
            federated: its parameters.
            private: a device's private parameters by its number; empty if it never trained.

        Returns:
            The quality on the validation items and on the test items.
        """
        shared = {**federated, **self._frozen}
        validation, test = (self._evaluate(shared, private, which) for which in _BOTH)
        return validation, test

    def rank(
        self,
        federated: Mapping[str, Table],
        private: Private,
        which: HeldOut,
        *,
        split: Split | None = None,
        users: IntArray | None = None,
    ) -> Ranks:
        """Where a version ranks the held-out items of some users.

        Args:
            federated: its parameters.
            private: see ``examine``.
            which: the validation items or the test items.
            split: another division of the same data; None for the one that was given.
            users: int64, ascending; None for all.
        """
        shared, split = {**federated, **self._frozen}, split or self._split
        scorer = self._scorer_of(shared, private, which, split)
        return rank(scorer, split, which=which, users=users)

    def exposure(self, federated: Mapping[str, Table], private: Private, item: int) -> float:
        """To which share of the users a version shows an item, after their validation items."""
        shared = {**federated, **self._frozen}
        return exposure(self._scorer_of(shared, private, "test", self._split), self._split, item)

    def _evaluate(self, shared: Mapping[str, Table], private: Private, which: HeldOut) -> Quality:
        split = self._split
        return evaluate(self._scorer_of(shared, private, which, split), split, which=which)

    def _scorer_of(
        self, shared: Mapping[str, Table], private: Private, which: HeldOut, split: Split
    ) -> Scorer:
        def scores_of(user: int) -> FloatArray:
            before, context = self._moment(split, user, which)
            own = {**self._initial, **private(user)}
            return score(
                self._bundle.manifest, shared, own, self._items, before, context, self._scorer
            )

        return lambda users: np.stack([scores_of(user) for user in users.tolist()])

    def _moment(self, split: Split, user: int, which: HeldOut) -> tuple[History, IntArray]:
        """What came before a held-out item, and the item's context."""
        items, context = split.train.items_of(user), split.train.context_of(user)
        if which == "validation":
            return History(items, context), split.validation_context[user, self._fields]
        items = np.append(items, split.validation[user])
        context = np.append(context, split.validation_context[user : user + 1], axis=0)
        return History(items, context), split.test_context[user, self._fields]

    def _map(self, path: str, specs: tuple[ParameterSpec, ...]) -> dict[str, FloatArray]:
        if not specs:
            return {}
        return map_checked(self._bundle.path(self._bundle.manifest.file(path)), specs)


def newest_version(
    client: AggregatorClient, bundle: Bundle, directory: Path
) -> tuple[int, Mapping[str, FloatArray]]:
    """The newest published version's number and parameters, which are kept in a folder."""
    task = f"/v1/tasks/{bundle.task}"
    version = int(client.get(task)["published"])
    path = directory / "examined.safetensors"
    path.write_bytes(client.get_bytes(f"{task}/versions/{version}/parameters"))
    return version, map_checked(path, bundle.manifest.federated)


_BOTH: tuple[HeldOut, HeldOut] = ("validation", "test")
