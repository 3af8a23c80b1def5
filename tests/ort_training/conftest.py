from collections.abc import Callable
from functools import cache

import pytest

from export.build import build_bundle
from tests.export.small_recommenders import SMALL
from wire.bundle import Bundle
from wire.manifest import Optimizer
from wire.policy import TrainingPolicy


@pytest.fixture(scope="session")
def make_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Optimizer], Bundle]:
    """A bundle of one of the small recommenders, for 24 rows and 10 samples a step."""

    @cache
    def make(model: str, optimizer: Optimizer) -> Bundle:
        return build_bundle(
            SMALL[model](),
            out=tmp_path_factory.mktemp("ort-training") / "bundle",
            optimizer=optimizer,
            runtimes=["ort-training"],
            row_capacity=24,
            training=TrainingPolicy(batch_size=10),
        )

    return make
