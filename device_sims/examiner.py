"""Quality of a fleet: every device's own parameters with one version of the federated ones."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from device_sims.datasets import Split
from device_sims.datasets.interactions import IntArray
from device_sims.protocol import Quality, evaluate
from device_sims.service import AggregatorClient
from edge_agent.runtimes import open_runtime
from edge_agent.task import map_checked
from wire.bundle import Bundle
from wire.delta import FloatArray

__all__ = ["Examiner"]


class Examiner:
    """Ranks the held-out items with the bundle's own scorer.

    Args:
        bundle: the task.
        split: the data set.
        client: where versions come from.
        directory: folder for the version at hand.
    """

    def __init__(
        self, bundle: Bundle, split: Split, client: AggregatorClient, directory: Path
    ) -> None:
        self._bundle, self._split, self._client = bundle, split, client
        self._parameters = directory / "examined.safetensors"
        scorer = bundle.manifest.file(bundle.manifest.scorer)
        self._scorer = open_runtime("onnx").load(bundle.path(scorer), scorer.sha256)
        start = bundle.path(bundle.manifest.file(bundle.manifest.private))
        self._initial = map_checked(start, bundle.manifest.private_parameters)

    def examine(
        self, private: Callable[[int], Mapping[str, FloatArray]]
    ) -> tuple[int, Quality, Quality]:
        """Evaluate the newest version.

        Args:
            private: a device's private parameters by its number; empty if it never trained.

        Returns:
            The version, and the quality on the validation items and on the test items.
        """
        task = f"/v1/tasks/{self._bundle.task}"
        version = int(self._client.get(task)["version"])
        raw = self._client.get_bytes(f"{task}/versions/{version}/parameters")
        self._parameters.write_bytes(raw)
        federated = map_checked(self._parameters, self._bundle.manifest.federated)

        def scores(users: IntArray) -> FloatArray:
            return np.stack(
                [
                    self._scorer.run({**federated, **self._initial, **private(int(user))})["score"]
                    for user in users
                ]
            )

        validation = evaluate(scores, self._split, which="validation")
        return version, validation, evaluate(scores, self._split, which="test")
